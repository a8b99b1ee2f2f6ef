"""chrF of the answers against the references, by sacrebleu, with its signature.

0 to 100, by runs of six letters (Popović 2015, https://aclanthology.org/W15-3049); it tells apart
what BLEU, on short answers, finds equally wrong.
"""

from collections.abc import Sequence
from typing import Any

from ftlab_kit.evaluators.measures import Array, Ask, Case, Measure, Scored
from ftlab_kit.evaluators.ngrams import scored, total

NEEDS = frozenset({"answers", "references"})
WANTS = ()


def _metric() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _total(sums: Array) -> Array:
    return total(_metric(), sums)


MEASURES = (Measure("chrf", True, _total),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return what rows add: the runs of letters of answer and reference, and those of both."""
    return scored("chrf", _metric(), cases)
