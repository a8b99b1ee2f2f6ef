"""An open graph: its driver, its embedder, the owner's group in it, and Graphiti over all three.

What Graphiti would do on its own is switched off before it is imported: sending telemetry, and
reading `.env`. So a graph is opened before any other file that imports Graphiti.
"""

import os
import urllib.parse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab_kit import device
from ftlab_kit.errors import Conflict, InputError
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
        """Open the graph, with the embedder that it was made with.

        Raises:
            InputError: The address or the embedder is not valid, or vectors have another size.
            Conflict: The graph was made with another embedder, or by a newer kit.
            Unavailable: The server does not answer, or refuses user or password.
        """
        silence_graphiti()
        from ftlab_kit.graphs import owner_groups

        self.ws = ws
        self.address = address or str(ws.graph)
        self.driver: Any = _driver(ws, address)
        with ExitStack() as undo:
            undo.callback(self.close)
            if hasattr(self.driver, "check_connection"):
                event_loop.run(self.driver.check_connection())
            self.group: str = event_loop.run(owner_groups.enter(ws, self.address, self.driver))
            self.use_embedder(embedder)
            undo.pop_all()

    def use_embedder(self, name: str | None) -> None:
        """Use an embedder: the one that made the graph, or any while the graph is empty.

        Raises:
            Conflict: The graph was made with another.
            InputError: Its vectors have another size.
        """
        from ftlab_kit.graphs import graphiti_clients

        self.embedder = self._embedder(name)
        if hasattr(self.driver, "prepare"):
            event_loop.run(self.driver.prepare(self.embedder.dimension))
        self.graphiti: Graphiti = graphiti_clients.graphiti(self.driver, self.embedder)

    def _embedder(self, name: str | None) -> Embedder:
        about = event_loop.run(self.driver.around(self.group, [])).metadata
        stored = about.get("embedder")
        if name and stored and name != stored:
            raise Conflict(
                f"{self.address} was embedded with {stored}, so searching it with {name} would "
                "find nothing. Drop embedder=, or load the documents into another graph."
            )
        embedder = embedders.get(self.ws, name or stored or embedders.DEFAULT)
        if "dimension" in about and int(about["dimension"]) != embedder.dimension:
            raise InputError(
                f"{self.address} holds vectors of {about['dimension']} numbers, and "
                f"{embedder.name} now returns {embedder.dimension}. Use the model that made them."
            )
        return embedder

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """Return vectors to store, rounded to six decimals."""
        from ftlab_kit.graphs.drivers.protocol import DECIMALS

        vectors = self.embedder.vectors(texts)  # (texts, D)
        return np.round(vectors, DECIMALS).tolist() if vectors else []

    def clients(self, reranker: str | None = None) -> Any:
        """Return the clients of Graphiti's search, with a cross-encoder if one is named."""
        if reranker is None:
            return self.graphiti.clients
        from ftlab_kit.graphs import graphiti_clients

        model = self.ws.shared(f"reranker {reranker}", lambda: Reranker(reranker)).model
        adapter = graphiti_clients.CrossEncoderAdapter(model)
        return self.graphiti.clients.model_copy(update={"cross_encoder": adapter})

    def close(self) -> None:
        """Close its file or connection."""
        event_loop.run(self.driver.close())


class Reranker:
    """A cross-encoder of sentence-transformers, from its folder."""

    def __init__(self, folder: str) -> None:
        if not Path(folder).is_dir():
            raise InputError(f"There is no cross-encoder at {folder}. Give the folder of one.")
        with quiet():
            from sentence_transformers import CrossEncoder

            self.model = CrossEncoder(folder, device=device.kind(), local_files_only=True)

    def close(self) -> None:
        """Give its memory back."""
        del self.model


def get(ws: Workspace, address: str | None = None, embedder: str | None = None) -> Graph:
    """Return a graph, opened once for a workspace and an owner.

    Args:
        ws: The workspace.
        address: None is the workspace's own file, otherwise the URI of a server or a file.
        embedder: The one that the graph was made with, or None.

    Raises:
        Conflict: It was made with another embedder.
    """
    # the owner comes last: an address holds no line break, so no two keys are alike
    key = f"graph {address or ''}\n{ws.owner}"
    graph = ws.shared(key, lambda: Graph(ws, address, embedder))
    if embedder and graph.embedder.name != embedder:
        graph.use_embedder(embedder)
    return graph


def silence_graphiti() -> None:
    """Switch off Graphiti's telemetry and its reading of `.env`, which it does on import."""
    os.environ["GRAPHITI_TELEMETRY_ENABLED"] = "false"
    os.environ.setdefault("PYTHON_DOTENV_DISABLED", "true")


def _driver(ws: Workspace, address: str | None) -> Any:
    """Return the driver of an address.

    Raises:
        InputError: It is not the address of a graph, or holds a password.
    """
    if address is None:
        from ftlab_kit.graphs.drivers import sqlite

        return sqlite.Driver(ws.graph)
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        from ftlab_kit.graphs.drivers import sqlite

        return sqlite.Driver(Path(parts.path))
    if parts.password:
        raise InputError(
            "The address holds a password, which would be stored with every document. Put it into "
            f"{PASSWORD}."
        )
    if parts.scheme not in SERVERS or not parts.hostname:
        raise InputError(
            f"{address!r} is not the address of a graph. Leave graph= out for the workspace's own, "
            "or give neo4j://USER@HOST:PORT, bolt://USER@HOST:PORT or file:///PATH."
        )
    from ftlab_kit.graphs.drivers import neo4j

    uri = f"{parts.scheme}://{parts.hostname}:{parts.port or 7687}"
    password = os.environ.get(PASSWORD, "")
    return neo4j.Driver(uri, parts.username or "neo4j", password, parts.path.strip("/") or "neo4j")
