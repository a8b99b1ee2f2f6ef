"""Where the two sides of a job meet: one table of states and commands, and a mailbox.

    queued ──▶ running ──▶ completed
      ▲ │       │ │ └────▶ failed ──┐
      │ │       │ └──────▶ paused ──┤ resume
      │ └───────┴────────▶ cancelled│
      └─────────────────────────────┘

The lab side (kernel, command line) writes commands as rows; the worker takes them at step borders
and writes what it did with each. Neither imports the other. Every change of state is a
compare-and-set: whoever comes second is refused. A command that can't be taken any more is settled
with the job's state, so that none is lost.
"""

from collections.abc import Mapping
from typing import Any

from ftlab_kit.errors import Conflict, NotFound
from ftlab_kit.records import Event, Job, Rows
from ftlab_kit.workspace import Workspace, now

STATES = ("queued", "running", "paused", "completed", "failed", "cancelled")
NEXT = {
    "queued": ("running", "failed", "cancelled"),
    # back to queued: its supervisor starts a crashed worker again
    "running": ("paused", "completed", "failed", "cancelled", "queued"),
    "paused": ("queued", "cancelled"),
    "failed": ("queued",),
}
OVER = ("completed", "failed", "cancelled")
WORKING = ("queued", "running")
COMMANDS = {
    "cancel": ("queued", "running", "paused"),
    "pause": ("running",),
    "resume": ("paused", "failed"),
    "checkpoint": ("running",),
    "evaluate": ("running",),
    "sample": ("running",),
    "adjust": ("queued", "running", "paused", "failed"),
}
# events that a run itself causes, and that a replay repeats
CAUSED_BY_RUN = ("micro_batch",)
FINAL = ("completed", "cancelled")
# what to do instead, by the state that a job is in
WAYS_OUT = {
    "queued": "Wait until it runs, or end it with trainers.cancel(ws, {id}).",
    "running": "Pause it first with trainers.pause(ws, {id}).",
    "paused": "Go on with trainers.resume(ws, {id}).",
    "failed": "Go on from its last checkpoint with trainers.resume(ws, {id}).",
    "completed": "Train on from its last checkpoint with trainers.fork(ws, {id}).",
    "cancelled": "Train on from its last checkpoint with trainers.fork(ws, {id}).",
}
# columns of a job that only the launcher and the worker use
HIDDEN = ("pid", "pid_started_at", "boot_id", "slot", "launched_at", "queued_at", "facts")


def row(ws: Workspace, job: "Job | int") -> dict[str, Any]:
    """Return a job's row from the store.

    Raises:
        NotFound: There is no such job.
    """
    job_id = job.id if isinstance(job, Job) else job
    columns = ws.store.get("jobs", id=job_id)
    if columns is None:
        raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
    return columns


def read(ws: Workspace, job: "Job | int") -> Job:
    """Return a job as it stands in the store."""
    return record(row(ws, job))


def record(row: dict[str, Any]) -> Job:
    """Return the record of a job's row."""
    return Job(**{column: value for column, value in row.items() if column not in HIDDEN})


def forks(ws: Workspace, job_id: int) -> Rows[Job]:
    """Return the jobs that were forked from a job, the oldest first."""
    return Rows(record(row) for row in ws.store.rows("jobs", parent_id=job_id))


def move(
    ws: Workspace,
    job_id: int,
    state: str,
    *,
    only_from: str | tuple[str, ...] | None = None,
    held_by: Mapping[str, int | None] | None = None,
    **values: Any,
) -> bool:
    """Change a job's state if the table allows it from the present one; return whether it did.

    Args:
        ws: The workspace.
        job_id: The job.
        state: The new state.
        only_from: Of the states that the table allows, only these.
        held_by: The `pid` or `worker_pid` that the job must have: a process that was replaced by
            another one must not write any more.
        values: Other columns to write with the state.
    """
    allowed = (only_from,) if isinstance(only_from, str) else only_from or STATES
    before = [old for old, new in NEXT.items() if state in new and old in allowed]
    values["finished_at"] = now() if state in OVER else None
    if state != "running":
        values["worker_pid"] = None
    with ws.store.transaction():
        where = {"id": job_id, "state": before, **(held_by or {})}
        is_moved = bool(ws.store.update("jobs", where, state=state, **values))
        if is_moved:
            _settle_the_rest(ws, job_id, state)
    return is_moved


def _settle_the_rest(ws: Workspace, job_id: int, state: str) -> None:
    """Settle the commands that a job can't take in its new state."""
    command_of = {"paused": "pause", "cancelled": "cancel"}
    for event in events(ws, job_id, state="pending"):
        is_repeated_later = event.command in CAUSED_BY_RUN and state not in FINAL
        can_be_taken = state in WORKING or state in COMMANDS.get(event.command, ())
        if is_repeated_later or can_be_taken:
            continue
        outcome = "applied" if command_of.get(state) == event.command else "refused"
        settle(ws, event, outcome, read(ws, job_id).step, note=f"the job is {state}")


def send(
    ws: Workspace,
    job_id: int,
    command: str,
    arguments: dict[str, Any] | None = None,
    *,
    at_step: int | None = None,
) -> Event:
    """Put a command into a job's mailbox and return the event.

    Raises:
        Conflict: The job's state does not allow it; names the state and the way out.
    """
    if command == "resume":
        raise ValueError("no worker reads 'resume': processes.requeue puts a job into the queue")
    with ws.store.transaction():  # the job must not end between look and write
        require(ws, job_id, command)
        return write(ws, job_id, command, state="pending", arguments=arguments, at_step=at_step)


def require(ws: Workspace, job_id: int, command: str) -> Job:
    """Return a job whose state allows a command.

    Raises:
        Conflict: The job's state does not allow it; names the state and the way out.
    """
    job = read(ws, job_id)
    if job.state not in COMMANDS[command]:
        allowed = " or ".join(COMMANDS[command])
        raise Conflict(
            f"Job {job_id} is {job.state}; only a {allowed} job can take the command {command!r}. "
            + WAYS_OUT[job.state].format(id=job_id)
        )
    return job


def write(ws: Workspace, job_id: int, command: str, **values: Any) -> Event:
    """Write an event, whoever causes it; the author is the workspace's owner by default."""
    values.setdefault("author", ws.owner)
    event_id = ws.store.insert("events", job_id=job_id, command=command, created_at=now(), **values)
    return event(ws, event_id)


def event(ws: Workspace, event_id: int) -> Event:
    """Return an event as it is now.

    Raises:
        NotFound: There is no such event.
    """
    columns = ws.store.get("events", id=event_id)
    if columns is None:
        raise NotFound(f"There is no event {event_id}. See them with trainers.events(ws, job).")
    return Event(**columns)


def events(ws: Workspace, job_id: int, *, last: int | None = None, **where: Any) -> Rows[Event]:
    """Return the events of a job, the oldest first.

    Args:
        ws: The workspace.
        job_id: The job.
        last: Only this many of the newest; None for all.
        where: Column and value; a list of values means any of them.
    """
    newest_first = ws.store.rows("events", descending=True, limit=last, job_id=job_id, **where)
    return Rows(Event(**columns) for columns in reversed(newest_first))


def settle(
    ws: Workspace,
    event: Event,
    state: str,
    step: int | None,
    *,
    result: dict[str, Any] | None = None,
    note: str | None = None,
) -> None:
    """Write the outcome of a command: 'applied' or 'refused', at which step."""
    values = {"state": state, "step": step, "result": result, "note": note}
    ws.store.update("events", {"id": event.id, "state": "pending"}, **values)
