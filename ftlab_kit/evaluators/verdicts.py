"""What two evaluations of the same rows say about each other, and whether it can be told at all.

Differences are paired: the same row before and after. Where many are asked for, each interval is
widened so that all hold together at the level (Bonferroni); a difference counts where its interval
leaves out 0 and there are rows enough for a sign test to be able to see anything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftlab_kit.errors import InputError
from ftlab_kit.evaluators import intervals
from ftlab_kit.evaluators.measures import Counts, Measure
from ftlab_kit.records import Difference, Evaluation, RowChange, Rows, Verdict, show

MOST_CHANGED = 20  # rows
EQUAL = 1e-9  # scores of a row that differ by less are a tie


def check_same(found: Sequence[Evaluation]) -> None:
    """Refuse to set side by side what was scored on other rows.

    Raises:
        InputError: Names the two that differ.
    """
    first = found[0]
    for other in found[1:]:
        if other.dataset_version_id != first.dataset_version_id or other.n_rows != first.n_rows:
            raise InputError(
                f"Evaluation {first.id} scored {first.n_rows} rows of version "
                f"{first.dataset_version_id}, evaluation {other.id} {other.n_rows} of version "
                f"{other.dataset_version_id}; expected the same rows. Score both on the same "
                "version."
            )


def judge(
    before: Evaluation, others: Sequence[Evaluation], measures: Sequence[Measure], level: float
) -> Verdict:
    """Return the differences of each of the others from the first, by each measure."""
    n_asked = len(others) * len(measures)
    each = 1 - (1 - level) / max(1, n_asked)
    found = [difference(before, after, item, each) for after in others for item in measures]
    moved = [row for after in others for row in changed(before, after, measures)]
    return Verdict(_words(found, n_asked, level), Rows(found), Rows(moved[:MOST_CHANGED]))


def difference(before: Evaluation, after: Evaluation, measure: Measure, level: float) -> Difference:
    """Return what one evaluation has more than another by a measure, on the rows both have."""
    pairs = _pairs(before, after, measure.name)
    old, new = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
    was, now = _total(measure, old), _total(measure, new)
    bounds = None
    if was is not None and now is not None:
        bounds = intervals.of_difference(measure, old, new, level=level)
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


def _pairs(before: Evaluation, after: Evaluation, name: str) -> list[tuple[int, Counts, Counts]]:
    """Return row number and counts of both for the rows that both could score."""
    both = zip(before.counts.get(name, ()), after.counts.get(name, ()), strict=False)
    return [(row, tuple(old), tuple(new)) for row, (old, new) in enumerate(both) if old and new]


def _total(measure: Measure, counts: Sequence[Counts]) -> float | None:
    if not counts:
        return None
    value = float(measure.total(np.asarray(counts, float).sum(0)))
    return value if np.isfinite(value) else None


def _by_row(measure: Measure, counts: Sequence[Counts]) -> Any:
    return measure.total(np.asarray(counts, float)) if counts else np.zeros(0)  # (n,)


def _tally(
    measure: Measure, old: Sequence[Counts], new: Sequence[Counts]
) -> tuple[int | None, int | None, int | None]:
    """Return how many rows the second wins, ties and loses."""
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
    # were all rows to agree, a sign test would still find that likely enough by chance
    is_enough = 2 * 0.5**n_rows <= 1 - level
    if bounds[0] <= 0 <= bounds[1] or not is_enough:
        return f"not distinguishable at n = {n_rows}"
    if measure.greater_is_better is None:
        return "greater" if bounds[0] > 0 else "less"
    return "better" if (bounds[0] > 0) == measure.greater_is_better else "worse"


def changed(before: Evaluation, after: Evaluation, measures: Sequence[Measure]) -> list[RowChange]:
    """Return the rows whose answers' scores changed most, by the first measure of answers."""
    answered = [item for item in measures if "likelihood" not in before.details[item.name]["needs"]]
    for measure in answered or measures:
        pairs = _pairs(before, after, measure.name)
        if pairs:
            return _moved(before, after, measure, pairs)
    return []


def _moved(
    before: Evaluation,
    after: Evaluation,
    measure: Measure,
    pairs: Sequence[tuple[int, Counts, Counts]],
) -> list[RowChange]:
    was = _by_row(measure, [pair[1] for pair in pairs])
    now = _by_row(measure, [pair[2] for pair in pairs])
    order = sorted(range(len(pairs)), key=lambda at: -abs(now[at] - was[at]))
    found = []
    for at in order[:MOST_CHANGED]:
        row = pairs[at][0]
        old, new = before.samples[row], after.samples[row]
        if abs(now[at] - was[at]) > EQUAL:
            known = (float(was[at]), float(now[at]), old.prompt, old.reference)
            found.append(RowChange(measure.name, row, *known, old.answer, new.answer))
    return found


def _words(found: Sequence[Difference], n_asked: int, level: float) -> str:
    """Return the verdicts in a sentence for each pair, those that agree together."""
    pairs: dict[str, dict[str, list[str]]] = {}
    for item in found:
        verdicts = pairs.setdefault(f"{item.after} against {item.before}", {})
        numbers = f"{item.measure} ({show(item.was)} to {show(item.now)})"
        verdicts.setdefault(item.verdict, []).append(numbers)
    said = [
        f"{pair}: "
        + "; ".join(f"{verdict} by {', '.join(names)}" for verdict, names in verdicts.items())
        + "."
        for pair, verdicts in pairs.items()
    ]
    together = [f"All {n_asked} together at {level:.0%}."] if n_asked > 1 else []
    return " ".join([*said, *together])
