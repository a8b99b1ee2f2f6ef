"""All jobs of a workspace in a table with small curves, to filter, to compare and to open.

Jobs side by side: their curves in one picture, what differs in their settings, and who won.
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from ftlab_kit import analytics, datasets, trainers
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.jobs import states
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import CELL, Curve, Job, show
from ftlab_kit.widgets.display import Html, button, is_interactive, say, work_around_ipykernel_7_4
from ftlab_kit.widgets.job_curves import measured, picture
from ftlab_kit.widgets.live_view import TrainerView, duration
from ftlab_kit.workspace import Workspace

PICTURES = {"loss": "loss", "held-out loss": "eval_loss"}
COLUMNS = ("job", "state", "model", "rows", "step", "loss", "", "held out", "took", "made")
WHOLE = {"flex": "1 1 0%", "min_width": "0"}
TICK = {"width": "78px"}
STRETCHES = 40  # of a small curve
PAGE = 12  # jobs at a time
STILL = 50  # jobs of a report
ANY = "any state"


def jobs(ws: Workspace, *jobs: Job | int) -> "JobsView | Html":
    """Return all jobs as a table with small curves, to filter, compare and open.

    With two or more jobs named, return those side by side in pictures and tables: losses, settings
    that differ, and winners.

    Raises:
        InputError: One job alone, or one of them twice.
    """
    if jobs:
        return side_by_side(ws, *jobs)
    if is_interactive():
        return JobsView(ws)
    found = trainers.list(ws)
    head = "".join(f"<th {CELL}>{name}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in _cells(ws, job, is_live=False))}</tr>"
        for job in found[:STILL]
    )
    more = f"<p>… and {len(found) - STILL} more</p>" if len(found) > STILL else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    return Html(table if found else "<p>no jobs yet</p>", f"{len(found)} jobs")


def side_by_side(ws: Workspace, *jobs: Job | int) -> Html:
    """Return jobs in pictures and tables: losses, settings that differ, and winners."""
    found = analytics.compare(ws, *jobs)
    pictures = []
    for title, metric in PICTURES.items():
        values = [measured(ws, job, metric) for job in found.jobs]
        if any(values):
            pictures.append(picture(title, found.jobs, values))
    return Html(charts.in_pairs(pictures) + (found._repr_html_() or ""), found.message)


def _cells(ws: Workspace, job: Job, *, is_live: bool) -> list[str]:
    """Return the cells of a job as HTML, in the order of the columns."""
    loss, held_out = trainers.curves(ws, job, "loss", "eval_loss", at_most=STRETCHES)
    words = f"loss of job {job.id} from {show(loss.start)} to {show(loss.end)}"
    small = charts.spark(words, Trace(loss).points()) if loss.stretches else ""
    curve = small if is_live or not small else charts.image(small, words)
    took = None
    if job.started_at and job.finished_at:
        took = duration((job.finished_at - job.started_at).total_seconds())
    texts = [job.id, job.state, job.model, _rows(ws, job), f"{job.step} of {show(job.total_steps)}"]
    cells = [html.escape(show(text)) for text in texts]
    return [*cells, curve, *_ends(loss, held_out), show(took), f"{job.created_at:%m-%d %H:%M}"]


def _ends(loss: Curve, held_out: Curve) -> list[str]:
    return [f"{show(loss.start)} → {show(loss.end)}", show(held_out.end)]


def _rows(ws: Workspace, job: Job) -> str:
    try:
        version = datasets.get(ws, job.dataset_version_id)
    except NotFound:
        return f"version {job.dataset_version_id}, deleted"
    return f"{version.dataset}, {version.side}, {version.n_rows}"


class JobsView(ipywidgets.VBox):  # type: ignore[misc]
    """A table of jobs, a page at a time; what is ticked can be compared or opened below it."""

    def __init__(self, ws: Workspace) -> None:
        """Show the newest jobs."""
        self._ws = ws
        self._found: Sequence[Job] = ()
        self.state = ipywidgets.Dropdown(options=[ANY, *states.STATES], description="state")
        self.search = ipywidgets.Text(
            placeholder="a word of model or rows", description="search", continuous_update=False
        )
        self.page = ipywidgets.BoundedIntText(1, min=1, max=1, description="page")
        self._table, self._below = ipywidgets.VBox(), ipywidgets.VBox()
        self._said = said = ipywidgets.HTML()
        self.again = button("Refresh", "Read the jobs again", self.refresh, said)
        self.compare = button("Compare", "The ticked jobs side by side", self._compare_ticked, said)
        self.show_one = button("Open", "The ticked job's live view", self._open_ticked, said)
        self.ticks: dict[int, Any] = {}
        filters = ipywidgets.HBox([self.state, self.search, self.page])
        buttons = ipywidgets.HBox([self.again, self.compare, self.show_one, self._said])
        super().__init__([filters, self._table, buttons, self._below])
        for field in (self.state, self.search, self.page):
            field.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Read the jobs again and show those that are asked for."""
        self._found = [job for job in trainers.list(self._ws) if self._is_wanted(job)]
        self.page.max = max(1, -(-len(self._found) // PAGE))
        start = (self.page.value - 1) * PAGE
        shown = self._found[start : start + PAGE]
        before = {number for number, tick in self.ticks.items() if tick.value}
        old = self._table.children
        self.ticks = {job.id: self._tick(job, before) for job in shown}
        lines = [
            ipywidgets.HBox([self.ticks[job.id], ipywidgets.HTML(self._line(job), layout=WHOLE)])
            for job in shown
        ]
        names = ipywidgets.HTML(_grid(COLUMNS[1:], is_head=True), layout=WHOLE)
        head = ipywidgets.HBox([ipywidgets.HTML("<b>job</b>", layout=TICK), names])
        self._table.children = [head, *lines]
        for line in old:  # what is not shown any more would stay in the page's memory
            for part in getattr(line, "children", ()):
                part.close()
            line.close()
        say(self._said, "status", f"{len(self._found)} jobs")
        work_around_ipykernel_7_4(
            self.state, self.search, self.page, self.again, self.compare, self.show_one
        )

    def _is_wanted(self, job: Job) -> bool:
        words = f"{job.id} {job.model} {_rows(self._ws, job)}".lower()
        is_in_state = self.state.value in (ANY, job.state)
        return is_in_state and self.search.value.strip().lower() in words

    def _tick(self, job: Job, before: set[int]) -> Any:
        return ipywidgets.Checkbox(
            job.id in before,
            description=f"job {job.id}",
            indent=False,
            layout=TICK,
        )

    def _line(self, job: Job) -> str:
        return _grid(_cells(self._ws, job, is_live=True)[1:])

    def _ticked(self) -> list[int]:
        return sorted(number for number, tick in self.ticks.items() if tick.value)

    def _compare_ticked(self) -> None:
        self._show(ipywidgets.HTML(side_by_side(self._ws, *self._ticked()).text))

    def _open_ticked(self) -> None:
        ticked = self._ticked()
        if len(ticked) != 1:
            raise InputError(f"{len(ticked)} jobs are ticked; expected one. Tick one job.")
        self._show(TrainerView(self._ws, ticked[0]))

    def _show(self, widget: Any) -> None:
        old, self._below.children = self._below.children, (widget,)
        for item in old:
            item.close()


# of the columns after the first
WIDTHS = "74px minmax(60px,1.2fr) minmax(60px,1.3fr) 82px 112px 96px 58px 74px 78px"


def _grid(cells: Sequence[str], *, is_head: bool = False) -> str:
    """Return cells in columns of the same widths, so that lines stand below each other."""
    tag = "b" if is_head else "span"
    parts = "".join(f'<{tag} style="overflow-wrap:anywhere">{cell}</{tag}>' for cell in cells)
    looks = "display:grid;align-items:center;line-height:1.25;column-gap:8px;font-size:12px"
    return f'<div style="{looks};grid-template-columns:{WIDTHS}">{parts}</div>'
