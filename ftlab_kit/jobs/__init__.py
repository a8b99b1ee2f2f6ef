"""Jobs: any long work, done by a process that outlives whoever started it.

A job is a row with a `kind`, a state and a config. Here stands what is the same for every kind: the
table of states and commands, the mailbox, the slots, the processes and the log. What a kind does
is a module of its own (`kinds`).

The verbs below take a job of any kind. Other rooms also use `states` (the table, the mailbox),
`processes` (what runs), `kinds` and `log` (for the module that does the work). `supervisor` and
`worker` are programs, which no one imports.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ftlab_kit.errors import Conflict, InputError, JobFailed, Unavailable
from ftlab_kit.jobs import kinds, log, processes, states
from ftlab_kit.records import Event, Job, OnProgress, Progress, Rows
from ftlab_kit.workspace import Workspace, now

__all__ = [
    "cancel", "create", "events", "kinds", "launch", "list", "log", "logs", "pause", "processes",
    "resume", "send", "slots", "states", "status", "wait",
]  # fmt: skip

CANCEL_S = 10.0  # cancel waits this long for the worker, then terminates it, and 2 s later kills
POLL_S = 0.2


def create(
    ws: Workspace,
    *,
    kind: str,
    model: str,
    config: dict[str, Any],
    dataset_version_id: int,
    held_out_version_id: int | None = None,
    parent_id: int | None = None,
    parent_step: int | None = None,
    prepare: Callable[[int], None] = lambda job_id: None,
) -> Job:
    """Write a job down as queued and return it; `launch` starts it.

    Args:
        ws: The workspace.
        kind: What the job does: a key of `kinds.KINDS`.
        model: The name of the model that it works on.
        config: The settings of the kind; all kinds may set `processes`, `threads`, `max_restarts`.
        dataset_version_id: The rows that it works on.
        held_out_version_id: The held-out rows; None for none.
        parent_id: The job that it was forked from.
        parent_step: The step of the checkpoint that it was forked from.
        prepare: Called with the job's id before anyone else can see and start it.
    """
    created_at = now()
    with ws.store.transaction():
        job_id = ws.store.insert(
            "jobs",
            kind=kind,
            state="queued",
            model=model,
            step=0,
            dataset_version_id=dataset_version_id,
            held_out_version_id=held_out_version_id,
            config=config,
            parent_id=parent_id,
            parent_step=parent_step,
            created_at=created_at,
            queued_at=created_at,
        )
        prepare(job_id)
    return states.read(ws, job_id)


def launch(ws: Workspace, job: Job | int) -> Job:
    """Fill the free slots with waiting jobs, and return a job, which may run now or still wait.

    Raises:
        JobFailed: The job's supervisor could not be started.
    """
    processes.launch_waiting(ws)
    current = status(ws, job)
    if current.state == "failed" and current.started_at is None:
        raise JobFailed(f"Job {current.id}: {current.error}")
    return current


def list(ws: Workspace, *, kind: str | None = None) -> Rows[Job]:
    """Return the jobs, the newest first.

    Args:
        ws: The workspace.
        kind: Only jobs of this kind; None for all.
    """
    where: dict[str, Any] = {} if kind is None else {"kind": kind}
    return Rows(status(ws, row["id"]) for row in ws.store.rows("jobs", descending=True, **where))


def status(ws: Workspace, job: Job | int) -> Job:
    """Return a job as it is now; one whose worker has vanished is failed, and says so.

    Raises:
        NotFound: There is no such job.
    """
    row = states.row(ws, job)
    if processes.mark_dead(ws, row):
        processes.launch_waiting(ws)  # its slot is free
    current = states.read(ws, row["id"])
    if current.state == "running" and processes.is_silent(row):
        last_sign_at = row["heartbeat_at"] or row["launched_at"] or now()
        silent_s = (now() - last_sign_at).total_seconds()
        note = f"no sign of life for {silent_s:.0f} s: suspended, or stuck in the system"
        return replace(current, note=note)
    if current.state == "queued" and row["launched_at"] is None:
        waiting = ws.store.rows("jobs", order="queued_at", state="queued", launched_at=None)
        n_ahead = sum(other["queued_at"] < row["queued_at"] for other in waiting)
        return replace(current, note=f"waits for a free slot, {n_ahead} ahead of it")
    return current


def slots(ws: Workspace, *, jobs: int | None = None) -> int:
    """Return how many jobs may run at once; the others wait in the order of their start.

    Args:
        ws: The workspace.
        jobs: The new number; None leaves it. The default is one for each GPU, or one.

    Raises:
        InputError: Fewer than one.
    """
    if jobs is not None:
        if jobs < 1:
            raise InputError(f"jobs is {jobs}; expected at least 1. To stop all, pause each.")
        ws.store.upsert("settings", {"name": "slots"}, value=jobs)
        processes.launch_waiting(ws)
    return processes.slots(ws)


def wait(
    ws: Workspace,
    job: Job | int,
    *,
    until_step: int | None = None,
    timeout_s: float | None = None,
    progress: OnProgress | None = None,
) -> Job:
    """Wait until a job is over or paused, or has done a step, and return it.

    Args:
        ws: The workspace.
        job: The job or its id.
        until_step: Return once this step is done; None waits for the end.
        timeout_s: Return after this long, whatever the state; None waits on.
        progress: Called with the steps done whenever the job's step or state has changed.

    Raises:
        JobFailed: The job failed; says why.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    reported = None
    while True:
        current = status(ws, job)
        if progress and (current.state, current.step) != reported:
            what = f"job {current.id} {current.state}, steps"
            progress(Progress(what, current.step, current.total_steps, current.note))
        reported = (current.state, current.step)
        if current.state == "failed":
            raise JobFailed(f"Job {current.id} failed at step {current.step}: {current.error}")
        is_far_enough = until_step is not None and current.step >= until_step
        if current.state == "queued":
            processes.launch_waiting(ws)  # whoever was to do it may be gone
        is_at_rest = current.is_over or current.state == "paused"
        is_late = deadline is not None and time.monotonic() >= deadline
        if is_at_rest or is_far_enough or is_late:
            return current
        time.sleep(POLL_S)


