"""Where the two sides of training meet: one table of states and commands, and a mailbox.

    queued ──▶ running ──▶ completed
       │          ├──────▶ failed
       └──────────┴──────▶ cancelled

The lab side (kernel, command line) writes commands as rows; the worker takes them at step borders
and writes what it did with each. Neither imports the other. Every change of state is a
compare-and-set: who comes second is refused. A command that is still pending when the job is over
is settled then, so that none is lost.
"""

from typing import Any

from ftlab_kit.errors import Conflict, NotFound
from ftlab_kit.records import Event, Job, Rows
from ftlab_kit.workspace import Workspace, now

STATES = ("queued", "running", "completed", "failed", "cancelled")
NEXT = {
    "queued": ("running", "failed", "cancelled"),
    "running": ("completed", "failed", "cancelled"),
}
OVER = tuple(state for state in STATES if state not in NEXT)
COMMANDS = {"cancel": ("queued", "running")}
HIDDEN = ("pid", "pid_started_at")  # columns of a job that are the launcher's alone


def row(ws: Workspace, job: "Job | int") -> dict[str, Any]:
    """Return a job's row as the store has it.

    Raises:
        NotFound: There is no such job.
    """
    job_id = job.id if isinstance(job, Job) else job
    found = ws.store.get("jobs", id=job_id)
    if found is None:
        raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
    return found


def read(ws: Workspace, job: "Job | int") -> Job:
    """Return a job as it stands in the store."""
    return record(row(ws, job))


def record(found: dict[str, Any]) -> Job:
    """Return the record of a job's row."""
    return Job(**{key: value for key, value in found.items() if key not in HIDDEN})


def move(
    ws: Workspace, job_id: int, state: str, *, only_from: str | None = None, **values: Any
) -> bool:
    """Change a job's state if the table allows it from the present one; return whether it did."""
    before = [old for old, new in NEXT.items() if state in new and only_from in (None, old)]
    if state in OVER:
        values["finished_at"] = now()
    moved = bool(ws.store.update("jobs", {"id": job_id, "state": before}, state=state, **values))
    if moved and state in OVER:
        for event in events(ws, job_id, state="pending"):
            is_done = (event.command, state) == ("cancel", "cancelled")
            outcome = "applied" if is_done else "refused"
            settle(ws, event, outcome, read(ws, job_id).step, f"the job is {state}")
    return moved


def send(ws: Workspace, job_id: int, command: str) -> Event:
    """Put a command into a job's mailbox and return the event.

    Raises:
        Conflict: The job's state does not allow it; names the state and the way out.
    """
    job = read(ws, job_id)
    if job.state not in COMMANDS[command]:
        allowed = " or ".join(COMMANDS[command])
        raise Conflict(
            f"Job {job_id} is {job.state}; only a {allowed} job can take the command {command!r}. "
            "Start another with trainers.start(ws, config, dataset)."
        )
    event_id = ws.store.insert(
        "events", job_id=job_id, command=command, state="pending", created_at=now()
    )
    return events(ws, job_id, id=event_id)[0]


def events(ws: Workspace, job_id: int, **where: Any) -> Rows[Event]:
    """Return the events of a job, the oldest first."""
    return Rows(Event(**found) for found in ws.store.rows("events", job_id=job_id, **where))


def settle(ws: Workspace, event: Event, state: str, step: int | None, note: str = "") -> None:
    """Write what became of a command: 'applied' or 'refused', at which step."""
    ws.store.update(
        "events", {"id": event.id, "state": "pending"}, state=state, step=step, note=note or None
    )
