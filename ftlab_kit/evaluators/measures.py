"""Measures as sums over rows, and what an evaluator gets and returns.

A score is a function of sums over rows. For BLEU they are matching and possible n-grams, for
perplexity log-likelihood and tokens, for an accuracy correct answers and answers. What each row
adds is kept, so the sums can be taken again over any choice of rows: intervals and comparisons need
neither the model nor a formula of their own.

n: rows, k: numbers that a row adds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.records import OnProgress
from ftlab_kit.workspace import Workspace

Array = npt.NDArray[np.float64]
Counts = tuple[float, ...]  # what a row adds, (k,)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an evaluator.

    `total` turns sums `(..., k)` into scores `(...)`. `greater_is_better` is None where neither
    direction is better.
    """

    name: str
    greater_is_better: bool | None
    total: Callable[[Array], Array]


@dataclass(slots=True)
class Example:
    """A row to score: its prompt and reference, and what the model did with them.

    `answer` and `nll` are None where the model did not run. `nll` is the summed negative
    log-likelihood of the `n_trained` tokens of the reference turns, `n_correct` the number of these
    that the model ranked first, `n_bytes` their length in UTF-8.
    """

    row: int
    messages: list[dict[str, Any]]
    prompt: str
    reference: str
    n_bytes: int = 0
    answer: str | None = None
    is_complete: bool | None = None
    n_tokens: int | None = None
    nll: float | None = None
    n_trained: int = 0
    n_correct: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluationContext:
    """What an evaluator may use besides the rows."""

    ws: Workspace
    config: EvaluationConfig
    progress: OnProgress | None = None


@dataclass(slots=True)
class EvaluatorResult:
    """What rows add to each measure, and how the evaluator came to it.

    `counts` holds None for a row that can't be scored. `reason` says why where no row can be.
    """

    counts: Mapping[str, Sequence[Counts | None]]
    details: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


def ratio(sums: Array) -> Array:
    """Return the first sum divided by the second: a mean where the second counts rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def means(
    name: str, examples: Sequence[Example], value: Callable[[Example], float | None]
) -> dict[str, list[Counts | None]]:
    """Return the counts of a measure that is a mean over the answered rows."""
    counts: list[Counts | None] = []
    for example in examples:
        number = value(example) if example.answer is not None else None
        counts.append(None if number is None else (float(number), 1.0))
    return {name: counts}


def renamed(progress: OnProgress | None, what: str) -> OnProgress | None:
    """Return a callback that reports the same progress as other work.

    Args:
        what: The work, such as the evaluator for which a model answers.
    """
    if progress is None:
        return None
    return lambda news: progress(replace(news, what=what))
