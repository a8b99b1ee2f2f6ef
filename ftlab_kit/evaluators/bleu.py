"""Corpus BLEU of the answers against the references, by sacrebleu, with its signature.

0 to 100; comparable only under the same signature (Post 2018, arXiv 1804.08771).
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
    from sacrebleu.metrics import BLEU

    return BLEU()


def _total(sums: Array) -> Array:
    return ngrams.total(_metric(), sums)


MEASURES = (Measure("bleu", True, _total),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return what rows add: both lengths, and matching and possible n-grams."""
    return ngrams.score("bleu", _metric(), examples)
