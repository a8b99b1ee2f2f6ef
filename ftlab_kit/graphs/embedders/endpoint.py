"""Vectors from any endpoint that speaks OpenAI's protocol: `openai:MODEL` or `openai:MODEL@URL`.

https://platform.openai.com/docs/api-reference/embeddings
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import openai

from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.workspace import Workspace

KEY = "OPENAI_API_KEY"
BATCH = 256
TIMEOUT_S = 60


class OpenAIEmbedder:
    """The embedder behind an endpoint. Its dimension is what its first answer has."""

    def __init__(self, ws: Workspace, name: str) -> None:
        self.name = name
        model, _, url = name.partition(":")[2].partition("@")
        if not model:
            raise InputError(f"{name!r} names no model; write openai:MODEL or openai:MODEL@URL.")
        self._model, self._url = model, url or None

    @functools.cached_property
    def _client(self) -> Any:
        key = os.environ.get(KEY)
        if not key and not self._url:
            raise Unavailable(f"There is no key for {self.name}. Put one into {KEY}.")
        http = openai.DefaultHttpxClient(follow_redirects=False)
        return openai.OpenAI(
            api_key=key or "none", base_url=self._url, timeout=TIMEOUT_S, http_client=http
        )

    @functools.cached_property
    def dimension(self) -> int:
        """Numbers of a vector, learnt from one request."""
        return len(self._asked(["dimension"])[0])

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text."""
        parts = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
        return [vector for part in parts for vector in self._asked(part)]

    def _asked(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            answer = self._client.embeddings.create(
                model=self._model, input=list(texts), encoding_format="float"
            )
        except openai.OpenAIError as error:
            raise Unavailable(
                f"The embedder {self.name} does not answer: {error}. Are address and key right?"
            ) from error
        found = sorted(answer.data, key=lambda item: item.index)
        if len(found) != len(texts):
            raise Unavailable(f"{self.name} gave {len(found)} vectors for {len(texts)} texts.")
        vectors = [list(item.embedding) for item in found]
        sizes = {len(vector) for vector in vectors}
        known = self.__dict__.get("dimension", max(sizes, default=0))
        if sizes - {known}:
            raise InputError(
                f"{self.name} gave vectors of {max(sizes - {known})} numbers; expected {known}, as "
                "it gave before. Ask the one that made them."
            )
        return vectors

    def close(self) -> None:
        """Close the connection, where there is one."""
        if "_client" in self.__dict__:
            self._client.close()
