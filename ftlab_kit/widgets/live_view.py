"""The live view of a job: a thread of its own reads the store and redraws what is new.

The worker does not know of it, so nothing here can slow the training down. A click leaves a command
in the job's mailbox; the view shows it as requested until the worker has confirmed it.
"""

import html
import threading
from collections.abc import Callable
from itertools import cycle
from typing import Any

import ipywidgets

from ftlab_kit import checkpoints, configs, trainers
from ftlab_kit.errors import KitError
from ftlab_kit.jobs import states
from ftlab_kit.pictures import charts, job_panels
from ftlab_kit.records import Checkpoint, Event, Job, Rows
from ftlab_kit.trainers import generations
from ftlab_kit.widgets.display import (
    button,
    show_alert,
    show_status,
    work_around_ipykernel_7_4,
)
from ftlab_kit.widgets.fields import Fields
from ftlab_kit.widgets.history import History
from ftlab_kit.widgets.job_state import state_line
from ftlab_kit.widgets.sample_answers import latest_answers
from ftlab_kit.workspace import Workspace

POLL_S = 1.0
LOG_LINES = 8
SMOOTHING = 0.6
# panels that are shown before they have data
ALWAYS = frozenset(job_panels.PANELS) - {"utilisation", "reward", "preference", "sample answers"}
COMMANDS = ("pause", "resume", "checkpoint", "cancel", "adjust")
LIVE = [item["name"] for item in configs.settings() if item["live"]]


