"""Records of training: jobs, metrics, checkpoints, exports, events."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ftlab_kit.records.datasets import DatasetVersion
from ftlab_kit.records.evaluations import Evaluation
from ftlab_kit.records.shown import CELL, LONG, Record, Rows, show


@dataclass(frozen=True, slots=True)
class Job(Record):
    """A job of one kind, such as 'train'.

    `step` counts optimizer steps; `error` says why the job failed, `note` why it waits or is
    paused. `parent_id` and `parent_step` name the checkpoint that it was forked from. `worker_pid`
    is the process that works on it, None while there is none.
    """

    id: int
    kind: str = field(metadata=LONG)
    state: str
    model: str
    step: int
    total_steps: int | None
    dataset_version_id: int = field(metadata=LONG)
    held_out_version_id: int | None = field(metadata=LONG)
    config: Mapping[str, Any] = field(metadata=LONG)
    error: str | None
    note: str | None
    parent_id: int | None = field(metadata=LONG)
    parent_step: int | None = field(metadata=LONG)
    heartbeat_at: datetime | None = field(metadata=LONG)
    worker_pid: int | None = field(metadata=LONG)
    created_at: datetime
    started_at: datetime | None = field(metadata=LONG)
    finished_at: datetime | None = field(metadata=LONG)

    @property
    def progress(self) -> float | None:
        """The share of the steps that are done, from 0 to 1; None before the total is known."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None

    @property
    def is_over(self) -> bool:
        """Whether the job has reached a state that it can't leave by itself."""
        return self.state in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Metric(Record):
    """What was measured at one step. Tokens exclude padding; utilisations are from 0 to 1.

    `more` holds what only one method measures, such as a reward, and the scores of sample answers;
    `note` says what the guard did, and what could not be measured.
    """

    step: int
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    samples_per_s: float | None = None
    n_tokens: int | None = None
    memory_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_utilisation: float | None = None
    cpu_utilisation: float | None = None
    remaining_s: float | None = None
    more: Mapping[str, float] | None = field(default=None, metadata=LONG)
    note: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bucket(Record):
    """Some steps of a curve: the first and last with a value, how many, min, max and mean."""

    first: int
    last: int
    n: int
    low: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class Curve(Record):
    """One metric of a job over its steps, in buckets of equal width; no spike is lost.

    `start` and `end` are its first and last value, None if it has no value.
    """

    name: str
    width_steps: int
    buckets: "Rows[Bucket]" = field(metadata=LONG)
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True)
class Checkpoint(Record):
    """A checkpoint whose every file was hashed and synced before the folder got its name.

    `scores` has each measure that it was evaluated by, from the newest evaluation.
    """

    id: int
    job_id: int
    step: int
    loss: float | None
    eval_loss: float | None
    size_bytes: int
    path: Path = field(metadata=LONG)
    created_at: datetime
    scores: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Certificate(Record):
    """Whether an exported model still answers as its checkpoint did, measured on rows and prompts.

    `n_same` of `n_answers` greedy answers are equal, character by character; at least the share
    `min_same` must be. `change` is the relative change of perplexity, at most `max_change`; None
    if one of the two is not finite. `first_difference` has a prompt, the answer before, and the
    answer after.
    """

    is_ok: bool
    n_rows: int
    n_answers: int
    n_same: int
    min_same: float
    perplexity_before: float | None
    perplexity_after: float | None
    change: float | None
    max_change: float
    first_difference: tuple[str, ...] | None = field(default=None, metadata=LONG)


@dataclass(frozen=True, slots=True)
class Export(Record):
    """A standalone model made from a checkpoint, with its certificate.

    `model` is its name among the workspace's models, None if it is not registered there.
    """

    id: int
    job_id: int
    step: int
    format: str
    precision: str
    model: str | None
    path: Path
    size_bytes: int
    certificate: Certificate = field(metadata=LONG)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Event(Record):
    """A command to a job: its author, its arguments, and its result at which step.

    `state` is pending, applied or refused, or undone by a rollback of the guard. `arguments` and
    `result` hold new and old values of an adjustment, prompts and answers of a sample, or what a
    resume skipped. A command with an `at_step` waits for that step.
    """

    id: int
    job_id: int
    command: str
    state: str
    step: int | None
    at_step: int | None = field(metadata=LONG)
    author: str | None
    arguments: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    note: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Lineage(Record):
    """A job's origin, the commands it received, and what came of it.

    `facts` is what decides its exact result: config, dataset, libraries, threads, processes.
    """

    job: Job
    parents: "Rows[Job]"
    dataset: DatasetVersion
    held_out: DatasetVersion | None
    facts: Mapping[str, Any]
    events: "Rows[Event]"
    checkpoints: "Rows[Checkpoint]"
    forks: "Rows[Job]"
    evaluations: "Rows[Evaluation]"

    def _repr_html_(self) -> str:
        names = [item.name for item in fields(self) if item.name != "facts"]
        parts = [(name, getattr(self, name)) for name in names]
        facts = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(value))}</td></tr>"
            for name, value in self.facts.items()
        )
        tables = "".join(
            f"<h3>{name}</h3>{value._repr_html_()}" for name, value in parts if value is not None
        )
        return f"{tables}<h3>facts</h3><table>{facts}</table>"


@dataclass(frozen=True, slots=True)
class Check(Record):
    """One check of preflight; a failed one refuses the job."""

    name: str
    is_ok: bool
    got: str
    fix: str
