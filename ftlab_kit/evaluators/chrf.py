"""chrF of the answers against the references, by sacrebleu, with its signature.

0 to 100, over character n-grams of up to six (Popović 2015, https://aclanthology.org/W15-3049). On
short answers it tells apart what BLEU scores as equally wrong.
"""

from collections.abc import Sequence
from typing import Any

from ftlab_kit.evaluators import ngrams
from ftlab_kit.evaluators.measures import (
    Array,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
)

REQUIRES = frozenset({"answers", "references"})
REQUIRED_SETTINGS = ()


def _metric() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _total(sums: Array) -> Array:
    return ngrams.total(_metric(), sums)


MEASURES = (Measure("chrf", True, _total),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return what rows add: character n-grams of the answer, of the reference, and of both."""
    return ngrams.score("chrf", _metric(), examples)
