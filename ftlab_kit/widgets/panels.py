"""What is drawn of a job: its panels with their lines, and marks where it was steered.

One source for the live view and the report: curves thinned by the store, then step by step.
"""

import html
from collections.abc import Iterator, Mapping, Sequence

from ftlab_kit import metrics, trainers
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.charts import Mark, Series
from ftlab_kit.pictures.traces import STRETCHES, Trace
from ftlab_kit.records import Event, Job, Metric, Rows, show
from ftlab_kit.trainers import generations
from ftlab_kit.workspace import Workspace

# each panel: its title, and its lines by name and the metric they show
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
SMOOTHED = "training"  # the line that a slider takes the noise from
UNMARKED = ("evaluate", "sample", "micro_batch")  # commands that leave the curves as they are
FEWEST = 12  # steps below which there is nothing to smooth


class History:
    """The series of a job in bounded memory, from one step to another."""

    def __init__(
        self, ws: Workspace, job: Job, *, within: tuple[int | None, int | None] = (None, None)
    ) -> None:
        """Read what there is of a job, thinned."""
        self.within = within
        newest = metrics.last(ws, job.id)  # first, so that what is written meanwhile comes after
        names = [name for panel in PANELS.values() for name in panel.values()]
        found = trainers.curves(
            ws, job, *names, first_step=within[0], last_step=within[1], at_most=STRETCHES
        )
        self._traces = {curve.name: Trace(curve) for curve in found}
        self.last: Metric | None = None
        if newest:
            self.take(trainers.metrics(ws, job, after_step=newest.step - 2))

    def take(self, rows: Rows[Metric]) -> bool:
        """Add what is new and return whether anything was."""
        is_new = False
        for row in rows:
            for name, trace in self._traces.items():
                value = valued(row, name)
                is_later = trace.last is None or row.step > trace.last[0]
                if value is not None and is_later and self._is_within(row.step):
                    trace.add(row.step, value)
                    is_new = True
            if row.loss is not None or self.last is None:
                self.last = row
        return is_new

    def _is_within(self, step: int) -> bool:
        low, high = self.within
        return (low is None or step >= low) and (high is None or step <= high)

    def series(self, title: str, smoothing: float = 0.0) -> list[Series]:
        """Return the lines of a panel; a smoothed one with its raw one behind it."""
        found = []
        for label, name in PANELS[title].items():
            trace = self._traces[name]
            points = trace.points()
            is_smoothed = label == SMOOTHED and smoothing > 0 and len(points) >= FEWEST
            if is_smoothed:
                found.append(Series("smoothed", trace.smooth(smoothing)))
            found.append(Series("raw" if is_smoothed else label, points, is_faint=is_smoothed))
        return found

    @property
    def step(self) -> int | None:
        """The step from which to read on: the newest may still get its held-out loss."""
        return self.last.step - 1 if self.last else None


def valued(row: Metric, name: str) -> float | None:
    """Return what a metric holds under a name, as `trainers.curves` takes it."""
    field, _, key = name.partition(".")
    found: float | None = (row.more or {}).get(key) if key else getattr(row, field)
    return found


def marks(events: Sequence[Event]) -> list[Mark]:
    """Return a mark for each command that a job took while it ran, numbered as in `told`."""
    return [
        Mark(float(event.step or 0), str(number), told(event))
        for number, event in enumerate(_marked(events), 1)
    ]


def _marked(events: Sequence[Event]) -> Iterator[Event]:
    for event in events:
        if event.state == "applied" and event.step and event.command not in UNMARKED:
            yield event


def told(event: Event) -> str:
    """Return an event in words: what was done at which step, and to what."""
    when = "" if event.step is None else f" at step {event.step}"
    words = f"{event.command}{when}{_changes(event)}"
    words += "" if event.state == "applied" else f", {event.state}"
    return f"{words}: {event.note}" if event.note else words


def _changes(event: Event) -> str:
    """Return old and new values of an adjustment."""
    changed = (event.result or {}) if event.command == "adjust" else {}
    said = [f"{name} {show(was)} to {show(now)}" for name, (was, now) in changed.items()]
    return f", {', '.join(said)}" if said else ""


def events_list(events: Sequence[Event]) -> str:
    """Return the events of a job as a numbered list; the numbers are the marks' on the curves."""
    numbers = {event.id: number for number, event in enumerate(_marked(events), 1)}
    items = "".join(
        f"<li>{html.escape(told(event))} <small>{html.escape(show(event.author))}, "
        f"{show(event.created_at)}{_mark_of(numbers, event)}</small></li>"
        for event in events
        if event.author != generations.AUTHOR  # sample answers have their own page
    )
    return f"<ul>{items}</ul>" if items else "<p>It was not steered.</p>"


def _mark_of(numbers: Mapping[int, int], event: Event) -> str:
    return f", mark {numbers[event.id]}" if event.id in numbers else ""


def figures(history: History, events: Sequence[Event]) -> str:
    """Return the panels that have something, two beside each other, as they stay in a notebook."""
    pictures = []
    for title in PANELS:
        series = history.series(title)
        if any(item.points for item in series):
            pictures.append(charts.figure(title, series, marks=marks(events)))
    return charts.in_pairs(pictures)
