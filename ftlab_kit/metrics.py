"""A job's metrics, keyed by (job, step): no step twice, none lost."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ftlab_kit.errors import InputError, nearest
from ftlab_kit.records import Bucket, Curve, Metric, Rows
from ftlab_kit.workspace import Workspace, now


def write(ws: Workspace, job_id: int, step: int, **values: Any) -> None:
    """Write values of a step; values that the step has already stay.

    Args:
        values: Fields of a Metric by name.
    """
    ws.store.upsert("metrics", {"job_id": job_id, "step": step}, at=now(), **values)


def read(ws: Workspace, job_id: int, *, after_step: int | None = None) -> Rows[Metric]:
    """Return the metrics of a job in the order of their steps.

    Args:
        after_step: Only later steps, for a view that follows a running job; None for all.
    """
    rows = ws.store.rows("metrics", order="step", after=after_step, job_id=job_id)
    return Rows(_metric(row) for row in rows)


def last(ws: Workspace, job_id: int) -> Metric | None:
    """Return the newest metric of a job, or None before the first."""
    rows = ws.store.rows("metrics", order="step", descending=True, limit=1, job_id=job_id)
    return _metric(rows[0]) if rows else None


def cut(ws: Workspace, job_id: int, *, after_step: int) -> int:
    """Delete the metrics of steps that will be done again, and return their number.

    Args:
        after_step: The last step whose metric stays.
    """
    return ws.store.delete("metrics", job_id=job_id, after=("step", after_step))


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
    """Return metrics of a job over its steps, downsampled by the store.

    Args:
        names: Fields of a Metric; "more.reward" is one of its `more`.
        within: The first and the last step; None leaves that end open.
        at_most: Buckets of a curve; their width in steps is the least power of two that allows it.

    Raises:
        InputError: A metric has no such field.
    """
    for name in names:
        if name not in NUMBERS and not name.startswith("more."):
            raise InputError(
                f"Unknown metric {name!r}.{nearest(name, NUMBERS)} Available: "
                f"{', '.join(NUMBERS)} and more.NAME."
            )
    newest = last(ws, job_id)
    start = within[0] or 0
    end = newest.step if within[1] is None and newest else within[1] or 0
    # buckets begin at multiples of their width, so there may be one more than fit
    width = 1 << max(0, -(-(end - start + 1) // (at_most - 1)) - 1).bit_length()
    columns = ws.store.downsample(
        "metrics", "step", names, width=width, within=within, job_id=job_id
    )
    curves = []
    for name in names:
        buckets = [Bucket(**bucket) for bucket in columns[name]]
        first_and_last = (
            [_value(ws, job_id, name, step) for step in (buckets[0].first, buckets[-1].last)]
            if buckets
            else (None, None)
        )
        curves.append(Curve(name, width, Rows(buckets), *first_and_last))
    return Rows(curves)


def _metric(row: dict[str, Any]) -> Metric:
    return Metric(**{name: value for name, value in row.items() if name != "job_id"})


def _value(ws: Workspace, job_id: int, name: str, step: int) -> float:
    row = ws.store.get("metrics", job_id=job_id, step=step) or {}
    column, _, key = name.partition(".")
    return float(row[column][key] if key else row[column])
