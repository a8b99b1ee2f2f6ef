"""Writing to Neo4j: many rows at a time, whole, times and vectors as text."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from graphiti_core.edges import (
    CommunityEdge,
    EntityEdge,
    EpisodicEdge,
    HasEpisodeEdge,
    NextEpisodeEdge,
)
from graphiti_core.nodes import (
    CommunityNode,
    EntityNode,
    EpisodicNode,
    SagaNode,
)

from ftlab_kit.graphs.drivers.protocol import DECIMALS

MANY = 1000
LABELS = {EntityNode: "Entity", EpisodicNode: "Episodic", CommunityNode: "Community"}
LABELS[SagaNode] = "Saga"
ENDS = {
    EntityEdge: ("RELATES_TO", "Entity", "Entity"),
    EpisodicEdge: ("MENTIONS", "Episodic", "Entity"),
    CommunityEdge: ("HAS_MEMBER", "Community", "Entity"),
    HasEpisodeEdge: ("HAS_EPISODE", "Saga", "Episodic"),
    NextEpisodeEdge: ("NEXT_EPISODE", "Episodic", "Episodic"),
}
VECTORS = {
    EntityNode: "name_embedding",
    CommunityNode: "name_embedding",
    EntityEdge: "fact_embedding",
}
TIMES = {
    EntityNode: ("created_at",),
    CommunityNode: ("created_at",),
    EpisodicNode: ("created_at", "valid_at"),
    SagaNode: ("created_at", "last_summarized_at", "last_summarized_episode_valid_at"),
    EntityEdge: ("created_at", "expired_at", "valid_at", "invalid_at", "reference_time"),
}


async def drop(tx: Any, match: str, end: str, uuids: Sequence[str]) -> None:
    """Delete what has one of some uuids."""
    for some in _batches(uuids):
        await (await tx.run(f"{match} WHERE n.uuid IN $uuids {end}", uuids=some)).consume()


async def put_nodes(tx: Any, nodes: Iterable[Any]) -> None:
    """Write nodes of any kind, each whole; a vector that is not given stays."""
    by_class: dict[tuple[Any, tuple[str, ...]], list[Any]] = {}
    for node in nodes:
        labels = tuple(sorted({*node.labels} - {"Entity"})) if isinstance(node, EntityNode) else ()
        by_class.setdefault((type(node), labels), []).append(node)
    for (cls, labels), some in by_class.items():
        vector = VECTORS.get(cls)
        more = "".join(f":{label}" for label in labels)
        query = (
            f"UNWIND $rows AS row MERGE (n:{LABELS[cls]} {{uuid: row.uuid}}) "
            f"{f'SET n{more} ' if more else ''}{_setting(TIMES[cls], vector, 'Node')}"
        )
        made = ([_values(node, TIMES[cls], vector) for node in batch] for batch in _batches(some))
        await _send(tx, query, made)


async def put_edges(tx: Any, edges: Iterable[Any]) -> None:
    """Write edges of any kind, each whole; a vector that is not given stays."""
    by_class: dict[Any, list[Any]] = {}
    for edge in edges:
        by_class.setdefault(type(edge), []).append(edge)
    for cls, some in by_class.items():
        kind, start, end = ENDS[cls]
        times = TIMES.get(cls, ("created_at",))
        vector = VECTORS.get(cls)
        query = (
            f"UNWIND $rows AS row MATCH (a:{start} {{uuid: row.source}}) "
            f"MATCH (b:{end} {{uuid: row.target}}) MERGE (a)-[n:{kind} {{uuid: row.uuid}}]->(b) "
            f"{_setting(times, vector, 'Relationship')}"
        )
        made = ([_edge_values(edge, times, vector) for edge in batch] for batch in _batches(some))
        await _send(tx, query, made)


async def _send(tx: Any, query: str, batches: Iterable[list[dict[str, Any]]]) -> None:
    """Send rows in batches; the next is made while the server works on one."""

    async def run(rows: list[dict[str, Any]]) -> None:
        await (await tx.run(query, rows=rows)).consume()

    sent: asyncio.Task[None] | None = None
    try:
        for rows in batches:
            if sent:
                await sent
            sent = asyncio.create_task(run(rows))
            await asyncio.sleep(0)  # it goes out before the next batch is made
        if sent:
            await sent
    finally:
        if sent:
            sent.cancel()  # of one that is done this does nothing


def _setting(times: Sequence[str], vector: str | None, kind: str) -> str:
    """Return the Cypher that sets all properties, but a vector that is not given.

    Times and vectors come as text: the driver packs them value by value, in Python. A vector is
    kept as float32, by the procedure that Graphiti uses too.
    """
    made = ", ".join(f"{name}: datetime(row.{name})" for name in times)
    plain = f"SET n = row.values SET n += {{{made}}}"
    if vector is None:
        return plain
    return (
        f"WITH n, row, n.{vector} AS old {plain} WITH n, CASE WHEN row.vector IS NULL THEN old "
        "ELSE [x IN split(row.vector, ',') | toFloat(x)] END AS vector WHERE vector IS NOT NULL "
        f"CALL db.create.set{kind}VectorProperty(n, '{vector}', vector)"
    )


def _values(item: Any, times: Sequence[str], vector: str | None) -> dict[str, Any]:
    """Return a node or an edge as `_setting` takes it; what is None is no property."""
    values = {key: value for key, value in vars(item).items() if value is not None}
    values |= values.pop("attributes", {})
    for name in ("labels", "episode_metadata", "name_embedding", "fact_embedding", *times):
        values.pop(name, None)
    if isinstance(item, EpisodicNode):
        values["source"] = item.source.value
    row: dict[str, Any] = {name: _iso(getattr(item, name)) for name in times}
    row |= {"uuid": item.uuid, "values": values}
    return row | ({"vector": _text(getattr(item, vector))} if vector else {})


def _edge_values(edge: Any, times: Sequence[str], vector: str | None) -> dict[str, Any]:
    row = _values(edge, times, vector)
    ends = {"source": edge.source_node_uuid, "target": edge.target_node_uuid}
    if vector is None:
        for name in ("source_node_uuid", "target_node_uuid"):
            row["values"].pop(name)
    return row | ends


def _iso(when: datetime | None) -> str | None:
    return when.astimezone(UTC).isoformat() if when else None


def _text(vector: list[float] | None) -> str | None:
    """Return a vector as text, every bit of it: Bolt packs numbers one by one, in Python.

    Few digits are read many times faster than all, and suffice for a vector of this kit.
    """
    if vector is None:
        return None
    given = np.asarray(vector, np.float32)
    few = np.round(np.asarray(vector), DECIMALS)
    exact = few if np.array_equal(few.astype(np.float32), given) else given
    return msgspec.json.encode(exact.tolist()).decode()[1:-1]


def _batches(items: Sequence[Any]) -> Iterable[list[Any]]:
    for first in range(0, len(items), MANY):
        yield list(items[first : first + MANY])
