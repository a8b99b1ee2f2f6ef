"""Differences between evaluations of the same rows, and whether they can be told from chance.

Differences are paired: the same row before and after. With several differences, each interval is
widened so that all hold together at the level (Bonferroni correction: Dunn 1961). A difference
counts where its interval excludes 0 and there are enough rows for a sign test to reach the level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftlab_kit.errors import InputError
from ftlab_kit.evaluators import intervals
from ftlab_kit.evaluators.measures import Counts, Measure
from ftlab_kit.records import Difference, Evaluation, RowChange, Rows, Verdict, show

MAX_CHANGED_ROWS = 20
EQUAL = 1e-9  # scores of a row that differ by less are a tie


@dataclass(frozen=True, slots=True)
class _PairedCounts:
    """What a row adds to a measure in two evaluations."""

    row: int
    before: Counts
    after: Counts


def check_same(evaluations: Sequence[Evaluation]) -> None:
    """Refuse to compare evaluations of different rows.

    Raises:
        InputError: Names the two that differ.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.dataset_version_id != first.dataset_version_id or other.n_rows != first.n_rows:
            raise InputError(
                f"Evaluation {first.id} scored {first.n_rows} rows of version "
                f"{first.dataset_version_id}, evaluation {other.id} {other.n_rows} of version "
                f"{other.dataset_version_id}; expected the same rows. Score both on the same "
                "version."
            )


def compare(
    before: Evaluation, others: Sequence[Evaluation], measures: Sequence[Measure], level: float
) -> Verdict:
    """Return how each of the others differs from the first, by each measure."""
    n_differences = len(others) * len(measures)
    each_level = 1 - (1 - level) / max(1, n_differences)
    differences = [
        difference(before, after, measure, each_level) for after in others for measure in measures
    ]
    changes = [change for after in others for change in row_changes(before, after, measures)]
    message = _message(differences, level)
    return Verdict(message, Rows(differences), Rows(changes[:MAX_CHANGED_ROWS]))


def difference(before: Evaluation, after: Evaluation, measure: Measure, level: float) -> Difference:
    """Return the second score minus the first, on the rows that both could score."""
    pairs = _paired(before, after, measure.name)
    old, new = [pair.before for pair in pairs], [pair.after for pair in pairs]
    was, now = _total(measure, old), _total(measure, new)
    bounds = None
    if was is not None and now is not None:
        bounds = intervals.difference_interval(measure, old, new, level=level)
    wins, ties, losses = _tally(measure, old, new)
    return Difference(
        measure=measure.name,
        before=before.target,
        after=after.target,
        was=was,
        now=now,
        difference=None if was is None or now is None else now - was,
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        level=level,
        n=len(pairs),
        wins=wins,
        ties=ties,
        losses=losses,
        verdict=_verdict(measure, bounds, len(pairs), level),
    )


def _paired(before: Evaluation, after: Evaluation, name: str) -> list[_PairedCounts]:
    both = zip(before.counts.get(name, ()), after.counts.get(name, ()), strict=False)
    return [
        _PairedCounts(row, tuple(old), tuple(new))
        for row, (old, new) in enumerate(both)
        if old and new
    ]


def _total(measure: Measure, counts: Sequence[Counts]) -> float | None:
    if not counts:
        return None
    value = float(measure.total(np.asarray(counts, float).sum(0)))
    return value if np.isfinite(value) else None


def _by_row(measure: Measure, counts: Sequence[Counts]) -> Any:
    """Return each row's own score."""
    return measure.total(np.asarray(counts, float)) if counts else np.zeros(0)  # (n,)


def _tally(
    measure: Measure, old: Sequence[Counts], new: Sequence[Counts]
) -> tuple[int | None, int | None, int | None]:
    """Return in how many rows the second wins, ties and loses."""
    if measure.greater_is_better is None:
        return None, None, None
    gain = _by_row(measure, new) - _by_row(measure, old)
    gain = gain if measure.greater_is_better else -gain
    wins, losses = int((gain > EQUAL).sum()), int((gain < -EQUAL).sum())
    return wins, len(old) - wins - losses, losses


def _verdict(
    measure: Measure, bounds: tuple[float, float] | None, n_rows: int, level: float
) -> str:
    if bounds is None:
        return f"not known at n = {n_rows}"
    # if even rows that all agree would be likely enough by chance (two-sided sign test), a narrow
    # interval only says that the bootstrap has too few rows
    is_enough = 2 * 0.5**n_rows <= 1 - level
    if bounds[0] <= 0 <= bounds[1] or not is_enough:
        return f"not distinguishable at n = {n_rows}"
    if measure.greater_is_better is None:
        return "greater" if bounds[0] > 0 else "less"
    return "better" if (bounds[0] > 0) == measure.greater_is_better else "worse"


def row_changes(
    before: Evaluation, after: Evaluation, measures: Sequence[Measure]
) -> list[RowChange]:
    """Return the rows whose scores changed most, by the first measure of answers."""
    of_answers = [
        measure for measure in measures if "likelihood" not in before.details[measure.name]["needs"]
    ]
    for measure in of_answers or measures:
        pairs = _paired(before, after, measure.name)
        if pairs:
            return _largest_changes(before, after, measure, pairs)
    return []


def _largest_changes(
    before: Evaluation, after: Evaluation, measure: Measure, pairs: Sequence[_PairedCounts]
) -> list[RowChange]:
    was = _by_row(measure, [pair.before for pair in pairs])
    now = _by_row(measure, [pair.after for pair in pairs])
    order = sorted(range(len(pairs)), key=lambda at: -abs(now[at] - was[at]))
    changes = []
    for at in order[:MAX_CHANGED_ROWS]:
        row = pairs[at].row
        old, new = before.samples[row], after.samples[row]
        if abs(now[at] - was[at]) > EQUAL:
            changes.append(
                RowChange(
                    measure=measure.name,
                    row=row,
                    was=float(was[at]),
                    now=float(now[at]),
                    prompt=old.prompt,
                    reference=old.reference,
                    before=old.answer,
                    after=new.answer,
                )
            )
    return changes


def _message(differences: Sequence[Difference], level: float) -> str:
    """Return a sentence for each pair of models, measures with the same verdict together."""
    pairs: dict[str, dict[str, list[str]]] = {}
    for item in differences:
        verdicts = pairs.setdefault(f"{item.after} against {item.before}", {})
        numbers = f"{item.measure} ({show(item.was)} to {show(item.now)})"
        verdicts.setdefault(item.verdict, []).append(numbers)
    sentences = [
        f"{pair}: "
        + "; ".join(f"{verdict} by {', '.join(names)}" for verdict, names in verdicts.items())
        + "."
        for pair, verdicts in pairs.items()
    ]
    if len(differences) > 1:
        sentences.append(f"All {len(differences)} together at {level:.0%}.")
    return " ".join(sentences)
