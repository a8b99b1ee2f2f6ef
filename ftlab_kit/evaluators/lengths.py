"""Lengths: tokens of an answer, the share that ended by themselves, the share that are empty."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, means, ratio

NEEDS = frozenset({"answers", "silence"})
WANTS = ()
MEASURES = (
    Measure("answer_tokens", None, ratio),
    Measure("ended", True, ratio),
    Measure("empty", False, ratio),
)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return the length of each answer, and whether it ended and is empty."""
    counts = {
        **means("answer_tokens", cases, lambda case: case.n_tokens),
        **means("ended", cases, lambda case: case.is_complete),
        **means("empty", cases, lambda case: not case.answer),
    }
    tokens = sorted(case.n_tokens for case in cases if case.n_tokens is not None)
    if not tokens:
        return Scored(counts)
    return Scored(counts, {"longest_tokens": tokens[-1], "median_tokens": tokens[len(tokens) // 2]})