class TrainerView(ipywidgets.VBox):  # type: ignore[misc]
    """A job's state, curves, answers, checkpoints and log, and a button for each command."""

    def __init__(self, ws: Workspace, job: Job | int) -> None:
        """Show a job and follow it until it is over."""
        self._ws, self._job = ws, trainers.status(ws, job)
        self._lock = threading.RLock()  # the thread that follows, and whoever moves a slider
        self._history = History(ws, self._job)
        self._events: Rows[Event] = Rows()
        self._is_behind = False
        self._turn = cycle(range(3))  # which third of the panels is drawn beside the loss
        self._state, self._status = ipywidgets.HTML(), ipywidgets.HTML()
        self._panels = {title: ipywidgets.HTML() for title in job_panels.PANELS}
        self._pages = {
            title: ipywidgets.HTML() for title in ("log", "answers", "checkpoints", "events")
        }
        self._make_buttons()
        self._make_sliders()
        now = trainers.settings(ws, self._job, with_pending=True)
        self.fields = Fields(now, LIVE)
        super().__init__(self._layout())
        self._closed = threading.Event()
        self.refresh(whole=True)
        threading.Thread(target=self._follow, daemon=True, name=f"ftlab-job-{self._job.id}").start()

    def _layout(self) -> list[Any]:
        """Return state, buttons, sliders, panels and pages, from top to bottom."""
        adjust = ipywidgets.VBox([ipywidgets.HBox([self.adjust]), self.fields])
        grid = ipywidgets.GridBox(
            [*self._panels.values()],
            layout=ipywidgets.Layout(grid_template_columns="repeat(auto-fit, minmax(420px, 1fr))"),
        )
        tabs = ipywidgets.Tab([*self._pages.values(), adjust], titles=[*self._pages, "adjust"])
        buttons = ipywidgets.HBox(
            [self.pause, self.resume, self.checkpoint, self.cancel, self._status],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        return [self._state, buttons, ipywidgets.HBox([self.smoothing, self.steps]), grid, tabs]

    def refresh(self, *, whole: bool = False) -> None:
        """Read what is new, and redraw what changed: the loss each time, the others by thirds.

        Args:
            whole: Redraw everything.
        """
        with self._lock:
            # the state first: metrics written after it are read by the next call, or the job is
            # over and there are none
            self._job = trainers.status(self._ws, self._job)
            if self._history.last is not None and self._job.step < self._history.last.step:
                whole = True  # it went back to a checkpoint
                self._history = History(self._ws, self._job, steps=self._history.steps)
            is_new = self._history.add(
                trainers.metrics(self._ws, self._job, after_step=self._history.step)
            )
            is_steered = self._read_events()
            is_new = is_new or is_steered
            self._state.value = state_line(self._job, self._history.last)
            # once nothing new arrives, the panels that missed their turn are drawn too
            is_end = self._is_behind and not is_new
            turn = None if whole or is_end or self._job.is_over else next(self._turn)
            if is_new or turn is None:
                self._draw(turn)
                self._is_behind = turn is not None
            self._fill_pages(is_steered or turn is None, with_checkpoints=turn in (None, 0))
            self._set_controls()

    def close(self) -> None:
        """Stop following and remove the view; the job goes on."""
        self._closed.set()
        super().close()

    def _draw(self, turn: int | None) -> None:
        """Draw the loss, and the third of the other panels whose turn it is; None draws all."""
        marks = job_panels.marks(self._events)
        for number, (title, panel) in enumerate(self._panels.items()):
            if turn is not None and number and number % 3 != turn:
                continue
            series = self._history.series(title, self.smoothing.value)
            is_shown = title in ALWAYS or any(item.points for item in series)
            panel.value = charts.lines(title, series, marks=marks) if is_shown else ""
            panel.layout.display = None if is_shown else "none"

    def _read_events(self) -> bool:
        """Read the events if any has changed; return whether one has.

        There may be many, with long answers, so the newest one is looked at first.
        """
        newest = trainers.events(self._ws, self._job, last=1)
        is_waiting = any(event.state == "pending" for event in self._events)
        if not is_waiting and newest == self._events[-1:]:
            return False
        before, self._events = self._events, trainers.events(self._ws, self._job)
        return before != self._events

    def _fill_pages(self, is_steered: bool, *, with_checkpoints: bool) -> None:
        """Fill the log, and the pages that an event, a checkpoint or a score may have changed."""
        self._pages["log"].value = _log(trainers.logs(self._ws, self._job, last=LOG_LINES))
        if is_steered:
            self._pages["answers"].value = latest_answers(self._ws, self._job, n_steps=2)
            self._pages["events"].value = job_panels.events_list(
                self._events, without_author=generations.AUTHOR
            )
        if with_checkpoints:
            rows = checkpoints.list(self._ws, self._job.id)
            self._pages["checkpoints"].value = rows._repr_html_()

    def _set_controls(self) -> None:
        for name, widget in self._buttons.items():
            widget.disabled = self._job.state not in states.COMMANDS[name]
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

    def _make_buttons(self) -> None:
        make = self._button
        self.pause = make("Pause", "Stop after this step and free the device", trainers.pause)
        self.resume = make("Resume", "Continue as if nothing had happened", trainers.resume)
        self.checkpoint = make(
            "Checkpoint now", "Write a checkpoint after this step", trainers.checkpoint
        )
        self.cancel = make("Cancel", "End the job for good; its checkpoints stay", trainers.cancel)
        self.adjust = make("Adjust", "Train with these settings from the next step", self._adjust)
        self._buttons = {name: getattr(self, name) for name in COMMANDS}

    def _button(self, name: str, tooltip: str, verb: Callable[[Workspace, Job], Any]) -> Any:
        """Return a button that calls one verb, and shows the request and then its outcome."""

        def act() -> str:
            show_status(self._status, f"requested: {name.lower()}")
            return f"confirmed: {_outcome(verb(self._ws, self._job))}"

        return button(name, tooltip, act, self._status)

    def _adjust(self, ws: Workspace, job: Job) -> Event:
        """Request the fields' values that differ from the job's settings as they are now."""
        now = trainers.settings(ws, job, with_pending=True)
        settings = self.fields.settings()
        changes = {
            name: getattr(settings, name)
            for name in LIVE
            if getattr(settings, name) != getattr(now, name)
        }
        return trainers.adjust(ws, job, **changes)

    def _make_sliders(self) -> None:
        self.smoothing = ipywidgets.FloatSlider(
            SMOOTHING, min=0, max=0.98, step=0.02, description="smoothing", readout_format=".2f",
            tooltip="How much noise is taken out of the loss; 0 shows it raw",
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
        """Read the chosen steps again: the fewer they are, the finer the curves."""
        low, high = self.steps.value
        steps = (low or None, None if high >= self.steps.max else high)
        with self._lock:
            if steps != self._history.steps:
                self._history = History(self._ws, self._job, steps=steps)
                self._draw(None)

    def _follow(self) -> None:
        # not `is_over`: a failed job can be resumed, from here or from elsewhere
        while self._job.state not in ("completed", "cancelled") and not self._closed.wait(POLL_S):
            try:
                self.refresh()
            except KitError as error:
                show_alert(self._status, str(error))


def _outcome(result: Job | Event | Checkpoint) -> str:
    """Return what a verb returned, as text."""
    if isinstance(result, Job):
        return f"{result.state} at step {result.step}"
    if isinstance(result, Event):
        return job_panels.describe(result)
    return f"checkpoint at step {result.step}, {result.size_bytes / 1e6:.1f} MB"


def _log(text: str) -> str:
    return f'<pre aria-label="log" style="font-size:11px;margin:4px 0">{html.escape(text)}</pre>'
