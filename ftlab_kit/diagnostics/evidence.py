"""What a job has left behind, gathered once for all checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab_kit import configs, datasets, evaluators, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.datasets.tokenized import Encodings
from ftlab_kit.errors import NotFound
from ftlab_kit.records import DatasetVersion, Evaluation, Event, Job, Metric, Rows
from ftlab_kit.workspace import Workspace

FAR_FROM_PRESET = 4  # good learning rates lie within this factor of the preset's
STEP = 3  # a learning rate near the preset's is changed by this factor
MAX_LISTED = 10  # row numbers


@dataclass(frozen=True, slots=True)
class TokenizedRows:
    """A version's rows as tokens: cut to the config's length, and whole."""

    config: Config
    version: DatasetVersion
    context_tokens: int
    cut: Encodings
    whole: Encodings


@dataclass(frozen=True, slots=True)
class Evidence:
    """A job with everything that it has left behind. `config` includes its adjustments.

    `rows` is None where the model's tokenizer is no longer here; `slots` is the number of jobs that
    may run at once.
    """

    job: Job
    config: Config
    metrics: Rows[Metric]
    events: Rows[Event]
    evaluations: Rows[Evaluation]
    version: DatasetVersion
    rows: TokenizedRows | None
    slots: int

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Steps and their training losses."""
        return [(item.step, item.loss) for item in self.metrics if item.loss is not None]

    @property
    def held_out_losses(self) -> list[tuple[int, float]]:
        """Steps and their held-out losses."""
        return [(item.step, item.eval_loss) for item in self.metrics if item.eval_loss is not None]

    @property
    def notes(self) -> Iterator[str]:
        """The notes of guard and worker, and the job's error."""
        yield from (item.note for item in self.metrics if item.note)
        yield from (item.note for item in self.events if item.note)
        if self.job.error:
            yield self.job.error

    @property
    def preset_rate(self) -> float:
        """The learning rate of the preset for this number of rows."""
        return configs.preset(self.version.n_rows).learning_rate


def gather(ws: Workspace, job: Job | int) -> Evidence:
    """Return what a job has left behind so far."""
    current = trainers.status(ws, job)
    config = trainers.settings(ws, current)
    version = datasets.get(ws, current.dataset_version_id)
    return Evidence(
        job=current,
        config=config,
        metrics=trainers.metrics(ws, current),
        events=trainers.events(ws, current),
        evaluations=evaluators.list(ws, job_id=current.id),
        version=version,
        rows=tokenize(ws, config, version),
        slots=trainers.slots(ws),
    )


def tokenize(ws: Workspace, config: Config, version: DatasetVersion) -> TokenizedRows | None:
    """Return rows as tokens, or None where the model is not here."""
    try:
        model = models.get(ws, config.model)
    except NotFound:  # a model of the user's own that was deleted
        return None
    if model.path is None:
        return None
    length = min(config.max_length, model.context_tokens)
    return TokenizedRows(
        config=config,
        version=version,
        context_tokens=model.context_tokens,
        cut=tokenized.read(ws, version, model.path, length),
        whole=tokenized.read(ws, version, model.path),
    )


def lower_rate(evidence: Evidence) -> dict[str, Any]:
    """Return a change to a lower learning rate: the preset's, or a step down from near it."""
    rate, preset = evidence.config.learning_rate, evidence.preset_rate
    return {"learning_rate": preset if rate > 2 * preset else float(f"{rate / STEP:.1e}")}


def higher_rate(evidence: Evidence) -> dict[str, Any]:
    """Return a change to a higher learning rate: the preset's, or a step up from near it."""
    rate, preset = evidence.config.learning_rate, evidence.preset_rate
    raised = preset if rate < preset / 2 else min(1.0, float(f"{rate * STEP:.1e}"))
    return {"learning_rate": raised}


def as_arguments(changes: Mapping[str, Any]) -> str:
    """Return changes as the arguments of a call."""
    return ", ".join(f"{name}={value!r}" for name, value in changes.items())


def set_settings(changes: Mapping[str, Any]) -> str:
    """Return the fix that consists of setting these."""
    return f"Set {as_arguments(changes)}."


def listed(rows: Sequence[int]) -> str:
    """Return row numbers as text, the first ten at most."""
    noun = "row" if len(rows) == 1 else "rows"
    numbers = ", ".join(str(row) for row in rows[:MAX_LISTED])
    more = len(rows) - MAX_LISTED
    return f"{noun} {numbers}" + (f" and {more} more" if more > 0 else "")
