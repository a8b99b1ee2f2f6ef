"""A graph on a Neo4j server, 5.26 or newer: Graphiti's own driver, with three things of ours.

A change is one transaction that holds the graph's lock node, so that two who load at once queue
and nothing is ever half loaded; rows are written many at a time, whole. A search without filters
asks vector indices, one with filters compares what passes, so that a limit never comes before a
filter. What Graphiti writes stays as it is; the lock node (label FtlabGraph) is all that is new.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
from graphiti_core.driver.driver import GraphProvider
from graphiti_core.driver.neo4j_driver import Neo4jDriver
from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.edges import (
    CommunityEdge,
    EntityEdge,
    EpisodicEdge,
    HasEpisodeEdge,
    NextEpisodeEdge,
    get_entity_edge_from_record,
    get_episodic_edge_from_record,
)
from graphiti_core.graph_queries import get_fulltext_indices, get_range_indices
from graphiti_core.models.edges.edge_db_queries import (
    EPISODIC_EDGE_RETURN,
    get_entity_edge_return_query,
)
from graphiti_core.models.nodes.node_db_queries import (
    EPISODIC_NODE_RETURN,
    get_entity_node_return_query,
)
from graphiti_core.nodes import (
    CommunityNode,
    EntityNode,
    EpisodicNode,
    SagaNode,
    get_entity_node_from_record,
    get_episodic_node_from_record,
)
from graphiti_core.search.search_filters import (
    SearchFilters,
    edge_search_filter_query_constructor,
    node_search_filter_query_constructor,
)
from graphiti_core.search.search_utils import fulltext_query
from neo4j import AsyncGraphDatabase
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.graphs.drivers.protocol import DECIMALS, Around, Change, note

MANY = 1000
WAIT_S = 60
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
LOCK = "MERGE (l:FtlabGraph {group_id: $group}) SET l.held_at = timestamp()"
UNIQUE = (
    "CREATE CONSTRAINT ftlab_graph IF NOT EXISTS FOR (l:FtlabGraph) REQUIRE l.group_id IS UNIQUE"
)


class Where(NamedTuple):
    """Where vectors are compared: an index, how it is asked, and what it is of."""

    name: str
    on: str
    call: str
    yields: str
    thing: str
    vector: str
    match: str
    ends: str


NAMES = Where(
    name="ftlab_names",
    on="FOR (n:Entity) ON (n.name_embedding)",
    call="queryNodes",
    yields="node",
    thing="n",
    vector="name_embedding",
    match="(n:Entity)",
    ends="",
)
FACTS = Where(
    name="ftlab_facts",
    on="FOR ()-[n:RELATES_TO]-() ON (n.fact_embedding)",
    call="queryRelationships",
    yields="relationship",
    thing="e",
    vector="fact_embedding",
    match="(n:Entity)-[e:RELATES_TO]->(m:Entity)",
    ends="WITH e, score, startNode(e) AS n, endNode(e) AS m",
)
INDICES = {where.name: where.on for where in (NAMES, FACTS)}
MOST_ASKED = 5000  # of an index; beyond, comparing what passes is faster


# as Graphiti returns them, but without the vectors, which would be most of what is sent
FACT = get_entity_edge_return_query(GraphProvider.NEO4J).replace(
    "properties(e) AS", "e {.*, fact_embedding: null} AS"
)
ENTITY = get_entity_node_return_query(GraphProvider.NEO4J).replace(
    "properties(n) AS", "n {.*, name_embedding: null} AS"
)


class Driver(Neo4jDriver):
    """A graph on a server. Its methods that are not Graphiti's are those of `protocol.Driver`."""

    def __init__(self, uri: str, user: str, password: str, database: str = "neo4j") -> None:
        """Make a driver; nothing is asked of the server yet. Not within a running loop."""
        super().__init__(uri, user, password, database)
        self.uri = uri
        self._first: Any = self.client  # Graphiti's own, which would print a note on every query
        self.client: Any = AsyncGraphDatabase.driver(
            uri, auth=(user, password), notifications_min_severity="OFF"
        )
        self._dimension = 0
        self._is_indexed = self._is_ready = False
        self._tx: ContextVar[Any] = ContextVar("tx", default=None)
        self.search_interface = Found()

    async def reach(self) -> None:
        """See that the server answers, and knows who asks.

        Raises:
            Unavailable: No server answers there, or it refuses user or password.
        """
        with in_words(self.uri):
            await self.client.verify_connectivity()

    async def execute_query(self, cypher_query_: str, **values: Any) -> Any:
        """Ask the server; what goes wrong is said in words."""
        with in_words(self.uri):
            return await super().execute_query(cypher_query_, **values)

    async def begin(self, dimension: int) -> None:
        """See that the server answers, and build what indices are missing.

        Vector indices are built when the first vectors are there: filling one as rows come takes
        four times as long as filling it from them.

        Raises:
            Unavailable: No server answers there, or it refuses user or password.
            InputError: Its indices are of vectors of another size.
        """
        self._dimension = dimension
        with in_words(self.uri):
            await self.client.verify_connectivity()
            words = [*get_range_indices(self.provider), *get_fulltext_indices(self.provider)]
            for query in (UNIQUE, *words):
                await self._ask(query)
            await self._ask("CALL db.awaitIndexes($wait)", wait=WAIT_S)
        known = await self._indices()
        sizes = {found["options"]["indexConfig"]["vector.dimensions"] for found in known}
        if sizes - {dimension}:
            raise InputError(
                f"The graph at {self.uri} holds vectors of {sizes.pop()} numbers, the embedder "
                f"gives {dimension}. Name the embedder that made them."
            )
        self._is_indexed = len(known) == len(INDICES)

    async def build_indices_and_constraints(self, delete_existing: bool = False) -> None:
        """Do nothing: `begin` has built them, one after the other."""

    async def _ask(self, query: str, **values: Any) -> list[Any]:
        found = await self.client.execute_query(query, values, database_=self._database)
        return list(found.records)

    async def _indices(self) -> list[Any]:
        query = "SHOW INDEXES YIELD name, state, options WHERE name IN $names RETURN state, options"
        return await self._ask(query, names=list(INDICES))

    async def _index_vectors(self) -> None:
        for name, on in INDICES.items():
            await self._ask(
                f"CREATE VECTOR INDEX {name} IF NOT EXISTS {on} OPTIONS {{indexConfig: "
                f"{{`vector.dimensions`: {int(self._dimension)}, "
                "`vector.similarity_function`: 'cosine', `vector.quantization.enabled`: false}}"
            )
        self._is_indexed = True

    async def has_index(self) -> bool:
        """Return whether the vector indices can be asked; they fill in the background."""
        if not self._is_ready and self._is_indexed:
            self._is_ready = all(found["state"] == "ONLINE" for found in await self._indices())
        return self._is_ready

    async def close(self) -> None:
        """Close both connections."""
        await self._first.close()
        await super().close()

    # what the kit asks of a driver

    @asynccontextmanager
    async def changing(self, group: str) -> AsyncIterator[None]:
        """Hold the graph's lock node in a transaction, in which all is read and written."""
        if self._tx.get() is not None:
            yield
            return
        with in_words(self.uri):
            async with self.client.session(database=self._database) as session:
                async with await session.begin_transaction() as tx:
                    token = self._tx.set(tx)
                    try:
                        await (await tx.run(LOCK, group=group)).consume()
                        yield
                        await tx.commit()
                    finally:
                        self._tx.reset(token)
            # full-text indices follow a write
            await self._ask("CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()")
            if not self._is_indexed:
                await self._index_vectors()

    async def _read(self, query: str, **values: Any) -> list[Any]:
        tx = self._tx.get()
        if tx is not None:
            return [record async for record in await tx.run(query, **values)]
        records, _, _ = await self.execute_query(query, routing_="r", **values)
        return list(records)

    async def around(self, group: str, uuids: Sequence[str]) -> Around:
        """Return the facts that touch some entities, and which episodes mention these."""
        found: dict[str, EntityEdge] = {}
        for arrow in ("(n)-[e:RELATES_TO]->(m)", "(m)<-[e:RELATES_TO]-(n)"):
            end = "n" if arrow.startswith("(n)") else "m"
            records = await self._read(
                f"UNWIND $uuids AS uuid MATCH ({end}:Entity {{uuid: uuid}}) MATCH {arrow} "
                f"RETURN DISTINCT {FACT}",
                uuids=list(uuids),
            )
            edges = [_edge(record) for record in records]
            found |= {edge.uuid: edge for edge in edges}
        links = await self._read(
            "UNWIND $uuids AS uuid MATCH (n:Episodic)-[e:MENTIONS]->(m:Entity {uuid: uuid}) "
            f"RETURN {EPISODIC_EDGE_RETURN}",
            uuids=list(uuids),
        )
        about = await self._read(
            "MATCH (l:FtlabGraph {group_id: $group}) RETURN properties(l) AS known", group=group
        )
        known = about[0]["known"] if about else {}
        kept = {key: value for key, value in known.items() if isinstance(value, str)}
        kept.pop("group_id", None)
        mentions = [get_episodic_edge_from_record(record) for record in links]
        return Around(list(found.values()), mentions, kept)

    async def write(self, change: Change) -> None:
        """Make a change: all of it, or nothing."""
        async with self.changing(change.group):
            tx = self._tx.get()
            for kind, _, _ in ENDS.values():
                await _drop(tx, f"MATCH ()-[n:{kind}]->()", "DELETE n", change.gone_edges)
            for label in LABELS.values():
                await _drop(tx, f"MATCH (n:{label})", "DETACH DELETE n", change.gone_nodes)
            await _put_nodes(tx, change.nodes)
            await _put_edges(tx, change.edges)
            if change.about:
                query = "MATCH (l:FtlabGraph {group_id: $group}) SET l += $about"
                result = await tx.run(query, group=change.group, about=dict(change.about))
                await result.consume()


