"""What the kit adds to the trainer of every method, over transformers' own loop.

An endless order of rows that can be entered at any step, a schedule that can be changed,
checkpoints that are committed with hashes, a step that is done again in smaller micro-batches when
memory runs out, and a guard before every update. TRL's trainer of the method computes the loss.
"""

import gc
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import should_reduce_batch_size

from ftlab_kit.errors import DiskFull, JobFailed, KitError, OutOfRoom, room_on_disk
from ftlab_kit.trainers.run import guard
from ftlab_kit.trainers.run.sampler import ShuffledSampler
from ftlab_kit.trainers.run_state import RunState

FULL_BYTES = 2**20  # torch doesn't say why a write failed; with less free space the disk is full


@dataclass(slots=True)
class Step:
    """What one optimizer step has processed so far; `lines` are those of its rows."""

    rng_states: list[torch.Tensor]
    loss: float | torch.Tensor = 0.0
    n_tokens: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Hooks:
    """What the trainer calls.

    Attributes:
        commit: With the folder of a checkpoint that is written.
        halved: With a smaller micro-batch, and the reason.
        skipped: With the reason and the lines, when the guard leaves a batch out.
        stopped: With the reason, when the guard ends the run.
        count_rollbacks: Returns how many rollbacks the job has had.
    """

    commit: Callable[[Path], None]
    halved: Callable[[int, str], None]
    skipped: Callable[[str, list[int]], None]
    stopped: Callable[[str], None]
    count_rollbacks: Callable[[], int]


