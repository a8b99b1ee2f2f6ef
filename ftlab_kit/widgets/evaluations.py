"""Evaluations of the same rows side by side: scores with their intervals, answers, a verdict.

Answers are shown with what the later one says otherwise, word by word.
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from ftlab_kit import evaluators
from ftlab_kit.errors import InputError
from ftlab_kit.evaluators import verdicts
from ftlab_kit.pictures import charts
from ftlab_kit.records import CELL, Difference, Evaluation, Sample, Verdict, marked, show
from ftlab_kit.widgets.display import Html, is_interactive, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

ROW_HEIGHT, MIDDLE, SIDE = 34, 330, 130  # of the picture of a verdict
AS_THEY_STAND = "as they stand"


def comparison(ws: Workspace, *evaluations: Evaluation | int, n_samples: int = 3) -> Html:
    """Return the scores of some evaluations with 95% intervals, and their answers to some rows.

    Raises:
        InputError: None was given, or they scored different rows.
    """
    found = _same(ws, evaluations)
    scores = [{item.measure: item for item in evaluators.scores(ws, one)} for one in found]
    names = [name for name in scores[0] if all(name in other for other in scores)]
    body, words = [], []
    for name in names:
        each = [other[name] for other in scores]
        better = {True: "greater is better", False: "less is better"}
        body.append([name, *(_value(item.value, item.low, item.high) for item in each)])
        body[-1].append(better.get(bool(each[0].greater_is_better), ""))
        if each[0].greater_is_better is None:
            body[-1][-1] = ""
        said = " and ".join(show(item.value) for item in each)
        words.append(f"{name} ({body[-1][-1]}) {said}" if body[-1][-1] else f"{name} {said}")
    targets = [html.escape(one.target) for one in found]
    table = _table(["score, with its 95% interval", *targets, ""], body)
    return Html(table + answers_table(found, range(n_samples)), "; ".join(words))


def answers(ws: Workspace, *evaluations: Evaluation | int, n_samples: int = 3) -> Any:
    """Return the answers of some evaluations, row by row, to turn over; a few of them in a report.

    Raises:
        InputError: None was given, or they scored different rows.
    """
    if is_interactive():
        return AnswersView(ws, *evaluations)
    found = _same(ws, evaluations)
    return Html(answers_table(found, range(n_samples)), f"{n_samples} rows of {found[0].n_rows}")


def verdict(found: Verdict, *, n_rows: int = 5) -> Html:
    """Return a verdict as a picture of its intervals, and the rows that changed most."""
    known = [item for item in found.differences if item.low is not None]
    picture = ""
    if known:
        said = f"differences: {found.message}"
        table = _table(
            ["measure", "before", "after", "difference", "interval", "rows", "verdict"],
            [_line(item) for item in found.differences],
        )
        picture = charts.still(_intervals(known, said), said, "the verdict", table)
    rows = [
        [
            str(row.row),
            f"{html.escape(row.measure)} {show(row.was)} to {show(row.now)}",
            _said(html.escape(row.prompt)),
            _said(html.escape(row.reference)),
            _said(marked(row.before or "", row.after or "")),
        ]
        for row in found.changed[:n_rows]
    ]
    head = ["row", "score", "asked", "reference", "answer, as it changed"]
    moved = f"<h3>rows that changed most</h3>{_table(head, rows)}" if rows else ""
    return Html(f"<p>{html.escape(found.message)}</p>{picture}{moved}", found.message)


class AnswersView(ipywidgets.VBox):  # type: ignore[misc]
    """Answers of the same rows by several models, a page at a time, in an order of choice."""

    PAGE = 3

    def __init__(self, ws: Workspace, *evaluations: Evaluation | int) -> None:
        """Show the first page."""
        self._found = _same(ws, evaluations)
        names = [*self._found[0].samples[0].scores] if self._found[0].samples else []
        self.order = ipywidgets.Dropdown(
            options=[AS_THEY_STAND, *(f"most changed by {name}" for name in names)],
            description="rows",
        )
        self.page = ipywidgets.BoundedIntText(
            1, min=1, max=max(1, -(-self._found[0].n_rows // self.PAGE)), description="page"
        )
        self._table = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.order, self.page]), self._table])
        for widget in (self.order, self.page):
            widget.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Show the rows that are asked for."""
        start = (self.page.value - 1) * self.PAGE
        rows = self._order()[start : start + self.PAGE]
        self._table.value = answers_table(self._found, rows)
        work_around_ipykernel_7_4(self._table)

    def _order(self) -> list[int]:
        rows = [*range(self._found[0].n_rows)]
        if self.order.value == AS_THEY_STAND:
            return rows
        name = self.order.value.removeprefix("most changed by ")
        first, last = self._found[0].samples, self._found[-1].samples

        def change(row: int) -> float:
            was, now = first[row].scores.get(name), last[row].scores.get(name)
            return 0.0 if was is None or now is None else -abs(now - was)

        return sorted(rows, key=change)


