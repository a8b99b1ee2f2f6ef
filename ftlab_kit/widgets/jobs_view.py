"""All jobs of a workspace in a table with small curves, to filter, to compare and to open.

Jobs side by side: their curves in one picture, what differs in their settings, and which is best.
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from ftlab_kit import analytics, datasets, trainers
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.jobs import states
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.links import plural
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import Curve, Job, show
from ftlab_kit.widgets.display import (
    Html,
    button,
    is_interactive,
    show_status,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.widgets.job_curves import by_step, figure
from ftlab_kit.widgets.job_state import duration
from ftlab_kit.widgets.live_view import TrainerView
from ftlab_kit.workspace import Workspace

PICTURES = {"loss": "loss", "held-out loss": "eval_loss"}
COLUMNS = ("job", "state", "model", "rows", "step", "loss", "", "held out", "took", "created")
WIDTHS = "74px minmax(60px,1.2fr) minmax(60px,1.3fr) 82px 112px 96px 58px 74px 78px"  # without job
WHOLE = {"flex": "1 1 0%", "min_width": "0"}
TICK = {"width": "78px"}
CURVE_BUCKETS = 40  # of a small curve
PAGE = 12  # jobs at a time
REPORT_JOBS = 50  # jobs of a report
ANY = "any state"


def jobs(ws: Workspace, *jobs: Job | int) -> "JobsView | Html":
    """Return all jobs as a table with small curves, to filter, compare and open.

    Args:
        jobs: Two or more jobs are shown side by side instead: losses, settings that differ, and
            which is best.

    Raises:
        InputError: Only one job was given, or one of them twice.
        NotFound: There is no such job.
    """
    if jobs:
        return side_by_side(ws, *jobs)
    if is_interactive():
        return JobsView(ws)
    rows = trainers.list(ws)
    if not rows:
        return Html("<p>no jobs yet</p>", "0 jobs")
    markup = table(COLUMNS, [_cells(ws, job, is_live=False) for job in rows[:REPORT_JOBS]])
    more = f"<p>… and {len(rows) - REPORT_JOBS} more</p>" if len(rows) > REPORT_JOBS else ""
    return Html(markup + more, plural(len(rows), "job", "jobs"))


def side_by_side(ws: Workspace, *jobs: Job | int) -> Html:
    """Return jobs in pictures and tables: losses, settings that differ, and which is best.

    Raises:
        InputError: Only one job was given, or one of them twice.
    """
    comparison = analytics.compare(ws, *jobs)
    pictures = []
    for title, metric in PICTURES.items():
        values = [by_step(ws, job, metric) for job in comparison.jobs]
        if any(values):
            pictures.append(figure(title, comparison.jobs, values))
    markup = charts.in_pairs(pictures) + (comparison._repr_html_() or "")
    return Html(markup, comparison.message)


def _cells(ws: Workspace, job: Job, *, is_live: bool) -> list[str]:
    """Return the cells of a job as HTML, in the order of the columns."""
    loss, held_out = trainers.curves(ws, job, "loss", "eval_loss", at_most=CURVE_BUCKETS)
    alt_text = f"loss of job {job.id} from {show(loss.start)} to {show(loss.end)}"
    spark = charts.spark(alt_text, Trace(loss).points()) if loss.buckets else ""
    curve = spark if is_live or not spark else charts.image(spark, alt_text)
    took = None
    if job.started_at and job.finished_at:
        took = duration((job.finished_at - job.started_at).total_seconds())
    texts = [job.id, job.state, job.model, _rows(ws, job), f"{job.step} of {show(job.total_steps)}"]
    cells = [html.escape(show(text)) for text in texts]
    return [*cells, curve, *_losses(loss, held_out), show(took), f"{job.created_at:%m-%d %H:%M}"]


def _losses(loss: Curve, held_out: Curve) -> list[str]:
    return [f"{show(loss.start)} → {show(loss.end)}", show(held_out.end)]


def _rows(ws: Workspace, job: Job) -> str:
    try:
        version = datasets.get(ws, job.dataset_version_id)
    except NotFound:
        return f"version {job.dataset_version_id}, deleted"
    return f"{version.dataset}, {version.side}, {version.n_rows}"


class JobsView(ipywidgets.VBox):  # type: ignore[misc]
    """A table of jobs, a page at a time; ticked jobs can be compared or opened below it."""

    def __init__(self, ws: Workspace) -> None:
        """Show the newest jobs."""
        self._ws = ws
        self._jobs: Sequence[Job] = ()
        self.state = ipywidgets.Dropdown(options=[ANY, *states.STATES], description="state")
        self.search = ipywidgets.Text(
            placeholder="part of a model's or dataset's name",
            description="search",
            continuous_update=False,
        )
        self.page = ipywidgets.BoundedIntText(1, min=1, max=1, description="page")
        self._table, self._below = ipywidgets.VBox(), ipywidgets.VBox()
        self._status = line = ipywidgets.HTML()
        self.again = button("Refresh", "Read the jobs again", self.refresh, line)
        comparing = "Show the ticked jobs side by side"
        self.compare = button("Compare", comparing, self._compare_ticked, line)
        self.show_one = button("Open", "Open the ticked job's live view", self._open_ticked, line)
        self.ticks: dict[int, Any] = {}
        filters = ipywidgets.HBox([self.state, self.search, self.page])
        buttons = ipywidgets.HBox([self.again, self.compare, self.show_one, line])
        super().__init__([filters, self._table, buttons, self._below])
        for field in (self.state, self.search, self.page):
            field.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Read the jobs again, and show a page of those that match the filters."""
        self._jobs = [job for job in trainers.list(self._ws) if self._matches(job)]
        self.page.max = max(1, -(-len(self._jobs) // PAGE))
        start = (self.page.value - 1) * PAGE
        page = self._jobs[start : start + PAGE]
        ticked = {*self._ticked()}
        old = self._table.children
        self.ticks = {job.id: _tick(job, job.id in ticked) for job in page}
        lines = [
            ipywidgets.HBox([self.ticks[job.id], ipywidgets.HTML(self._line(job), layout=WHOLE)])
            for job in page
        ]
        names = ipywidgets.HTML(_grid(COLUMNS[1:], is_head=True), layout=WHOLE)
        head = ipywidgets.HBox([ipywidgets.HTML(f"<b>{COLUMNS[0]}</b>", layout=TICK), names])
        self._table.children = [head, *lines]
        for line in old:  # or the page would keep in memory what it no longer shows
            for part in getattr(line, "children", ()):
                part.close()
            line.close()
        show_status(self._status, plural(len(self._jobs), "job", "jobs"))
        work_around_ipykernel_7_4(
            self.state, self.search, self.page, self.again, self.compare, self.show_one
        )

    def _matches(self, job: Job) -> bool:
        text = f"{job.id} {job.model} {_rows(self._ws, job)}".lower()
        is_in_state = self.state.value in (ANY, job.state)
        return is_in_state and self.search.value.strip().lower() in text

    def _line(self, job: Job) -> str:
        return _grid(_cells(self._ws, job, is_live=True)[1:])

    def _ticked(self) -> list[int]:
        return sorted(number for number, tick in self.ticks.items() if tick.value)

    def _compare_ticked(self) -> None:
        self._show(ipywidgets.HTML(side_by_side(self._ws, *self._ticked()).markup))

    def _open_ticked(self) -> None:
        ticked = self._ticked()
        if len(ticked) != 1:
            raise InputError(f"{len(ticked)} jobs are ticked; expected one. Tick one job.")
        self._show(TrainerView(self._ws, ticked[0]))

    def _show(self, widget: Any) -> None:
        old, self._below.children = self._below.children, (widget,)
        for item in old:
            item.close()


def _tick(job: Job, is_ticked: bool) -> Any:
    return ipywidgets.Checkbox(is_ticked, description=f"job {job.id}", indent=False, layout=TICK)


def _grid(cells: Sequence[str], *, is_head: bool = False) -> str:
    """Return cells in columns of fixed widths, so that the lines of a table align."""
    tag = "b" if is_head else "span"
    parts = "".join(f'<{tag} style="overflow-wrap:anywhere">{cell}</{tag}>' for cell in cells)
    style = "display:grid;align-items:center;line-height:1.25;column-gap:8px;font-size:12px"
    return f'<div style="{style};grid-template-columns:{WIDTHS}">{parts}</div>'
