"""What Graphiti calls for vectors, for reranking and for a language model, as its own classes.

Importing this file imports Graphiti: `open_graph` does so once its telemetry is switched off.
"""

from typing import Any

from graphiti_core import Graphiti
from graphiti_core.cross_encoder.client import CrossEncoderClient
from graphiti_core.embedder import EmbedderClient
from graphiti_core.llm_client import LLMClient, LLMConfig

from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.graphs.embedders import Embedder
from ftlab_kit.lm.loading import quiet


class EmbedderAdapter(EmbedderClient):
    """One of the kit's embedders."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def create(self, input_data: Any) -> list[float]:
        """Return the vector of a text."""
        text = input_data if isinstance(input_data, str) else input_data[0]
        return self._embedder.vectors([text])[0]

    async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
        """Return the vectors of texts."""
        return self._embedder.vectors(input_data_list)


class CrossEncoderAdapter(CrossEncoderClient):
    """A cross-encoder of sentence-transformers."""

    def __init__(self, model: Any) -> None:
        self._model = model

    async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
        """Return passages, the best answer first, with scores between 0 and 1."""
        with quiet():
            scores = self._model.predict([(query, passage) for passage in passages])
        pairs = zip(passages, map(float, scores), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])


class NoReranker(CrossEncoderClient):
    """Stands where no cross-encoder was given."""

    async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
        """Refuse.

        Raises:
            InputError: Always.
        """
        raise InputError("The recipe cross_encoder needs a cross-encoder. Give it as reranker=.")


class NoModel(LLMClient):
    """Stands where no language model was given."""

    async def _generate_response(self, *args: Any, **options: Any) -> dict[str, Any]:
        raise Unavailable("This needs a language model. Give one: graphs.enrich(ws, ..., model=)")


def graphiti(driver: Any, embedder: Embedder) -> Graphiti:
    """Return Graphiti over a driver, without a language model."""
    return Graphiti(
        graph_driver=driver,
        llm_client=NoModel(LLMConfig(api_key="none"), cache=False),
        embedder=EmbedderAdapter(embedder),
        cross_encoder=NoReranker(),
    )
