"""What a job carries from step to step besides weights and moments; every checkpoint has it.

The settings as adjusted so far, counters, and what the guard and early stopping remember. With the
weights, the optimizer and the random states it decides the rest of the run.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict
from ftlab_kit.jobs import states
from ftlab_kit.records import Event, Job, Rows
from ftlab_kit.workspace import Workspace

FILE = "live.json"
WINDOW = 20  # steps whose median the guard compares with


def total_steps(config: Config, n_rows: int) -> int:
    """Return the number of optimizer steps of a job on a number of rows."""
    return config.max_steps or max(1, math.ceil(config.epochs * n_rows / config.prompts_a_step))


@dataclass(slots=True)
class RunState:
    """The state of a run at a step border.

    `micro_batch` is the one in use, which running out of memory makes smaller; `applied` holds the
    ids of the events that this state includes already.
    """

    config: Config
    n_rows: int
    micro_batch: int
    warmup_steps: int = 0
    applied: list[int] = field(default_factory=list)
    n_tokens: int = 0
    n_seen: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tries: int = 0
    best: float | None = None
    n_worse: int = 0
    is_stopped: bool = False

    @classmethod
    def begin(cls, config: Config, n_rows: int, micro_batch: int) -> Self:
        """Return the state before the first step."""
        # an adjusted number of steps moves the end of the schedule, never its warm-up
        warmup = round(config.warmup_fraction * total_steps(config, n_rows))
        return cls(config, n_rows, micro_batch, warmup)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the state that a checkpoint was written with."""
        values: dict[str, Any] = json.loads((folder / FILE).read_text())
        if "piece" in values:  # its name up to 0.2.0
            values["micro_batch"] = values.pop("piece")
        return cls(**{**values, "config": Config(**values["config"])})

    def save(self, folder: Path) -> None:
        """Write the state into the folder of a checkpoint."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["config"] = self.config.model_dump()
        (folder / FILE).write_text(json.dumps(values, indent=1))

    @property
    def total_steps(self) -> int:
        """The step after which the job is done, by the settings as they are now."""
        return total_steps(self.config, self.n_rows)

    def epoch(self, step: int) -> float:
        """Return how many times the rows have been seen after a step."""
        return step * self.config.prompts_a_step / self.n_rows

    def is_due(self, every: int | None, step: int, *, parts: int = 5) -> bool:
        """Return whether something that happens every few steps is due.

        Args:
            every: The interval in steps; None makes it happen `parts` times in the run.
            step: The step that is done.
            parts: How often it happens where `every` is None.
        """
        every = every or max(1, math.ceil(self.total_steps / parts))
        return step % every == 0 or step >= self.total_steps

    def adjust(self, changes: dict[str, Any]) -> dict[str, list[Any]]:
        """Change settings and return the old and the new value of each.

        Raises:
            ConfigError: No such setting, or a value out of bounds.
            Conflict: A setting that can't change while a job runs.
        """
        check(self.config, changes)
        before, self.config = self.config, self.config.but(**changes)
        return {name: [getattr(before, name), getattr(self.config, name)] for name in changes}

    def is_stopped_early(self, eval_loss: float) -> bool:
        """Take a held-out loss, and return whether too many in a row were not the best so far."""
        is_better = self.best is None or eval_loss < self.best
        self.best = eval_loss if is_better else self.best
        self.n_worse = 0 if is_better else self.n_worse + 1
        patience = self.config.early_stopping
        self.is_stopped = patience is not None and self.n_worse >= patience
        return self.is_stopped

    def rate(self) -> Callable[[int], float]:
        """Return the factor on the learning rate as a function of the step, from 0 to 1."""
        import torch
        from transformers import get_scheduler

        # the library's own curves: get_scheduler wants an optimizer, so it gets one of a dummy
        dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = get_scheduler(
            {"constant": "constant_with_warmup"}.get(self.config.schedule, self.config.schedule),
            dummy,
            num_warmup_steps=self.warmup_steps,
            num_training_steps=max(self.total_steps, self.warmup_steps + 1),
        )
        factor: Callable[[int], float] = schedule.lr_lambdas[0]
        return factor


def adjustments(ws: Workspace, job_id: int, *, with_pending: bool = False) -> Rows[Event]:
    """Return the adjustments that a job has applied, the oldest first.

    Args:
        ws: The workspace.
        job_id: The job.
        with_pending: Also those that it has not applied yet.
    """
    event_states = ["applied", "pending"] if with_pending else ["applied"]
    return states.events(ws, job_id, command="adjust", state=event_states)


def settings(ws: Workspace, job: Job, *, with_pending: bool = False) -> Config:
    """Return a job's settings as they are now: its config with its adjustments.

    Args:
        ws: The workspace.
        job: The job.
        with_pending: Also with the adjustments that it has not applied yet.
    """
    changes: dict[str, Any] = {}
    for event in adjustments(ws, job.id, with_pending=with_pending):
        changes |= event.arguments or {}
    return Config(**{**job.config, **changes})


def settings_of_checkpoint(folder: Path, job: Job) -> Config:
    """Return the settings that a job had when it wrote a checkpoint.

    Args:
        folder: The checkpoint's folder.
        job: The job, whose config holds for checkpoints that don't store their settings.
    """
    return RunState.load(folder).config if (folder / FILE).exists() else Config(**job.config)


def check(config: Config, changes: dict[str, Any]) -> None:
    """Refuse changes that can't be made while a job runs.

    Raises:
        ConfigError: No such setting, or a value out of bounds.
        Conflict: A setting that is fixed at the start; names the way out.
    """
    config.but(**changes)
    fixed = [name for name in changes if not is_live(name)]
    if fixed:
        live = ", ".join(name for name in Config.model_fields if is_live(name))
        raise Conflict(
            f"{' and '.join(fixed)} can't change while a job runs; {live} can. Start a new job "
            f"from a checkpoint of this one: trainers.fork(ws, job, "
            f"{fixed[0]}={changes[fixed[0]]!r})."
        )


def is_live(name: str) -> bool:
    """Return whether a setting may change while a job runs."""
    extra = Config.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra["live"])
