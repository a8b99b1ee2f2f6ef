"""What verbs leave behind: frozen records, units in the names, None for what is not known.

Every record shows itself in a notebook; `Rows` is a tuple of records that shows as a table.
"""

import dataclasses
import difflib
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

LONG = {"long": True}  # metadata of a field that a table of many records leaves out
SHOWN = 10  # records of a table inside another record
ALIKE = 0.4  # share of words that two texts must have in common to be marked word by word
CELL = 'style="text-align:left;vertical-align:top;padding:2px 10px 2px 0"'
LINES = 'style="text-align:left;white-space:pre-wrap"'  # of a cell whose text has lines


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


def cell(text: str) -> str:
    """Return text as a cell of a table; its lines stay lines."""
    return f"<td {LINES if chr(10) in text else CELL}>{html.escape(text)}</td>"


def percent(share: float | None) -> str:
    """Return a share as people read it."""
    if share is None or 0.005 <= share <= 0.995 or share in (0, 1):
        return show(share) if share is None else f"{share:.0%}"
    return f"{share:.1%}"


def marked(was: str, what: str) -> str:
    """Return a text with what was taken out and put in, word by word, marked as HTML has it.

    Texts that have little in common are marked as a whole: a few shared words would only confuse.
    """
    old, new = (re.findall(r"\s+|\S+", text) for text in (was, what))
    parts = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    # white space alone makes any two texts half alike
    said = difflib.SequenceMatcher(None, was.split(), what.split(), autojunk=False).ratio()
    changes = matcher.get_opcodes() if said >= ALIKE else [("replace", 0, len(old), 0, len(new))]
    for kind, i, j, k, m in changes:
        if kind == "equal":
            parts.append(html.escape("".join(new[k:m])))
            continue
        gone, came = html.escape("".join(old[i:j])), html.escape("".join(new[k:m]))
        parts.append(
            (f"<del>{gone}</del>" if gone else "") + (f"<ins>{came}</ins>" if came else "")
        )
    return "".join(parts)


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

    def _repr_html_(self) -> str | None:
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
            "<tr>" + "".join(cell(show(getattr(row, name))) for name in names) + "</tr>"
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

    `side` is "all" for a version that was added, "train" or "held_out" for one side of a split,
    "sample" for a part;
    `parent_id` names the version that it was made from, or the one that came before. `made` says
    by which verb, of what and how. `kind` is that of its rows: chat, preference, label or text.
    """

    id: int
    dataset: str
    side: str
    kind: str
    n_rows: int
    n_refused: int
    content_sha256: str = field(metadata=LONG)
    path: Path = field(metadata=LONG)
    parent_id: int | None
    made: Mapping[str, Any] = field(hash=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """A line that was refused: where, what was found, what was expected, and the cure.

    Where a source has no lines, `line` is the row's number; both count from 1. `file` is the file
    of a folder, `text` what the line says, its beginning at least.
    """

    line: int
    field: str
    found: str
    expected: str
    cure: str
    file: str | None = dataclasses.field(default=None, metadata=LONG)
    text: str | None = dataclasses.field(default=None, metadata=LONG)

    def __str__(self) -> str:
        return f"{self.field} is {self.found}; expected {self.expected}. {self.cure}"


@dataclass(frozen=True, slots=True)
class Report(Record):
    """What validation saw in a source: its form, its rows, and the first thousand problems.

    `form` is what most of the first rows have, None if none has a known one; `skipped` names the
    files of a folder that hold no rows.
    """

    source: str
    form: str | None
    n_rows: int
    n_refused: int
    problems: Rows[Problem]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Likeness(Record):
    """Two rows that say the same or nearly so, counted from 0.

    `share` is that of the runs of three words which they have in common, 1 for equal rows. In a
    leak, `of` is a row of the held-out version.
    """

    row: int
    of: int
    share: float


@dataclass(frozen=True, slots=True)
class Personal(Record):
    """What looks like personal data or a key: where it stands, and enough to know it by."""

    row: int
    field: str
    kind: str
    found: str


@dataclass(frozen=True, slots=True)
class Outlier(Record):
    """A row whose answer the base model finds far more or far less likely than the others.

    `loss` is the mean of its trained tokens, `distance` how many robust deviations it lies from
    the median.
    """

    row: int
    loss: float
    distance: float


@dataclass(frozen=True, slots=True)
class Part(Record):
    """One part of a quality score: what it got of what it could get; None if it is not known."""

    name: str
    points: float | None
    out_of: float
    found: str


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """What a version is like: its score from 0 to 100 with every part, and what it is made from.

    Lengths are in tokens of `model`, whole rows; `n_cut` counts rows whose answers are cut at
    `max_length`; `n_untrained` those without any trained token. `repeated` names the rows that
    repeat an earlier one, to be left out. What is not known is None.
    """

    version: DatasetVersion = field(metadata=LONG)
    score: float
    parts: Rows[Part]
    advice: tuple[str, ...]
    model: str | None
    max_length: int | None
    n_tokens: int | None
    trained_share: float | None
    n_cut: int | None
    n_untrained: int | None
    percentiles: Mapping[str, float] | None
    lengths: tuple[int, ...] | None = field(metadata=LONG)
    duplicates: Rows[Likeness]
    leaks: Rows[Likeness] | None
    languages: Mapping[str, float]
    personal: Rows[Personal]
    outliers: Rows[Outlier] | None
    losses: tuple[float, ...] | None = field(metadata=LONG)

    @property
    def repeated(self) -> tuple[int, ...]:
        """The rows that repeat an earlier one, exactly or nearly."""
        return tuple(sorted({item.row for item in self.duplicates}))

    def _repr_html_(self) -> str:
        names = ("parts", "duplicates", "leaks", "personal", "outliers")
        facts = {
            "score": f"{self.score:.0f} of 100",
            "tokens": f"{show(self.n_tokens)}, {percent(self.trained_share)} of them trained",
            "tokens of a row": self.percentiles,
            "rows cut": self.n_cut,
            "rows without a trained token": self.n_untrained,
            "languages": {name: percent(share) for name, share in self.languages.items()},
            "advice": "; ".join(self.advice),
        }
        head = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(value))}</td></tr>"
            for name, value in facts.items()
        )
        tables = ""
        for name in names:
            found = getattr(self, name)
            if found is None:
                tables += f"<h3>{name}</h3><p>not known</p>"
            else:
                more = f"<p>… and {len(found) - SHOWN} more</p>" if len(found) > SHOWN else ""
                tables += f"<h3>{name}</h3>{Rows(found[:SHOWN])._repr_html_()}{more}"
        return f"<table>{head}</table>{tables}"


@dataclass(frozen=True, slots=True)
class Change(Record):
    """One row that two versions do not share, counted from 0 in each; `what` is its text.

    A changed row has the same `id`, or else the same question, in both.
    """

    change: str
    before: int | None
    after: int | None
    what: str
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Diff(Record):
    """What became of the rows of one version in another; `changes` holds the first thousand."""

    before: DatasetVersion = field(metadata=LONG)
    after: DatasetVersion = field(metadata=LONG)
    n_same: int
    n_added: int
    n_removed: int
    n_changed: int
    changes: Rows[Change]

    def _repr_html_(self) -> str:
        counts = f"{self.n_same} rows the same, {self.n_added} added, {self.n_removed} removed, "
        names = ("change", "before", "after", "what")
        head = "".join(f"<th {CELL}>{name}</th>" for name in names)
        body = ""
        for item in self.changes[:SHOWN]:
            cells = [html.escape(show(getattr(item, name))) for name in names]
            if item.was is not None:
                cells[-1] = marked(item.was, item.what)
            body += "<tr>" + "".join(f"<td {LINES}>{cell}</td>" for cell in cells) + "</tr>"
        n_more = self.n_added + self.n_removed + self.n_changed - SHOWN
        more = f"<p>… and {n_more} more</p>" if n_more > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{counts}{self.n_changed} changed</p>{table if body else ''}{more}"


@dataclass(frozen=True, slots=True)
class Token(Record):
    """A token of a row, and whether it is trained, context, an end that is trained, or cut."""

    id: int
    text: str
    role: str


@dataclass(frozen=True, slots=True)
class Mask(Record):
    """A row as a trainer sees it: every token, and what becomes of it."""

    version: DatasetVersion = field(metadata=LONG)
    model: str
    row: int
    side: str | None
    max_length: int
    n_trained: int
    n_cut: int
    tokens: Rows[Token]


@dataclass(frozen=True, slots=True)
class Card(Record):
    """A dataset version in words: what it holds, where it comes from, what it is like."""

    markdown: str

    def _repr_html_(self) -> None:
        return None  # a front end would prefer it

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __str__(self) -> str:
        return self.markdown


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
    """What was measured at one step. Tokens are real ones, without padding; utilisations 0 to 1.

    `more` holds what one method alone measures, such as a reward, and the scores of sample answers;
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
class Stretch(Record):
    """Some steps of a curve: the first and last with a value, how many, and what they say."""

    first: int
    last: int
    n: int
    low: float
    high: float
    mean: float


