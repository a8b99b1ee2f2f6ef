"""Evaluations of the same rows side by side: scores with their intervals, answers, a verdict.

In an answer, what differs from the first model's answer is marked word by word.
"""

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets

from ftlab_kit import evaluators
from ftlab_kit.errors import InputError
from ftlab_kit.evaluators import verdicts
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.intervals import intervals
from ftlab_kit.records import Difference, Evaluation, Sample, Score, Verdict, marked, show
from ftlab_kit.widgets.display import Html, is_interactive, table, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

DATASET_ORDER = "in the dataset's order"
CHANGED_BY = "most changed by "
DIRECTIONS = {True: "greater is better", False: "less is better", None: ""}


def comparison(ws: Workspace, *evaluations: Evaluation | int, n_samples: int = 3) -> Html:
    """Return the scores of some evaluations with 95% intervals, and their answers to some rows.

    Args:
        evaluations: One or more, of the same rows.
        n_samples: Rows whose answers are shown.

    Raises:
        InputError: No evaluation was given, or they scored different rows.
    """
    rows = _of_same_rows(ws, evaluations)
    scores = [{item.measure: item for item in evaluators.scores(ws, one)} for one in rows]
    measures = [name for name in scores[0] if all(name in other for other in scores)]
    cells, sentences = [], []
    for name in measures:
        each = [other[name] for other in scores]
        direction = DIRECTIONS[each[0].greater_is_better]
        cells.append([html.escape(name), *map(_score, each), direction])
        values = " and ".join(show(item.value) for item in each)
        sentences.append(f"{name} ({direction}) {values}" if direction else f"{name} {values}")
    targets = [one.target for one in rows]
    markup = table(["score, with its 95% interval", *targets, ""], cells)
    return Html(markup + answers_table(rows, range(n_samples)), "; ".join(sentences))


def answers(ws: Workspace, *evaluations: Evaluation | int, n_samples: int = 3) -> Any:
    """Return the answers of some evaluations row by row: pages for a person, a few in a report.

    Args:
        evaluations: One or more, of the same rows.
        n_samples: Rows of a report.

    Raises:
        InputError: No evaluation was given, or they scored different rows.
    """
    if is_interactive():
        return AnswersView(ws, *evaluations)
    rows = _of_same_rows(ws, evaluations)
    return Html(answers_table(rows, range(n_samples)), f"{n_samples} rows of {rows[0].n_rows}")


def verdict(verdict: Verdict, *, n_rows: int = 5) -> Html:
    """Return a verdict as a picture of its intervals, and the rows that changed most.

    Args:
        verdict: As `evaluators.compare` returns it.
        n_rows: Rows that are shown.
    """
    picture = ""
    if any(item.low is not None for item in verdict.differences):
        alt_text = f"differences: {verdict.message}"
        head = ["measure", "before", "after", "difference", "interval", "rows", "verdict"]
        markup = table(head, [_difference(item) for item in verdict.differences])
        picture = charts.still(
            intervals(verdict.differences, alt_text), alt_text, "the verdict", markup
        )
    rows = [
        [
            str(row.row),
            f"{html.escape(row.measure)} {show(row.was)} to {show(row.now)}",
            _text(html.escape(row.prompt)),
            _text(html.escape(row.reference)),
            _text(marked(row.before or "", row.after or "")),
        ]
        for row in verdict.changed[:n_rows]
    ]
    head = ["row", "score", "prompt", "reference", "answer, with its changes"]
    changed = f"<h3>rows that changed most</h3>{table(head, rows)}" if rows else ""
    return Html(f"<p>{html.escape(verdict.message)}</p>{picture}{changed}", verdict.message)


class AnswersView(ipywidgets.VBox):  # type: ignore[misc]
    """Answers of several models to the same rows, a page at a time, in an order of choice."""

    PAGE = 3

    def __init__(self, ws: Workspace, *evaluations: Evaluation | int) -> None:
        """Show the first page."""
        self._evaluations = _of_same_rows(ws, evaluations)
        first = self._evaluations[0]
        names = [*first.samples[0].scores] if first.samples else []
        self.order = ipywidgets.Dropdown(
            options=[DATASET_ORDER, *(f"{CHANGED_BY}{name}" for name in names)], description="rows"
        )
        n_pages = max(1, -(-first.n_rows // self.PAGE))
        self.page = ipywidgets.BoundedIntText(1, min=1, max=n_pages, description="page")
        self._table = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.order, self.page]), self._table])
        for widget in (self.order, self.page):
            widget.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Show the rows of the chosen page."""
        start = (self.page.value - 1) * self.PAGE
        rows = self._order()[start : start + self.PAGE]
        self._table.value = answers_table(self._evaluations, rows)
        work_around_ipykernel_7_4(self._table)

    def _order(self) -> list[int]:
        rows = [*range(self._evaluations[0].n_rows)]
        if self.order.value == DATASET_ORDER:
            return rows
        name = self.order.value.removeprefix(CHANGED_BY)
        first, last = self._evaluations[0].samples, self._evaluations[-1].samples

        def change(row: int) -> float:
            was, now = first[row].scores.get(name), last[row].scores.get(name)
            return 0.0 if was is None or now is None else -abs(now - was)

        return sorted(rows, key=change)


def answers_table(evaluations: Sequence[Evaluation], rows: Sequence[int]) -> str:
    """Return some rows of evaluations as a table: prompt, reference, and each model's answer."""
    head = ["row", "prompt", "reference", *(one.target for one in evaluations)]
    cells = []
    for row in rows:
        samples = [one.samples[row] for one in evaluations if row < len(one.samples)]
        if len(samples) == len(evaluations) and any(item.answer is not None for item in samples):
            first = samples[0]
            texts = [_text(html.escape(text)) for text in (first.prompt, first.reference)]
            each = [_answer(first, None), *(_answer(item, first) for item in samples[1:])]
            cells.append([str(row), *texts, *each])
    return table(head, cells) if cells else ""


def _answer(sample: Sample, before: Sample | None) -> str:
    if sample.answer is None:
        return show(None)
    if before is None or before.answer is None:
        text = html.escape(sample.answer)
    else:
        text = marked(before.answer, sample.answer)
    scores = ", ".join(f"{name} {show(value)}" for name, value in sample.scores.items())
    cut = "" if sample.is_complete is not False else ", cut"
    return f"{_text(text)}<small>{html.escape(scores + cut)}</small>"


def _text(markup: str) -> str:
    """Return a text as a block that keeps its line breaks."""
    if "\n" in markup:
        return f'<div style="white-space:pre-wrap">{markup}</div>'
    return f"<p>{markup}</p>"


def _of_same_rows(ws: Workspace, evaluations: Sequence[Evaluation | int]) -> list[Evaluation]:
    """Return evaluations of the same rows.

    Raises:
        InputError: None was given, or they scored different rows.
    """
    rows = [one if isinstance(one, Evaluation) else evaluators.get(ws, one) for one in evaluations]
    if not rows:
        raise InputError("No evaluation was given; expected one or more. Name them after ws.")
    verdicts.check_same(rows)
    return rows


def _score(score: Score) -> str:
    if score.low is None:
        return show(score.value)
    return f"{show(score.value)} ({show(score.low)} to {show(score.high)})"


def _difference(item: Difference) -> list[str]:
    bounds = show(None) if item.low is None else f"{show(item.low)} to {show(item.high)}"
    name = f"{item.measure}, {item.after} against {item.before}"
    numbers = [show(item.was), show(item.now), show(item.difference), bounds, str(item.n)]
    return [html.escape(name), *numbers, item.verdict]
