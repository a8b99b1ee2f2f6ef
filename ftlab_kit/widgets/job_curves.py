"""One metric of several jobs in one picture, to see where they part, or that they do not."""

import html
from collections.abc import Mapping, Sequence

from ftlab_kit import trainers
from ftlab_kit.errors import InputError
from ftlab_kit.pictures import charts, traces
from ftlab_kit.records import Job
from ftlab_kit.widgets.display import Html
from ftlab_kit.workspace import Workspace


def curves(ws: Workspace, *jobs: Job | int, metric: str = "loss") -> Html:
    """Return one metric of some jobs over their steps, as a picture with its table.

    For several jobs, a sentence says in how many common steps their values are bit-identical.

    Args:
        jobs: One or more.
        metric: A number of the records of `trainers.metrics`, such as loss or eval_loss.

    Raises:
        InputError: No job was given.
        NotFound: There is no such job.
    """
    if not jobs:
        raise InputError("curves was given no job; expected one or more. Name them after ws.")
    rows = [trainers.status(ws, job) for job in jobs]
    values = [by_step(ws, job, metric) for job in rows]
    shared = set.intersection(*map(set, values))
    n_same = sum(len({steps[step] for steps in values}) == 1 for step in shared)
    summary = f"{metric}: the same to the last bit in {n_same} of {len(shared)} steps"
    markup = figure(metric, rows, values)
    return Html(f"{markup}<p>{html.escape(summary)}</p>" if len(rows) > 1 else markup, summary)


def by_step(ws: Workspace, job: Job, metric: str) -> dict[int, float]:
    """Return a metric of a job by step, where it was measured."""
    values = {row.step: getattr(row, metric) for row in trainers.metrics(ws, job)}
    return {step: value for step, value in values.items() if value is not None}


def figure(title: str, jobs: Sequence[Job], values: Sequence[Mapping[int, float]]) -> str:
    """Return values of some jobs by step as one picture with its table."""
    series = [
        charts.Series(f"job {job.id}", traces.of([*steps.items()]).points())
        for job, steps in zip(jobs, values, strict=True)
    ]
    return charts.figure(title, series)
