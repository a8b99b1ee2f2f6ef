"""What a job's model says to the same prompts as it learns: its answers, step after step."""

import html
from collections.abc import Sequence

from ftlab_kit import trainers
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import CELL, LINES, Job, Sample, marked, show
from ftlab_kit.widgets.display import Html
from ftlab_kit.workspace import Workspace

SHOWN_STEPS = 5
# a chart each, for their scales have nothing in common: title, name of the line and of the metric
CHARTS = {
    "likeness to the references": ("chrF", "sample_chrf"),
    "length of an answer": ("tokens", "sample_tokens"),
    "ended by themselves": ("share", "sample_ended"),
}


def samples(ws: Workspace, job: Job | int) -> Html:
    """Return the sample answers of a job: their scores over the steps, then each prompt's answers.

    The first, the last and a few between are shown, in each the words that came and went since the
    one before.
    """
    found = trainers.status(ws, job)
    samples = trainers.samples(ws, found)
    if not samples:
        words = (
            f"Job {found.id} has no sample answers yet. They are made while it trains where "
            "sample_every_steps is set; trainers.sample(ws, job, prompts) asks once."
        )
        return Html(f"<p>{html.escape(words)}</p>", words)
    steps, by_row = _sorted(samples)
    series = _series(ws, found)
    words = f"{len(by_row)} prompts, answered after {_steps(steps)}"
    said = [charts.alt(title, [item]) for title, item in series.items() if item.points]
    pictures = charts.in_pairs([charts.figure(title, [item]) for title, item in series.items()])
    tables = "".join(_table(each, _few(steps)) for each in by_row.values())
    return Html(f"<p>{html.escape(words)}</p>{pictures}{tables}", "; ".join([words, *said]))


def answers_of(ws: Workspace, job: Job, *, n_steps: int) -> str:
    """Return each prompt with its answers after the last so many steps that it was answered at."""
    steps, by_row = _sorted(trainers.samples(ws, job))
    none = "<p>no sample answers: sample_every_steps is not set</p>"
    return "".join(_table(each, steps[-n_steps:]) for each in by_row.values()) or none


def _sorted(samples: Sequence[Sample]) -> tuple[list[int], dict[int | None, list[Sample]]]:
    """Return the steps of samples, and the samples of each prompt."""
    by_row: dict[int | None, list[Sample]] = {}
    for sample in samples:
        by_row.setdefault(sample.row, []).append(sample)
    return [*dict.fromkeys(item.step for item in samples if item.step is not None)], by_row


def _series(ws: Workspace, job: Job) -> dict[str, charts.Series]:
    """Return the line of each chart that has one."""
    traces = {title: Trace() for title in CHARTS}
    for row in trainers.metrics(ws, job):
        for title, (_, name) in CHARTS.items():
            if (value := (row.more or {}).get(name)) is not None:
                traces[title].add(row.step, value)
    return {
        title: charts.Series(CHARTS[title][0], trace.points())
        for title, trace in traces.items()
        if trace.last is not None
    }


def _steps(steps: Sequence[int]) -> str:
    return (
        f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]}"
    )


def _few(steps: Sequence[int]) -> list[int]:
    """Return the first and the last step, and some between them, evenly."""
    if len(steps) <= SHOWN_STEPS:
        return [*steps]
    last, parts = len(steps) - 1, SHOWN_STEPS - 1
    return [steps[round(part * last / parts)] for part in range(SHOWN_STEPS)]


def _table(samples: Sequence[Sample], steps: Sequence[int]) -> str:
    """Return one prompt with its reference and its answers, each marked against the one before."""
    shown = [sample for sample in samples if sample.step in steps]
    head = "".join(f"<th {CELL}>{name}</th>" for name in ("step", "answer", "chrF", "tokens"))
    rows, before = "", None
    for sample in shown:
        cells = [show(sample.step), _answer(before, sample)]
        cells += [show(sample.scores.get(name)) for name in ("chrf", "tokens")]
        rows += "<tr>" + "".join(f"<td {LINES}>{cell}</td>" for cell in cells) + "</tr>"
        before = sample.answer if sample.answer is not None else before
    return (
        f"<p><b>{html.escape(samples[0].prompt)}</b></p>"
        f"<p>reference: {html.escape(show(samples[0].reference))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _answer(before: str | None, sample: Sample) -> str:
    if not sample.answer:
        return "–" if sample.answer is None else "<i>says nothing</i>"
    text = html.escape(sample.answer) if before is None else marked(before, sample.answer)
    return text if sample.is_complete else f"{text} … <i>cut</i>"
