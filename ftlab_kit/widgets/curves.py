"""The curves of several jobs in one picture, to see where they part, or that they do not."""

import html

from ftlab_kit import trainers
from ftlab_kit.errors import InputError
from ftlab_kit.records import Job
from ftlab_kit.widgets import charts
from ftlab_kit.widgets.front import Html
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
    values = [
        {row.step: getattr(row, metric) for row in trainers.metrics(ws, job)} for job in found
    ]
    series = []
    for job, steps in zip(found, values, strict=True):
        trace = charts.Trace()
        for step, value in steps.items():
            if value is not None:
                trace.add(step, value)
        series.append(charts.Series(f"job {job.id}", trace.points()))
    shared = set.intersection(*map(set, values))
    same = sum(len({steps[step] for steps in values}) == 1 for step in shared)
    words = f"{metric}: the same to the last bit in {same} of {len(shared)} steps"
    picture = charts.figure(metric, series)
    return Html(f"{picture}<p>{html.escape(words)}</p>" if len(found) > 1 else picture, words)
