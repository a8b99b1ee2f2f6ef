"""What BLEU and chrF share: sacrebleu's sums over sentences, which its own tests resample too."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftlab_kit.evaluators.measures import Array, Case, Counts, Scored


def scored(name: str, metric: Any, cases: Sequence[Case]) -> Scored:
    """Return a metric's sums for each answered row, and its signature."""
    known = [case for case in cases if case.answer is not None]
    # sacrebleu wants every reference once, in a list of its own
    sums = metric._extract_corpus_statistics(
        [case.answer for case in known], [[case.reference for case in known]]
    )
    by_row = dict(zip((case.row for case in known), sums, strict=True))
    counts: list[Counts | None] = [
        tuple(float(value) for value in by_row[case.row]) if case.row in by_row else None
        for case in cases
    ]
    return Scored({name: counts}, {"signature": str(metric.get_signature())})


def total(metric: Any, sums: Array) -> Array:
    """Return the scores `(...)` of sums `(..., k)` by the metric's own formula."""
    flat = sums.reshape(-1, sums.shape[-1])
    values = [metric._compute_score_from_stats(row.tolist()).score for row in flat]
    return np.asarray(values, float).reshape(sums.shape[:-1])