@contextmanager
def in_words(uri: str) -> Iterator[None]:
    """Say in words what a server has answered.

    Raises:
        Unavailable: No server answers there, or it refuses user or password.
    """
    try:
        yield
    except AuthError as error:
        raise Unavailable(
            f"The Neo4j at {uri} refuses user or password. Give the user in the address, as in "
            "neo4j://USER@HOST, and the password in NEO4J_PASSWORD."
        ) from error
    except (DriverError, Neo4jError) as error:
        raise Unavailable(
            f"The Neo4j at {uri} does not answer as it should: {error}. Is it started, and is the "
            "address right?"
        ) from error


async def _drop(tx: Any, match: str, end: str, uuids: Sequence[str]) -> None:
    for some in _batches(uuids):
        await (await tx.run(f"{match} WHERE n.uuid IN $uuids {end}", uuids=some)).consume()


async def _put_nodes(tx: Any, nodes: Iterable[Any]) -> None:
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


async def _put_edges(tx: Any, edges: Iterable[Any]) -> None:
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


class Found(SearchInterface):
    """The best of what passes the filters; what is not here Graphiti asks in its own Cypher."""

    async def edge_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return facts by Lucene's BM25 of their sentences."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryRelationships('edge_name_and_fact', $words, $most) "
            "YIELD relationship AS e, score "
            "WITH e, score, startNode(e) AS n, endNode(e) AS m",
            (query, group_ids, limit),
            edge_search_filter_query_constructor(search_filter, driver.provider),
            FACT,
        )
        return _noted("full_text", records, _edge)

    async def node_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return entities by Lucene's BM25 of name and summary."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryNodes('node_name_and_summary', $words, $most) "
            "YIELD node AS n, score WITH n, score",
            (query, group_ids, limit),
            node_search_filter_query_constructor(search_filter, driver.provider),
            ENTITY,
        )
        return _noted("full_text", records, _node)

    async def episode_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return episodes by Lucene's BM25 of their text."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryNodes('episode_content', $words, $most) "
            "YIELD node AS e, score WITH e, score",
            (query, group_ids, limit),
            ([], {}),
            EPISODIC_NODE_RETURN,
        )
        return _noted("full_text", records, get_episodic_node_from_record)

    async def edge_similarity_search(  # noqa: PLR0913  # the signature is Graphiti's
        self,
        driver: Any,
        search_vector: list[float],
        source_node_uuid: str | None,
        target_node_uuid: str | None,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return facts by the cosine of their vectors; `min_score` is of (1 + cosine) / 2."""
        wanted, values = edge_search_filter_query_constructor(search_filter, driver.provider)
        for end, uuid in (("n", source_node_uuid), ("m", target_node_uuid)):
            if uuid:
                wanted.append(f"{end}.uuid = ${end}_uuid")
                values[f"{end}_uuid"] = uuid
        asked = (search_vector, group_ids, limit, min_score)
        nearest = await _nearest(driver, FACTS, asked, (wanted, values))
        records, _, _ = await driver.execute_query(
            f"MATCH (n:Entity)-[e:RELATES_TO]->(m:Entity) WHERE e.uuid IN $uuids RETURN {FACT}",
            uuids=[uuid for uuid, _ in nearest],
            routing_="r",
        )
        return _in_order(nearest, map(_edge, records))

    async def node_similarity_search(
        self,
        driver: Any,
        search_vector: list[float],
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return entities by the cosine of their names' vectors."""
        chosen = node_search_filter_query_constructor(search_filter, driver.provider)
        asked = (search_vector, group_ids, limit, min_score)
        nearest = await _nearest(driver, NAMES, asked, chosen)
        records, _, _ = await driver.execute_query(
            f"MATCH (n:Entity) WHERE n.uuid IN $uuids RETURN {ENTITY}",
            uuids=[uuid for uuid, _ in nearest],
            routing_="r",
        )
        return _in_order(nearest, map(_node, records))


def _edge(record: Any) -> EntityEdge:
    return get_entity_edge_from_record(dict(record), GraphProvider.NEO4J)


def _node(record: Any) -> EntityNode:
    return get_entity_node_from_record(dict(record), GraphProvider.NEO4J)


async def _by_words(
    driver: Any,
    call: str,
    asked: tuple[str, list[str] | None, int],
    chosen: tuple[list[str], Mapping[str, Any]],
    wanted: str,
) -> list[Any]:
    """Ask a full-text index. Its own limit would come before a filter: it is left out then."""
    query, group_ids, limit = asked
    words = fulltext_query(query, group_ids, driver)
    if not words:
        return []
    conditions, values = chosen
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    records, _, _ = await driver.execute_query(
        f"{call} {where} WITH * ORDER BY score DESC LIMIT $limit RETURN score, {wanted}",
        words=words,
        most={} if conditions else {"limit": limit},
        limit=limit,
        routing_="r",
        **values,
    )
    return list(records)


async def _nearest(
    driver: Any,
    where: "Where",
    asked: tuple[list[float], list[str] | None, int, float],
    chosen: tuple[list[str], Mapping[str, Any]],
) -> list[tuple[str, float]]:
    """Return uuids with (1 + cosine) / 2 of what passes.

    An index knows no filter: it is asked for more until enough of what it finds passes. Where a
    filter lets so little through that the index does not help, what passes is compared itself.
    """
    vector, group_ids, limit, least = asked
    if not any(vector):
        return []  # of nothing: the server has no cosine for it
    conditions = list(chosen[0])
    values = {**chosen[1], "vector": vector}
    if group_ids is not None:
        conditions.append(f"{where.thing}.group_id IN $group_ids")
        values["group_ids"] = group_ids
    passes = " AND ".join(f"({item})" for item in conditions) or "true"
    most = 4 * limit
    while most <= MOST_ASKED and await driver.has_index():
        query = (
            f"CALL db.index.vector.{where.call}($index, $most, $vector) "
            f"YIELD {where.yields} AS {where.thing}, score {where.ends} "
            f"RETURN {where.thing}.uuid AS uuid, score, coalesce({passes}, false) AS passes "
            "ORDER BY score DESC, uuid"
        )
        more = {"index": where.name, "most": most, "routing_": "r"}
        records, _, _ = await driver.execute_query(query, **more, **values)
        found = [(record["uuid"], record["score"]) for record in records if record["passes"]]
        if len(found) >= limit or len(records) < most:
            return [item for item in found[:limit] if item[1] > least]
        most *= 8
    query = (
        f"MATCH {where.match} WHERE {where.thing}.{where.vector} IS NOT NULL AND {passes} "
        f"WITH {where.thing}, vector.similarity.cosine({where.thing}.{where.vector}, $vector) "
        f"AS score WHERE score > $least RETURN {where.thing}.uuid AS uuid, score "
        "ORDER BY score DESC, uuid LIMIT $limit"
    )
    more = {"least": least, "limit": limit, "routing_": "r"}
    records, _, _ = await driver.execute_query(query, **more, **values)
    return [(record["uuid"], record["score"]) for record in records]


def _noted(method: str, records: Iterable[Any], make: Any) -> list[Any]:
    made = []
    for record in records:
        values = dict(record)
        note(method, values["uuid"], values.pop("score"))
        made.append(make(values))
    return made


def _in_order(nearest: Sequence[tuple[str, float]], found: Iterable[Any]) -> list[Any]:
    by_uuid = {item.uuid: item for item in found}
    kept = [(uuid, score) for uuid, score in nearest if uuid in by_uuid]
    for uuid, score in kept:
        note("vector", uuid, 2 * score - 1)
    return [by_uuid[uuid] for uuid, _ in kept]
