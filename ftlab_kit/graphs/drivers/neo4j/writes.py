"""Writes to Neo4j: rows in batches, each whole, times and vectors as text."""

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

BATCH_ROWS = 1000
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


async def delete(tx: Any, match: str, clause: str, uuids: Sequence[str]) -> None:
    """Delete nodes or edges by uuid."""
    for batch in _batches(uuids):
        await (await tx.run(f"{match} WHERE n.uuid IN $uuids {clause}", uuids=batch)).consume()


async def put_nodes(tx: Any, nodes: Iterable[Any]) -> None:
    """Write nodes of any kind, each whole; one without a vector keeps the stored vector."""
    by_class: dict[tuple[Any, tuple[str, ...]], list[Any]] = {}
    for node in nodes:
        labels = tuple(sorted({*node.labels} - {"Entity"})) if isinstance(node, EntityNode) else ()
        by_class.setdefault((type(node), labels), []).append(node)
    for (cls, labels), group in by_class.items():
        vector = VECTORS.get(cls)
        set_labels = f"SET n:{':'.join(labels)} " if labels else ""
        query = (
            f"UNWIND $rows AS row MERGE (n:{LABELS[cls]} {{uuid: row.uuid}}) "
            f"{set_labels}{_set_clause(TIMES[cls], vector, 'Node')}"
        )
        batches = ([_row(node, TIMES[cls], vector) for node in batch] for batch in _batches(group))
        await _send(tx, query, batches)


async def put_edges(tx: Any, edges: Iterable[Any]) -> None:
    """Write edges of any kind, each whole; one without a vector keeps the stored vector."""
    by_class: dict[Any, list[Any]] = {}
    for edge in edges:
        by_class.setdefault(type(edge), []).append(edge)
    for cls, group in by_class.items():
        kind, start, end = ENDS[cls]
        times = TIMES.get(cls, ("created_at",))
        vector = VECTORS.get(cls)
        query = (
            f"UNWIND $rows AS row MATCH (a:{start} {{uuid: row.source}}) "
            f"MATCH (b:{end} {{uuid: row.target}}) MERGE (a)-[n:{kind} {{uuid: row.uuid}}]->(b) "
            f"{_set_clause(times, vector, 'Relationship')}"
        )
        batches = ([_edge_row(edge, times, vector) for edge in batch] for batch in _batches(group))
        await _send(tx, query, batches)


async def _send(tx: Any, query: str, batches: Iterable[list[dict[str, Any]]]) -> None:
    """Send batches of rows; the next is prepared while the server works on the last."""

    async def run(rows: list[dict[str, Any]]) -> None:
        await (await tx.run(query, rows=rows)).consume()

    pending: asyncio.Task[None] | None = None
    try:
        for rows in batches:
            if pending:
                await pending
            pending = asyncio.create_task(run(rows))
            await asyncio.sleep(0)  # it is sent before the next batch is prepared
        if pending:
            await pending
    finally:
        if pending:
            pending.cancel()  # does nothing to a task that is done


def _set_clause(times: Sequence[str], vector: str | None, kind: str) -> str:
    """Return the Cypher that sets all properties; a row without a vector keeps the stored one.

    Times and vectors are sent as text, because the driver packs them value by value, in Python. A
    vector is stored as float32, by the procedure that Graphiti uses too.
    """
    properties = ", ".join(f"{name}: datetime(row.{name})" for name in times)
    plain = f"SET n = row.values SET n += {{{properties}}}"
    if vector is None:
        return plain
    return (
        f"WITH n, row, n.{vector} AS old {plain} WITH n, CASE WHEN row.vector IS NULL THEN old "
        "ELSE [x IN split(row.vector, ',') | toFloat(x)] END AS vector WHERE vector IS NOT NULL "
        f"CALL db.create.set{kind}VectorProperty(n, '{vector}', vector)"
    )


def _row(item: Any, times: Sequence[str], vector: str | None) -> dict[str, Any]:
    """Return a node or an edge as `_set_clause` reads it; a field that is None is left out."""
    values = {key: value for key, value in vars(item).items() if value is not None}
    values |= values.pop("attributes", {})
    for name in ("labels", "episode_metadata", "name_embedding", "fact_embedding", *times):
        values.pop(name, None)
    if isinstance(item, EpisodicNode):
        values["source"] = item.source.value
    row: dict[str, Any] = {name: _iso(getattr(item, name)) for name in times}
    row |= {"uuid": item.uuid, "values": values}
    return row | ({"vector": _vector_text(getattr(item, vector))} if vector else {})


def _edge_row(edge: Any, times: Sequence[str], vector: str | None) -> dict[str, Any]:
    row = _row(edge, times, vector)
    ends = {"source": edge.source_node_uuid, "target": edge.target_node_uuid}
    if vector is None:
        for name in ("source_node_uuid", "target_node_uuid"):
            row["values"].pop(name)
    return row | ends


def _iso(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat() if time else None


def _vector_text(vector: list[float] | None) -> str | None:
    """Return a vector as text, exact to the last bit: Bolt packs numbers one by one, in Python.

    Six decimals are parsed many times faster than all digits, and are exact for the kit's vectors.
    """
    if vector is None:
        return None
    full = np.asarray(vector, np.float32)
    short = np.round(np.asarray(vector), DECIMALS)
    exact = short if np.array_equal(short.astype(np.float32), full) else full
    return msgspec.json.encode(exact.tolist()).decode()[1:-1]


def _batches(items: Sequence[Any]) -> Iterable[list[Any]]:
    for first in range(0, len(items), BATCH_ROWS):
        yield list(items[first : first + BATCH_ROWS])
