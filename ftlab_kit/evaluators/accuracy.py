"""Token accuracy: the share of the references' tokens that the model ranks first."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import (
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    ratio,
)

REQUIRES = frozenset({"likelihood"})
REQUIRED_SETTINGS = ()
MEASURES = (Measure("token_accuracy", True, ratio),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return what rows add: correct tokens, and tokens."""
    counts = [
        (float(example.n_correct), float(example.n_trained))
        if example.n_correct is not None and example.n_trained
        else None
        for example in examples
    ]
    reason = "no row has a trained token" if not any(counts) else None
    return EvaluatorResult({"token_accuracy": counts}, reason=reason)
