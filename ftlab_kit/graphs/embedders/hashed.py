"""Vectors by hashing words and their letters: no weights, no meaning, the same everywhere.

The hashing trick (Weinberger et al. 2009, arXiv 0902.2206) over words and letter trigrams.
"""

import functools
import re
import zlib
from collections.abc import Sequence

import numpy as np

from ftlab_kit.workspace import Workspace


class HashEmbedder:
    """The embedder that needs nothing."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self.name = name
        self.dimension = 384
        self._place = functools.lru_cache(maxsize=2**16)(self._placed)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each text; all zeros for one without a word."""
        made = np.zeros((len(texts), self.dimension), np.float32)  # (texts, D)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.casefold()):
                for column, weight in self._place(word):
                    made[row, column] += weight
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        found: list[list[float]] = (made / np.where(lengths, lengths, 1)).tolist()
        return found

    def _placed(self, word: str) -> tuple[tuple[int, float], ...]:
        """Return the columns that a word adds to, with what: itself, and less its trigrams."""
        padded = f"^{word}$"
        parts = [padded[at : at + 3] for at in range(len(padded) - 2)]
        weights = [(word, 1.0), *((part, 0.5 / len(parts) ** 0.5) for part in parts)]
        return tuple(self._column(text, weight) for text, weight in weights)

    def _column(self, text: str, weight: float) -> tuple[int, float]:
        hashed = zlib.crc32(text.encode())
        return hashed % self.dimension, weight if hashed & 0x80000000 else -weight

    def close(self) -> None:
        """Hold nothing."""
