"""What BLEU and chrF share: sacrebleu's sufficient statistics of each sentence, and their total.

sacrebleu's own significance tests resample the same statistics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftlab_kit.evaluators.measures import Array, Counts, EvaluatorResult, Example


def score(name: str, metric: Any, examples: Sequence[Example]) -> EvaluatorResult:
    """Return a metric's statistics of each answered row, and its signature."""
    answered = [example for example in examples if example.answer is not None]
    # sacrebleu takes one list of references for each set of references; there is one set here
    statistics = metric._extract_corpus_statistics(
        [example.answer for example in answered], [[example.reference for example in answered]]
    )
    by_row = dict(zip((example.row for example in answered), statistics, strict=True))
    counts: list[Counts | None] = [
        tuple(float(value) for value in by_row[example.row]) if example.row in by_row else None
        for example in examples
    ]
    return EvaluatorResult({name: counts}, {"signature": str(metric.get_signature())})


def total(metric: Any, sums: Array) -> Array:
    """Return the scores `(...)` of sums `(..., k)` by the metric's own formula."""
    flat = sums.reshape(-1, sums.shape[-1])
    values = [metric._compute_score_from_stats(row.tolist()).score for row in flat]
    return np.asarray(values, float).reshape(sums.shape[:-1])
