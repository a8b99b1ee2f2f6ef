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
    """The embedder that needs neither weights nor network."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self.name = name
        self.dimension = 384
        self._features = functools.lru_cache(maxsize=2**16)(self._compute_features)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each text; all zeros for one without a word."""
        sums = np.zeros((len(texts), self.dimension), np.float32)  # (texts, D)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.casefold()):
                for column, weight in self._features(word):
                    sums[row, column] += weight
        norms = np.linalg.norm(sums, axis=1, keepdims=True)  # (texts, 1)
        vectors: list[list[float]] = (sums / np.where(norms, norms, 1)).tolist()
        return vectors

    def _compute_features(self, word: str) -> tuple[tuple[int, float], ...]:
        """Return a word's columns and weights: the word itself, and with less weight its trigrams.

        Together the trigrams weigh half a word, however long it is.
        """
        padded = f"^{word}$"
        trigrams = [padded[at : at + 3] for at in range(len(padded) - 2)]
        weight = 0.5 / len(trigrams) ** 0.5
        weights = [(word, 1.0), *((trigram, weight) for trigram in trigrams)]
        return tuple(self._column(text, weight) for text, weight in weights)

    def _column(self, text: str, weight: float) -> tuple[int, float]:
        # a random sign, so that two texts in one column cancel out on average
        hashed = zlib.crc32(text.encode())
        return hashed % self.dimension, weight if hashed & 0x80000000 else -weight

    def close(self) -> None:
        """Hold nothing."""
