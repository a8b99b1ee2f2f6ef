"""A job's log: a worker's lines, each with its time, in the job's folder."""

import sys

from ftlab_kit.workspace import Workspace, now

BYTES_PER_LINE = 400  # more than a line has


def write(text: str) -> None:
    """Write a line to the log of the job that this process works on: its standard output."""
    sys.stdout.write(f"{now():%H:%M:%S} {text}\n")
    sys.stdout.flush()


def read(ws: Workspace, job_id: int, *, last: int) -> str:
    """Return the last lines of a job's log, '' where there is none yet."""
    path = ws.job_folder(job_id) / "log.txt"
    if not path.exists():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - BYTES_PER_LINE * last))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-last:])
