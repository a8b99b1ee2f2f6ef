"""How a model generates: the settings, and the mode that it must be in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ftlab_kit.errors import InputError


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are generated.

    Args:
        max_new_tokens: An answer that has not ended by then is cut.
        temperature: 0 takes the likeliest token; above 0 tokens are sampled.
        seed: Decides what is sampled; None samples anew each time.
        timeout_s: Of one attempt to reach a model that is served elsewhere.
        max_seconds: No further batch of prompts is started after so long; None for no limit.

    Raises:
        InputError: A value is out of bounds.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    timeout_s: float = 120.0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, minimum in (("max_new_tokens", 1), ("temperature", 0)):
            if getattr(self, name) < minimum:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected {minimum} or more. Set it higher."
                )


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Switch off dropout and the like, and restore the model's mode in the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
