"""The guard: looks at every step's loss and gradient before the weights are changed by them."""

import math
import statistics
from collections.abc import Sequence

from ftlab_kit.trainers.run_state import WINDOW, RunState

SEEN = 5  # steps before a median means anything


class RolledBack(Exception):
    """The guard wants to go back to the last checkpoint."""

    def __init__(self, step: int, words: str, lines: Sequence[int], rate: float) -> None:
        """Say at which step, why, which rows were in the batch, and the learning rate then."""
        super().__init__(words)
        self.step, self.message, self.lines, self.rate = step, words, [*lines], rate


def look(live: RunState, loss: float, norm: float, *, is_scaled: bool = False) -> str | None:
    """Return in words what is wrong with a step, or None and remember it.

    Args:
        norm: The norm of the gradient before clipping.
        is_scaled: Under fp16 the scaler takes a gradient that overflows as its sign to scale less.
    """
    factor = live.config.spike_factor
    for name, value, seen in (("loss", loss, live.losses), ("gradient norm", norm, live.norms)):
        if not math.isfinite(value):
            if is_scaled and name != "loss":
                continue
            return f"the {name} became {value}"
        # a policy's loss lies around 0: only its gradient can jump
        can_jump = name != "loss" or live.config.method != "grpo"
        if factor is not None and len(seen) >= SEEN and can_jump:
            usual = statistics.median(seen)
            if usual > 0 and value > factor * usual:
                return f"the {name} jumped to {value:.4g}, {value / usual:.1f} times the usual"
    for value, seen in ((loss, live.losses), (norm, live.norms)):
        seen.append(value)
        del seen[:-WINDOW]
    return None


def rows_in_words(lines: Sequence[int]) -> str:
    """Return the rows of a batch as lines of its dataset version, the first ones at most."""
    shown = ", ".join(str(line) for line in lines[:32])
    return f"lines {shown}" + (f" and {len(lines) - 32} more" if len(lines) > 32 else "")
