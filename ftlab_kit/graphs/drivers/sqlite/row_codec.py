"""Graphiti's nodes and edges as rows of the tables, and back."""

import json
from collections.abc import Mapping
from typing import Any

from graphiti_core.edges import (
    CommunityEdge,
    Edge,
    EntityEdge,
    EpisodicEdge,
    HasEpisodeEdge,
    NextEpisodeEdge,
)
from graphiti_core.nodes import CommunityNode, EntityNode, EpisodeType, EpisodicNode, Node, SagaNode

from ftlab_kit.graphs.drivers.sqlite.tables import (
    dump_json,
    format_time,
    parse_time,
    vector_bytes,
    vector_floats,
)

Row = dict[str, Any]
NODES: dict[str, type[Node]] = {
    "Entity": EntityNode,
    "Episodic": EpisodicNode,
    "Community": CommunityNode,
    "Saga": SagaNode,
}
EDGES: dict[str, type[Edge]] = {
    "RELATES_TO": EntityEdge,
    "MENTIONS": EpisodicEdge,
    "HAS_MEMBER": CommunityEdge,
    "HAS_EPISODE": HasEpisodeEdge,
    "NEXT_EPISODE": NextEpisodeEdge,
}
ENTITY_FIELDS = {"uuid", "name", "group_id", "summary", "created_at", "name_embedding", "labels"}
FACT_FIELDS = {
    "uuid",
    "source_node_uuid",
    "target_node_uuid",
    "name",
    "fact",
    "group_id",
    "episodes",
    "created_at",
    "expired_at",
    "valid_at",
    "invalid_at",
    "reference_time",
    "fact_embedding",
}
SAGA_TIMES = ("last_summarized_at", "last_summarized_episode_valid_at")
SAGA_FIELDS = ("first_episode_uuid", "last_episode_uuid")


def kind_of(cls: type[Any], kinds: Mapping[str, type[Any]]) -> str:
    """Return the kind, as the tables name it, of a class of nodes or edges."""
    return next(name for name, kind in kinds.items() if issubclass(cls, kind))


def encode_node(node: Node) -> Row:
    """Return the row of a node of any kind, without its id."""
    values = node.model_dump()
    if isinstance(node, EntityNode):
        return encode_entity({**values.pop("attributes"), **values})
    if isinstance(node, EpisodicNode):
        return encode_episode({**values, "source": node.source.value})
    row = _node_row(values, kind_of(type(node), NODES))
    row["summary"] = values["summary"]
    if isinstance(node, SagaNode):
        more = {name: values[name] for name in SAGA_FIELDS}
        row["more"] = dump_json(more | {name: format_time(values[name]) for name in SAGA_TIMES})
    else:
        row["vector"] = vector_bytes(values["name_embedding"])
    return row


def encode_entity(values: Mapping[str, Any]) -> Row:
    """Return the row of an entity, given its attributes flat among its fields."""
    row = _node_row(values, "Entity")
    row["labels"] = dump_json(sorted({*values["labels"], "Entity"}))
    row["summary"] = values["summary"]
    row["vector"] = vector_bytes(values.get("name_embedding"))
    row["more"] = dump_json(
        {key: value for key, value in values.items() if key not in ENTITY_FIELDS}
    )
    return row


def encode_episode(values: Mapping[str, Any]) -> Row:
    """Return the row of an episode."""
    row = _node_row(values, "Episodic")
    row |= {name: values[name] for name in ("content", "source", "source_description")}
    row["valid_at"] = format_time(values["valid_at"])
    more = {"entity_edges": values["entity_edges"], "metadata": values.get("episode_metadata")}
    row["more"] = dump_json(more)
    return row


def _node_row(values: Mapping[str, Any], kind: str) -> Row:
    shared = {name: values[name] for name in ("uuid", "group_id", "name")}
    empty = dict.fromkeys(("labels", "content", "source", "source_description", "valid_at"))
    rest = {"summary": None, "more": "{}", "vector": None}
    return {
        **shared,
        "kind": kind,
        **empty,
        **rest,
        "created_at": format_time(values["created_at"]),
    }


def encode_edge(edge: Edge) -> Row:
    """Return the row of an edge of any kind, without its id."""
    values = edge.model_dump()
    if isinstance(edge, EntityEdge):
        return encode_fact({**values.pop("attributes"), **values})
    return _edge_row(values, kind_of(type(edge), EDGES))


def encode_fact(values: Mapping[str, Any]) -> Row:
    """Return the row of a fact, given its attributes flat among its fields."""
    row = _edge_row(values, "RELATES_TO")
    row |= {"name": values["name"], "fact": values["fact"]}
    times = ("expired_at", "valid_at", "invalid_at", "reference_time")
    row |= {name: format_time(values.get(name)) for name in times}
    row["episodes"] = dump_json(values["episodes"])
    row["vector"] = vector_bytes(values.get("fact_embedding"))
    row["more"] = dump_json({key: value for key, value in values.items() if key not in FACT_FIELDS})
    return row


def encode_link(values: Mapping[str, Any], kind: str) -> Row:
    """Return the row of an edge without a text of its own."""
    return _edge_row(values, kind)


def _edge_row(values: Mapping[str, Any], kind: str) -> Row:
    ends = {"source": values["source_node_uuid"], "target": values["target_node_uuid"]}
    empty = dict.fromkeys(
        ("name", "fact", "expired_at", "valid_at", "invalid_at", "reference_time", "episodes")
    )
    shared = {"uuid": values["uuid"], "kind": kind, "group_id": values["group_id"]}
    times = {"created_at": format_time(values["created_at"])}
    return {**shared, **ends, **empty, **times, "more": "{}", "vector": None}


def decode_node(row: Row, *, vectors: bool = False) -> Any:
    """Return the node of a row."""
    shared = {name: row[name] for name in ("uuid", "name", "group_id")}
    shared["created_at"] = parse_time(row["created_at"])
    more = json.loads(row["more"])
    vector = vector_floats(row["vector"]) if vectors else None
    if row["kind"] == "Entity":
        return EntityNode(
            **shared,
            labels=json.loads(row["labels"]),
            summary=row["summary"],
            attributes=more,
            name_embedding=vector,
        )
    if row["kind"] == "Episodic":
        return EpisodicNode(
            **shared,
            content=row["content"],
            source=EpisodeType.from_str(row["source"]),
            source_description=row["source_description"],
            valid_at=parse_time(row["valid_at"]),
            entity_edges=more["entity_edges"],
            episode_metadata=more["metadata"],
        )
    if row["kind"] == "Community":
        return CommunityNode(**shared, summary=row["summary"], name_embedding=vector)
    times = {name: parse_time(more[name]) for name in SAGA_TIMES}
    rest = {name: more[name] for name in SAGA_FIELDS}
    return SagaNode(**shared, summary=row["summary"], **rest, **times)


def decode_edge(row: Row, *, vectors: bool = False) -> Any:
    """Return the edge of a row."""
    shared = {
        "uuid": row["uuid"],
        "group_id": row["group_id"],
        "source_node_uuid": row["source"],
        "target_node_uuid": row["target"],
        "created_at": parse_time(row["created_at"]),
    }
    if row["kind"] != "RELATES_TO":
        return EDGES[row["kind"]](**shared)
    times = ("expired_at", "valid_at", "invalid_at", "reference_time")
    return EntityEdge(
        **shared,
        **{name: parse_time(row[name]) for name in times},
        name=row["name"],
        fact=row["fact"],
        episodes=json.loads(row["episodes"]),
        attributes=json.loads(row["more"]),
        fact_embedding=vector_floats(row["vector"]) if vectors else None,
    )
