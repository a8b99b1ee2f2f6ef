"""Contains: whether the reference, or one text that is set, stands in the answer.

Case and runs of white space do not matter.
"""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, means, ratio

NEEDS = frozenset({"answers", "references"})
WANTS = ()
MEASURES = (Measure("contains", True, ratio),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return 1 for each answer with the text in it, 0 for another."""

    def has(case: Case) -> float:
        return float(_plain(ask.config.contains or case.reference) in _plain(case.answer or ""))

    return Scored(means("contains", cases, has), {"looked_for": ask.config.contains})


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
