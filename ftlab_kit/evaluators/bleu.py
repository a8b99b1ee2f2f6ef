"""Corpus BLEU of the answers against the references, by sacrebleu, with its signature.

0 to 100; comparable only under the same signature (Post 2018, arXiv 1804.08771).
"""

from collections.abc import Sequence
from typing import Any

from ftlab_kit.evaluators.measures import Array, Ask, Case, Measure, Scored
from ftlab_kit.evaluators.ngrams import scored, total

NEEDS = frozenset({"answers", "references"})
WANTS = ()


def _metric() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU()


def _total(sums: Array) -> Array:
    return total(_metric(), sums)


MEASURES = (Measure("bleu", True, _total),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return what rows add: lengths, and the n-grams that match and that there are."""
    return scored("bleu", _metric(), cases)
