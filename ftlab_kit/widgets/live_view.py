"""The live view of a job: it tails the store from a thread of its own.

The worker does not know that it exists, so that nothing here can stand in the training's way; what
a click asks for is a row in the job's mailbox, shown as requested until the worker confirms it.
"""

import html
import threading
from collections.abc import Callable
from itertools import cycle
from typing import Any

import ipywidgets

from ftlab_kit import checkpoints, configs, trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import KitError
from ftlab_kit.jobs import states
from ftlab_kit.pictures import charts
from ftlab_kit.records import Event, Job, Metric, Rows, show
from ftlab_kit.widgets import panels
from ftlab_kit.widgets.display import button, say, work_around_ipykernel_7_4
from ftlab_kit.widgets.fields import Fields
from ftlab_kit.widgets.sample_answers import answers_of
from ftlab_kit.workspace import Workspace

POLL_S = 1.0
LOG_LINES = 8
SMOOTHING = 0.6
ALWAYS = frozenset(panels.PANELS) - {"utilisation", "reward", "preference", "sample answers"}
COMMANDS = ("pause", "resume", "checkpoint", "cancel", "adjust")
LIVE = [item["name"] for item in configs.settings() if item["live"]]


class TrainerView(ipywidgets.VBox):  # type: ignore[misc]
    """A job's state, curves, answers, checkpoints and log, and a button for each command."""

    def __init__(self, ws: Workspace, job: Job | int) -> None:
        """Show a job and follow it until it is over."""
        self._ws, self._job = ws, trainers.status(ws, job)
        self._lock = threading.RLock()  # the thread that follows, and whoever moves a slider
        self._history = panels.History(ws, self._job)
        self._events: Rows[Event] = Rows()
        self._is_behind = False
        self._turn = cycle(range(3))  # what is drawn beside the loss
        self._state, self._said = ipywidgets.HTML(), ipywidgets.HTML()
        self._panels = {title: ipywidgets.HTML() for title in panels.PANELS}
        self._pages = {
            title: ipywidgets.HTML() for title in ("log", "answers", "checkpoints", "events")
        }
        self._make_buttons()
        self._make_sliders()
        now = _settings_now(self._job, trainers.events(ws, self._job))
        self.fields = Fields(now, LIVE)
        adjust = ipywidgets.VBox([ipywidgets.HBox([self.adjust]), self.fields])
        grid = ipywidgets.GridBox(
            [*self._panels.values()],
            layout=ipywidgets.Layout(grid_template_columns="repeat(auto-fit, minmax(420px, 1fr))"),
        )
        tabs = ipywidgets.Tab([*self._pages.values(), adjust], titles=[*self._pages, "adjust"])
        buttons = ipywidgets.HBox(
            [self.pause, self.resume, self.checkpoint, self.cancel, self._said],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        sliders = ipywidgets.HBox([self.smoothing, self.steps])
        super().__init__([self._state, buttons, sliders, grid, tabs])
        self._closed = threading.Event()
        self.refresh(whole=True)
        threading.Thread(target=self._follow, daemon=True, name=f"ftlab-job-{self._job.id}").start()

    def refresh(self, *, whole: bool = False) -> None:
        """Read what is new and redraw what changed: the loss, and every third time the others.

        Args:
            whole: Redraw all.
        """
        with self._lock:
            # first the state: what is written after it is read by the next call, or there is none
            self._job = trainers.status(self._ws, self._job)
            if self._history.last is not None and self._job.step < self._history.last.step:
                within, whole = self._history.within, True  # it went back to a checkpoint
                self._history = panels.History(self._ws, self._job, within=within)
            is_new = self._history.take(
                trainers.metrics(self._ws, self._job, after_step=self._history.step)
            )
            is_steered = self._read_events()
            is_new = is_new or is_steered
            self._state.value = _state(self._job, self._history.last)
            # when nothing comes any more, those whose turn it was not are drawn too
            is_end = self._is_behind and not is_new
            turn = None if whole or is_end or self._job.is_over else next(self._turn)
            if is_new or turn is None:
                self._draw(turn)
                self._is_behind = turn is not None
            self._fill_pages(is_steered or turn is None, is_kept=turn in (None, 0))
            self._set_controls()

    def close(self) -> None:
        """Stop following and remove the view; the job goes on."""
        self._closed.set()
        super().close()

    def _draw(self, turn: int | None) -> None:
        """Draw the loss, and of the other panels those whose turn it is; None draws all."""
        marks = panels.marks(self._events)
        for number, (title, panel) in enumerate(self._panels.items()):
            if turn is not None and number and number % 3 != turn:
                continue
            series = self._history.series(title, self.smoothing.value)
            is_there = title in ALWAYS or any(item.points for item in series)
            panel.value = charts.lines(title, series, marks=marks) if is_there else ""
            panel.layout.display = None if is_there else "none"

    def _read_events(self) -> bool:
        """Read the events again where something has come of one; return whether it has.

        All of them may be many, with long answers: so the newest is looked at first.
        """
        newest = trainers.events(self._ws, self._job, last=1)
        is_waiting = any(event.state == "pending" for event in self._events)
        if not is_waiting and newest == self._events[-1:]:
            return False
        before, self._events = self._events, trainers.events(self._ws, self._job)
        return before != self._events

    def _fill_pages(self, is_steered: bool, *, is_kept: bool) -> None:
        """Fill the log, and what may have changed: by an event, or by a checkpoint or its score."""
        self._pages["log"].value = _tail(trainers.logs(self._ws, self._job, last=LOG_LINES))
        if is_steered:
            self._pages["answers"].value = answers_of(self._ws, self._job, n_steps=2)
            self._pages["events"].value = panels.events_list(self._events)
        if is_kept:
            kept = checkpoints.list(self._ws, self._job.id)
            self._pages["checkpoints"].value = kept._repr_html_()

    def _set_controls(self) -> None:
        state = self._job.state
        for name, made in self._buttons.items():
            made.disabled = state not in states.COMMANDS[name]
        newest = max(1, self._job.step)
        if newest > self.steps.max:
            low, high = self.steps.value
            follows = high >= self.steps.max
            self.steps.max = newest
            self.steps.value = (low, newest if follows else high)
        work_around_ipykernel_7_4(
            self._state, self.adjust, self.smoothing, self.steps, *self.fields.field.values()
        )
        work_around_ipykernel_7_4(
            *self._buttons.values(), *self._pages.values(), *self._panels.values()
        )

    # --- controls -----------------------------------------------------------------------------

    def _make_buttons(self) -> None:
        make = self._button
        self.pause = make("Pause", "Stop after this step and free the device", trainers.pause)
        self.resume = make("Resume", "Go on as if nothing had happened", trainers.resume)
        self.checkpoint = make(
            "Checkpoint now", "Write a checkpoint after this step", trainers.checkpoint
        )
        self.cancel = make(
            "Cancel", "End the job for good; its checkpoints are kept", trainers.cancel
        )
        self.adjust = make(
            "Adjust", "Go on with these settings from the next step on", self._adjusted
        )
        self._buttons = {name: getattr(self, name) for name in COMMANDS}

    def _button(self, name: str, tooltip: str, verb: Callable[[Workspace, Job], Any]) -> Any:
        """Return a button that calls one verb and says what was asked, and what came of it."""

        def act() -> str:
            say(self._said, "status", f"requested: {name.lower()}")
            return f"confirmed: {_came_of(verb(self._ws, self._job))}"

        return button(name, tooltip, act, self._said)

    def _adjusted(self, ws: Workspace, job: Job) -> Event:
        """Ask for what the fields say otherwise than the job's settings as they are now."""
        now = _settings_now(job, trainers.events(ws, job))
        wanted = self.fields.settings()
        changes = {
            name: getattr(wanted, name)
            for name in LIVE
            if getattr(wanted, name) != getattr(now, name)
        }
        return trainers.adjust(ws, job, **changes)

    def _make_sliders(self) -> None:
        self.smoothing = ipywidgets.FloatSlider(
            SMOOTHING, min=0, max=0.98, step=0.02, description="smoothing", readout_format=".2f",
            tooltip="How much of the loss's noise is taken out; 0 shows it raw",
        )  # fmt: skip
        newest = max(1, self._job.step)
        self.steps = ipywidgets.IntRangeSlider(
            value=(0, newest), min=0, max=newest, description="steps", continuous_update=False,
            tooltip="The steps that the curves show; at its right end they follow the job",
        )  # fmt: skip
        self.smoothing.observe(lambda _: self._redraw(), "value")
        self.steps.observe(lambda _: self._reread(), "value")

    def _redraw(self) -> None:
        with self._lock:
            self._draw(None)

    def _reread(self) -> None:
        """Read the chosen steps again, in the detail that they deserve."""
        low, high = self.steps.value
        within = (low or None, None if high >= self.steps.max else high)
        with self._lock:
            if within != self._history.within:
                self._history = panels.History(self._ws, self._job, within=within)
                self._draw(None)

    def _follow(self) -> None:
        # a failed job can be resumed, from here or from elsewhere
        while self._job.state not in ("completed", "cancelled") and not self._closed.wait(POLL_S):
            try:
                self.refresh()
            except KitError as error:
                say(self._said, "alert", str(error))


def _settings_now(job: Job, events: Rows[Event]) -> Config:
    """Return a job's settings with the adjustments that it has taken, or will take."""
    config = Config(**job.config)
    for event in events:
        if event.command == "adjust" and event.state in ("applied", "pending"):
            config = config.but(**(event.arguments or {}))
    return config


def _came_of(result: Any) -> str:
    """Return in words what a verb has left behind."""
    if isinstance(result, Job):
        return f"{result.state} at step {result.step}"
    if isinstance(result, Event):
        return panels.told(result)
    return f"checkpoint at step {result.step}, {result.size_bytes / 1e6:.1f} MB"


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
