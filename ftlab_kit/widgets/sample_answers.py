"""A job's answers to the same prompts while it trains, step after step."""

import html
from collections.abc import Sequence

from ftlab_kit import trainers
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import CELL, LINES, Job, Sample, marked, show
from ftlab_kit.widgets.display import Html
from ftlab_kit.workspace import Workspace

MAX_STEPS = 5  # whose answers are shown
# a chart each, because they share no scale: its title, the line's name, the metric
CHARTS = {
    "likeness to the references": ("chrF", "sample_chrf"),
    "length of an answer": ("tokens", "sample_tokens"),
    "answers that ended before the limit": ("share", "sample_ended"),
}


def samples(ws: Workspace, job: Job | int) -> Html:
    """Return a job's sample answers: their scores over the steps, then the answers to each prompt.

    Shown are the first, the last and a few between; what changed since the one before is marked.

    Raises:
        NotFound: There is no such job.
    """
    job = trainers.status(ws, job)
    rows = trainers.samples(ws, job)
    if not rows:
        text = (
            f"Job {job.id} has no sample answers yet. Set sample_every_steps to get them while a "
            "job trains, or get some now with trainers.sample(ws, job, prompts)."
        )
        return Html(f"<p>{html.escape(text)}</p>", text)
    steps, by_row = _by_step_and_row(rows)
    series = _series(ws, job)
    summary = f"{len(by_row)} prompts, answered after {_step_range(steps)}"
    alt_texts = [charts.alt_text(title, [item]) for title, item in series.items() if item.points]
    pictures = charts.in_pairs([charts.figure(title, [item]) for title, item in series.items()])
    tables = "".join(_table(each, _evenly(steps)) for each in by_row.values())
    markup = f"<p>{html.escape(summary)}</p>{pictures}{tables}"
    return Html(markup, "; ".join([summary, *alt_texts]))


def latest_answers(ws: Workspace, job: Job, *, n_steps: int) -> str:
    """Return each prompt with its answers after the last `n_steps` sampled steps, as HTML."""
    steps, by_row = _by_step_and_row(trainers.samples(ws, job))
    empty = "<p>no sample answers: sample_every_steps is not set</p>"
    return "".join(_table(each, steps[-n_steps:]) for each in by_row.values()) or empty


def _by_step_and_row(rows: Sequence[Sample]) -> tuple[list[int], dict[int | None, list[Sample]]]:
    """Return the steps of samples, and the samples of each prompt."""
    by_row: dict[int | None, list[Sample]] = {}
    for sample in rows:
        by_row.setdefault(sample.row, []).append(sample)
    return [*dict.fromkeys(item.step for item in rows if item.step is not None)], by_row


def _series(ws: Workspace, job: Job) -> dict[str, charts.Series]:
    """Return the line of each chart that has data."""
    traces = {title: Trace() for title in CHARTS}
    for row in trainers.metrics(ws, job):
        for title, (_, metric) in CHARTS.items():
            if (value := (row.more or {}).get(metric)) is not None:
                traces[title].add(row.step, value)
    return {
        title: charts.Series(CHARTS[title][0], trace.points())
        for title, trace in traces.items()
        if trace.last is not None
    }


def _step_range(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]}"
    return f"{len(steps)} steps, {steps[0]} to {steps[-1]}"


def _evenly(steps: Sequence[int]) -> list[int]:
    """Return the first and the last step, and a few evenly between them."""
    if len(steps) <= MAX_STEPS:
        return [*steps]
    last, n_parts = len(steps) - 1, MAX_STEPS - 1
    return [steps[round(part * last / n_parts)] for part in range(MAX_STEPS)]


def _table(samples: Sequence[Sample], steps: Sequence[int]) -> str:
    """Return a prompt with its reference and answers, each marked against the one before."""
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
        return show(None) if sample.answer is None else "<i>empty answer</i>"
    text = html.escape(sample.answer) if before is None else marked(before, sample.answer)
    return text if sample.is_complete else f"{text} … <i>cut</i>"
