"""Graphiti's nodes and edges as records, each with the lines of documents that state it."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from graphiti_core.edges import EntityEdge, EpisodicEdge
from graphiti_core.nodes import EntityNode, EpisodicNode

from ftlab_kit.graphs import metadata
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Citation, Entity, Fact

MAX_PLACES = 8
HIDDEN = {"ended_at"}


async def chunks(graph: Graph, keys: Iterable[str]) -> dict[str, EpisodicNode]:
    """Return chunks by their uuids."""
    unique = sorted(set(keys))
    episodes = await EpisodicNode.get_by_uuids(graph.driver, unique) if unique else []
    return {episode.uuid: episode for episode in episodes}


def of_chunk(chunk: EpisodicNode) -> Citation:
    """Return the lines of a chunk."""
    about = metadata.of_chunk(chunk)
    first, last = about.get("lines") or (1, 1)
    return Citation(about.get("document") or chunk.name, first, last, about.get("part", ""))


def of_evidence(chunk: EpisodicNode, evidence: metadata.Evidence) -> Citation:
    """Return the lines of a chunk that evidence names."""
    about = metadata.of_chunk(chunk)
    document = about.get("document") or chunk.name
    part = evidence.part or about.get("part", "")
    return Citation(document, evidence.first_line, evidence.last_line, part)


def of_fact(fact: EntityEdge, chunks: Mapping[str, EpisodicNode]) -> tuple[Citation, ...]:
    """Return the lines that state a fact: live ones first, then by document and line."""
    cited, with_lines = [], set()
    for text in fact.attributes.get(metadata.EVIDENCE) or ():
        evidence = metadata.evidence(text)
        with_lines.add(evidence.chunk_id)
        if chunk := chunks.get(evidence.chunk_id):
            cited.append((chunk, of_evidence(chunk, evidence)))
    rest = [chunks[key] for key in fact.episodes if key in chunks and key not in with_lines]
    cited += [(chunk, of_chunk(chunk)) for chunk in rest]
    cited.sort(key=lambda pair: (not metadata.is_live(pair[0]), *_order(pair[1])))
    return tuple(dict.fromkeys(citation for _, citation in cited))


def _order(citation: Citation) -> tuple[str, str, int]:
    return citation.document, citation.part, citation.first_line


def fact(
    edge: EntityEdge, nodes: Mapping[str, EntityNode], chunks: Mapping[str, EpisodicNode]
) -> Fact:
    """Return a fact as a record."""
    attribute, value = next(iter(metadata.values(edge).items()), (None, None))
    return Fact(
        fact=edge.fact,
        relation=edge.name,
        source=_name(edge.source_node_uuid, nodes),
        target=_name(edge.target_node_uuid, nodes),
        places=of_fact(edge, chunks),
        valid_at=edge.valid_at,
        invalid_at=edge.invalid_at,
        expired_at=edge.expired_at,
        attribute=attribute,
        value=value,
        id=edge.uuid,
    )


def _name(key: str, nodes: Mapping[str, EntityNode]) -> str:
    return nodes[key].name if key in nodes else key


def type_of(node: EntityNode) -> str:
    """Return the type of an entity."""
    return next((label for label in sorted(node.labels) if label != "Entity"), "Entity")


def entity(
    node: EntityNode, mentions: Iterable[EpisodicEdge], chunks: Mapping[str, EpisodicNode]
) -> Entity:
    """Return an entity as a record, with the first places that mention it."""
    keys = [edge.source_node_uuid for edge in mentions]
    mentioning = [chunks[key] for key in keys if key in chunks]
    live = [chunk for chunk in mentioning if metadata.is_live(chunk)]
    cited = sorted(map(of_chunk, live or mentioning), key=_order)
    return Entity(
        name=node.name,
        type=type_of(node),
        attributes={key: value for key, value in node.attributes.items() if key not in HIDDEN},
        summary=node.summary,
        places=tuple(dict.fromkeys(cited))[:MAX_PLACES],
        id=node.uuid,
    )


def holds(edge: EntityEdge, at: datetime | None) -> bool:
    """Return whether a fact holds at a time, now if None."""
    if at is None:
        return edge.invalid_at is None
    has_begun = edge.valid_at is None or edge.valid_at <= at
    return has_begun and (edge.invalid_at is None or edge.invalid_at > at)
