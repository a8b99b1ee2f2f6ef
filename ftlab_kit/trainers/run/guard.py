"""The guard: checks every step's loss and gradient before they change the weights."""

import math
import statistics
from collections.abc import Sequence

from ftlab_kit.trainers.run_state import WINDOW, RunState

MIN_HISTORY = 5  # steps before a median means anything


class RollbackRequested(Exception):
    """The guard requests a rollback to the last checkpoint."""

    def __init__(self, step: int, message: str, lines: Sequence[int], rate: float) -> None:
        """Hold the reason.

        Args:
            step: The step that went wrong.
            message: What went wrong.
            lines: The rows of its batch.
            rate: The learning rate then.
        """
        super().__init__(message)
        self.step, self.message, self.lines, self.rate = step, message, [*lines], rate


def check_step(
    run_state: RunState, loss: float, grad_norm: float, *, is_scaled: bool = False
) -> str | None:
    """Return what is wrong with a step; None if nothing is, and then remember its values.

    Args:
        run_state: Holds the values of the last steps.
        loss: The step's loss.
        grad_norm: The norm of the gradient before clipping.
        is_scaled: Whether a gradient scaler is used (fp16): it expects gradients to overflow now
            and then, skips the step, and scales less.
    """
    factor = run_state.config.spike_factor
    recent = (("loss", loss, run_state.losses), ("gradient norm", grad_norm, run_state.norms))
    for name, value, history in recent:
        if not math.isfinite(value):
            if is_scaled and name != "loss":
                continue
            return f"the {name} became {value}"
        # the loss of grpo is close to 0, so that only the gradient can jump
        can_jump = name != "loss" or run_state.config.method != "grpo"
        if factor is not None and len(history) >= MIN_HISTORY and can_jump:
            usual = statistics.median(history)
            if usual > 0 and value > factor * usual:
                return f"the {name} jumped to {value:.4g}, {value / usual:.1f} times the usual"
    for _, value, history in recent:
        history.append(value)
        del history[:-WINDOW]
    return None


def describe_lines(lines: Sequence[int]) -> str:
    """Return a batch's rows as line numbers of its dataset version, shortened where many."""
    shown = ", ".join(str(line) for line in lines[:32])
    return f"lines {shown}" + (f" and {len(lines) - 32} more" if len(lines) > 32 else "")
