"""A model that is asked something is left as it was, whatever comes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asking(model: Any) -> Iterator[None]:
    """Switch off what a model does in training only, such as dropout, while it is asked."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
