"""What an evaluator is: it says of each row what it adds to a measure, and nothing else.

A score is a function of sums over rows. BLEU's are matching and possible n-grams, perplexity's a
log-likelihood and a number of tokens, an accuracy's right answers and answers. So what rows have
added up to can be added up again, for any other choice of rows: that is how intervals and
comparisons are made, without the model and without a formula of their own.

n: rows, k: what one row adds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.records import OnProgress
from ftlab_kit.workspace import Workspace

Array = npt.NDArray[np.float64]
Counts = tuple[float, ...]  # what a row adds, (k,)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an evaluator.

    `total` turns sums `(..., k)` into scores `(...)`. Neither is better where `greater_is_better`
    is None.
    """

    name: str
    greater_is_better: bool | None
    total: Callable[[Array], Array]


@dataclass(slots=True)
class Case:
    """A row to be scored. `answer` and what is known of the likelihood are None where not asked.

    `nll` is the summed negative log-likelihood of the `n_trained` tokens of the reference turns,
    `n_correct` how many of these were the likeliest, `n_bytes` their length in UTF-8.
    """

    row: int
    messages: list[dict[str, Any]]
    question: str
    reference: str
    n_bytes: int = 0
    answer: str | None = None
    is_complete: bool | None = None
    n_tokens: int | None = None
    nll: float | None = None
    n_trained: int = 0
    n_correct: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What an evaluator may want besides the rows."""

    ws: Workspace
    config: EvaluationConfig
    progress: Progress | None = None


@dataclass(slots=True)
class Scored:
    """What rows add to each measure, None for a row that can't be scored, and what is to be said.

    `reason` says why where a measure has no row at all.
    """

    counts: Mapping[str, Sequence[Counts | None]]
    details: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


class Evaluator(Protocol):
    """A file of this folder. Of its measures the first is the primary one.

    NEEDS holds "answers" where the model is to answer, with "silence" where it counts too that all
    of them are empty; "references" where rows without one are left out; "likelihood" where the
    references are to be looked at with the model. WANTS names settings that must be set.
    """

    NEEDS: frozenset[str]
    WANTS: tuple[str, ...]
    MEASURES: tuple[Measure, ...]

    def score(self, cases: Sequence[Case], ask: Ask) -> Scored:
        """Return what each row adds to each measure."""


def ratio(sums: Array) -> Array:
    """Return the first sum over the second: a mean where the second counts rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def means(
    name: str, cases: Sequence[Case], value: Callable[[Case], float | None]
) -> dict[str, list[Counts | None]]:
    """Return the counts of a measure that is a mean over the answered rows."""
    found: list[Counts | None] = []
    for case in cases:
        each = value(case) if case.answer is not None else None
        found.append(None if each is None else (float(each), 1.0))
    return {name: found}


def whole(progress: Callable[[int, int], None] | None) -> OnProgress | None:
    """Return a Progress callback for one of two numbers."""
    return None if progress is None else lambda news: progress(news.done, news.total or 0)
