"""How far a score would move with other rows: bootstrap intervals, for one score or a difference.

Rows are drawn again with replacement and what they add is added up again (Efron and Tibshirani
1993; for BLEU and paired differences Koehn 2004, https://aclanthology.org/W04-3250). The interval
is scipy's, bias-corrected and accelerated; where rows are so alike that it is not defined, the
plain percentiles are taken. A share of rows gets Wilson's interval (1927): drawing again from rows
that all failed would say that none can ever succeed.

n: rows, k: what one row adds.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ftlab_kit.evaluators.measures import Array, Counts, Measure, ratio

LEVEL = 0.95
RESAMPLES = 2999
NUMBERS_AT_ONCE = 2**22  # of what is drawn, 32 MiB


def of_score(
    measure: Measure, counts: Sequence[Counts], *, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Return the interval of a score, None for fewer than two rows."""
    sums = np.asarray(counts, float)  # (n, k)
    if len(counts) and measure.total is ratio and _is_share(sums):
        from scipy.stats import binomtest

        found = binomtest(int(sums[:, 0].sum()), len(counts)).proportion_ci(level, "wilson")
        return float(found.low), float(found.high)
    return _interval(len(counts), lambda rows: measure.total(sums[rows].sum(-2)), level, seed)


def _is_share(sums: Array) -> bool:
    return bool(np.isin(sums[:, 0], (0.0, 1.0)).all() and (sums[:, 1] == 1.0).all())


def of_difference(
    measure: Measure,
    before: Sequence[Counts],
    after: Sequence[Counts],
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the interval of what the second has more than the first, on the same rows.

    Args:
        before: Of each row what it adds for the first; `after` for the second.
    """
    old, new = np.asarray(before, float), np.asarray(after, float)  # (n, k)

    def more(rows: np.ndarray) -> Array:
        return measure.total(new[rows].sum(-2)) - measure.total(old[rows].sum(-2))

    return _interval(len(before), more, level, seed)


def _interval(
    n_rows: int, statistic: Callable[[np.ndarray], Array], level: float, seed: int
) -> tuple[float, float] | None:
    """Return the interval of a statistic of row numbers `(..., n)`."""
    from scipy.stats import bootstrap

    if n_rows < 2:
        return None
    found = None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of rows that are all alike
            found = bootstrap(
                (np.arange(n_rows),),
                lambda rows, axis: statistic(np.moveaxis(rows, axis, -1)),
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=max(1, NUMBERS_AT_ONCE // (16 * n_rows)),
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            return float(found.low), float(found.high)
    return None
