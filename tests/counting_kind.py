"""A second, tiny kind of job, to show what jobs/ needs of a kind: it counts, and trains nothing.

Its config has `count`, and `crash_at` or `fail_at` for a number at which it breaks down. It goes on
from the number that it has reached before, as every kind must.
"""

import os
import signal
import time

from ftlab_kit import Workspace
from ftlab_kit.errors import InputError
from ftlab_kit.jobs import log, processes, states

NAME = "count"
# what makes every Python process of a job know this kind: Python imports it when it starts
SITECUSTOMIZE = f"""
from ftlab_kit.jobs import kinds
kinds.KINDS["{NAME}"] = "tests.counting_kind"
"""


def run(ws: Workspace, job_id: int) -> str:
    """Count, looking into the mailbox at every number."""
    row = states.row(ws, job_id)
    config = row["config"]
    ws.store.update("jobs", {"id": job_id}, total_steps=config["count"])
    for number in range(row["step"] + 1, config["count"] + 1):
        log.write(f"counted to {number}")
        if not ws.store.update("jobs", processes.owned_by_me(job_id), step=number):
            return "cancelled"  # someone has ended the job from outside
        is_first_run = not states.events(ws, job_id, command=["restart", "resume"])
        if number == config.get("crash_at") and is_first_run:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == config.get("fail_at"):
            raise InputError(f"The number {number} can't be counted; expected less. Count less.")
        for event in states.events(ws, job_id, state="pending"):
            states.settle(ws, event, "applied", number)
            return {"pause": "paused", "cancel": "cancelled"}[event.command]
        time.sleep(config.get("sleep_s", 0.0))
    return "completed"


def room_bytes(ws: Workspace, job_id: int) -> int:
    """Return the free disk space that counting needs."""
    return 1
