"""A dataset to look into: refused lines and why, quality, each row, and what changed.

In a report the same pictures and tables stand one below the other.
"""

import html
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import ipywidgets

from ftlab_kit import datasets
from ftlab_kit.datasets import schema
from ftlab_kit.errors import KitError
from ftlab_kit.pictures import bars, charts
from ftlab_kit.records import (
    CELL,
    DatasetVersion,
    Model,
    Problem,
    Quality,
    Report,
    Rows,
    percent,
    show,
)
from ftlab_kit.widgets.display import (
    Html,
    alert,
    is_interactive,
    show_alert,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.workspace import Workspace

PAGE = 5  # rows at a time
REPORT_ROWS = 2  # rows of a report
MAX_LINE = 240  # letters of a refused line in a table
MAX_TURN = 1500  # letters of a turn that are shown
PROBLEM_COLUMNS = ("field", "got", "expected", "fix")


def inspector(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    model: Model | str | None = None,
    max_length: int | None = None,
) -> "InspectorView | Html":
    """Return a view of a dataset version: its problems, its quality, its rows, and what changed.

    Args:
        dataset: A version, its number, or a dataset's name for its newest version.
        model: The model that will be trained, to measure lengths in its tokens.
        max_length: Where rows will be cut, in tokens; None takes a config's default.

    Raises:
        NotFound: There is no such dataset or model.
    """
    version = datasets.get(ws, dataset)
    quality = datasets.quality(ws, version, model=model, max_length=max_length)
    if is_interactive():
        return InspectorView(ws, version, quality)
    problems = datasets.problems(ws, version)
    more = f"<p>… and {version.n_refused - PAGE} more</p>" if version.n_refused > PAGE else ""
    first_rows = islice(datasets.rows(ws, version), REPORT_ROWS)
    parts = {
        "Refused lines": problems_table(problems[:PAGE]) + more,
        "Quality": _quality_figures(quality),
        "First rows": "".join(_row(index, row) for index, row in enumerate(first_rows)),
    }
    markup = "".join(f"<h3>{title}</h3>{part}" for title, part in parts.items() if part)
    return Html(
        markup, f"{version.dataset}: {version.n_rows} rows, quality {quality.score:.0f} of 100"
    )


def problems(report: Report | Rows[Problem]) -> Html:
    """Return what is wrong with the lines of a file, each with the line itself.

    Args:
        report: What `datasets.validate` or `datasets.problems` returns.
    """
    rows = report.problems if isinstance(report, Report) else report
    n_refused = report.n_refused if isinstance(report, Report) else len(rows)
    more = f"<p>… the first {len(rows)} of {n_refused}</p>" if n_refused > len(rows) else ""
    markup = problems_table(rows) + more if rows else "<p>no line is refused</p>"
    return Html(markup, f"{n_refused} lines are refused")


def problems_table(problems: Sequence[Problem]) -> str:
    """Return problems as a table; a click on a line's number opens the line."""
    if not problems:
        return ""
    rows = []
    for item in problems:
        place = f"{item.file}:{item.line}" if item.file else str(item.line)
        line = f"<pre>{html.escape((item.text or show(None))[:MAX_LINE])}</pre>"
        folded = f"<details><summary>{html.escape(place)}</summary>{line}</details>"
        cells = [html.escape(show(getattr(item, name))) for name in PROBLEM_COLUMNS]
        rows.append([f'<div style="white-space:nowrap">{folded}</div>', *cells])
    return table(["line", *PROBLEM_COLUMNS], rows)


def _problem(item: Problem) -> str:
    """Return one problem, and below it the whole line."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere"
    line = html.escape(item.text or show(None))
    return f'{problems_table([item])}<pre style="{style}">{line}</pre>'


def _shares(quality: Quality) -> list[bars.Share]:
    return [
        bars.Share(
            part.name,
            None if part.points is None else part.points / part.out_of,
            f"{show(part.points)} of {part.out_of:g}: {part.detail}",
        )
        for part in quality.parts
    ]


def _histograms(quality: Quality) -> list[bars.Histogram]:
    histograms = []
    if quality.lengths:
        histograms.append(
            bars.histogram("length", quality.lengths, unit="tokens", cut=quality.max_length)
        )
    if quality.losses:
        title = f"loss under {quality.model}"
        histograms.append(bars.histogram(title, quality.losses, unit="nats a token"))
    return histograms


def _score(quality: Quality) -> str:
    return f"quality {quality.score:.0f} of 100"


def _quality_figures(quality: Quality) -> str:
    """Return a quality's pictures and tables for a report."""
    shares = _shares(quality)
    texts = ", ".join(f"{share.name} {share.text}" for share in shares)
    picture = bars.shares(_score(quality), shares, is_live=False)
    parts = quality.parts._repr_html_() or ""
    score = charts.still(picture, f"{_score(quality)}: {texts}", "quality", parts)
    return score + "".join(item.figure() for item in _histograms(quality)) + _details(quality)


def _details(quality: Quality) -> str:
    """Return languages, advice and the rows that stand out, as HTML."""
    languages = ", ".join(f"{name} {percent(share)}" for name, share in quality.languages.items())
    advice = "".join(f"<li>{html.escape(text)}</li>" for text in quality.advice)
    tables = ""
    for name in ("duplicates", "leaks", "personal", "outliers"):
        rows = getattr(quality, name)
        if rows:
            more = f" (the first {PAGE} of {len(rows)})" if len(rows) > PAGE else ""
            tables += f"<h5>{name}{more}</h5>{Rows(rows[:PAGE])._repr_html_()}"
    return f"<p>languages: {html.escape(languages)}</p><ul>{advice}</ul>{tables}"


def _page_of_rows(
    ws: Workspace, version: DatasetVersion, pattern: str, start: int
) -> tuple[str, int | None]:
    """Return a page of the rows that match, and the row that the next page starts with.

    Args:
        pattern: A regular expression that a text of the row must match; empty matches all.
        start: The first row that is looked at.
    """
    regex = re.compile(pattern, re.IGNORECASE)
    matches = (
        (index, row)
        for index, row in enumerate(datasets.rows(ws, version))
        if index >= start and (not pattern or any(map(regex.search, _texts(row))))
    )
    page = [*islice(matches, PAGE + 1)]
    markup = "".join(_row(index, row) for index, row in page[:PAGE])
    return markup or "<p>no row matches</p>", page[PAGE][0] if len(page) > PAGE else None


def _texts(row: dict[str, Any]) -> list[str]:
    return [text for _, text in schema.texts(row)]


def _row(index: int, row: dict[str, Any]) -> str:
    turns = "".join(
        f"<tr><th {CELL}>{html.escape(role)}</th><td {CELL}>{_cut(text)}</td></tr>"
        for role, text in schema.transcript(row)
    )
    in_turns = (*schema.TURN_FIELDS, "text")
    extra = ", ".join(f"{name} {show(row[name])}" for name in row if name not in in_turns)
    return f"<table><caption>row {index} {html.escape(extra)}</caption>{turns}</table>"


def _cut(text: str) -> str:
    n_more = len(text) - MAX_TURN
    shown = text if n_more <= 0 else f"{text[:MAX_TURN]} … {n_more:,} letters more"
    return html.escape(shown).replace("\n", "<br/>")


class InspectorView(ipywidgets.Tab):  # type: ignore[misc]
    """Four pages: rows, problems, quality, changes."""

    def __init__(self, ws: Workspace, version: DatasetVersion, quality: Quality) -> None:
        """Show a version with its quality."""
        self._ws, self._version = ws, version
        self._starts: list[int] = [0]
        self.search = ipywidgets.Text(
            placeholder="a word, or a regular expression", continuous_update=False
        )
        self.search.observe(lambda _: self._turn_to([0]), "value")
        self.row = ipywidgets.BoundedIntText(0, 0, version.n_rows - 1, description="row")
        self.row.observe(lambda change: self._turn_to([change["new"]]), "value")
        self.back = self._page_button("Previous", lambda: self._turn_to(self._starts[:-1] or [0]))
        self.more = self._page_button(
            "Next", lambda: self._turn_to([*self._starts, self._next or 0])
        )
        self._rows, self._changes = ipywidgets.HTML(), ipywidgets.HTML()
        self._next: int | None = None
        controls = ipywidgets.HBox([self.search, self.row, self.back, self.more])
        pages = {
            "rows": ipywidgets.VBox([controls, self._rows]),
            "problems": self._problems_page(),
            "quality": ipywidgets.HTML(
                bars.shares(_score(quality), _shares(quality))
                + "".join(item.picture() for item in _histograms(quality))
                + _details(quality)
            ),
            "changes": self._changes_page(),
        }
        super().__init__([*pages.values()], titles=[*pages])
        self._turn_to([0])

    def _page_button(self, name: str, act: Callable[[], None]) -> Any:
        button = ipywidgets.Button(description=name, tooltip=f"{name} {PAGE} rows")
        button.on_click(lambda _: act())
        return button

    def _turn_to(self, starts: list[int]) -> None:
        """Show the page that starts with the last of these rows; the others are the way back."""
        self._starts = starts
        try:
            self._rows.value, self._next = _page_of_rows(
                self._ws, self._version, self.search.value, starts[-1]
            )
        except re.error as error:
            pattern = self.search.value
            self._rows.value = alert(
                f"{pattern!r} is not a valid regular expression ({error}). Correct it, or put a "
                "backslash before each of its signs."
            )
            self._next = None
        self.more.disabled, self.back.disabled = self._next is None, len(starts) < 2
        work_around_ipykernel_7_4(self.search, self.row, self.back, self.more, self._rows)

    def _problems_page(self) -> Any:
        """Return the problems page: a list to choose a problem from, and the line it is about."""
        problems = datasets.problems(self._ws, self._version)
        if not problems:
            return ipywidgets.HTML("<p>no line was refused</p>")
        self.problem = ipywidgets.Select(
            options=[(f"line {item.line}: {item.field} is {item.got}", item) for item in problems],
            rows=min(10, len(problems)),
            layout=ipywidgets.Layout(width="100%"),
        )
        line = ipywidgets.HTML(_problem(problems[0]))
        self.problem.observe(lambda change: _set(line, _problem(change["new"])), "value")
        return ipywidgets.VBox([self.problem, line])

    def _changes_page(self) -> Any:
        others = [
            item
            for item in datasets.versions(self._ws, self._version.dataset)
            if item.id != self._version.id
        ]
        if not others:
            return ipywidgets.HTML("<p>there is no other version to compare with</p>")
        names = {f"version {item.id}, {item.side}, {item.n_rows} rows": item.id for item in others}
        self.other = ipywidgets.Dropdown(options=names, description="since", value=None)
        self.other.observe(lambda change: self._show_changes(change["new"]), "value")
        return ipywidgets.VBox([self.other, self._changes])

    def _show_changes(self, other: int | None) -> None:
        try:
            diff = datasets.diff(self._ws, other, self._version) if other else None
            self._changes.value = diff._repr_html_() if diff else ""
        except KitError as error:
            show_alert(self._changes, str(error))
        work_around_ipykernel_7_4(self.other)


def _set(widget: Any, text: str) -> None:
    widget.value = text
