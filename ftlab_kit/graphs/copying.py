"""Copying a graph from one driver to another; nodes and edges are compared on arrival."""

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
from ftlab_kit.graphs import event_loop, lookups, owner_groups
from ftlab_kit.graphs.drivers.protocol import Change
from ftlab_kit.graphs.open_graph import Graph

NODES = (EntityNode, EpisodicNode, SagaNode, CommunityNode)
EDGES = (EpisodicEdge, HasEpisodeEdge, NextEpisodeEdge, CommunityEdge)  # all but facts


def copy(source: Graph, target: Graph) -> None:
    """Write everything of a graph into another one, which must be empty.

    The copy keeps the source's group, so that its uuids stay those of its documents.

    Raises:
        Conflict: The target is not empty, is the source itself, or has another owner's group.
        Unavailable: Not everything has arrived.
    """
    if source.address == target.address:
        raise Conflict(f"{source.address} would be copied onto itself. Name another graph.")
    event_loop.run(_copy(source, target))


async def _copy(source: Graph, target: Graph) -> None:
    old = await read(target)
    if old.nodes or old.edges:
        raise Conflict(
            f"{target.address} holds {len(old.nodes)} nodes already; a graph is copied into an "
            "empty one only. Delete its documents first, or name another."
        )
    await _share_group(source, target)
    change = await read(source)
    change.metadata = {
        "embedder": source.embedder.name,
        "dimension": str(source.embedder.dimension),
        owner_groups.OWNER: source.ws.owner,
    }
    await target.driver.write(change)
    arrived = await read(target)
    for kind, sent, received in (
        ("nodes", change.nodes, arrived.nodes),
        ("edges", change.edges, arrived.edges),
    ):
        missing = {item.uuid for item in sent} - {item.uuid for item in received}
        if missing:
            raise Unavailable(
                f"{len(missing)} of {len(sent)} {kind} have not arrived at {target.address}. "
                "Delete its documents, and copy again."
            )


async def _share_group(source: Graph, target: Graph) -> None:
    """Make the target's group the source's; they differ where an older kit made one of them.

    Raises:
        Conflict: The target has content of another owner under that group.
    """
    if source.group == target.group:
        return
    recorded = (await target.driver.around(source.group, [])).metadata.get(owner_groups.OWNER)
    held = await SagaNode.get_by_group_ids(target.driver, [source.group])
    if held or recorded not in (None, source.ws.owner):
        raise Conflict(
            f"{target.address} holds another owner's documents under the group {source.group}. "
            "Copy into another graph."
        )
    target.group = source.group


async def read(graph: Graph) -> Change:
    """Return everything that a graph holds of its group, with vectors."""
    change = Change(group=graph.group)
    for kind in NODES:
        change.nodes += await kind.get_by_group_ids(graph.driver, [graph.group])
    change.edges += await lookups.edges(graph)
    for kind in EDGES:
        change.edges += await _edges(graph, kind)
    await _add_vectors(graph, change)
    return change


async def _edges(graph: Graph, kind: Any) -> list[Any]:
    try:
        return list(await kind.get_by_group_ids(graph.driver, [graph.group]))
    except GroupsEdgesNotFoundError:
        return []


async def _add_vectors(graph: Graph, change: Change) -> None:
    nodes = [node for node in change.nodes if isinstance(node, EntityNode)]
    communities = [node for node in change.nodes if isinstance(node, CommunityNode)]
    facts = [edge for edge in change.edges if not isinstance(edge, EDGES)]
    of_names = await get_embeddings_for_nodes(graph.driver, nodes) if nodes else {}
    if communities:
        of_names |= await get_embeddings_for_communities(graph.driver, communities)
    of_facts = await get_embeddings_for_edges(graph.driver, facts) if facts else {}
    for node in (*nodes, *communities):
        node.name_embedding = of_names.get(node.uuid)
    for fact in facts:
        fact.fact_embedding = of_facts.get(fact.uuid)
