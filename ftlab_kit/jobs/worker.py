"""The process that works on one job, of whatever kind.

    python -m ftlab_kit.jobs.worker WORKSPACE JOB_ID

It takes the job from the store, loads the job's kind by name, does the work, and writes the end
back: completed, paused, cancelled, or failed with a message. Several of them, started by torchrun,
share a job; the first one alone writes. It never talks to the lab side.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ftlab_kit.errors import DiskFull, KitError, room_on_disk
from ftlab_kit.jobs import kinds, processes, states
from ftlab_kit.workspace import Workspace, now


def main(root: str, job_id: int, *, run: Callable[[Workspace, int], str] | None = None) -> int:
    """Work on a job until it ends, is paused or is cancelled, and return the exit code.

    Args:
        root: The workspace's folder.
        job_id: The job.
        run: The work in place of the kind's own `run`; for tests and measurements.
    """
    ws = Workspace(root)
    is_first = os.environ.get("RANK", "0") == "0"
    row = states.row(ws, job_id)
    started_at = row["started_at"] or now()  # a resumed job started earlier
    columns: dict[str, Any] = {"started_at": started_at, "worker_pid": os.getpid(), "error": None}
    if is_first and not states.move(ws, job_id, "running", **columns):
        return 0
    if states.read(ws, job_id).state not in states.WORKING:
        return 0
    try:
        heartbeat = _heartbeat(ws, job_id) if is_first else contextlib.nullcontext()
        with heartbeat, room_on_disk(f"the output of job {job_id}"):
            state = (run or kinds.load(row["kind"]).run)(ws, job_id)
    except DiskFull as error:
        ws.drop_ballast()
        return _end(ws, job_id, "paused", is_first, note=str(error))
    except KitError as error:
        return _end(ws, job_id, "failed", is_first, error=str(error))
    except Exception as error:  # whatever a library raises must reach the job's row
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        message += f" The log has more: trainers.logs(ws, {job_id})."
        where = processes.owned_by_me(job_id) if is_first else {"id": job_id, "state": "running"}
        # the supervisor decides whether the worker starts again
        ws.store.update("jobs", where, error=message)
        return processes.CRASHED
    return _end(ws, job_id, state, is_first) if is_first else 0


def _end(ws: Workspace, job_id: int, state: str, is_first: bool, **values: Any) -> int:
    """Record the end of a run; each of several processes records an error that it met."""
    held_by = {"worker_pid": os.getpid()} if is_first else None
    states.move(ws, job_id, state, only_from="running", held_by=held_by, **values)
    return 1 if state == "failed" else 0


@contextlib.contextmanager
def _heartbeat(ws: Workspace, job_id: int) -> Iterator[None]:
    """Write a sign of life every few seconds, also within a long step."""
    is_done = threading.Event()

    def beat() -> None:
        while not is_done.wait(processes.HEARTBEAT_S):
            with contextlib.suppress(DiskFull):  # the work meets it too, and pauses the job
                ws.store.update("jobs", processes.owned_by_me(job_id), heartbeat_at=now())

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
