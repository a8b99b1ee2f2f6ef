"""A graph that is open: its driver, its embedder, and Graphiti over both.

What Graphiti would do unasked is turned off before it is imported: telemetry, and reading `.env`.
"""

import os
import re
import urllib.parse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab_kit import device
from ftlab_kit.errors import Conflict, InputError, Unavailable
from ftlab_kit.graphs import embedders, event_loop
from ftlab_kit.graphs.embedders import Embedder
from ftlab_kit.lm.loading import quiet
from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from graphiti_core import Graphiti

PASSWORD = "NEO4J_PASSWORD"
SERVERS = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")


class Graph:
    """An open graph. `group` is the owner's part of it, which Graphiti calls group_id."""

    def __init__(self, ws: Workspace, address: str | None, embedder: str | None) -> None:
        """Open the graph; ask for its embedder what it was made with.

        Raises:
            InputError: No such kind of address or embedder, or vectors of another size.
            Conflict: The graph was made with another embedder, or by a newer kit.
            Unavailable: The server does not answer, or refuses user or password.
        """
        _silence()
        self.ws = ws
        self.address = address or str(ws.graph)
        self.group = re.sub(r"[^A-Za-z0-9_-]", "_", ws.owner) or "owner"
        self.driver: Any = _driver(ws, address)
        with ExitStack() as undo:
            undo.callback(self.close)
            if hasattr(self.driver, "check_connection"):
                event_loop.run(self.driver.check_connection())
            self.take(embedder)
            undo.pop_all()

    def take(self, embedder: str | None) -> None:
        """Take an embedder: the one that made the graph, any if nothing is in it yet.

        Raises:
            Conflict: The graph was made with another.
            InputError: Its vectors are of another size.
        """
        self.embedder = self._embedder(embedder)
        if hasattr(self.driver, "prepare"):
            event_loop.run(self.driver.prepare(self.embedder.dimension))
        self.graphiti: Graphiti = _graphiti(self.driver, self.embedder)

    def _embedder(self, wanted: str | None) -> Embedder:
        about = event_loop.run(self.driver.around(self.group, [])).metadata
        known = about.get("embedder")
        if wanted and known and wanted != known:
            raise Conflict(
                f"The vectors of {self.address} are by {known}; {wanted} would find nothing by "
                f"them. Leave embedder away, or copy the documents into another graph."
            )
        found = embedders.get(self.ws, wanted or known or embedders.DEFAULT)
        if "dimension" in about and int(about["dimension"]) != found.dimension:
            raise InputError(
                f"{self.address} holds vectors of {about['dimension']} numbers, {found.name} now "
                f"gives {found.dimension}. Ask the one that made them."
            )
        return found

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return vectors to be kept, of six decimals each."""
        from ftlab_kit.graphs.drivers.protocol import DECIMALS

        made = self.embedder.vectors(texts)
        return np.round(made, DECIMALS).tolist() if made else []

    def clients(self, reranker: str | None = None) -> Any:
        """Return what Graphiti's search asks, with a cross-encoder where one is named."""
        if reranker is None:
            return self.graphiti.clients
        made = self.ws.hold(f"reranker {reranker}", lambda: Reranker(reranker))
        return self.graphiti.clients.model_copy(update={"cross_encoder": made.client()})

    def close(self) -> None:
        """Close its file or connection."""
        event_loop.run(self.driver.close())


class Reranker:
    """A cross-encoder of sentence-transformers, from its folder."""

    def __init__(self, folder: str) -> None:
        if not Path(folder).is_dir():
            raise InputError(
                f"There is no cross-encoder at {folder}. Give a folder that holds one."
            )
        with quiet():
            from sentence_transformers import CrossEncoder

            self._model = CrossEncoder(folder, device=device.kind(), local_files_only=True)

    def client(self) -> Any:
        """Return it as Graphiti asks for it: scores between 0 and 1."""
        from graphiti_core.cross_encoder.client import CrossEncoderClient

        model = self._model

        class Client(CrossEncoderClient):
            """Passages by how well they answer, read together with the query."""

            async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
                with quiet():
                    found = model.predict([(query, text) for text in passages])
                scored = zip(passages, map(float, found), strict=True)
                return sorted(scored, key=lambda item: -item[1])

        return Client()

    def close(self) -> None:
        """Give its weights back."""
        del self._model


def get(ws: Workspace, address: str | None = None, embedder: str | None = None) -> Graph:
    """Return a graph, opened once for a workspace.

    Args:
        address: None is the workspace's own file; else the URI of a server.
        embedder: Only what it was made with, or None.

    Raises:
        Conflict: It was made with another embedder.
    """
    graph = ws.hold(f"graph {address or ''}", lambda: Graph(ws, address, embedder))
    if embedder and graph.embedder.name != embedder:
        graph.take(embedder)
    return graph


def _silence() -> None:
    os.environ["GRAPHITI_TELEMETRY_ENABLED"] = "false"
    os.environ.setdefault("PYTHON_DOTENV_DISABLED", "true")


def _driver(ws: Workspace, address: str | None) -> Any:
    """Return the driver of an address."""
    if address is None:
        from ftlab_kit.graphs.drivers import sqlite

        return sqlite.Driver(ws.graph)
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        from ftlab_kit.graphs.drivers import sqlite

        return sqlite.Driver(Path(parts.path))
    if parts.password:
        raise InputError(
            "The address holds a password, which would be kept with every document. Put it into "
            f"{PASSWORD}."
        )
    if parts.scheme not in SERVERS or not parts.hostname:
        raise InputError(
            f"{address!r} is no address of a graph. Give none for the workspace's own, or "
            "neo4j://USER@HOST:PORT, bolt://USER@HOST:PORT or file:///PATH."
        )
    from ftlab_kit.graphs.drivers import neo4j

    uri = f"{parts.scheme}://{parts.hostname}:{parts.port or 7687}"
    secret = os.environ.get(PASSWORD, "")
    return neo4j.Driver(uri, parts.username or "neo4j", secret, parts.path.strip("/") or "neo4j")


def _graphiti(driver: Any, embedder: Embedder) -> "Graphiti":
    """Return Graphiti over a driver. It asks a language model only where one is given."""
    from graphiti_core import Graphiti
    from graphiti_core.cross_encoder.client import CrossEncoderClient
    from graphiti_core.embedder import EmbedderClient
    from graphiti_core.llm_client import LLMClient, LLMConfig

    class Vectors(EmbedderClient):
        """The kit's embedder, as Graphiti asks for it."""

        async def create(self, input_data: Any) -> list[float]:
            text = input_data if isinstance(input_data, str) else input_data[0]
            return embedder.vectors([text])[0]

        async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
            return embedder.vectors(input_data_list)

    class NoReranker(CrossEncoderClient):
        """No cross-encoder was given."""

        async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
            raise InputError("The recipe cross_encoder needs one. Give it as reranker=.")

    class NoModel(LLMClient):
        """No language model was given."""

        async def _generate_response(self, *args: Any, **more: Any) -> dict[str, Any]:
            raise Unavailable(
                "This needs a language model. Give one: graphs.enrich(ws, ..., model=)"
            )

    return Graphiti(
        graph_driver=driver,
        llm_client=NoModel(LLMConfig(api_key="none"), cache=False),
        embedder=Vectors(),
        cross_encoder=NoReranker(),
    )
