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

from ftlab_kit.graphs.drivers.sqlite.tables import blob, dumped, numbers, text, time

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
    """Return the name that a class of nodes or edges has in the tables."""
    return next(name for name, known in kinds.items() if issubclass(cls, known))


def of_node(node: Node) -> Row:
    """Return the row of a node of any kind, without its id."""
    values = node.model_dump()
    if isinstance(node, EntityNode):
        return of_entity({**values.pop("attributes"), **values})
    if isinstance(node, EpisodicNode):
        return of_episode({**values, "source": node.source.value})
    row = _node(values, kind_of(type(node), NODES))
    row["summary"] = values["summary"]
    if isinstance(node, SagaNode):
        more = {name: values[name] for name in SAGA_FIELDS}
        row["more"] = dumped(more | {name: text(values[name]) for name in SAGA_TIMES})
    else:
        row["vector"] = blob(values["name_embedding"])
    return row


def of_entity(values: Mapping[str, Any]) -> Row:
    """Return the row of an entity whose attributes lie flat among its fields."""
    row = _node(values, "Entity")
    row["labels"] = dumped(sorted({*values["labels"], "Entity"}))
    row["summary"] = values["summary"]
    row["vector"] = blob(values.get("name_embedding"))
    row["more"] = dumped({key: value for key, value in values.items() if key not in ENTITY_FIELDS})
    return row


def of_episode(values: Mapping[str, Any]) -> Row:
    """Return the row of an episode."""
    row = _node(values, "Episodic")
    row |= {name: values[name] for name in ("content", "source", "source_description")}
    row["valid_at"] = text(values["valid_at"])
    more = {"entity_edges": values["entity_edges"], "metadata": values.get("episode_metadata")}
    row["more"] = dumped(more)
    return row


def _node(values: Mapping[str, Any], kind: str) -> Row:
    same = {name: values[name] for name in ("uuid", "group_id", "name")}
    empty = dict.fromkeys(("labels", "content", "source", "source_description", "valid_at"))
    rest = {"summary": None, "more": "{}", "vector": None}
    return {**same, "kind": kind, **empty, **rest, "created_at": text(values["created_at"])}


def of_edge(edge: Edge) -> Row:
    """Return the row of an edge of any kind, without its id."""
    values = edge.model_dump()
    if isinstance(edge, EntityEdge):
        return of_fact({**values.pop("attributes"), **values})
    return _edge(values, kind_of(type(edge), EDGES))


def of_fact(values: Mapping[str, Any]) -> Row:
    """Return the row of a fact whose attributes lie flat among its fields."""
    row = _edge(values, "RELATES_TO")
    row |= {"name": values["name"], "fact": values["fact"]}
    times = ("expired_at", "valid_at", "invalid_at", "reference_time")
    row |= {name: text(values.get(name)) for name in times}
    row["episodes"] = dumped(values["episodes"])
    row["vector"] = blob(values.get("fact_embedding"))
    row["more"] = dumped({key: value for key, value in values.items() if key not in FACT_FIELDS})
    return row


def of_link(values: Mapping[str, Any], kind: str) -> Row:
    """Return the row of an edge that is no more than a link."""
    return _edge(values, kind)


def _edge(values: Mapping[str, Any], kind: str) -> Row:
    ends = {"source": values["source_node_uuid"], "target": values["target_node_uuid"]}
    empty = dict.fromkeys(
        ("name", "fact", "expired_at", "valid_at", "invalid_at", "reference_time", "episodes")
    )
    same = {"uuid": values["uuid"], "kind": kind, "group_id": values["group_id"]}
    when = {"created_at": text(values["created_at"])}
    return {**same, **ends, **empty, **when, "more": "{}", "vector": None}


def node(row: Row, *, vectors: bool = False) -> Any:
    """Return the node of a row."""
    same = {name: row[name] for name in ("uuid", "name", "group_id")}
    same["created_at"] = time(row["created_at"])
    more = json.loads(row["more"])
    vector = numbers(row["vector"]) if vectors else None
    if row["kind"] == "Entity":
        return EntityNode(
            **same,
            labels=json.loads(row["labels"]),
            summary=row["summary"],
            attributes=more,
            name_embedding=vector,
        )
    if row["kind"] == "Episodic":
        return EpisodicNode(
            **same,
            content=row["content"],
            source=EpisodeType.from_str(row["source"]),
            source_description=row["source_description"],
            valid_at=time(row["valid_at"]),
            entity_edges=more["entity_edges"],
            episode_metadata=more["metadata"],
        )
    if row["kind"] == "Community":
        return CommunityNode(**same, summary=row["summary"], name_embedding=vector)
    times = {name: time(more[name]) for name in SAGA_TIMES}
    rest = {name: more[name] for name in SAGA_FIELDS}
    return SagaNode(**same, summary=row["summary"], **rest, **times)


def edge(row: Row, *, vectors: bool = False) -> Any:
    """Return the edge of a row."""
    same = {
        "uuid": row["uuid"],
        "group_id": row["group_id"],
        "source_node_uuid": row["source"],
        "target_node_uuid": row["target"],
        "created_at": time(row["created_at"]),
    }
    if row["kind"] != "RELATES_TO":
        return EDGES[row["kind"]](**same)
    times = ("expired_at", "valid_at", "invalid_at", "reference_time")
    return EntityEdge(
        **same,
        **{name: time(row[name]) for name in times},
        name=row["name"],
        fact=row["fact"],
        episodes=json.loads(row["episodes"]),
        attributes=json.loads(row["more"]),
        fact_embedding=numbers(row["vector"]) if vectors else None,
    )
