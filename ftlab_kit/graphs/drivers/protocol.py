"""What the kit needs from a graph driver beyond Graphiti's own driver class.

`Driver` is the protocol. A driver of a server also has the two methods of `ServerDriver`.
README.md beside this file says how to add a driver.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from graphiti_core.edges import EntityEdge, EpisodicEdge
from graphiti_core.nodes import Node

# of the numbers in a stored vector: float32 holds six exactly, and as text they are short
DECIMALS = 6


class Neighbourhood(NamedTuple):
    """The facts that touch some entities, and the episodes' mentions of them.

    `metadata` belongs to the whole graph: the name and dimension of its embedder.
    """

    facts: list[EntityEdge]
    mentions: list[EpisodicEdge]
    metadata: Mapping[str, str]


@dataclass
class Change:
    """Nodes and edges to write in one transaction, each whole, and the uuids to delete.

    A node or an edge without a vector keeps the vector that is stored.
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[Any] = field(default_factory=list)
    deleted_nodes: list[str] = field(default_factory=list)
    deleted_edges: list[str] = field(default_factory=list)
    group: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Driver(Protocol):
    """A Graphiti driver that can also change a graph exactly."""

    def write_transaction(self, group: str) -> AbstractAsyncContextManager[None]:
        """Be the graph's only writer: nothing read inside changes, an error rolls back."""
        ...

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return the neighbourhood of entities."""
        ...

    async def write(self, change: Change) -> None:
        """Write a change: all of it, or nothing."""
        ...


class ServerDriver(Driver, Protocol):
    """The driver of a server: it can be out of reach, and its indices need the vectors' size."""

    async def check_connection(self) -> None:
        """Raise Unavailable if the server does not answer or refuses the user."""
        ...

    async def prepare(self, dimension: int) -> None:
        """Build the indices that are missing, for vectors of a size."""
        ...


# by uuid, the score of each search method; a search that wants to see them sets a dict
SCORES: ContextVar[dict[str, dict[str, float]] | None] = ContextVar("SCORES", default=None)


def record_score(method: str, uuid: str, score: float) -> None:
    """Record a search method's score of a node or an edge, if the search wants to see it."""
    if (scores := SCORES.get()) is not None:
        scores.setdefault(uuid, {})[method] = score
