"""The process that trains one job, and nothing else.

    python -m ftlab_kit.trainers.worker WORKSPACE JOB_ID

It takes the job from the store, trains, takes commands at step borders, and writes metrics,
checkpoints and its end back to the store. It never talks to the lab side.
"""

import math
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ftlab_kit import checkpoints, datasets, device, metrics, models
from ftlab_kit.configs import Config
from ftlab_kit.errors import JobFailed, KitError
from ftlab_kit.models import tokens, weights
from ftlab_kit.records import DatasetVersion
from ftlab_kit.trainers import checks, control
from ftlab_kit.trainers.sft import AnswerTrainer, adapter, arguments
from ftlab_kit.trainers.tracking import Tracker
from ftlab_kit.workspace import Workspace, now

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


class Steering(TrainerCallback):  # type: ignore[misc]
    """What happens at step borders: commands in, metrics out, cadence kept."""

    def __init__(self, ws: Workspace, job_id: int, config: Config, tracker: Tracker) -> None:
        """Watch one job; `trainer` is set when there is one."""
        self.ws, self.job_id, self.config, self.tracker = ws, job_id, config, tracker
        self.trainer: AnswerTrainer | None = None
        self.losses: dict[str, float | None] = {"loss": None, "eval_loss": None}
        self.is_cancelled = False
        self._gauge = device.Gauge()
        self._began = self._busy_s = self._all_busy_s = 0.0
        self._steps_timed = self._tokens_seen = self._rows_seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, flow: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many steps there will be."""
        self.ws.store.update("jobs", {"id": self.job_id}, total_steps=state.max_steps)
        say(f"training: {state.max_steps} steps, {args.train_batch_size} rows at once")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock; what happens between steps does not count as training speed."""
        self.losses = {"loss": None, "eval_loss": None}
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, flow: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock, take commands, and ask for what is due."""
        took = time.perf_counter() - self._began
        self._busy_s += took
        if state.global_step > 1:  # the first step also warms the caches
            self._all_busy_s += took
            self._steps_timed += 1
        here = {"id": self.job_id, "state": "running"}
        if not self.ws.store.update("jobs", here, step=state.global_step):
            raise JobFailed(f"Job {self.job_id} was ended from outside before this step.")
        for event in control.events(self.ws, self.job_id, state="pending"):
            control.settle(self.ws, event, "applied", state.global_step)
            self.is_cancelled = flow.should_training_stop = flow.should_save = True
        has_held_out = self.trainer is not None and bool(self.trainer.held_out)
        every = self.config.eval_every_steps or args.save_steps
        is_last = state.global_step >= state.max_steps
        if has_held_out and not self.is_cancelled:
            flow.should_evaluate = is_last or state.global_step % every == 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        flow: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the metrics of a step.

        Raises:
            JobFailed: The loss or the gradient is not a number.
        """
        logs = logs or {}
        names = ("epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
        values: dict[str, Any] = {name: logs[name] for name in names if name in logs}
        self.losses |= {name: values[name] for name in self.losses if name in values}
        if "loss" in values:
            values |= self._speed(args, state) | self._gauge.read()
        if not values:
            return
        metrics.write(self.ws, self.job_id, state.global_step, **values)
        self.tracker.write(state.global_step, values)
        say(f"step {state.global_step}/{state.max_steps} " + _line(values))
        # under fp16 the scaler takes a gradient that overflows as its sign to scale less
        for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise JobFailed(
                    f"The {name} became {values[name]} at step {state.global_step}. "
                    f"Lower learning_rate below {self.config.learning_rate:g}, or max_grad_norm "
                    f"below {self.config.max_grad_norm:g}; checkpoints before it are kept."
                )

    def _speed(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        """Return what was done since the last metrics, by time spent in steps."""
        assert self.trainer is not None
        n_tokens = self.trainer.n_tokens - self._tokens_seen
        n_rows = self.trainer.n_rows - self._rows_seen
        values = {
            "tokens_per_s": n_tokens / self._busy_s if self._busy_s else None,
            "samples_per_s": n_rows / self._busy_s if self._busy_s else None,
            "n_tokens": self.trainer.n_tokens,
            "remaining_s": (
                self._all_busy_s / self._steps_timed * (state.max_steps - state.global_step)
                if self._steps_timed
                else None
            ),
        }
        self._tokens_seen, self._rows_seen = self.trainer.n_tokens, self.trainer.n_rows
        self._busy_s = 0.0
        return values


def main(root: str, job_id: int) -> int:
    """Train a job to its end and return the exit code."""
    ws = Workspace(root)
    if not control.move(ws, job_id, "running", started_at=now()):
        return 0
    try:
        is_cancelled = train(ws, job_id)
    except KitError as error:
        control.move(ws, job_id, "failed", error=str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        control.move(
            ws, job_id, "failed", error=f"{words} The log has more: trainers.logs(ws, {job_id})."
        )
        return 1
    control.move(ws, job_id, "cancelled" if is_cancelled else "completed")
    return 0


def train(ws: Workspace, job_id: int) -> bool:
    """Train a job and return whether it was cancelled."""
    import torch

    row = control.row(ws, job_id)
    config = Config(**row["config"])
    torch.set_num_threads(device.threads(config.threads))
    set_seed(config.seed)
    tracker = Tracker(config, job_id, ws.job_folder(job_id))
    steering = Steering(ws, job_id, config, tracker)
    try:
        with weights.quiet():
            trainer = _trainer(ws, row, config, steering)
            say(f"trained parameters: {_trained(trainer.model):,}")
            trainer.train()
    finally:
        tracker.close()
    return steering.is_cancelled


def _trainer(
    ws: Workspace, row: dict[str, Any], config: Config, steering: Steering
) -> AnswerTrainer:
    """Return the trainer of a job with its rows as tokens."""
    model = models.get(ws, config.model)
    assert model.path is not None, "preflight pulled the model"
    tokenizer = weights.tokenizer(model.path)
    length = min(config.max_length, model.context_tokens)
    version = datasets.get(ws, row["dataset_version_id"])
    encoded = checks.encode(ws, tokenizer, version, length)
    rows = [item for item in encoded if item.n_trained]
    held_out: list[tokens.Encoded] = []
    if row["held_out_version_id"]:
        side = datasets.get(ws, row["held_out_version_id"])
        held_out = checks.encode(ws, tokenizer, side, length)
    say(f"model {config.model}, {len(rows)} rows, {len(held_out)} held out")
    if len(rows) < len(encoded):
        say(f"left out: {len(encoded) - len(rows)} rows without a trained token")
    precision = device.precision(config.precision)
    dtype = weights.dtype(precision, adapter=config.adapter)
    writing = ws.job_folder(row["id"]) / "writing"
    trainer = AnswerTrainer(
        model=weights.load(model.path, dtype=dtype),
        args=arguments(config, writing, n_rows=len(rows), precision=precision),
        rows=rows,
        held_out=held_out,
        seal=_sealer(ws, row["id"], config, version, steering),
        peft_config=adapter(config),
        processing_class=tokenizer,
        callbacks=[steering],
    )
    trainer.remove_callback(PrinterCallback)
    steering.trainer = trainer
    return trainer


def _sealer(
    ws: Workspace, job_id: int, config: Config, version: DatasetVersion, steering: Steering
) -> Callable[[Path], None]:
    """Return what turns a written folder into a checkpoint that can be trusted."""
    import torch

    facts = {
        "dataset_sha256": version.content_sha256,
        "config": config.model_dump(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: installed(name) for name in LIBRARIES},
    }

    def seal(written: Path) -> None:
        step = int(written.name.rpartition("-")[2])
        checkpoints.seal(ws, job_id, step, written, losses=steering.losses, facts=facts)
        checkpoints.prune(ws, job_id, keep=config.keep_checkpoints)
        say(f"checkpoint at step {step}")

    return seal


def _trained(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _line(values: dict[str, Any]) -> str:
    shown = {name: values[name] for name in ("loss", "eval_loss", "tokens_per_s") if name in values}
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)


def say(text: str) -> None:
    """Write a line to the job's log."""
    sys.stdout.write(f"{now():%H:%M:%S} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
