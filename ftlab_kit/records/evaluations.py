"""Records of evaluators: evaluations, scores, differences, verdicts."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ftlab_kit.records.shown import LONG, SHOWN, Record, Rows


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One prompt with its reference and the model's answer.

    In an evaluation `row` counts from 0 and `scores` holds the row's own scores, None where it has
    none. `is_complete` says whether the answer ended by itself. `step` is that of the weights.
    """

    prompt: str
    reference: str
    answer: str | None
    row: int | None = None
    step: int | None = None
    is_complete: bool | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """The scores of one model on one dataset version, and everything that decided them.

    `counts` holds for each measure what every row adds to it, None for a row that has no score: a
    score is a function of their sums, so intervals and comparisons need no model. `details` says
    for each measure whether greater is better and, where the score is None, why.
    """

    id: int
    target: str
    job_id: int | None
    step: int | None
    dataset_version_id: int | None
    n_rows: int
    scores: Mapping[str, float | None]
    details: Mapping[str, Any] = field(metadata=LONG)
    counts: Mapping[str, Any] = field(metadata=LONG)
    samples: "Rows[Sample]" = field(metadata=LONG)
    seconds: float
    n_tokens: int | None
    cost_usd: float | None
    created_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Evaluation":
        """Return the record of a row of the store."""
        return cls(**{**row, "samples": Rows(Sample(**item) for item in row["samples"])})


@dataclass(frozen=True, slots=True)
class Score(Record):
    """One measure of an evaluation, with its confidence interval and its number of rows."""

    measure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    greater_is_better: bool | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Difference(Record):
    """Two models on the same rows by one measure: the second score minus the first, and a verdict.

    `low` and `high` bound the difference at `level`, which is higher with several differences.
    Wins, ties and losses count the rows in which the second did better, the same or worse; None
    where neither direction is better.
    """

    measure: str
    before: str
    after: str
    was: float | None
    now: float | None
    difference: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    wins: int | None
    ties: int | None
    losses: int | None
    verdict: str


@dataclass(frozen=True, slots=True)
class RowChange(Record):
    """A row whose score changed from the first evaluation to the second."""

    measure: str
    row: int
    was: float
    now: float
    prompt: str
    reference: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """How evaluations of the same rows differ, and which rows changed most."""

    message: str
    differences: "Rows[Difference]"
    changed: "Rows[RowChange]"

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(self.message)}</p>{self.differences._repr_html_()}"
            f"<h3>rows that changed most</h3>{Rows(self.changed[:SHOWN])._repr_html_()}"
        )
