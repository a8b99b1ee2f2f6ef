"""Records of judging: evaluations, scores, differences, verdicts."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ftlab_kit.records.shown import LONG, SHOWN, Record, Rows


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One prompt with its reference and the model's answer.

    In an evaluation `row` counts from 0 and `scores` holds the row's own, None where it has none;
    `is_complete` tells whether the answer ended by itself. `step` is that of the weights.
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
    """The scores of one model on one dataset version, with how they were made.

    `counts` holds, of each measure, what every row adds to it, None for a row without: a score is
    a function of their sums, so that intervals and comparisons need no model. `details` says of
    each measure whether greater is better and, where it is None, why.
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
        """Return the record of what the store holds."""
        return cls(**{**row, "samples": Rows(Sample(**item) for item in row["samples"])})


@dataclass(frozen=True, slots=True)
class Score(Record):
    """One measure of an evaluation, with the interval in which it lies and the rows it is of."""

    measure: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    greater_is_better: bool | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Difference(Record):
    """Two models on the same rows by one measure: what the second has more, and whether it counts.

    `low` and `high` bound the difference at `level`, which is higher where many are asked for.
    Wins, ties and losses count rows, as the second sees them; None where no direction is better.
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
    """A row whose score is quite another in the second evaluation."""

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
    """What two or more evaluations of the same rows say about each other."""

    message: str
    differences: "Rows[Difference]"
    changed: "Rows[RowChange]"

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(self.message)}</p>{self.differences._repr_html_()}"
            f"<h3>rows that changed most</h3>{Rows(self.changed[:SHOWN])._repr_html_()}"
        )
