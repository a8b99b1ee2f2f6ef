"""A small process that outlives the lab side, runs one worker, and says how it ended.

    python -m ftlab_kit.jobs.supervisor WORKSPACE JOB_ID

It forks once, so that whoever started it has nothing to wait for, and leads a session of its own,
so that closing a kernel, a browser or a terminal does not reach the job. A worker that crashes is
started again as often as the config allows; when the job has ended, the next one that waits starts;
a job that was paused because the disk was full goes on when there is room.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, DiskFull
from ftlab_kit.jobs import processes, states
from ftlab_kit.trainers import forks
from ftlab_kit.workspace import Workspace

CRASHED = 70  # the exit code of a worker that met an error which is not the kit's own (EX_SOFTWARE)
ROOM_S = 10.0  # how often a full disk is looked at


def main(root: str, job_id: int) -> None:
    """Detach, and supervise a job."""
    if os.fork():
        os._exit(0)
    os.setsid()
    ws = Workspace(root)
    ws.store.update("jobs", {"id": job_id, "state": "queued"}, **processes.process_columns())
    processes.end(ws, job_id, before=time.time())  # of a run before this one, if it still lingers
    row = states.row(ws, job_id)
    config = Config(**row["config"])
    # one process uses one GPU; this process keeps its own view of all, for the job that comes next
    visible = processes.gpus_of(row["slot"] or 0, config.processes)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    # what torchrun and accelerate would otherwise set by rules of their own
    env["OMP_NUM_THREADS"] = str(processes.threads(config))
    env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for kernels that repeat to the bit
    while _is_mine(ws, job_id):
        code = subprocess.call(_command(root, job_id, config.processes), env=env)
        _patiently(ws, job_id, code)
    processes.launch_waiting(ws)
    wait_for_room(ws, job_id)


def _patiently(ws: Workspace, job_id: int, code: int) -> None:
    """Conclude even on a full disk, once there is room for a line."""
    while True:
        try:
            conclude(ws, job_id, code, held_by={"pid": os.getpid()})
            return
        except DiskFull:
            ws.drop_ballast()
            time.sleep(ROOM_S)


def _is_mine(ws: Workspace, job_id: int) -> bool:
    """Return whether a job waits for this supervisor's worker, and not for a later one's."""
    row = states.row(ws, job_id)
    return bool(row["state"] == "queued" and row["pid"] == os.getpid())


def conclude(
    ws: Workspace, job_id: int, code: int, *, held_by: dict[str, int | None] | None = None
) -> None:
    """Record how a worker ended that did not say so itself, and queue it again if that is allowed.

    Args:
        code: Its exit code; -9 for one that was killed.
        held_by: The supervisor whose worker it was; a job that was resumed since has another.
    """
    row = states.row(ws, job_id)
    if row["state"] != "running":
        return
    words = row["error"] or _in_words(code)
    done = states.events(ws, job_id, command="restart")
    # a resume by hand counts anew
    resumed = states.events(ws, job_id, command="resume")
    since = resumed[-1].id if resumed else 0
    left = Config(**row["config"]).max_restarts - sum(event.id > since for event in done)
    if left <= 0:
        states.move(ws, job_id, "failed", only_from="running", held_by=held_by, error=words)
        return
    asked = {"because": words, "restarts_left": left - 1}
    event = {"state": "applied", "step": row["step"], "arguments": asked, "author": "supervisor"}
    with ws.store.transaction():
        if states.move(ws, job_id, "queued", only_from="running", held_by=held_by, error=None):
            states.write(ws, job_id, "restart", **event)


def wait_for_room(ws: Workspace, job_id: int) -> None:
    """Queue a job again that a full disk has paused, when there is room for its checkpoints."""
    while (job := states.read(ws, job_id)).state == "paused" and _is_about_room(job.note):
        time.sleep(ROOM_S)
        if shutil.disk_usage(ws.root).free > forks.room_bytes(ws, job_id):
            with contextlib.suppress(Conflict):  # someone was quicker
                processes.requeue(ws, job_id, author="supervisor", note="there is room again")
            processes.launch_waiting(ws)


def _is_about_room(note: str | None) -> bool:
    return note is not None and note.startswith("The disk is full")


def _command(root: str, job_id: int, n_processes: int) -> list[str]:
    worker = ["-m", "ftlab_kit.trainers.worker", root, str(job_id)]
    if n_processes == 1:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    return [sys.executable, *torchrun, *worker]


def _in_words(code: int) -> str:
    if code >= 0:
        return (
            f"The worker ended with exit code {code} before the job was done. "
            "Its last words are in the log: trainers.logs(ws, job)."
        )
    name = signal.Signals(-code).name
    often = " Often the system ran out of memory: lower micro_batch." if name == "SIGKILL" else ""
    return (
        f"The worker was killed by {name}.{often} Its checkpoints are kept; "
        "go on from the last one with trainers.resume(ws, job)."
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
