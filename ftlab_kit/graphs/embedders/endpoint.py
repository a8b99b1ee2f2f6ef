"""Vectors from any endpoint that speaks OpenAI's protocol: `openai:MODEL` or `openai:MODEL@URL`.

https://platform.openai.com/docs/api-reference/embeddings
"""

import functools
from collections.abc import Sequence
from typing import Any

import openai

from ftlab_kit.chats import connection
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.workspace import Workspace

BATCH = 256
TIMEOUT_S = 60


class OpenAIEmbedder:
    """The embedder behind an endpoint. Its dimension is that of its first answer."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self.name = name
        self._model = connection.address(name).name

    @functools.cached_property
    def _client(self) -> Any:
        return connection.client(self.name, timeout_s=TIMEOUT_S)

    @functools.cached_property
    def dimension(self) -> int:
        """Length of a vector, taken from one request."""
        return len(self._request(["dimension"])[0])

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text."""
        batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
        return [vector for batch in batches for vector in self._request(batch)]

    def _request(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            response = self._client.embeddings.create(
                model=self._model, input=list(texts), encoding_format="float"
            )
        except openai.OpenAIError as error:
            raise Unavailable(
                f"The embedder {self.name} does not answer: {error}. Check its address and key."
            ) from error
        vectors = [list(item.embedding) for item in sorted(response.data, key=lambda x: x.index)]
        if len(vectors) != len(texts):
            raise Unavailable(
                f"{self.name} returned {len(vectors)} vectors for {len(texts)} texts."
            )
        lengths = {len(vector) for vector in vectors}
        expected = self.__dict__.get("dimension", max(lengths, default=0))
        if lengths - {expected}:
            raise InputError(
                f"{self.name} returned vectors of {max(lengths - {expected})} numbers; expected "
                f"{expected}, as before. Use the model that made them."
            )
        return vectors

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "_client" in self.__dict__:
            self._client.close()
