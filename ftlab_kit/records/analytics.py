"""Records of analytics: what jobs took, what they will take, and how they compare."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftlab_kit.records.jobs import Job
from ftlab_kit.records.shown import CELL, Record, Rows, fields_of, grid, show


@dataclass(frozen=True, slots=True)
class LossSummary(Record):
    """A loss at the first, best and last step with a measurement; None if there is none."""

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
    """A rate over a job: its overall mean, and the median and peak of the measurements."""

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
    """What a job took and how it went, from what was recorded; None is not known.

    `waited_s` is the time in the queue before its start, `duration_s` the time from its start to
    its end, or until now. `running_s` is the duration without the time in which it was paused or
    failed, `trained_s` the time within steps. Energy and cost are those of `running_s`.

    `mfu` is model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311): `gflop_per_s`, the
    FLOP that the job's tokens need per second of a step, divided by `peak_gflop_per_s`, here
    measured with a large matrix product. `mfu_note` says why it is None.
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
    mfu: float | None = None
    mfu_note: str | None = None
    energy_kwh: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """What a job will take, before it starts; `basis` says where its speed comes from.

    `n_tokens` counts the tokens it trains on, without padding. None is not known.
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
    """Jobs that failed for the same reason, apart from the numbers in it."""

    message: str
    n_jobs: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BestJob(Record):
    """The job with the lowest held-out loss among jobs whose losses are comparable."""

    held_out_version_id: int
    model: str
    n_jobs: int
    job_id: int
    step: int
    eval_loss: float


@dataclass(frozen=True, slots=True)
class Summary(Record):
    """All jobs of a workspace: states, time, tokens and speed, failures, and the best ones.

    `median_duration_s` is over completed jobs, `tokens_per_s` the median over each model's jobs.
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
class SettingDifference(Record):
    """A setting, or a dataset version, that differs between jobs: one value for each job."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class MeasureComparison(Record):
    """One measure of several jobs: one value for each job, and the best job by it.

    `note` says why there is no winner, where there is none.
    """

    name: str
    values: tuple[float | None, ...]
    greater_is_better: bool | None
    winner: int | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class JobComparison(Record):
    """Jobs side by side: the settings that differ, and the best job by each measure."""

    message: str
    jobs: "Rows[Job]"
    differences: "Rows[SettingDifference]"
    measures: "Rows[MeasureComparison]"

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