class ExactTrainerMixin:
    """The kit's part of a trainer; stands before TRL's trainer among the bases."""

    # attributes of transformers' Trainer
    args: Any
    accelerator: Any
    control: Any
    lr_scheduler: Any
    model: Any
    optimizer: Any
    processing_class: Any
    state: Any

    def __init__(
        self,
        *,
        run_state: RunState,
        lengths: Sequence[int],
        hooks: Hooks,
        start: Path | None,
        **kwargs: Any,
    ) -> None:
        """Set up a run.

        Args:
            run_state: The state at its beginning.
            lengths: The length of each row.
            hooks: What is called on the way.
            start: The checkpoint to start from; None for the first step.
            **kwargs: The arguments of TRL's trainer.
        """
        self.run_state, self.lengths, self.hooks, self.checkpoint = run_state, lengths, hooks, start
        self.first_step = int(start.name.rpartition("-")[2]) if start else 0
        self.note: str | None = None
        self.step_metrics: dict[str, float] = {}
        self._loss_weight = 1.0
        self._must_restore_rng = start is not None
        super().__init__(**kwargs)
        self.data_collator = _CollateLines(self.data_collator)  # type: ignore[has-type]
        self.step = Step(_rng_states())

    def _get_train_sampler(self, dataset: Any = None) -> ShuffledSampler:
        config = self.run_state.config
        return ShuffledSampler(
            self.lengths,
            config.prompts_a_step,
            config.seed,
            start=self.first_step,
            processes=config.processes,
        )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns: list[str]
        if "line" not in self._signature_columns:
            self._signature_columns += ["line", "position_ids"]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a step's rows; after the first fetch a resumed job restores its RNG state."""
        samples = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        if self._must_restore_rng:  # a data loader draws a random number when it starts
            self._load_rng_state(str(self.checkpoint))  # type: ignore[attr-defined]
            self._must_restore_rng = False
        return samples

    def begin_step(self) -> None:
        """Begin to record what an optimizer step processes."""
        self.step, self.note = Step(_rng_states()), None
        # TRL averages since the last log, and so would depend on where a run was interrupted
        self._metrics["train"].clear()  # type: ignore[attr-defined]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Compute the gradients of the loader's rows, one micro-batch after another.

        For a method that can be split, the loader brings all rows of a step at once. If memory runs
        out, the whole step is undone and done again in smaller micro-batches.
        """
        self.step.lines += _pop_lines(inputs)
        self.step.n_tokens += self.count_tokens(inputs)
        while True:
            try:
                loss = self._train_in_micro_batches(model, inputs, num_items_in_batch)
                self.step.loss = self.step.loss + loss
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error) or "out of memory").splitlines()[0]
            # outside the handler: the exception's traceback keeps the whole graph alive
            self._halve(reason)
            self._undo_step(model)

    def _train_in_micro_batches(self, model: Any, inputs: Any, count: Any) -> Any:
        training_step = super().training_step  # type: ignore[misc]
        n_rows, total = self.count_rows(inputs), 0.0
        micro_batches = [*self.micro_batches(inputs, self.run_state.micro_batch)]
        for number, micro_batch in enumerate(micro_batches, 1):
            self._loss_weight = self.count_rows(micro_batch) / n_rows
            is_last = number == len(micro_batches)
            # processes exchange gradients once, with the last one
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                total = total + training_step(model, micro_batch, count)
        self._loss_weight = 1.0
        return total

    def _halve(self, reason: str) -> None:
        size = self.run_state.micro_batch
        if size == 1 or not self.can_split or self.args.world_size > 1:
            raise OutOfRoom(
                f"The memory does not hold {'one row' if size == 1 else f'{size} rows'} at a time "
                f"({reason}). Lower max_length{'' if size == 1 else ' or micro_batch'}, or set "
                "gradient_checkpointing=True."
            )
        self.run_state.micro_batch = math.ceil(size / 2)
        self.hooks.halved(self.run_state.micro_batch, reason)

    def _undo_step(self, model: Any) -> None:
        """Undo the step: its gradients, and the random numbers that it has drawn."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(self.step.rng_states[1])
        torch.set_rng_state(self.step.rng_states[0])
        model.zero_grad()
        self._metrics["train"].clear()  # type: ignore[attr-defined]
        self._loss_weight = 1.0

    def fits(self, numbers: Sequence[int]) -> bool:
        """Return whether a micro-batch of these rows fits in memory; it changes nothing."""
        rows = [self.train_dataset[number] for number in numbers]  # type: ignore[attr-defined]
        try:
            with torch.random.fork_rng():
                inputs = self._prepare_inputs(self.data_collator(rows))  # type: ignore[attr-defined]
                _pop_lines(inputs)
                for micro_batch in self.micro_batches(inputs, len(numbers)):
                    with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                        loss = self.compute_loss(self.model, micro_batch)
                    loss.backward()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.model.zero_grad()

    # whether a step's rows can be divided into micro-batches of any size
    can_split = False

    def micro_batches(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield the loader's rows in micro-batches of at most `size`; as one if it can't split."""
        yield inputs

    def count_rows(self, inputs: Any) -> int:
        """Return the rows of a batch."""
        return len(inputs["input_ids"]) if isinstance(inputs, Mapping) else len(inputs)

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a batch, without padding."""
        return 0

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss, weighted by the micro-batch's share of the rows."""
        loss = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        return loss if self._loss_weight == 1.0 else loss * self._loss_weight

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        self._check_step(norm)
        return norm

    def _check_step(self, norm: Any) -> None:
        """Let the guard check a step before it changes a weight, and do what the config says."""
        loss, n_tokens = float(self.step.loss), float(self.step.n_tokens)
        if self.args.world_size > 1:
            own = torch.tensor([loss, n_tokens], dtype=torch.float64, device=self.args.device)
            loss, n_tokens = self.accelerator.reduce(own, "sum").tolist()
        self.run_state.n_tokens += int(n_tokens)
        loss, grad_norm = loss / self.args.world_size, float(norm)
        self.step_metrics = {"loss": loss, "grad_norm": grad_norm}
        problem = guard.check_step(self.run_state, loss, grad_norm, is_scaled=self.args.fp16)
        if problem is not None:
            self._react(problem)

    def _react(self, problem: str) -> None:
        """Roll back, leave the batch out, or stop, as the config says."""
        run_state, config, step = self.run_state, self.run_state.config, self.state.global_step + 1
        lines = sorted(set(gather_object(self.step.lines)))
        message = f"{problem} at step {step}, {guard.describe_lines(lines)}"
        if config.guard == "rollback":
            is_first = self.args.process_index == 0
            n_rollbacks = self.broadcast(self.hooks.count_rollbacks() if is_first else None)
            if n_rollbacks < config.guard_tries:
                raise guard.RollbackRequested(step, message, lines, config.learning_rate)
            message += f", after {n_rollbacks} rollbacks with a lower learning rate"
        # under fp16 the scaler decides itself whether a step is taken
        can_skip = config.guard == "skip" and not self.args.fp16
        if can_skip and run_state.tries < config.guard_tries:
            run_state.tries += 1
            self.note = f"left out: {message}"
            # AdamW skips a weight whose gradient is None, with its moments
            self.optimizer.zero_grad(set_to_none=True)
            self.hooks.skipped(message, lines)
            return
        self.note = message
        skipped = f" after {run_state.tries} batches left out" if run_state.tries else ""
        self.hooks.stopped(message)
        raise JobFailed(
            f"{message[0].upper()}{message[1:]}{skipped}. Look at these rows. Earlier checkpoints "
            f"are kept: lower learning_rate below {config.learning_rate:g} with trainers.adjust"
            f"{'' if self.args.fp16 else ', or set its guard to skip or rollback'}, then resume."
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the learning rate schedule of the current settings."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, self.run_state.rate()
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def apply_settings(self) -> None:
        """Apply adjusted settings: learning rate, schedule, weight decay, clipping, last step."""
        config, schedule, rate = self.run_state.config, self.lr_scheduler, self.run_state.rate()
        self.args.max_grad_norm = config.max_grad_norm
        self.state.max_steps = self.run_state.total_steps
        decaying = set(self.get_decay_parameter_names(self.model))  # type: ignore[attr-defined]
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        for group in self.optimizer.param_groups:
            group["initial_lr"] = config.learning_rate
            group["lr"] = config.learning_rate * rate(schedule.last_epoch)
            if any(names.get(id(weight)) in decaying for weight in group["params"]):
                group["weight_decay"] = config.weight_decay
        schedule.lr_lambdas = [rate] * len(self.optimizer.param_groups)
        schedule.base_lrs = [config.learning_rate] * len(self.optimizer.param_groups)
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        failure: KitError | None = None
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                self._write(folder, model, trial)
            except KitError as error:
                failure = error
            if self.args.world_size > 1:  # if one process can't write its part, no part counts
                messages = [text for text in gather_object([str(failure or "")]) if text]
                failure = failure or (DiskFull(messages[0]) if messages else None)
            if failure:
                raise failure
            undo.pop_all()
        if self.args.process_index == 0:
            self.hooks.commit(folder)
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, model: Any, trial: Any) -> None:
        what = f"the checkpoint of step {self.state.global_step}"
        try:
            with room_on_disk(what):
                # not TRL's own, which writes a model card into every checkpoint
                transformers.Trainer._save_checkpoint(self, model, trial)
                if self.args.process_index == 0:
                    self.run_state.save(folder)
        except RuntimeError as error:
            if shutil.disk_usage(self.args.output_dir).free > FULL_BYTES:
                raise
            raise DiskFull(
                f"The disk is full while writing {what}; nothing was kept of it. Free some space."
            ) from error

    @property
    def n_tokens(self) -> int:
        """The real tokens so far, over all processes."""
        return self.run_state.n_tokens

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in all processes."""
        if self.args.world_size == 1:
            return value
        values = [value]
        broadcast_object_list(values)
        return values[0]


class _CollateLines:
    """A collator that keeps the rows' line numbers with the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        lines = [row.pop("line") for row in rows]
        batch = self.collate(rows)
        if isinstance(batch, Mapping):
            return {**batch, "line": lines}
        return [{**row, "line": line} for row, line in zip(batch, lines, strict=True)]


def _pop_lines(inputs: Any) -> list[int]:
    """Remove the line numbers from a batch and return them, counted from 1."""
    if isinstance(inputs, Mapping):
        per_row = inputs.pop("line")  # type: ignore[attr-defined]
        # a pack has several lines
        return [line for row in per_row for line in (row if isinstance(row, list) else [row])]
    return sorted({row["line"] for row in inputs})


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory has run out, on a GPU or a processor."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def _rng_states() -> list[torch.Tensor]:
    """Return the states of torch's random generators: the processor's, and the GPU's if any."""
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *on_gpu]
