"""The loss on held-out rows while a job trains: bounded in rows and memory, and never its end.

A fixed choice of the rows is measured, a batch of them at a time. Where memory runs out the batch
is halved; what can't be measured all the same is said, and the job goes on. In several processes
each measures its share without waiting for another, so that one in which it fails leaves none
hanging; only then do they meet.
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

# what a backend, a template or a row can raise; a full disk and a locked store are none of these
EVALUATION_ERRORS = (RuntimeError, MemoryError, ValueError, TypeError, LookupError, DataError)

T = TypeVar("T")


class EvalLossMixin:
    """The part of a trainer that measures the held-out loss; stands first among the bases."""

    # what Steered and transformers' Trainer bring
    accelerator: Any
    args: Any
    callback_handler: Any
    control: Any
    held_out: Any
    live: Any
    log: Any
    model: Any
    state: Any
    # what the method's trainer brings: of held-out rows, by number, the sum of the losses and of
    # how many it is
    sums: Callable[[Sequence[int]], tuple[float, float]]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the mean loss over the held-out rows; `trouble` in words where there is none."""
        values: dict[str, Any]
        found, words = self._tried()
        trouble = next((text for text in gather_object([words]) if text), None)
        total = self.accelerator.reduce(torch.tensor(found, device=self.args.device))
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

    def _tried(self) -> tuple[list[float], str | None]:
        """Return the sum of this process's losses and their count, or why there is none."""
        count = len(self.held_out)
        mine = chosen(count, self.live.config.eval_rows)
        mine = mine[self.args.process_index :: self.args.world_size]
        try:
            with preserve_rng(self.model):
                return [*self.sums(mine)], None
        except EVALUATION_ERRORS as error:
            words = said(error)
        free_memory()
        return [0.0, 0.0], f"the held-out loss could not be measured ({words})"


def chosen(count: int, most: int | None) -> list[int]:
    """Return which of so many held-out rows are measured, in their order.

    Drawn once and for all, so that jobs of any seed are measured on the same rows, and rows that
    are sorted by something are measured on all of it.
    """
    if most is None or count <= most:
        return [*range(count)]
    return sorted(random.Random(0).sample(range(count), most))


def in_halves(batch: Sequence[T], measure: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
    """Return what is measured of a batch, in ever smaller parts where memory runs out.

    Raises:
        RuntimeError: The memory does not hold one of it; the backend's own words.
    """
    try:
        return measure(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    # past the handler, which would keep what fills the memory alive
    free_memory()
    half = len(batch) // 2
    return [*in_halves(batch[:half], measure), *in_halves(batch[half:], measure)]


@contextmanager
def preserve_rng(model: Any) -> Iterator[None]:
    """Ask a model something between two steps, of which no bit of the run depends.

    Random numbers are those of before, whatever comes, and so is whether it is training.
    """
    with torch.random.fork_rng(), eval_mode(model):
        yield


@contextmanager
def alone(accelerator: Any) -> Iterator[None]:
    """Let what is gathered be what this process has: TRL's losses gather means of all of them."""
    try:
        accelerator.gather = accelerator.gather_for_metrics = lambda found, *_, **__: found
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def free_memory() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def said(error: BaseException) -> str:
    """Return the first line of an error, or its name where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
