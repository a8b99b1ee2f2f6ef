"""What every method's trainer gets from us, over transformers' own loop.

An endless order of rows that is entered at any step, a schedule that can be changed, checkpoints
that are sealed, a step that heals itself when memory runs out, and a guard before every update.
The method's trainer (TRL's) stays what computes the loss.
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

FULL_BYTES = 2**20  # torch does not say why it could not write; a disk with less is full


@dataclass(slots=True)
class Step:
    """What one optimizer step has seen so far."""

    chance: list[torch.Tensor]
    loss: float | torch.Tensor = 0.0
    tokens: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Hooks:
    """What the trainer calls.

    `seal` with the folder of every written checkpoint, `halved` with a new micro-batch and why,
    `skipped` with words and lines when the guard leaves a batch out, `stopped` with words when it
    ends the run; `rollbacks` returns how often it went back already.
    """

    seal: Callable[[Path], None]
    halved: Callable[[int, str], None]
    skipped: Callable[[str, list[int]], None]
    stopped: Callable[[str], None]
    rollbacks: Callable[[], int]


class ExactTrainerMixin:
    """The part of a trainer that is ours; stands before TRL's trainer among the bases."""

    # what transformers' Trainer brings
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
        live: RunState,
        lengths: Sequence[int],
        hooks: Hooks,
        start: Path | None,
        **kwargs: Any,
    ) -> None:
        """Take the state to begin with, the rows' lengths, and the checkpoint to start from."""
        self.live, self.lengths, self.hooks, self.resumed = live, lengths, hooks, start
        self.first_step = int(start.name.rpartition("-")[2]) if start else 0
        self.note: str | None = None
        self.measured: dict[str, float] = {}
        self._share = 1.0
        self._is_fresh = start is not None
        super().__init__(**kwargs)
        self.data_collator = _Lines(self.data_collator)  # type: ignore[has-type]
        self.step = Step(_chance())

    # --- rows ---------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Any = None) -> ShuffledSampler:
        config = self.live.config
        start, shares = self.first_step, config.processes
        return ShuffledSampler(
            self.lengths, config.prompts_a_step, config.seed, start=start, shares=shares
        )

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns: list[str]
        if "line" not in self._signature_columns:
            self._signature_columns += ["line", "position_ids"]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch a step's rows; a resumed job takes its random states up after the first."""
        found = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        if self._is_fresh:  # a data loader draws a number when it begins
            self._load_rng_state(str(self.resumed))  # type: ignore[attr-defined]
            self._is_fresh = False
        return found

    # --- one step -----------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Begin to collect what an optimizer step sees."""
        self.step, self.note = Step(_chance()), None
        # TRL's means since the last log would hang on where a run was cut
        self._metrics["train"].clear()  # type: ignore[attr-defined]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Learn from what the loader brings, in pieces of the micro-batch's size.

        Where a method can be split, the loader brings all rows of a step at once, so that a step in
        which memory runs out is undone as a whole and done again in smaller pieces.
        """
        self.step.lines += _take_lines(inputs)
        self.step.tokens += self.count_tokens(inputs)
        while True:
            try:
                loss = self._in_pieces(model, inputs, num_items_in_batch)
                self.step.loss = self.step.loss + loss
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                words = (str(error) or "out of memory").splitlines()[0]
            # past the handler, which would keep the whole graph alive
            self._halve(words)
            self._undo(model)

    def _in_pieces(self, model: Any, inputs: Any, count: Any) -> Any:
        learn = super().training_step  # type: ignore[misc]
        n_rows, total = self.count_rows(inputs), 0.0
        parts = [*self.pieces(inputs, self.live.micro_batch)]
        for number, part in enumerate(parts, 1):
            self._share = self.count_rows(part) / n_rows
            is_last = number == len(parts)
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                total = total + learn(model, part, count)
        self._share = 1.0
        return total

    def _halve(self, words: str) -> None:
        if self.live.micro_batch == 1 or not self.can_split or self.args.world_size > 1:
            rows = "one row" if self.live.micro_batch == 1 else f"{self.live.micro_batch} rows"
            raise OutOfRoom(
                f"The memory does not hold {rows} at a time ({words}). Lower max_length"
                f"{'' if self.live.micro_batch == 1 else ' or micro_batch'}, or set "
                "gradient_checkpointing=True."
            )
        self.live.micro_batch = math.ceil(self.live.micro_batch / 2)
        self.hooks.halved(self.live.micro_batch, words)

    def _undo(self, model: Any) -> None:
        """Take the step back to where it began."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.set_rng_state(self.step.chance[1])
        torch.set_rng_state(self.step.chance[0])
        model.zero_grad()
        self._metrics["train"].clear()  # type: ignore[attr-defined]
        self._share = 1.0

    def try_out(self, numbers: Sequence[int]) -> bool:
        """Return whether some rows can be learnt from at once; nothing is kept of it."""
        rows = [self.train_dataset[number] for number in numbers]  # type: ignore[attr-defined]
        try:
            with torch.random.fork_rng():
                inputs = self._prepare_inputs(self.data_collator(rows))  # type: ignore[attr-defined]
                _take_lines(inputs)
                for part in self.pieces(inputs, len(numbers)):
                    with self.compute_loss_context_manager():  # type: ignore[attr-defined]
                        loss = self.compute_loss(self.model, part)
                    loss.backward()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.model.zero_grad()

    # whether rows of a step can be learnt from in any pieces; else these stay as they are
    can_split = False

    def pieces(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield a micro-batch in pieces of at most so many rows; whole if it can't be split."""
        yield inputs

    def count_rows(self, inputs: Any) -> int:
        """Return the rows of a micro-batch."""
        return len(inputs["input_ids"]) if isinstance(inputs, Mapping) else len(inputs)

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a micro-batch, without padding."""
        return 0

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return TRL's loss, weighted by a piece's share of its micro-batch."""
        loss = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        return loss if self._share == 1.0 else loss * self._share

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        self._guard(norm)
        return norm

    def _guard(self, norm: Any) -> None:
        """Look at a step before it changes a weight, and do what the config says."""
        seen = [float(self.step.loss), float(self.step.tokens)]
        if self.args.world_size > 1:
            box = torch.tensor(seen, dtype=torch.float64, device=self.args.device)
            seen = self.accelerator.reduce(box, "sum").tolist()
        self.live.n_tokens += int(seen[1])
        self.measured = {"loss": seen[0] / self.args.world_size, "grad_norm": float(norm)}
        words = guard.look(self.live, *self.measured.values(), is_scaled=self.args.fp16)
        if words is None:
            return
        config, step = self.live.config, self.state.global_step + 1
        lines = sorted(set(gather_object(self.step.lines)))
        where = f"{words} at step {step}, {guard.rows_in_words(lines)}"
        if config.guard == "rollback":
            tried = self.together(self.hooks.rollbacks() if self.args.process_index == 0 else None)
            if tried < config.guard_tries:
                raise guard.RolledBack(step, where, lines, config.learning_rate)
            where += f", after {tried} ways back with a lower learning rate"
        if config.guard == "skip" and self.live.tries < config.guard_tries and not self.args.fp16:
            self.live.tries += 1
            self.note = f"left out: {where}"
            self.optimizer.zero_grad(set_to_none=True)  # without a gradient nothing is changed
            self.hooks.skipped(where, lines)
            return
        self.note = where
        left = f" after {self.live.tries} batches left out" if self.live.tries else ""
        self.hooks.stopped(where)
        raise JobFailed(
            f"{where[0].upper()}{where[1:]}{left}. Look at these rows. Checkpoints before it are "
            f"kept: lower learning_rate below {config.learning_rate:g} with trainers.adjust"
            f"{'' if self.args.fp16 else ', or set its guard to skip or rollback'}, then resume."
        )

    # --- schedule -----------------------------------------------------------------------------

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule of the settings as they are now."""
        if self.lr_scheduler is None:
            found = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(found, self.live.rate())
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def retune(self) -> None:
        """Take over what was adjusted: rate and schedule, weight decay, clipping, last step."""
        config, schedule, rate = self.live.config, self.lr_scheduler, self.live.rate()
        self.args.max_grad_norm = config.max_grad_norm
        self.state.max_steps = self.live.total_steps
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

    # --- checkpoints --------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        trouble: KitError | None = None
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                self._write(folder, model, trial)
            except KitError as error:
                trouble = error
            if self.args.world_size > 1:  # what one of the processes can't write, none has written
                words = [text for text in gather_object([str(trouble or "")]) if text]
                trouble = trouble or (DiskFull(words[0]) if words else None)
            if trouble:
                raise trouble
            undo.pop_all()
        if self.args.process_index == 0:
            self.hooks.seal(folder)
        self.accelerator.wait_for_everyone()

    def _write(self, folder: Path, model: Any, trial: Any) -> None:
        what = f"the checkpoint of step {self.state.global_step}"
        try:
            with room_on_disk(what):
                # past TRL's own, which writes a model card into every checkpoint
                transformers.Trainer._save_checkpoint(self, model, trial)
                if self.args.process_index == 0:
                    self.live.save(folder)
        except RuntimeError as error:
            if shutil.disk_usage(self.args.output_dir).free > FULL_BYTES:
                raise
            raise DiskFull(
                f"The disk is full while writing {what}; nothing was kept of it. Free some space."
            ) from error

    @property
    def n_tokens(self) -> int:
        """The real tokens so far, of all processes."""
        return self.live.n_tokens

    def together(self, value: Any) -> Any:
        """Return what the first process knows, in all of them."""
        if self.args.world_size == 1:
            return value
        box = [value]
        broadcast_object_list(box)
        return box[0]


class _Lines:
    """A collator that keeps the rows' lines beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        lines = [row.pop("line") for row in rows]
        batch = self.collate(rows)
        if isinstance(batch, Mapping):
            return {**batch, "line": lines}
        return [{**row, "line": line} for row, line in zip(batch, lines, strict=True)]


def _take_lines(inputs: Any) -> list[int]:
    """Remove the lines from a micro-batch and return them, numbered from 1."""
    if isinstance(inputs, Mapping):
        found = inputs.pop("line")  # type: ignore[attr-defined]
        return [line for lines in found for line in (lines if isinstance(lines, list) else [lines])]
    return sorted({row["line"] for row in inputs})


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory has run out, on a GPU or a processor."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def _chance() -> list[torch.Tensor]:
    """Return the states of torch's random numbers."""
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *on_gpu]
