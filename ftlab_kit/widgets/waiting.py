"""Wait for a job in a notebook without blocking its kernel."""

import asyncio
import time

from ftlab_kit import trainers
from ftlab_kit.records import Job, Progress
from ftlab_kit.widgets.progress_line import progress
from ftlab_kit.workspace import Workspace

LOOK_S = 1.0  # between two looks at a job


async def finished(
    ws: Workspace,
    job: Job | int,
    *,
    until_step: int | None = None,
    timeout_s: float | None = None,
) -> Job:
    """Return a job once it is over or paused, and leave the kernel free until then.

    `job = await widgets.finished(ws, job)` shows a line of progress where a person looks on; other
    cells and widgets go on meanwhile. It needs no notebook: any asyncio program may await it.

    Args:
        until_step: Return as soon as this optimizer step is done.
        timeout_s: Return after this many seconds, whatever the state; None waits on.

    Raises:
        JobFailed: The job failed; the message says why.
        NotFound: There is no such job.
    """
    show = progress()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = LOOK_S if deadline is None else max(0.0, deadline - time.monotonic())
        # short waits, so that the thread ends soon after whoever awaits this is interrupted
        job = await asyncio.to_thread(
            trainers.wait, ws, job, until_step=until_step, timeout_s=min(LOOK_S, left_s)
        )
        show(Progress(f"steps of job {job.id}", job.step, job.total_steps, job.state))
        is_there = until_step is not None and job.step >= until_step
        is_late = deadline is not None and time.monotonic() >= deadline
        if job.is_over or job.state == "paused" or is_there or is_late:
            return job
