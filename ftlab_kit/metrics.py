"""What was measured at each step of a job, keyed by (job, step): no step twice, none lost."""

from typing import Any

from ftlab_kit.records import Metric, Rows
from ftlab_kit.workspace import Workspace, now


def write(ws: Workspace, job_id: int, step: int, **values: Any) -> None:
    """Write some values of a step beside those that are there already."""
    ws.store.upsert("metrics", {"job_id": job_id, "step": step}, at=now(), **values)


def read(ws: Workspace, job_id: int, *, after_step: int | None = None) -> Rows[Metric]:
    """Return the metrics of a job in the order of their steps.

    Args:
        after_step: Only later steps, for a view that follows along.
    """
    found = ws.store.rows("metrics", order="step", after=after_step, job_id=job_id)
    return Rows(Metric(**{key: row[key] for key in row if key != "job_id"}) for row in found)


def last(ws: Workspace, job_id: int) -> Metric | None:
    """Return the newest metric of a job, or None before the first."""
    found = ws.store.rows("metrics", order="step", descending=True, limit=1, job_id=job_id)
    return Metric(**{key: found[0][key] for key in found[0] if key != "job_id"}) if found else None


def cut(ws: Workspace, job_id: int, *, after_step: int) -> int:
    """Forget the metrics of steps that will be done again, and return how many they were."""
    return ws.store.delete("metrics", job_id=job_id, after=("step", after_step))
