"""What verbs leave behind: frozen records, units in the names, None for what is not known.

Every record shows itself in a notebook; `Rows` is a tuple of records that shows as a table.
"""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

LONG = {"long": True}  # metadata of a field that a table of many records leaves out
CELL = 'style="text-align:left;vertical-align:top;padding:2px 10px 2px 0"'


def show(value: Any) -> str:
    """Return a value as people read it: a dash for unknown, four digits for a number."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)) and not isinstance(value, Record):
        return ", ".join(show(item) for item in value) or "–"
    return str(value)


def plain(value: Any) -> Any:
    """Return a value as JSON can carry it."""
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Record:
    """A frozen result; `as_dict()` is its JSON form."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can carry them."""
        return {item.name: plain(getattr(self, item.name)) for item in fields(self)}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th {CELL}>{html.escape(item.name)}</th>"
            f"<td {CELL}>{html.escape(show(getattr(self, item.name)))}</td></tr>"
            for item in fields(self)
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def fields_of(record: Record) -> list[str]:
    """Return the names of the fields that a table of many such records shows."""
    return [item.name for item in fields(record) if "long" not in item.metadata]


R = TypeVar("R", bound=Record)


class Rows(tuple[R, ...], Generic[R]):
    """A tuple of records of one kind that shows as a table."""

    __slots__ = ()

    def __new__(cls, records: Iterable[R] = ()) -> "Rows[R]":
        """Take any number of records."""
        return super().__new__(cls, tuple(records))

    def _repr_html_(self) -> str:
        if not self:
            return "<p>none</p>"
        names = fields_of(self[0])
        head = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>"
            + "".join(f"<td {CELL}>{html.escape(show(getattr(row, name)))}</td>" for name in names)
            + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class Dataset(Record):
    """A named dataset; its rows stand in versions."""

    name: str
    n_versions: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DatasetVersion(Record):
    """The content of a dataset at one time. `content_sha256` is its identity.

    `side` is "all" for a version that was added, "train" or "held_out" for one side of a split;
    `parent_id` names the version that a side was split from, or the one that came before.
    """

    id: int
    dataset: str
    side: str
    n_rows: int
    n_refused: int
    content_sha256: str = field(metadata=LONG)
    path: Path = field(metadata=LONG)
    parent_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """A line that was refused: where, what was found, what was expected, and the cure."""

    line: int
    field: str
    found: str
    expected: str
    cure: str

    def __str__(self) -> str:
        return f"{self.field} is {self.found}; expected {self.expected}. {self.cure}"


@dataclass(frozen=True, slots=True)
class Report(Record):
    """What validation saw in a file."""

    path: Path
    n_rows: int
    n_refused: int
    problems: Rows[Problem]


@dataclass(frozen=True, slots=True)
class Turn(Record):
    """One turn of a row, counted from 0."""

    row: int
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Model(Record):
    """A base model: what the catalogue says of it, and where it is once it is here.

    `skipped` names the sources that were tried before and why each was passed over. Memory is for a
    LoRA fine-tune of 1,024-token rows in bf16, weights and activations.
    """

    id: str
    family: str
    parameters_millions: float
    context_tokens: int
    licence: str
    gpu_memory_gib: float | None
    hub_id: str | None = field(metadata=LONG)
    is_here: bool
    source: str | None
    skipped: Mapping[str, str] = field(metadata=LONG)
    path: Path | None = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Memory(Record):
    """An estimate of what a job takes; `trained` is gradients and optimizer of what is trained."""

    weights_gib: float
    trained_gib: float
    activations_gib: float
    total_gib: float


@dataclass(frozen=True, slots=True)
class Job(Record):
    """A fine-tuning job. `step` counts optimizer steps; `error` says in words why it failed.

    `note` says why it waits or is paused; `parent_id` and `parent_step` name the checkpoint that it
    was forked from. `worker_pid` is the process that trains, None while there is none.
    """

    id: int
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
        """The share of the steps that are done, from 0 to 1; None before the worker knows."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None

    @property
    def is_over(self) -> bool:
        """Whether the job has reached a state that it never leaves by itself."""
        return self.state in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Metric(Record):
    """What was measured at one step. Tokens are real ones, without padding.

    `more` holds what one method alone measures, such as a reward; `note` says what the guard did.
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
    remaining_s: float | None = None
    more: Mapping[str, float] | None = field(default=None, metadata=LONG)
    note: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint(Record):
    """A checkpoint whose every file was hashed and synced before it got its name."""

    id: int
    job_id: int
    step: int
    loss: float | None
    eval_loss: float | None
    size_bytes: int
    path: Path = field(metadata=LONG)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Event(Record):
    """A command to a job: who asked for what, and what came of it at which step.

    `state` is pending, applied or refused, or undone by a rollback of the guard. `asked` and
    `result` hold old and new values of an adjustment, prompts and answers of a sample, what a
    resume skipped. A command with an `at_step` is not taken before that step.
    """

    id: int
    job_id: int
    command: str
    state: str
    step: int | None
    at_step: int | None = field(metadata=LONG)
    who: str | None
    asked: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    note: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Lineage(Record):
    """Where a job comes from, what was done to it, and what came of it.

    `facts` is what decides its bits: configuration, dataset, libraries, threads, processes.
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
            f"<h4>{name}</h4>{value._repr_html_()}" for name, value in parts if value is not None
        )
        return f"{tables}<h4>facts</h4><table>{facts}</table>"


@dataclass(frozen=True, slots=True)
class Check(Record):
    """One thing that preflight looked at; a failed one refuses the job."""

    name: str
    is_ok: bool
    found: str
    cure: str


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One prompt with its reference and the model's answer."""

    prompt: str
    reference: str
    answer: str


@dataclass(frozen=True, slots=True)
class Evaluation(Record):
    """The scores of one model on one dataset version, with how they were made."""

    id: int
    target: str
    job_id: int | None
    dataset_version_id: int
    n_rows: int
    scores: Mapping[str, float | None]
    details: Mapping[str, Any] = field(metadata=LONG)
    samples: "Rows[Sample]" = field(metadata=LONG)
    seconds: float
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Parameter(Record):
    """One line of a notebook's parameters cell."""

    name: str
    type: str
    default: Any
    help: str
