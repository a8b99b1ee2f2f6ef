"""What a job has left behind, gathered once, for the looks that judge it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab_kit import configs, datasets, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.datasets.tokenized import Encodings
from ftlab_kit.errors import NotFound
from ftlab_kit.records import DatasetVersion, Evaluation, Event, Job, Metric, Rows
from ftlab_kit.workspace import Workspace

FAR_FROM_USUAL = 4  # good rates lie within so many times the preset's, one way or the other
STEP = 3  # a rate that is near the usual one is moved by so much


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows as a config has them read: cut to its length, and whole."""

    config: Config
    version: DatasetVersion
    context_tokens: int
    cut: Encodings
    whole: Encodings


@dataclass(frozen=True, slots=True)
class Evidence:
    """A job with all that it has left. `config` is as it was adjusted.

    `reading` is None where the model's tokenizer is not here any more; `slots` counts the jobs that
    may run at once.
    """

    job: Job
    config: Config
    metrics: Rows[Metric]
    events: Rows[Event]
    evaluations: Rows[Evaluation]
    version: DatasetVersion
    reading: Reading | None
    slots: int

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Steps and their training losses."""
        return [(item.step, item.loss) for item in self.metrics if item.loss is not None]

    @property
    def held_out(self) -> list[tuple[int, float]]:
        """Steps and their held-out losses."""
        return [(item.step, item.eval_loss) for item in self.metrics if item.eval_loss is not None]

    @property
    def said(self) -> Iterator[str]:
        """What guard and worker have said of this job."""
        yield from (item.note for item in self.metrics if item.note)
        yield from (item.note for item in self.events if item.note)
        if self.job.error:
            yield self.job.error

    @property
    def usual_rate(self) -> float:
        """The learning rate of the preset for so many rows."""
        return configs.preset(self.version.n_rows).learning_rate


def gather(ws: Workspace, job: Job | int) -> Evidence:
    """Return what a job has left behind so far."""
    found = trainers.status(ws, job)
    config = trainers.settings(ws, found)
    version = datasets.get(ws, found.dataset_version_id)
    scored = ws.store.rows("evaluations", job_id=found.id)
    return Evidence(
        job=found,
        config=config,
        metrics=trainers.metrics(ws, found),
        events=trainers.events(ws, found),
        evaluations=Rows(Evaluation.of(row) for row in scored),
        version=version,
        reading=read(ws, config, version),
        slots=trainers.slots(ws),
    )


def read(ws: Workspace, config: Config, version: DatasetVersion) -> Reading | None:
    """Return rows as tokens, or None where the model is not here."""
    try:
        model = models.get(ws, config.model)
    except NotFound:  # one of the user's own, that is gone
        return None
    if model.path is None:
        return None
    length = min(config.max_length, model.context_tokens)
    return Reading(
        config=config,
        version=version,
        context_tokens=model.context_tokens,
        cut=tokenized.read(ws, version, model.path, length),
        whole=tokenized.read(ws, version, model.path),
    )


def lower(seen: Evidence) -> dict[str, Any]:
    """Return the change to a lower learning rate: the usual one, or a step down from near it."""
    rate, usual = seen.config.learning_rate, seen.usual_rate
    return {"learning_rate": usual if rate > 2 * usual else float(f"{rate / STEP:.1e}")}


def higher(seen: Evidence) -> dict[str, Any]:
    """Return the change to a higher learning rate: the usual one, or a step up from near it."""
    rate, usual = seen.config.learning_rate, seen.usual_rate
    up = usual if rate < usual / 2 else min(1.0, float(f"{rate * STEP:.1e}"))
    return {"learning_rate": up}


def in_words(changes: Mapping[str, Any]) -> str:
    """Return changes as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in changes.items())


def rows_in_words(rows: Sequence[int]) -> str:
    """Return row numbers, the first ten at most."""
    shown = ", ".join(str(row) for row in rows[:10])
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}" + (
        f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    )
