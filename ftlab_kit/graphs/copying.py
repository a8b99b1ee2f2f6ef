"""Copying a graph from one driver to another, with nothing lost: counted on the other side."""

from typing import Any

from graphiti_core.edges import CommunityEdge, EpisodicEdge, HasEpisodeEdge, NextEpisodeEdge
from graphiti_core.errors import GroupsEdgesNotFoundError
from graphiti_core.nodes import CommunityNode, EntityNode, EpisodicNode, SagaNode
from graphiti_core.search.search_utils import (
    get_embeddings_for_communities,
    get_embeddings_for_edges,
    get_embeddings_for_nodes,
)

from ftlab_kit.errors import Conflict, Unavailable
from ftlab_kit.graphs import event_loop, searching
from ftlab_kit.graphs.drivers.protocol import Change
from ftlab_kit.graphs.open_graph import Graph

NODES = (EntityNode, EpisodicNode, SagaNode, CommunityNode)
LINKS = (EpisodicEdge, HasEpisodeEdge, NextEpisodeEdge, CommunityEdge)


def copy(graph: Graph, other: Graph) -> None:
    """Write everything of a graph into another one, which must be empty.

    Raises:
        Conflict: The other holds something already, or both are the same.
        Unavailable: Not everything has arrived.
    """
    if graph.address == other.address:
        raise Conflict(f"{graph.address} would be copied onto itself. Name another graph.")
    event_loop.run(_copy(graph, other))


async def _copy(graph: Graph, other: Graph) -> None:
    there = await read(other)
    if there.nodes or there.edges:
        raise Conflict(
            f"{other.address} holds {len(there.nodes)} nodes already; a graph is copied into an "
            "empty one only. Delete its documents first, or name another."
        )
    change = await read(graph)
    change.metadata = {
        "embedder": graph.embedder.name,
        "dimension": str(graph.embedder.dimension),
    }
    await other.driver.write(change)
    arrived = await read(other)
    for kind, sent, found in (
        ("nodes", change.nodes, arrived.nodes),
        ("edges", change.edges, arrived.edges),
    ):
        missing = {item.uuid for item in sent} - {item.uuid for item in found}
        if missing:
            raise Unavailable(
                f"{len(missing)} of {len(sent)} {kind} have not arrived at {other.address}. Delete "
                "its documents, and copy again."
            )


async def read(graph: Graph) -> Change:
    """Return all that a graph holds of its group, with vectors."""
    change = Change(group=graph.group)
    for cls in NODES:
        change.nodes += await cls.get_by_group_ids(graph.driver, [graph.group])
    change.edges += await searching.edges(graph)
    for kind in LINKS:
        change.edges += await _links(graph, kind)
    await _with_vectors(graph, change)
    return change


async def _links(graph: Graph, kind: Any) -> list[Any]:
    try:
        return list(await kind.get_by_group_ids(graph.driver, [graph.group]))
    except GroupsEdgesNotFoundError:
        return []


async def _with_vectors(graph: Graph, change: Change) -> None:
    nodes = [node for node in change.nodes if isinstance(node, EntityNode)]
    communities = [node for node in change.nodes if isinstance(node, CommunityNode)]
    facts = [edge for edge in change.edges if not isinstance(edge, LINKS)]
    names = await get_embeddings_for_nodes(graph.driver, nodes) if nodes else {}
    if communities:
        names |= await get_embeddings_for_communities(graph.driver, communities)
    sentences = await get_embeddings_for_edges(graph.driver, facts) if facts else {}
    for node in (*nodes, *communities):
        node.name_embedding = names.get(node.uuid)
    for fact in facts:
        fact.fact_embedding = sentences.get(fact.uuid)
