"""How a model is asked: in which manner, and so that it is left as it was, whatever comes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ftlab_kit.errors import InputError


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are made.

    `max_new_tokens` cuts an answer that has not ended by then. `temperature` 0 takes the likeliest
    token; what is drawn hangs on `seed`, or on chance where it is None. Of many chats none is begun
    after `max_seconds`. `timeout_s` is for one try of a model that is served elsewhere.

    Raises:
        InputError: No answer can be made so.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    timeout_s: float = 120.0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("temperature", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected {least} or more. Set it higher."
                )


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Switch off what a model does in training only, such as dropout, while it is asked."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
