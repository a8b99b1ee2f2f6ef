"""The curves of several jobs in one picture, to see where they part, or that they do not."""

import html
from collections.abc import Mapping, Sequence

from ftlab_kit import trainers
from ftlab_kit.errors import InputError
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import Job
from ftlab_kit.widgets.display import Html
from ftlab_kit.workspace import Workspace


def curves(ws: Workspace, *jobs: Job | int, metric: str = "loss") -> Html:
    """Return one metric of some jobs over their steps, as a picture with its table.

    Says in words how many steps all of them share and in how many their values are the same, to the
    last bit.

    Raises:
        InputError: No job was named.
    """
    if not jobs:
        raise InputError("curves was given no job; expected one or more. Name them after ws.")
    found = [trainers.status(ws, job) for job in jobs]
    values = [measured(ws, job, metric) for job in found]
    shared = set.intersection(*map(set, values))
    same = sum(len({steps[step] for steps in values}) == 1 for step in shared)
    words = f"{metric}: the same to the last bit in {same} of {len(shared)} steps"
    shown = picture(metric, found, values)
    return Html(f"{shown}<p>{html.escape(words)}</p>" if len(found) > 1 else shown, words)


def measured(ws: Workspace, job: Job, metric: str) -> dict[int, float]:
    """Return a metric of a job by step, where it was measured."""
    values = {row.step: getattr(row, metric) for row in trainers.metrics(ws, job)}
    return {step: value for step, value in values.items() if value is not None}


def picture(title: str, jobs: Sequence[Job], values: Sequence[Mapping[int, float]]) -> str:
    """Return values of some jobs by step as one picture with its table."""
    series = []
    for job, steps in zip(jobs, values, strict=True):
        trace = Trace()
        for step, value in steps.items():
            trace.add(step, value)
        series.append(charts.Series(f"job {job.id}", trace.points()))
    return charts.figure(title, series)