@dataclass(frozen=True, slots=True)
class Curve(Record):
    """One metric of a job over its steps, in stretches of equal width; no spike is lost.

    `start` and `end` are its first and its last value, None where it has none.
    """

    name: str
    width_steps: int
    stretches: "Rows[Stretch]" = field(metadata=LONG)
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True)
class Checkpoint(Record):
    """A checkpoint whose every file was hashed and synced before it got its name.

    `scores` is what evaluations have measured of it, the newest of each.
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
    """Whether a model says after an export what it said before: by rows, answers and numbers.

    `n_same` of `n_answers` greedy answers are the same to the last character; `change` is that of
    perplexity, relative; None where one of the two is no finite number. `first_difference` shows
    prompt, answer before and answer after.
    """

    is_ok: bool
    n_rows: int
    n_answers: int
    n_same: int
    least_same: float
    perplexity_before: float | None
    perplexity_after: float | None
    change: float | None
    most_change: float
    first_difference: tuple[str, ...] | None = field(default=None, metadata=LONG)


@dataclass(frozen=True, slots=True)
class Export(Record):
    """A model made of a checkpoint that stands on its own, with its certificate.

    `model` is its name among the workspace's models, None for what is not registered there.
    """

    id: int
    job_id: int
    step: int
    form: str
    precision: str
    model: str | None
    path: Path
    size_bytes: int
    certificate: Certificate = field(metadata=LONG)
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
            f"<h3>{name}</h3>{value._repr_html_()}" for name, value in parts if value is not None
        )
        return f"{tables}<h3>facts</h3><table>{facts}</table>"


@dataclass(frozen=True, slots=True)
class Check(Record):
    """One thing that preflight looked at; a failed one refuses the job."""

    name: str
    is_ok: bool
    found: str
    cure: str


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One prompt with its reference and the model's answer.

    In an evaluation `row` counts from 0 and `scores` holds the row's own, None where it has none;
    `is_whole` tells whether the answer ended by itself. `step` is that of the weights.
    """

    prompt: str
    reference: str
    answer: str | None
    row: int | None = None
    step: int | None = None
    is_whole: bool | None = None
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
class Moved(Record):
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

    words: str
    differences: "Rows[Difference]"
    changed: "Rows[Moved]"

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(self.words)}</p>{self.differences._repr_html_()}"
            f"<h3>rows that changed most</h3>{Rows(self.changed[:SHOWN])._repr_html_()}"
        )


