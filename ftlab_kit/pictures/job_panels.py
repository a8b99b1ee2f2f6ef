"""A job's panels: which metrics each one draws, and marks where the job was steered.

The live view and the report draw the same panels.
"""

import html
from collections.abc import Iterator, Mapping, Sequence

from ftlab_kit.pictures import charts
from ftlab_kit.pictures.charts import Mark, Series
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import Event, show

# each panel: its title, and its lines by name and the metric that they show
PANELS: dict[str, dict[str, str]] = {
    "loss": {"training": "loss", "held out": "eval_loss"},
    "learning rate": {"rate": "learning_rate"},
    "gradient norm": {"norm": "grad_norm"},
    "throughput": {"tokens/s": "tokens_per_s"},
    "memory": {"process GiB": "memory_gib", "GPU GiB": "gpu_memory_gib"},
    "utilisation": {"processor": "cpu_utilisation", "GPU": "gpu_utilisation"},
    "reward": {"mean": "more.reward"},
    "preference": {"accuracy": "more.accuracy"},
    "sample answers": {"chrF": "more.sample_chrf"},
}
METRICS = [metric for lines in PANELS.values() for metric in lines.values()]
SMOOTHED = "training"  # the line that is smoothed
UNMARKED = ("evaluate", "sample", "micro_batch")  # commands that leave the curves as they are
MIN_POINTS = 12  # with fewer points there is nothing to smooth


def series(title: str, traces: Mapping[str, Trace], smoothing: float = 0.0) -> list[Series]:
    """Return the lines of a panel; behind a smoothed line stands the raw one.

    Args:
        traces: By metric.
        smoothing: Weight of the points before, as in `Trace.smooth`; 0 smooths nothing.
    """
    lines = []
    for label, metric in PANELS[title].items():
        points = traces[metric].points()
        is_smoothed = label == SMOOTHED and smoothing > 0 and len(points) >= MIN_POINTS
        if is_smoothed:
            lines.append(Series("smoothed", traces[metric].smooth(smoothing)))
        lines.append(Series("raw" if is_smoothed else label, points, is_faint=is_smoothed))
    return lines


def figures(traces: Mapping[str, Trace], events: Sequence[Event]) -> str:
    """Return the panels that have data, two in a row, for a saved notebook.

    Args:
        traces: By metric.
    """
    figures = []
    for title in PANELS:
        lines = series(title, traces)
        if any(line.points for line in lines):
            figures.append(charts.figure(title, lines, marks=marks(events)))
    return charts.in_pairs(figures)


def marks(events: Sequence[Event]) -> list[Mark]:
    """Return a mark for each command that changed a running job, numbered as in `events_list`."""
    return [
        Mark(float(event.step or 0), str(number), describe(event))
        for number, event in enumerate(_marked(events), 1)
    ]


def _marked(events: Sequence[Event]) -> Iterator[Event]:
    for event in events:
        if event.state == "applied" and event.step and event.command not in UNMARKED:
            yield event


def describe(event: Event) -> str:
    """Return an event as a line of text: the command, its step, what it changed, its note."""
    step = "" if event.step is None else f" at step {event.step}"
    text = f"{event.command}{step}{_changes(event)}"
    text += "" if event.state == "applied" else f", {event.state}"
    return f"{text}: {event.note}" if event.note else text


def _changes(event: Event) -> str:
    """Return old and new values of an adjustment."""
    changed = (event.result or {}) if event.command == "adjust" else {}
    changes = [f"{name} {show(was)} to {show(now)}" for name, (was, now) in changed.items()]
    return f", {', '.join(changes)}" if changes else ""


def events_list(events: Sequence[Event], *, without_author: str | None = None) -> str:
    """Return events as an HTML list, each with the number of its mark on the curves.

    Args:
        without_author: Events of this author are left out.
    """
    numbers = {event.id: number for number, event in enumerate(_marked(events), 1)}
    items = "".join(
        f"<li>{html.escape(describe(event))} <small>{html.escape(show(event.author))}, "
        f"{show(event.created_at)}{_mark_number(numbers, event)}</small></li>"
        for event in events
        if without_author is None or event.author != without_author
    )
    return f"<ul>{items}</ul>" if items else "<p>no commands yet</p>"


def _mark_number(numbers: Mapping[int, int], event: Event) -> str:
    return f", mark {numbers[event.id]}" if event.id in numbers else ""
