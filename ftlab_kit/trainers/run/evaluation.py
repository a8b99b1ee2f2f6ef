"""The loss on held-out rows during training: bounded in rows and memory, and never fatal.

A fixed choice of the rows is measured, one batch after another. If memory runs out, the batch is
halved. If the loss can't be measured at all, the reason is recorded and the job goes on. Several
processes each measure their share without waiting for one another, and meet only then, so that a
failure in one leaves none waiting.
"""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object

from ftlab_kit.errors import DataError
from ftlab_kit.lm.generation_settings import eval_mode
from ftlab_kit.trainers.run.trainer import is_out_of_memory

# what a backend, a template or a row can raise; a full disk and a locked store must end the job
EVALUATION_ERRORS = (RuntimeError, MemoryError, ValueError, TypeError, LookupError, DataError)

T = TypeVar("T")


class EvalLossMixin:
    """The part of a trainer that measures the held-out loss; stands first among the bases."""

    # attributes of ExactTrainerMixin and transformers' Trainer
    accelerator: Any
    args: Any
    callback_handler: Any
    control: Any
    held_out: Any
    log: Any
    model: Any
    run_state: Any
    state: Any
    # a method of the trainer: from held-out row numbers to the summed loss and what to divide it by
    eval_sums: Callable[[Sequence[int]], tuple[float, float]]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the mean loss over the held-out rows, or as `trouble` why there is none."""
        values: dict[str, Any]
        sums, failure = self._measure_share()
        trouble = next((text for text in gather_object([failure]) if text), None)
        total = self.accelerator.reduce(torch.tensor(sums, device=self.args.device))
        if trouble is None and not total[1]:
            trouble = "no held-out row has a trained token"
        if trouble is None:
            values = {"eval_loss": float(total[0] / total[1])}
            self.log({**values})
        else:
            values = {"trouble": trouble}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values

    def _measure_share(self) -> tuple[list[float], str | None]:
        """Return the sum of this process's losses and their count, or why there is none."""
        numbers = choose_rows(len(self.held_out), self.run_state.config.eval_rows)
        own = numbers[self.args.process_index :: self.args.world_size]
        try:
            with preserve_rng(self.model):
                return [*self.eval_sums(own)], None
        except EVALUATION_ERRORS as error:
            reason = first_line(error)
        # outside the handler: the exception's traceback keeps tensors alive
        free_memory()
        return [0.0, 0.0], f"the held-out loss could not be measured ({reason})"


def choose_rows(n_rows: int, limit: int | None) -> list[int]:
    """Return the numbers of the held-out rows that are measured, in ascending order.

    The choice is random but always the same, so that jobs of any seed are measured on the same
    rows, and rows in a sorted file are measured throughout.

    Args:
        n_rows: The held-out rows.
        limit: Rows to choose; None for all of them.
    """
    if limit is None or n_rows <= limit:
        return [*range(n_rows)]
    return sorted(random.Random(0).sample(range(n_rows), limit))


def halve_on_oom(batch: Sequence[T], measure: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
    """Return what `measure` returns for a batch, halving the batch whenever memory runs out.

    Raises:
        RuntimeError: Memory does not hold even one element; the backend's own error.
    """
    try:
        return measure(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    # outside the handler: the exception's traceback keeps tensors alive
    free_memory()
    half = len(batch) // 2
    return [*halve_on_oom(batch[:half], measure), *halve_on_oom(batch[half:], measure)]


@contextmanager
def preserve_rng(model: Any) -> Iterator[None]:
    """Run the model between two steps without affecting training.

    RNG state and train/eval mode are restored, also after an error.
    """
    with torch.random.fork_rng(), eval_mode(model):
        yield


@contextmanager
def without_gathering(accelerator: Any) -> Iterator[None]:
    """Make gathering return this process's own tensors: TRL's losses gather over all processes."""
    try:
        accelerator.gather = accelerator.gather_for_metrics = lambda tensor, *_, **__: tensor
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def free_memory() -> None:
    """Release memory that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if it has none."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
