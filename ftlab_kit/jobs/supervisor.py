"""A small process that outlives the lab side, runs one worker, and records how it ended.

    python -m ftlab_kit.jobs.supervisor WORKSPACE JOB_ID

It forks once, so that whoever started it need not wait for it, and leads a session of its own, so
that closing a kernel, a browser or a terminal does not reach the job. A worker that crashes starts
again as often as the config allows. When the job has ended, the next waiting job starts. A job that
was paused because the disk was full goes on when there is room again.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

from ftlab_kit import device
from ftlab_kit.errors import Conflict, DiskFull
from ftlab_kit.jobs import kinds, processes, states
from ftlab_kit.workspace import Workspace

ROOM_S = 10.0  # seconds between two looks at a full disk


def main(root: str, job_id: int) -> None:
    """Detach, and supervise a job."""
    if os.fork():
        os._exit(0)
    os.setsid()
    ws = Workspace(root)
    ws.store.update("jobs", {"id": job_id, "state": "queued"}, **processes.process_columns())
    processes.end(ws, job_id, before=time.time())  # leftovers of an earlier run
    row = states.row(ws, job_id)
    n_processes = processes.n_processes(row)
    threads = device.threads_per_process(row["config"].get("threads"), n_processes)
    # one process uses one GPU; this process still sees all of them, for the next job
    visible = processes.gpus_of(row["slot"] or 0, n_processes)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    env["OMP_NUM_THREADS"] = str(threads)  # torchrun and accelerate have defaults of their own
    env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for kernels that repeat to the bit
    while _is_mine(ws, job_id):
        exit_code = subprocess.call(_command(root, job_id, n_processes), env=env)
        _conclude_even_on_a_full_disk(ws, job_id, exit_code)
    processes.launch_waiting(ws)
    wait_for_room(ws, job_id)


def _conclude_even_on_a_full_disk(ws: Workspace, job_id: int, exit_code: int) -> None:
    while True:
        try:
            conclude(ws, job_id, exit_code, held_by={"pid": os.getpid()})
            return
        except DiskFull:
            ws.drop_ballast()
            time.sleep(ROOM_S)


def _is_mine(ws: Workspace, job_id: int) -> bool:
    """Return whether a job waits for this supervisor's worker, and not for a later one's."""
    row = states.row(ws, job_id)
    return bool(row["state"] == "queued" and row["pid"] == os.getpid())


def conclude(
    ws: Workspace, job_id: int, exit_code: int, *, held_by: dict[str, int | None] | None = None
) -> None:
    """Record the end of a worker that did not record it itself; queue its job again if allowed.

    Args:
        exit_code: The worker's exit code; -9 if SIGKILL ended it.
        held_by: The supervisor of that worker; a job that was resumed since has another one.
    """
    row = states.row(ws, job_id)
    if row["state"] == "queued" and held_by == {"pid": row["pid"]}:
        # it never took the job, and would not the next time: no endless loop of starts
        states.move(
            ws, job_id, "failed", only_from="queued", held_by=held_by, error=_explain(exit_code)
        )
        return
    if row["state"] != "running":
        return
    error = row["error"] or _explain(exit_code)
    restarts = states.events(ws, job_id, command="restart")
    # after a resume by hand, restarts are counted anew
    resumes = states.events(ws, job_id, command="resume")
    last_resume_id = resumes[-1].id if resumes else 0
    n_restarts = sum(event.id > last_resume_id for event in restarts)
    n_left = row["config"].get("max_restarts", 0) - n_restarts
    if n_left <= 0:
        states.move(ws, job_id, "failed", only_from="running", held_by=held_by, error=error)
        return
    arguments = {"because": error, "restarts_left": n_left - 1}
    with ws.store.transaction():
        if states.move(ws, job_id, "queued", only_from="running", held_by=held_by, error=None):
            states.write(
                ws, job_id, "restart", state="applied", step=row["step"], arguments=arguments,
                author="supervisor",
            )  # fmt: skip


def wait_for_room(ws: Workspace, job_id: int) -> None:
    """Queue a job that a full disk has paused again, as soon as there is room for it."""
    while (job := states.read(ws, job_id)).state == "paused" and _is_about_room(job.note):
        time.sleep(ROOM_S)
        if shutil.disk_usage(ws.root).free > kinds.load(job.kind).room_bytes(ws, job_id):
            with contextlib.suppress(Conflict):  # someone else has resumed it
                processes.requeue(ws, job_id, author="supervisor", note="there is room again")
            processes.launch_waiting(ws)


def _is_about_room(note: str | None) -> bool:
    return note is not None and note.startswith("The disk is full")


def _command(root: str, job_id: int, n_processes: int) -> list[str]:
    worker = ["-m", "ftlab_kit.jobs.worker", root, str(job_id)]
    if n_processes == 1:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    return [sys.executable, *torchrun, *worker]


def _explain(exit_code: int) -> str:
    if exit_code >= 0:
        return (
            f"The worker ended with exit code {exit_code} before the job was done. "
            "The end of the log may say why: trainers.logs(ws, job)."
        )
    name = signal.Signals(-exit_code).name
    hint = " The system may have run out of memory: lower micro_batch." if name == "SIGKILL" else ""
    return (
        f"The worker was killed by {name}.{hint} The job's checkpoints are kept; "
        "go on from the last one with trainers.resume(ws, job)."
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
