"""What was measured at each step of a job, keyed by (job, step): no step twice, none lost."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ftlab_kit.errors import InputError, nearest
from ftlab_kit.records import Bucket, Curve, Metric, Rows
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


NUMBERS = tuple(
    item.name for item in fields(Metric) if item.name not in ("step", "more", "note", "at")
)


def curves(
    ws: Workspace,
    job_id: int,
    names: Sequence[str],
    *,
    within: tuple[int | None, int | None] = (None, None),
    at_most: int = 256,
) -> Rows[Curve]:
    """Return metrics of a job over its steps, thinned where they are written.

    Args:
        names: Fields of a Metric; "more.reward" is one of its `more`.
        within: The first and the last step; None is no bound.
        at_most: Stretches of a curve; their width is the least power of two that allows it.

    Raises:
        InputError: A metric has no such field.
    """
    for name in names:
        if name not in NUMBERS and not name.startswith("more."):
            raise InputError(
                f"{name!r} is no number of a metric; expected {', '.join(NUMBERS)} or more.NAME."
                f"{nearest(name, NUMBERS)} Name one of these."
            )
    newest = last(ws, job_id)
    ends = (within[0] or 0, newest.step if within[1] is None and newest else within[1] or 0)
    # stretches begin at multiples of their width, so there may be one more than fit
    width = 1 << max(0, -(-(ends[1] - ends[0] + 1) // (at_most - 1)) - 1).bit_length()
    found = ws.store.downsample("metrics", "step", names, width=width, within=within, job_id=job_id)
    made = []
    for name in names:
        stretches = [Bucket(**item) for item in found[name]]
        sides = [_at(ws, job_id, name, step) for step in _ends(stretches)]
        made.append(Curve(name, width, Rows(stretches), *(sides or (None, None))))
    return Rows(made)


def _ends(stretches: Sequence[Bucket]) -> list[int]:
    return [stretches[0].first, stretches[-1].last] if stretches else []


def _at(ws: Workspace, job_id: int, name: str, step: int) -> float:
    row = ws.store.get("metrics", job_id=job_id, step=step) or {}
    column, _, key = name.partition(".")
    return float(row[column][key] if key else row[column])


def last(ws: Workspace, job_id: int) -> Metric | None:
    """Return the newest metric of a job, or None before the first."""
    found = ws.store.rows("metrics", order="step", descending=True, limit=1, job_id=job_id)
    return Metric(**{key: found[0][key] for key in found[0] if key != "job_id"}) if found else None


def cut(ws: Workspace, job_id: int, *, after_step: int) -> int:
    """Forget the metrics of steps that will be done again, and return how many they were."""
    return ws.store.delete("metrics", job_id=job_id, after=("step", after_step))
