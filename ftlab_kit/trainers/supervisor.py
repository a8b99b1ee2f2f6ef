"""A small process that outlives the lab side, runs one worker, and says how it ended.

    python -m ftlab_kit.trainers.supervisor WORKSPACE JOB_ID

It forks once, so that whoever started it has nothing to wait for, and leads a process group of its
own, so that closing a kernel, a browser or a terminal does not reach the job.
"""

import os
import signal
import subprocess
import sys


def main(root: str, job_id: int) -> None:
    """Detach, run the worker to its end, and record an end that it did not record itself."""
    if os.fork():
        os._exit(0)
    os.setsid()

    import psutil

    from ftlab_kit.trainers import control
    from ftlab_kit.workspace import Workspace

    ws = Workspace(root)
    me = psutil.Process()
    ws.store.update("jobs", {"id": job_id}, pid=me.pid, pid_started_at=me.create_time())
    if control.read(ws, job_id).state != "queued":
        return
    command = [sys.executable, "-m", "ftlab_kit.trainers.worker", root, str(job_id)]
    code = subprocess.call(command)
    control.move(ws, job_id, "failed", error=_in_words(code))


def _in_words(code: int) -> str:
    if code >= 0:
        return (
            f"The worker ended with exit code {code} before the job was done. "
            "Its last words are in the log: trainers.logs(ws, job)."
        )
    name = signal.Signals(-code).name
    often = " Often the system ran out of memory: lower micro_batch." if name == "SIGKILL" else ""
    return f"The worker was killed by {name}.{often} Its checkpoints are kept."


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
