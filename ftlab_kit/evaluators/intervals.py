"""Confidence intervals of a score, or of the difference of two scores on the same rows.

Rows are resampled with replacement and what they add is summed again (the bootstrap: Efron and
Tibshirani 1993; for BLEU and paired differences Koehn 2004, https://aclanthology.org/W04-3250). The
interval is scipy's, bias-corrected and accelerated (BCa: Efron 1987); where rows are too alike for
it to be defined, plain percentiles are taken. A share of rows gets Wilson's score interval (Wilson
1927), because resampling rows that all failed would say that none can ever succeed.

n: rows, k: numbers that a row adds.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ftlab_kit.evaluators.measures import Array, Counts, Measure, ratio

LEVEL = 0.95
RESAMPLES = 2999
NUMBERS_AT_ONCE = 2**22  # resampled at a time, 32 MiB


def score_interval(
    measure: Measure, counts: Sequence[Counts], *, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of a score, None for fewer than two rows.

    Args:
        counts: What each row adds.
        level: Confidence, from 0 to 1.
        seed: Seeds the resampling.
    """
    sums = np.asarray(counts, float)  # (n, k)
    if len(counts) and measure.total is ratio and _is_share(sums):
        from scipy.stats import binomtest

        test = binomtest(int(sums[:, 0].sum()), len(counts))
        bounds = test.proportion_ci(level, "wilson")
        return float(bounds.low), float(bounds.high)
    return _bootstrap(len(counts), lambda rows: measure.total(sums[rows].sum(-2)), level, seed)


def _is_share(sums: Array) -> bool:
    """Return whether each row adds 0 or 1 success and one trial."""
    return bool(np.isin(sums[:, 0], (0.0, 1.0)).all() and (sums[:, 1] == 1.0).all())


def difference_interval(
    measure: Measure,
    before: Sequence[Counts],
    after: Sequence[Counts],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the interval of the second score minus the first, None for fewer than two rows.

    Args:
        before: What each row adds to the first score.
        after: What the same rows add to the second, in the same order.
        level: Confidence, from 0 to 1.
        seed: Seeds the resampling.
    """
    old, new = np.asarray(before, float), np.asarray(after, float)  # (n, k)

    def gain(rows: np.ndarray) -> Array:
        # the same rows for both: what is difficult for both cancels out
        return measure.total(new[rows].sum(-2)) - measure.total(old[rows].sum(-2))

    return _bootstrap(len(before), gain, level, seed)


def _bootstrap(
    n_rows: int, statistic: Callable[[np.ndarray], Array], level: float, seed: int
) -> tuple[float, float] | None:
    """Return the bootstrap interval of a statistic of row numbers `(..., n)`."""
    from scipy.stats import bootstrap

    if n_rows < 2:
        return None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # scipy warns where all rows are alike
            bounds = bootstrap(
                (np.arange(n_rows),),
                lambda rows, axis: statistic(np.moveaxis(rows, axis, -1)),
                vectorized=True,
                n_resamples=RESAMPLES,
                # a row adds up to 16 numbers, and each resample holds n rows
                batch=max(1, NUMBERS_AT_ONCE // (16 * n_rows)),
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([bounds.low, bounds.high]).all():
            return float(bounds.low), float(bounds.high)
    return None
