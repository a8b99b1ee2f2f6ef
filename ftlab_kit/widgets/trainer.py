"""A job to look at: live while it trains, whole again in any fresh kernel, still in a report.

The live view tails the store from a thread of its own; the worker does not know that it exists.
"""

import html
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets

from ftlab_kit import trainers
from ftlab_kit.errors import KitError
from ftlab_kit.records import Job, Metric, show
from ftlab_kit.widgets import charts
from ftlab_kit.widgets.front import Html, is_interactive, keep_clicks
from ftlab_kit.workspace import Workspace

POLL_S = 1.0
LOG_LINES = 8
# each panel: its title, and its lines by name and the metric they show
PANELS: dict[str, dict[str, str]] = {
    "loss": {"training": "loss", "held out": "eval_loss"},
    "learning rate": {"rate": "learning_rate"},
    "throughput": {"tokens/s": "tokens_per_s"},
    "memory": {"process GiB": "memory_gib", "GPU GiB": "gpu_memory_gib"},
    "sample answers": {"chrF": "sample_chrf"},
}
ALWAYS = frozenset(PANELS) - {"sample answers"}  # the others are there when they have something


def trainer(ws: Workspace, job: Job | int) -> "TrainerView | Html":
    """Return the live view of a job; its report where no one is there to watch.

    The view shows the whole history at once, in whatever kernel it is made.
    """
    return TrainerView(ws, job) if is_interactive() else report(ws, job)


def report(ws: Workspace, job: Job | int) -> Html:
    """Return the pictures and tables of a job as they stay in a saved notebook."""
    found = trainers.status(ws, job)
    history = _History()
    history.take(trainers.metrics(ws, found))
    panels = {title: history.series(title) for title in PANELS}
    pictures = [
        charts.figure(title, series)
        for title, series in panels.items()
        if any(item.points for item in series)
    ]
    words = sentence(found, history.last)
    return Html(f"<p>{html.escape(words)}</p>{_in_pairs(pictures)}", words)


