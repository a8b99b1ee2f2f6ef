"""Graphiti's nodes and edges as records that cite: each with the documents' lines that say it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from graphiti_core.edges import EntityEdge, EpisodicEdge
from graphiti_core.nodes import EntityNode, EpisodicNode

from ftlab_kit.graphs import updates
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Citation, Entity, Fact

MOST_PLACES = 8


async def chunks(graph: Graph, keys: Iterable[str]) -> dict[str, EpisodicNode]:
    """Return chunks by their uuids."""
    wanted = sorted(set(keys))
    found = await EpisodicNode.get_by_uuids(graph.driver, wanted) if wanted else []
    return {episode.uuid: episode for episode in found}


def place(episode: EpisodicNode, lines: Sequence[int] | None = None, part: str = "") -> Citation:
    """Return where a chunk stands, or some lines of it."""
    kept = updates.about(episode)
    first, last = lines or kept.get("lines") or (1, 1)
    return Citation(kept.get("document") or episode.name, first, last, part or kept.get("part", ""))


def places(fact: EntityEdge, known: Mapping[str, EpisodicNode]) -> tuple[Citation, ...]:
    """Return where a fact is said: where it holds now first, then by document and line."""
    found, lined = [], set()
    for evidence in fact.attributes.get(updates.EVIDENCE) or ():
        key, first, last, part = evidence.split("|", 3)
        lined.add(key)
        if key in known:
            found.append((known[key], place(known[key], (int(first), int(last)), part)))
    rest = [known[key] for key in fact.episodes if key in known and key not in lined]
    found += [(episode, place(episode)) for episode in rest]
    found.sort(key=lambda item: (bool(updates.about(item[0]).get("ended_at")), *_order(item[1])))
    return tuple(dict.fromkeys(item for _, item in found))


def _order(found: Citation) -> tuple[str, str, int]:
    return found.document, found.part, found.first_line


def fact(
    edge: EntityEdge, names: Mapping[str, EntityNode], known: Mapping[str, EpisodicNode]
) -> Fact:
    """Return a fact as a record."""
    sets: dict[str, Any] = json.loads(edge.attributes.get(updates.SETS, "{}"))
    attribute, value = next(iter(sets.items()), (None, None))
    return Fact(
        fact=edge.fact,
        relation=edge.name,
        source=_name(edge.source_node_uuid, names),
        target=_name(edge.target_node_uuid, names),
        places=places(edge, known),
        valid_at=edge.valid_at,
        invalid_at=edge.invalid_at,
        expired_at=edge.expired_at,
        attribute=attribute,
        value=value,
        id=edge.uuid,
    )


def _name(key: str, names: Mapping[str, EntityNode]) -> str:
    return names[key].name if key in names else key


def kind(node: EntityNode) -> str:
    """Return the type of an entity."""
    return next((label for label in sorted(node.labels) if label != "Entity"), "Entity")


def entity(
    node: EntityNode, links: Iterable[EpisodicEdge], known: Mapping[str, EpisodicNode]
) -> Entity:
    """Return an entity as a record, with the first places that mention it."""
    said = [known[link.source_node_uuid] for link in links if link.source_node_uuid in known]
    live = [episode for episode in said if not updates.about(episode).get("ended_at")]
    found = sorted(map(place, live or said), key=_order)
    hidden = {"ended_at"}
    attributes = {key: value for key, value in node.attributes.items() if key not in hidden}
    return Entity(
        name=node.name,
        type=kind(node),
        attributes=attributes,
        summary=node.summary,
        places=tuple(dict.fromkeys(found))[:MOST_PLACES],
        id=node.uuid,
    )


def holds(edge: EntityEdge, at: datetime | None) -> bool:
    """Return whether a fact holds at a time, now if None."""
    if at is None:
        return edge.invalid_at is None
    begins = edge.valid_at is None or edge.valid_at <= at
    return begins and (edge.invalid_at is None or edge.invalid_at > at)