@dataclass(frozen=True, slots=True)
class Course(Record):
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
class Spread(Record):
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
    tokens_per_s: Spread
    samples_per_s: Spread
    gpu_utilisation: Spread
    peak_memory_gib: float | None
    peak_gpu_memory_gib: float | None
    loss: Course
    eval_loss: Course
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

    words: str
    n_jobs: int
    job_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leader(Record):
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
    best: "Rows[Leader]"

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

    words: str
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
            f"<p>{html.escape(self.words)}</p>{_grid(['setting', *names], settings)}"
            f"{_grid(['measure', *names, 'best', 'note'], measures)}"
        )


def _grid(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


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
    cure: str
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
    words: str
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
        return f"<p>{html.escape(self.words)}</p><table>{rows}</table>{found}"


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """What an answer took. A thinking model's thoughts are output; the cost is the list price.

    None is what the server does not say, or what has no known price.
    """

    n_input_tokens: int | None
    n_output_tokens: int | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Message(Record):
    """What a chat model said. `is_whole` tells whether it ended by itself, None if not known.

    `left_out` names the settings that the model takes none of, and that it answered without.
    """

    role: str
    content: str
    usage: Usage
    is_whole: bool | None
    seconds: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter(Record):
    """One line of a notebook's parameters cell."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class Checked(Record):
    """What an exercise says to an answer; `is_right` is None while there is none."""

    is_right: bool | None
    words: str

    def _repr_html_(self) -> str:
        sign = {True: "✔", False: "✘", None: "…"}[self.is_right]
        return f'<p role="status">{sign} {html.escape(self.words)}</p>'
