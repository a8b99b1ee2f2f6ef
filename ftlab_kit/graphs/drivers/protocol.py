"""What the kit asks of a graph's driver, beyond what Graphiti itself does."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from graphiti_core.edges import EntityEdge, EpisodicEdge
from graphiti_core.nodes import Node

# of a vector's numbers: float32 keeps as many exactly, and as text they are short
DECIMALS = 6


class Neighbourhood(NamedTuple):
    """What stands around some entities: the facts that touch them, the episodes' mentions.

    `about` is what is known of the graph as a whole: by which embedder its vectors are.
    """

    facts: list[EntityEdge]
    mentions: list[EpisodicEdge]
    metadata: Mapping[str, str]


@dataclass
class Change:
    """What is to be written at one stroke: nodes and edges as they shall be, and what goes.

    A vector that a node or an edge comes without stays as it is.
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[Any] = field(default_factory=list)
    deleted_nodes: list[str] = field(default_factory=list)
    deleted_edges: list[str] = field(default_factory=list)
    group: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Driver(Protocol):
    """A driver of Graphiti's that can also change a graph exactly."""

    def write_transaction(self, group: str) -> AbstractAsyncContextManager[None]:
        """Hold the one writer's place of a graph: what is read meanwhile stays so."""
        ...

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return what stands around entities."""
        ...

    async def write(self, change: Change) -> None:
        """Make a change: all of it, or nothing."""
        ...


# what the methods of one search compute for each find, where someone wants to know
SCORES: ContextVar[dict[str, dict[str, float]] | None] = ContextVar("SCORES", default=None)


def record_score(method: str, uuid: str, score: float) -> None:
    """Keep what a method of search has computed for a find."""
    if (seen := SCORES.get()) is not None:
        seen.setdefault(uuid, {})[method] = score
