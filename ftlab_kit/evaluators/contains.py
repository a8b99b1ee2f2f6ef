"""Contains: whether the reference, or one text that is set, occurs in the answer.

Case and runs of white space are ignored.
"""

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
MEASURES = (Measure("contains", True, ratio),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return 1 for each answer that contains the text, 0 for any other."""

    def has_text(example: Example) -> float:
        text = context.config.contains or example.reference
        return float(_normalised(text) in _normalised(example.answer or ""))

    counts = means("contains", examples, has_text)
    return EvaluatorResult(counts, {"looked_for": context.config.contains})


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())
