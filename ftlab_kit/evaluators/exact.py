"""Exact match: the answer equals the reference; runs of white space count as one space."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import (
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    means,
    ratio,
)

REQUIRES = frozenset({"answers", "references"})
REQUIRED_SETTINGS = ()
MEASURES = (Measure("exact_match", True, ratio),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return 1 for each answer that equals its reference, 0 for any other."""

    def is_same(example: Example) -> float:
        return float((example.answer or "").split() == example.reference.split())

    return EvaluatorResult(means("exact_match", examples, is_same))
