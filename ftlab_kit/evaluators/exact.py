"""Exact match: the answer is the reference, runs of white space taken as one space."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, means, ratio

NEEDS = frozenset({"answers", "references"})
WANTS = ()
MEASURES = (Measure("exact_match", True, ratio),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return 1 for each answer that is its reference, 0 for another."""

    def is_same(case: Case) -> float:
        return float((case.answer or "").split() == case.reference.split())

    return Scored(means("exact_match", cases, is_same))