def answers_table(found: Sequence[Evaluation], rows: Sequence[int]) -> str:
    """Return some rows of evaluations as a table: asked, reference, and each one's answer."""
    head = ["row", "asked", "reference", *(html.escape(one.target) for one in found)]
    body = []
    for row in rows:
        samples = [one.samples[row] for one in found if row < len(one.samples)]
        if len(samples) == len(found) and any(item.answer is not None for item in samples):
            first = samples[0]
            said = [_said(html.escape(text)) for text in (first.prompt, first.reference)]
            cells = [str(row), *said]
            body.append([*cells, _answer(first, None)])
            body[-1] += [_answer(item, first) for item in samples[1:]]
    return _table(head, body) if body else ""


def _answer(sample: Sample, before: Sample | None) -> str:
    if sample.answer is None:
        return show(None)
    if before is None or before.answer is None:
        text = html.escape(sample.answer)
    else:
        text = marked(before.answer, sample.answer)
    scores = ", ".join(f"{name} {show(value)}" for name, value in sample.scores.items())
    cut = "" if sample.is_complete is not False else ", cut"
    return f"{_said(text)}<small>{html.escape(scores + cut)}</small>"


def _said(text: str) -> str:
    """Return what someone said, with the lines that it has."""
    return f'<div style="white-space:pre-wrap">{text}</div>' if "\n" in text else f"<p>{text}</p>"


def _same(ws: Workspace, evaluations: Sequence[Evaluation | int]) -> list[Evaluation]:
    """Return evaluations of the same rows.

    Raises:
        InputError: There is none, or they scored different rows.
    """
    found = [one if isinstance(one, Evaluation) else evaluators.get(ws, one) for one in evaluations]
    if not found:
        raise InputError("No evaluation was given; expected one or more. Name them after ws.")
    verdicts.check_same(found)
    return found


def _value(value: float | None, low: float | None, high: float | None) -> str:
    return show(value) if low is None else f"{show(value)} ({show(low)} to {show(high)})"


def _line(item: Difference) -> list[str]:
    bounds = "–" if item.low is None else f"{show(item.low)} to {show(item.high)}"
    names = f"{item.measure}, {item.after} against {item.before}"
    numbers = [show(item.was), show(item.now), show(item.difference), bounds, str(item.n)]
    return [html.escape(names), *numbers, item.verdict]


def _intervals(found: Sequence[Difference], words: str) -> str:
    """Return the intervals of differences around 0, each on a scale of its own, as SVG text."""
    width, height = 2 * charts.WIDTH, 30 + ROW_HEIGHT * len(found) + 14
    head = charts.begin("differences, each on its own scale", words, (width, height), is_live=False)
    ink = charts.STILL
    zero = (
        f'<line x1="{MIDDLE}" x2="{MIDDLE}" y1="26" y2="{height - 16}" stroke="{ink}" '
        f'stroke-dasharray="2 2"/><text x="{MIDDLE}" y="{height - 4}" fill="{ink}" '
        'text-anchor="middle">no difference</text>'
    )
    return head + zero + "".join(_bar(at, item) for at, item in enumerate(found)) + "</svg>"


def _bar(at: int, item: Difference) -> str:
    assert item.low is not None and item.high is not None and item.difference is not None
    scale = SIDE / (max(abs(item.low), abs(item.high), abs(item.difference)) or 1.0)
    low, high, middle = (MIDDLE + scale * x for x in (item.low, item.high, item.difference))
    y, ink = 42 + ROW_HEIGHT * at, charts.STILL
    colour = {"better": charts.COLOURS[2], "worse": charts.COLOURS[1]}.get(item.verdict, ink)
    numbers = f"{show(item.was)} → {show(item.now)}, {show(item.low)} to {show(item.high)}"
    return (
        f'<text x="{charts.LEFT + 130}" y="{y}" fill="{ink}" text-anchor="end" font-weight="600">'
        f'{html.escape(item.measure)}</text><text x="{charts.LEFT + 130}" y="{y + 12}" '
        f'fill="{ink}" text-anchor="end">{html.escape(item.after[:26])}</text>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
        f'stroke-width="3"/><circle cx="{middle:.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
        f'<text x="{MIDDLE + SIDE + 16}" y="{y}" fill="{ink}" font-weight="600">'
        f'{html.escape(item.verdict)}</text><text x="{MIDDLE + SIDE + 16}" y="{y + 12}" '
        f'fill="{ink}">{html.escape(numbers)}</text>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    top = "".join(f"<th {CELL}>{name}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
