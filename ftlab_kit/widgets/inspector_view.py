"""A dataset to look into: what was refused and why, what its rows are like, each row, each change.

Where no one can click, the same pictures and tables stand below each other.
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
from ftlab_kit.widgets.display import Html, is_interactive, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

PAGE = 5  # rows at a time
STILL = 2  # rows where no one can turn pages
BRIEF = 240  # letters of a line in a table of many
LONG = 1500  # letters of a turn that are shown


def inspector(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    model: Model | str | None = None,
    max_length: int | None = None,
) -> "InspectorView | Html":
    """Return a view of a dataset version: its problems, its quality, its rows, and what changed.

    Args:
        model: The one to be trained, for lengths in its tokens.
        max_length: Where rows will be cut, in tokens; as a config has it if None.
    """
    version = datasets.get(ws, dataset)
    quality = datasets.quality(ws, version, model=model, max_length=max_length)
    if is_interactive():
        return InspectorView(ws, version, quality)
    aside = datasets.problems(ws, version)
    more = f"<p>… and {version.n_refused - PAGE} more</p>" if version.n_refused > PAGE else ""
    parts = {
        "What was set aside": problems_table(aside[:PAGE]) + more,
        "What it is like": _still_quality(quality),
        "Its first rows": "".join(
            _row(index, row) for index, row in enumerate(islice(datasets.rows(ws, version), STILL))
        ),
    }
    body = "".join(f"<h3>{title}</h3>{text}" for title, text in parts.items() if text)
    return Html(
        body, f"{version.dataset}: {version.n_rows} rows, quality {quality.score:.0f} of 100"
    )


def problems(report: Report | Rows[Problem]) -> Html:
    """Return what is wrong with lines as a table that shows each of them as it stands."""
    found = report.problems if isinstance(report, Report) else report
    n_all = report.n_refused if isinstance(report, Report) else len(found)
    words = f"{n_all} lines are refused"
    more = f"<p>… the first {len(found)} of {n_all}</p>" if n_all > len(found) else ""
    return Html(problems_table(found) + more if found else "<p>no line is refused</p>", words)


def problems_table(found: Sequence[Problem]) -> str:
    """Return problems as a table; a click on a line opens what it says."""
    if not found:
        return ""
    names = ("line", "field", "found", "expected", "cure")
    head = "".join(f"<th {CELL}>{name}</th>" for name in names)
    body = ""
    for item in found:
        place = f"{item.file}:{item.line}" if item.file else str(item.line)
        said = f"<pre>{html.escape((item.text or '–')[:BRIEF])}</pre>"
        first = f"<details><summary>{html.escape(place)}</summary>{said}</details>"
        rest = "".join(
            f"<td {CELL}>{html.escape(show(getattr(item, name)))}</td>" for name in names[1:]
        )
        body += f'<tr><td {CELL}><div style="white-space:nowrap">{first}</div></td>{rest}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _problem(item: Problem) -> str:
    """Return one problem, and below it the line that it is about."""
    said = "white-space:pre-wrap;overflow-wrap:anywhere"
    return f'{problems_table([item])}<pre style="{said}">{html.escape(item.text or "–")}</pre>'


def _parts(quality: Quality) -> list[tuple[str, float | None, str]]:
    return [
        (
            part.name,
            None if part.points is None else part.points / part.out_of,
            f"{show(part.points)} of {part.out_of:g}: {part.detail}",
        )
        for part in quality.parts
    ]


def _histograms(quality: Quality) -> list[bars.Histogram]:
    found = []
    if quality.lengths:
        found.append(
            bars.histogram("length", quality.lengths, unit="tokens", cut=quality.max_length)
        )
    if quality.losses:
        title = f"loss under {quality.model}"
        found.append(bars.histogram(title, quality.losses, unit="nats a token"))
    return found


def _score(quality: Quality) -> str:
    return f"quality {quality.score:.0f} of 100"


def _still_quality(quality: Quality) -> str:
    parts = _parts(quality)
    words = f"{_score(quality)}: {', '.join(f'{name} {said}' for name, _, said in parts)}"
    picture = bars.shares(_score(quality), parts, is_live=False)
    score = charts.still(picture, words, "quality", quality.parts._repr_html_() or "")
    return score + "".join(item.figure() for item in _histograms(quality)) + _facts(quality)


def _facts(quality: Quality) -> str:
    languages = ", ".join(f"{name} {percent(share)}" for name, share in quality.languages.items())
    said = "".join(f"<li>{html.escape(words)}</li>" for words in quality.advice)
    tables = ""
    for name in ("duplicates", "leaks", "personal", "outliers"):
        found = getattr(quality, name)
        if found:
            more = f" (the first {PAGE} of {len(found)})" if len(found) > PAGE else ""
            tables += f"<h5>{name}{more}</h5>{Rows(found[:PAGE])._repr_html_()}"
    return f"<p>languages: {html.escape(languages)}</p><ul>{said}</ul>{tables}"


def _samples(
    ws: Workspace, version: DatasetVersion, search: str, start: int
) -> tuple[str, int | None]:
    """Return a page of the rows that match, and from which row the next page begins."""
    pattern = re.compile(search, re.IGNORECASE)
    matching = (
        (index, row)
        for index, row in enumerate(datasets.rows(ws, version))
        if index >= start and (not search or any(map(pattern.search, _said(row))))
    )
    page = [*islice(matching, PAGE + 1)]
    text = "".join(_row(index, row) for index, row in page[:PAGE])
    return text or "<p>no row matches</p>", page[PAGE][0] if len(page) > PAGE else None


def _said(row: dict[str, Any]) -> list[str]:
    return [text for _, text in schema.texts(row)]


def _row(index: int, row: dict[str, Any]) -> str:
    turns = "".join(
        f"<tr><th {CELL}>{html.escape(role)}</th><td {CELL}>{_short(text)}</td></tr>"
        for role, text in schema.transcript(row)
    )
    known = (*schema.TURN_FIELDS, "text")
    rest = ", ".join(f"{name} {show(row[name])}" for name in row if name not in known)
    return f"<table><caption>row {index} {html.escape(rest)}</caption>{turns}</table>"


def _short(text: str) -> str:
    cut = text if len(text) <= LONG else f"{text[:LONG]} … {len(text) - LONG:,} letters more"
    return html.escape(cut).replace("\n", "<br/>")


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
        self.back = self._button("Back", lambda: self._turn_to(self._starts[:-1] or [0]))
        self.more = self._button("More", lambda: self._turn_to([*self._starts, self._next or 0]))
        self._rows, self._changes = ipywidgets.HTML(), ipywidgets.HTML()
        self._next: int | None = None
        pages = {
            "rows": ipywidgets.VBox(
                [ipywidgets.HBox([self.search, self.row, self.back, self.more]), self._rows]
            ),
            "problems": self._problems(),
            "quality": ipywidgets.HTML(
                bars.shares(_score(quality), _parts(quality))
                + "".join(item.picture() for item in _histograms(quality))
                + _facts(quality)
            ),
            "changes": self._diffs(),
        }
        super().__init__([*pages.values()], titles=[*pages])
        self._turn_to([0])

    def _button(self, name: str, act: Callable[[], None]) -> Any:
        button = ipywidgets.Button(description=name, tooltip=f"{name}: {PAGE} rows")
        button.on_click(lambda _: act())
        return button

    def _turn_to(self, starts: list[int]) -> None:
        """Show the page that begins at the last of these rows; the others lead back."""
        self._starts = starts
        try:
            self._rows.value, self._next = _samples(
                self._ws, self._version, self.search.value, starts[-1]
            )
        except re.error as error:
            words = f"{self.search.value!r} is no regular expression ({error})."
            self._rows.value = f'<span role="alert">{html.escape(words)}</span>'
            self._next = None
        self.more.disabled, self.back.disabled = self._next is None, len(starts) < 2
        for widget in (self.search, self.row, self.back, self.more, self._rows):
            work_around_ipykernel_7_4(widget)

    def _problems(self) -> Any:
        """Return the problems page: a field to choose one by, and the line that it is about."""
        found = datasets.problems(self._ws, self._version)
        if not found:
            return ipywidgets.HTML("<p>no line was set aside</p>")
        self.problem = ipywidgets.Select(
            options=[(f"line {item.line}: {item.field} is {item.got}", item) for item in found],
            rows=min(10, len(found)),
            layout=ipywidgets.Layout(width="100%"),
        )
        line = ipywidgets.HTML(_problem(found[0]))
        self.problem.observe(lambda change: _set(line, _problem(change["new"])), "value")
        return ipywidgets.VBox([self.problem, line])

    def _diffs(self) -> Any:
        others = [
            item
            for item in datasets.versions(self._ws, self._version.dataset)
            if item.id != self._version.id
        ]
        if not others:
            return ipywidgets.HTML("<p>there is no other version</p>")
        names = {f"version {item.id}, {item.side}, {item.n_rows} rows": item.id for item in others}
        self.other = ipywidgets.Dropdown(options=names, description="since", value=None)
        self.other.observe(lambda change: self._show_changes(change["new"]), "value")
        return ipywidgets.VBox([self.other, self._changes])

    def _show_changes(self, other: int | None) -> None:
        try:
            found = datasets.diff(self._ws, other, self._version) if other else None
            self._changes.value = found._repr_html_() if found else ""
        except KitError as error:
            self._changes.value = f'<span role="alert">{html.escape(str(error))}</span>'
        work_around_ipykernel_7_4(self.other)


def _set(widget: Any, text: str) -> None:
    widget.value = text