def _in_pairs(pictures: list[str]) -> str:
    cells = [f'<td style="text-align:left;vertical-align:top">{item}</td>' for item in pictures]
    rows = ["".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>" if rows else ""


class _History:
    """The series of a job in bounded memory."""

    def __init__(self) -> None:
        names = [name for panel in PANELS.values() for name in panel.values()]
        self._traces = {name: charts.Trace() for name in names}
        self.last: Metric | None = None

    def take(self, rows: "tuple[Metric, ...]") -> bool:
        """Add what is new and return whether anything was."""
        is_new = False
        for row in rows:
            for name, trace in self._traces.items():
                value = _value(row, name)
                if value is not None and (trace.last is None or row.step > trace.last[0]):
                    trace.add(row.step, value)
                    is_new = True
            if row.loss is not None or self.last is None:
                self.last = row
        return is_new

    def series(self, title: str) -> list[charts.Series]:
        return [
            charts.Series(label, self._traces[name].points())
            for label, name in PANELS[title].items()
        ]

    @property
    def step(self) -> int | None:
        """The step from which to read on: the newest may still get its held-out loss."""
        return self.last.step - 1 if self.last else None


def _value(row: Metric, name: str) -> float | None:
    """Return what a metric holds under a name, in a field of its own or among `more`."""
    found: float | None = getattr(row, name, None)
    return (row.more or {}).get(name) if found is None else found


class TrainerView(ipywidgets.VBox):  # type: ignore[misc]
    """A job's state, curves and log, and a button for each command."""

    def __init__(self, ws: Workspace, job: Job | int) -> None:
        """Show a job and follow it until it is over."""
        self._ws = ws
        self._job = trainers.status(ws, job)
        self._history = _History()
        self._state = ipywidgets.HTML()
        self._panels = {title: ipywidgets.HTML() for title in PANELS}
        self._tail = ipywidgets.HTML()
        self._said = ipywidgets.HTML()
        self.pause, self.resume, self.cancel = (
            self._button(*words)
            for words in (
                (trainers.pause, "Stop after this step and free the device"),
                (trainers.resume, "Go on as if nothing had happened"),
                (trainers.cancel, "End the job for good; its checkpoints are kept"),
            )
        )
        buttons = [self.pause, self.resume, self.cancel, self._said]
        grid = ipywidgets.GridBox(
            [*self._panels.values()],
            layout=ipywidgets.Layout(grid_template_columns="repeat(auto-fit, minmax(420px, 1fr))"),
        )
        super().__init__([self._state, ipywidgets.HBox(buttons), grid, self._tail])
        self._closed = threading.Event()
        self.refresh()
        threading.Thread(target=self._follow, daemon=True, name=f"ftlab-job-{self._job.id}").start()

    def refresh(self) -> None:
        """Read what is new and redraw what changed."""
        # first the state: what is written after it is read by the next call, or there is no next
        self._job = trainers.status(self._ws, self._job)
        if self._history.last is not None and self._job.step < self._history.last.step:
            self._history = _History()  # the job has gone back to a checkpoint
        is_new = self._history.take(
            trainers.metrics(self._ws, self._job, after_step=self._history.step)
        )
        self._state.value = _state(self._job, self._history.last)
        self._tail.value = _tail(trainers.logs(self._ws, self._job, last=LOG_LINES))
        self.pause.disabled = self._job.state != "running"
        self.resume.disabled = self._job.state not in ("paused", "failed")
        self.cancel.disabled = self._job.is_over
        if is_new or not self._panels["loss"].value:
            for title, panel in self._panels.items():
                series = self._history.series(title)
                is_there = title in ALWAYS or any(item.points for item in series)
                panel.value = charts.lines(title, series) if is_there else ""
                panel.layout.display = None if is_there else "none"
        buttons = (self.pause, self.resume, self.cancel)
        for widget in (*buttons, self._state, self._tail, *self._panels.values()):
            keep_clicks(widget)

    def close(self) -> None:
        """Stop following and remove the view; the job goes on."""
        self._closed.set()
        super().close()

    def _button(self, verb: Callable[[Workspace, Job], Job], tooltip: str) -> Any:
        button = ipywidgets.Button(description=verb.__name__.capitalize(), tooltip=tooltip)
        button.on_click(self._do(verb))
        return button

    def _follow(self) -> None:
        # a failed job can be resumed, from here or from elsewhere
        while self._job.state not in ("completed", "cancelled") and not self._closed.wait(POLL_S):
            try:
                self.refresh()
            except KitError as error:
                self._say("alert", str(error))

    def _say(self, role: str, words: str) -> None:
        self._said.value = f'<span role="{role}">{html.escape(words)}</span>'

    def _do(self, verb: Callable[[Workspace, Job], Job]) -> Callable[[Any], None]:
        """Return a click that calls one verb in the background and says what came of it."""

        def act() -> None:
            try:
                self._say("status", f"requested: {verb.__name__}")
                self._say("status", verb(self._ws, self._job).state)
            except KitError as error:
                self._say("alert", str(error))

        return lambda _: threading.Thread(target=act, daemon=True).start()


def sentence(job: Job, last: Metric | None) -> str:
    """Return a job's state in one line."""
    parts = [f"Job {job.id} on {job.model} is {job.state}"]
    if job.total_steps:
        parts.append(f"step {job.step} of {job.total_steps}")
    if last is not None:
        parts.append(f"loss {show(last.loss)}")
        parts.append(f"{show(last.tokens_per_s)} tokens/s")
        if last.remaining_s and not job.is_over:
            parts.append(f"{duration(last.remaining_s)} left")
    parts += [words for words in (job.error, job.note) if words]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _state(job: Job, last: Metric | None) -> str:
    share = job.progress or 0.0
    bar = (
        f'<svg width="420" height="8" role="img" aria-label="{share:.0%} done">'
        f'<rect width="420" height="8" rx="4" fill="currentColor" fill-opacity="0.25"/>'
        f'<rect width="{420 * share:.0f}" height="8" rx="4" fill="{charts.COLOURS[0]}"/></svg>'
    )
    role = "alert" if job.state == "failed" else "status"
    return f'<div role="{role}"><b>{html.escape(sentence(job, last))}</b></div>{bar}'


def _tail(text: str) -> str:
    return f'<pre aria-label="log" style="font-size:11px;margin:4px 0">{html.escape(text)}</pre>'
