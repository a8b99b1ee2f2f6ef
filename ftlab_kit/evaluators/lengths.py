"""Lengths: tokens of an answer, the share that ended by themselves, the share that are empty."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import (
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    means,
    ratio,
)

REQUIRES = frozenset({"answers", "empty answers"})
REQUIRED_SETTINGS = ()
MEASURES = (
    Measure("answer_tokens", None, ratio),
    Measure("ended", True, ratio),
    Measure("empty", False, ratio),
)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return the length of each answer, whether it ended, and whether it is empty."""
    counts = {
        **means("answer_tokens", examples, lambda example: example.n_tokens),
        **means("ended", examples, lambda example: example.is_complete),
        **means("empty", examples, lambda example: not example.answer),
    }
    lengths = sorted(example.n_tokens for example in examples if example.n_tokens is not None)
    if not lengths:
        return EvaluatorResult(counts)
    details = {"longest_tokens": lengths[-1], "median_tokens": lengths[len(lengths) // 2]}
    return EvaluatorResult(counts, details)
