"""Records of what jobs took, what they will take, and what ails them."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftlab_kit.records.jobs import Job
from ftlab_kit.records.shown import CELL, LONG, Record, Rows, fields_of, grid, show


@dataclass(frozen=True, slots=True)
class LossSummary(Record):
    """A loss at the first, best and last step that it was measured at; None where it never was."""

    first: float | None = None
    first_step: int | None = None
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    last_step: int | None = None

    def __str__(self) -> str:
        parts = (
            f"{name} {show(getattr(self, name))} at step {getattr(self, f'{name}_step')}"
            for name in ("first", "best", "last")
            if getattr(self, name) is not None
        )
        return ", ".join(parts) or show(None)


@dataclass(frozen=True, slots=True)
class RateSummary(Record):
    """A rate over a job: in all, and the median and the greatest of what was measured."""

    mean: float | None = None
    median: float | None = None
    peak: float | None = None

    def __str__(self) -> str:
        if self.median is None:
            return show(None)
        parts = (f"{name} {show(getattr(self, name))}" for name in ("mean", "median", "peak"))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class JobAnalytics(Record):
    """What a job took and what came of it, from what was recorded; None is what is not known.

    `duration_s` lasts from the job's start to its end, or until now; `running_s` is that without
    the time in which it was paused or lay failed, `trained_s` the time within steps. Energy and
    money are those of `running_s`. `efficiency` is the share of the machine's bound: the FLOP that
    its tokens need in a second of a step, by those that a large matrix product does here.
    """

    job_id: int
    model: str
    state: str
    step: int
    waited_s: float
    duration_s: float | None
    running_s: float | None
    trained_s: float | None
    n_tokens: int | None
    tokens_per_s: RateSummary
    samples_per_s: RateSummary
    gpu_utilisation: RateSummary
    peak_memory_gib: float | None
    peak_gpu_memory_gib: float | None
    loss: LossSummary
    eval_loss: LossSummary
    n_checkpoints: int
    checkpoints_bytes: int
    best_checkpoint_step: int | None
    n_pauses: int
    n_resumes: int
    n_restarts: int
    n_rollbacks: int
    n_skipped: int
    gflop_per_s: float | None = None
    peak_gflop_per_s: float | None = None
    efficiency: float | None = None
    efficiency_note: str | None = None
    energy_kwh: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """What a job will take, before it is started; `basis` says where its speed is known from.

    `n_tokens` are those it learns from, without padding. None is what can't be told.
    """

    n_steps: int
    n_tokens: int | None
    tokens_per_s: float | None
    seconds: float | None
    memory_gib: float
    free_memory_gib: float
    cost_usd: float | None
    energy_kwh: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Failure(Record):
    """Jobs that failed for the same reason, but for the numbers in its words."""

    message: str
    n_jobs: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BestJob(Record):
    """The job with the lowest held-out loss among those whose losses can be compared."""

    held_out_version_id: int
    model: str
    n_jobs: int
    job_id: int
    step: int
    eval_loss: float


@dataclass(frozen=True, slots=True)
class Summary(Record):
    """All jobs of a workspace: states, time, tokens and speed, failures, and the best of them.

    `median_duration_s` is that of completed jobs, `tokens_per_s` the median of a model's jobs.
    """

    n_jobs: int
    states: Mapping[str, int] = field(hash=False)
    hours_trained: float | None
    n_tokens: int | None
    median_duration_s: float | None
    tokens_per_s: Mapping[str, float] = field(hash=False)
    n_checkpoints: int
    checkpoints_bytes: int
    failures: "Rows[Failure]"
    best: "Rows[BestJob]"

    def _repr_html_(self) -> str:
        tables = ("failures", "best")
        rows = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(getattr(self, name)))}</td>"
            "</tr>"
            for name in fields_of(self)
            if name not in tables
        )
        parts = (f"<h3>{name}</h3>{getattr(self, name)._repr_html_()}" for name in tables)
        return f"<table><caption>Summary</caption>{rows}</table>{''.join(parts)}"


@dataclass(frozen=True, slots=True)
class Choice(Record):
    """A setting, or a dataset version, in which jobs differ; a value for each job, in order."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Measure(Record):
    """One measure of some jobs: a value for each in order, and the job that did best by it.

    Without a winner, `note` says why there is none.
    """

    name: str
    values: tuple[float | None, ...]
    greater_is_better: bool | None
    winner: int | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class JobComparison(Record):
    """Jobs side by side: only what differs in their settings, and who did best by each measure."""

    message: str
    jobs: "Rows[Job]"
    differences: "Rows[Choice]"
    measures: "Rows[Measure]"

    def _repr_html_(self) -> str:
        names = [f"job {job.id}" for job in self.jobs]
        settings = [[item.name, *map(show, item.values)] for item in self.differences]
        measures = [
            [
                item.name,
                *map(show, item.values),
                show(item.winner and f"job {item.winner}"),
                item.note or "",
            ]
            for item in self.measures
        ]
        return (
            f"<p>{html.escape(self.message)}</p>{grid(['setting', *names], settings)}"
            f"{grid(['measure', *names, 'best', 'note'], measures)}"
        )


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """What is wrong with a job: the problem, the numbers that show it, its cause and its cure.

    `changes` are the settings that cure it, None where the rows or the machine must change. `side`
    is where the trouble lies: settings, data or machine. `importance` is 1 for what spoils a run, 2
    for what makes it worse, 3 for what makes it slow.
    """

    problem: str
    importance: int
    side: str
    evidence: str
    cause: str
    fix: str
    changes: Mapping[str, Any] | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class Diagnosis(Record):
    """Whether a model learnt a few rows by heart, and on which side the trouble lies therefore.

    `loss_least` is what no model gets below on these rows; `loss_last` is the mean of the last
    losses, and rows are known by heart where it is at most `loss_known` above that and none
    contradict. `contradicting` names rows of the version asked about, counted from 0, that ask what
    an earlier one asks and answer otherwise. Without a job, preflight had refused the rows.
    """

    side: str
    message: str
    is_learnt: bool | None
    job_id: int | None
    n_rows: int
    n_steps: int | None
    loss_first: float | None
    loss_last: float | None
    loss_known: float
    loss_least: float
    findings: "Rows[Finding]"
    contradicting: tuple[int, ...] = field(metadata=LONG)

    def _repr_html_(self) -> str:
        names = [item for item in fields_of(self) if item not in ("words", "findings")]
        rows = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(getattr(self, name)))}</td>"
            for name in names
        )
        found = f"<h3>findings</h3>{self.findings._repr_html_()}"
        return f"<p>{html.escape(self.message)}</p><table>{rows}</table>{found}"