def pause(ws: Workspace, job: Job | int) -> Job:
    """Stop a job after the step under way, free its device, and return it, paused.

    Raises:
        Conflict: The job does not run, or ended before it read the command.
        Unavailable: The worker gives no sign of life; the command stays in its mailbox.
    """
    running = status(ws, job)
    event = _settled(ws, states.send(ws, running.id, "pause"))
    if event.state == "refused":
        raise Conflict(f"Job {event.job_id} was not paused: {event.note}.")
    processes.wait_until_gone(running.worker_pid, timeout_s=CANCEL_S)
    return status(ws, event.job_id)


def resume(ws: Workspace, job: Job | int, *, arguments: dict[str, Any] | None = None) -> Job:
    """Queue a paused or failed job again and return it.

    Args:
        ws: The workspace.
        job: The job or its id.
        arguments: What the event of this resume keeps, such as what a person has allowed.

    Raises:
        Conflict: The job is in another state.
    """
    job_id = status(ws, job).id
    processes.requeue(ws, job_id, arguments=arguments)
    return launch(ws, job_id)


def send(
    ws: Workspace,
    job: Job | int,
    command: str,
    arguments: dict[str, Any] | None = None,
    *,
    at_step: int | None = None,
) -> Event:
    """Send a command to a job and return its event, applied; pending for a job that does not run.

    Args:
        ws: The workspace.
        job: The job or its id.
        command: A key of `states.COMMANDS`.
        arguments: What the command needs.
        at_step: The step after which to take it; None as soon as possible.

    Raises:
        Conflict: The job's state does not allow it, or the worker refused it.
        Unavailable: The worker gives no sign of life; the command stays in its mailbox.
    """
    current = status(ws, job)
    event = states.send(ws, current.id, command, arguments, at_step=at_step)
    is_for_running = states.COMMANDS[command] == ("running",)
    if at_step is not None or not (is_for_running or current.state == "running"):
        return event
    event = _settled(ws, event)
    if event.state == "refused":
        raise Conflict(f"Job {event.job_id} refused the command {event.command!r}: {event.note}.")
    return event


def _settled(ws: Workspace, event: Event) -> Event:
    """Wait until a command is applied or refused, or the job does not run any more."""
    while (current := states.event(ws, event.id)).state == "pending":
        job = status(ws, event.job_id)
        if job.state not in states.WORKING:
            return states.event(ws, event.id)
        if job.state == "running" and job.note:
            raise Unavailable(
                f"Job {job.id} can't take the command {event.command!r} now: {job.note}. It stays "
                f"in the mailbox. End the job with trainers.cancel(ws, {job.id})."
            )
        time.sleep(POLL_S)
    return current


def cancel(ws: Workspace, job: Job | int) -> Job:
    """End a job for good within 15 s and return it.

    The worker gets the command to stop at the next step border and to save; after 10 s its
    processes are terminated, and 2 s later killed. A queued or paused job is cancelled at once.

    Raises:
        Conflict: The job is over already.
    """
    job_id = status(ws, job).id
    try:
        with ws.store.lock_timeout(CANCEL_S / 2):
            _request_cancel(ws, job_id)
            # before its processes end, or the supervisor would record a failure
            states.move(ws, job_id, "cancelled")
    except Unavailable:
        # a worker that was suspended within a transaction locks the store until it is gone
        processes.end(ws, job_id)
        states.move(ws, job_id, "cancelled")
    processes.end(ws, job_id)
    processes.launch_waiting(ws)
    ended = states.read(ws, job_id)
    if ended.state != "cancelled":
        raise Conflict(
            f"Job {job_id} was {ended.state} before it read the command; only a running job can be "
            "cancelled. Its checkpoints are kept."
        )
    return ended


def _request_cancel(ws: Workspace, job_id: int) -> None:
    """Send the command, and wait a while for the worker; a job without one is cancelled here."""
    states.send(ws, job_id, "cancel")
    deadline = time.monotonic() + CANCEL_S
    while time.monotonic() < deadline:
        # before its worker runs no one else reads the command
        if states.move(ws, job_id, "cancelled", only_from=("queued", "paused")):
            return
        if status(ws, job_id).is_over:
            return
        time.sleep(POLL_S)


def logs(ws: Workspace, job: Job | int, *, last: int = 50) -> str:
    """Return the last lines of a job's log.

    Args:
        ws: The workspace.
        job: The job or its id.
        last: How many lines.
    """
    return log.read(ws, states.read(ws, job).id, last=last)


def events(ws: Workspace, job: Job | int, *, last: int | None = None) -> Rows[Event]:
    """Return the commands that a job was sent, and what became of each, the oldest first.

    Args:
        ws: The workspace.
        job: The job or its id.
        last: Only this many of the newest; None for all.
    """
    return states.events(ws, states.read(ws, job).id, last=last)
