"""A graph on a FalkorDB server: Graphiti's own driver, with what the kit asks beyond it.

Graphiti gives each group_id a FalkorDB graph of its own; here all groups are in the one graph that
the address names, told apart by group_id as elsewhere, so that reads, writes and searches agree.

A change is one query, which FalkorDB does whole or takes back, and which no reader sees a part of.
It goes out when `changing` ends, in a Redis transaction that fails where the writer's place was
lost: what is read within `changing` is the graph as it was. How long a change outlives the server
is up to its persistence: turn AOF on, or a crash loses what came after its last snapshot.

What FalkorDB (4.16) does otherwise than Graphiti expects, and what is done about it here:
- A vector index loses every entity that is updated (FalkorDB#2179): none is built, vectors are
  compared one by one.
- A vector that is set over another stays the old one (FalkorDB#2099): the old one is taken away
  first.
- An index of texts returns all where those before a text are asked for (FalkorDB#2239), and times
  are texts: no index of times is built.
- Decimals are kept whole, but come back with 15 digits.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from falkordb.asyncio import FalkorDB
from falkordb.helpers import stringify_param_value
from graphiti_core.driver.driver import GraphProvider
from graphiti_core.driver.falkordb import STOPWORDS
from graphiti_core.driver.falkordb_driver import FalkorDriver
from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.edges import (
    EntityEdge,
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
    EntityNode,
    EpisodicNode,
    get_entity_node_from_record,
    get_episodic_node_from_record,
)
from graphiti_core.search.search_filters import (
    SearchFilters,
    edge_search_filter_query_constructor,
)
from graphiti_core.utils.datetime_utils import convert_datetimes_to_strings
from redis.exceptions import AuthenticationError, RedisError, ResponseError, WatchError

from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.graphs.drivers.neo4j.written import ENDS, LABELS, VECTORS
from ftlab_kit.graphs.drivers.protocol import Around, Change, note

WAIT_S = 60
HOLD_S = 30  # a writer's place, which is renewed; one that was killed is gone after it
POLL_S = 0.02
MOST_WORDS = 100
FALKOR = GraphProvider.FALKORDB
IF_OURS = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call({}) end return 0"
RENEW = IF_OURS.format("'pexpire', KEYS[1], ARGV[2]")
RELEASE = IF_OURS.format("'del', KEYS[1]")

# of the indices that Graphiti builds: text that lies after a given text is found by them wrongly
TIMES = re.compile(r", \w\.\w+_at\b")

# as Graphiti returns them, but without the vectors, which would be most of what is sent
FACT = get_entity_edge_return_query(FALKOR).replace(
    "properties(e) AS", "e {.*, fact_embedding: null} AS"
)
ENTITY = get_entity_node_return_query(FALKOR).replace(
    "properties(n) AS", "n {.*, name_embedding: null} AS"
)


class Held(NamedTuple):
    """A writer's place: its key and token, when it is left, and what is to be written then."""

    key: str
    token: str
    left: asyncio.Event
    changes: list[Change]


class Part(NamedTuple):
    """A part of a change: Cypher that is done for each `row`."""

    query: str
    rows: Sequence[Any]


class Rows(NamedTuple):
    """What a query returned, under the names that Neo4j's driver has for it."""

    records: list[dict[str, Any]]
    keys: list[str]
    summary: None = None


class Driver(FalkorDriver):
    """A graph on a server. Its methods that are not Graphiti's are those of `protocol.Driver`."""

    def __init__(self, address: str, graph: str, **how: Any) -> None:
        """Make a driver. Not within a running loop.

        Args:
            address: What messages name.
            graph: The FalkorDB graph that holds all groups.
            how: host, port, username and password; or unix_socket_path, and password.

        Raises:
            Unavailable: No server answers there, or it refuses user or password.
        """
        self.address = address
        with in_words(address):
            super().__init__(falkor_db=FalkorDB(**how), database=graph)
        self._graph = self.client.select_graph(graph)
        self._held: ContextVar[Held | None] = ContextVar("held", default=None)
        self.search_interface = Found()

    def clone(self, database: str) -> "Driver":
        """Return this driver: all groups are in its one graph."""
        return self

    def with_database(self, database: str) -> "Driver":
        """Return this driver: all groups are in its one graph."""
        return self

    def _get_graph(self, graph_name: str | None) -> Any:
        return self._graph

    async def reach(self) -> None:
        """See that the server answers, is a FalkorDB, and has read its file.

        Raises:
            Unavailable: It does not, or it refuses user or password.
        """
        with in_words(self.address):
            known = await self.client.connection.info("persistence")
            await self.client.list_graphs()
        if known.get("loading") or known.get("async_loading"):
            raise Unavailable(
                f"The FalkorDB at {self.address} is still reading its file, and would answer with "
                "a part of it. Wait, and ask again."
            )

    async def execute_query(self, cypher_query_: str, **values: Any) -> Rows:
        """Ask the server; what goes wrong is said in words."""
        with in_words(self.address):
            result = await self._graph.query(cypher_query_, _sendable(values))
        header = [name for _, name in result.header]
        rows = [dict(zip(header, row, strict=False)) for row in result.result_set]
        return Rows(rows, header)

    async def begin(self, dimension: int) -> None:
        """See that the server answers, and build what indices are missing, one after the other.

        Args:
            dimension: Not asked for, as there is no vector index.

        Raises:
            Unavailable: No server answers there, or it refuses user or password.
        """
        await self.reach()
        with in_words(self.address):
            keys = [TIMES.sub("", query) for query in get_range_indices(FALKOR)]
            for query in (*keys, *get_fulltext_indices(FALKOR)):
                try:
                    await self._graph.query(query)
                except ResponseError as error:
                    if "already" not in str(error):
                        raise

    def build_fulltext_query(
        self, query: str, group_ids: list[str] | None = None, max_query_length: int = 128
    ) -> str:
        """Return words as a query for a full-text index; whose they are is asked by condition."""
        found = re.findall(r"\w+", query)
        words = [word for word in dict.fromkeys(found) if word.lower() not in STOPWORDS]
        return "|".join(words[:MOST_WORDS])

    async def build_indices_and_constraints(self, delete_existing: bool = False) -> None:
        """Do nothing: `begin` has built them."""

    # what the kit asks of a driver

    @asynccontextmanager
    async def changing(self, group: str) -> AsyncIterator[None]:
        """Hold the one writer's place of a group; what is written meanwhile goes out at the end.

        Raises:
            Unavailable: Another holds it too long, or it was lost; then nothing is written.
        """
        if self._held.get() is not None:
            yield
            return
        held = Held(f"ftlab:{self._database}:{group}", uuid4().hex, asyncio.Event(), [])
        await self._take(held)
        renewing = asyncio.create_task(self._renew(held))
        before = self._held.set(held)
        try:
            yield
            held.left.set()
            await renewing
            with in_words(self.address):
                await self._send(held)
        finally:
            self._held.reset(before)
            held.left.set()
            await renewing
            with suppress(RedisError):  # it ends by itself
                await self.client.connection.eval(RELEASE, 1, held.key, held.token)

    async def _take(self, held: Held) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_S
        place = {"nx": True, "px": _hold_ms()}
        with in_words(self.address):
            while not await self.client.connection.set(held.key, held.token, **place):
                if loop.time() > end:
                    raise Unavailable(
                        f"Another has been changing the graph at {self.address} for {WAIT_S} s. "
                        "Wait for it to end, and do it again."
                    )
                await asyncio.sleep(POLL_S)

    async def _renew(self, held: Held) -> None:
        while not held.left.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(held.left.wait(), HOLD_S / 3)
            with suppress(RedisError):  # what is lost is seen when it is sent
                await self.client.connection.eval(
                    RENEW, 1, held.key, held.token, int(HOLD_S * 1000)
                )

    async def _send(self, held: Held) -> None:
        """Send what was written, if the place is still held.

        Raises:
            Unavailable: It is not.
        """
        if not held.changes:
            return
        parts = [part for change in held.changes for part in _parts(change)]
        query = _query(parts)
        try:
            async with self.client.connection.pipeline(transaction=True) as pipe:
                await pipe.watch(held.key)
                if await pipe.get(held.key) != held.token:
                    raise WatchError
                pipe.multi()
                pipe.execute_command("GRAPH.QUERY", self._database, query, "--compact")
                await pipe.execute()
        except WatchError as error:
            raise Unavailable(
                f"This process was held up for more than {HOLD_S} s, and has lost its place as the "
                f"writer of {self.address}. Nothing was written. Do it again."
            ) from error

    async def around(self, group: str, uuids: Sequence[str]) -> Around:
        """Return the facts that touch some entities, and which episodes mention these."""
        found: dict[str, EntityEdge] = {}
        asked = {"uuids": list(uuids)}
        for arrow in ("-[e:RELATES_TO]->", "<-[e:RELATES_TO]-"):
            records, _, _ = await self.execute_query(
                f"UNWIND $uuids AS uuid MATCH (n:Entity {{uuid: uuid}}){arrow}(m:Entity) "
                f"RETURN DISTINCT {FACT}",
                **asked,
            )
            edges = [_edge(record) for record in records]
            found |= {edge.uuid: edge for edge in edges}
        links, _, _ = await self.execute_query(
            "UNWIND $uuids AS uuid MATCH (m:Entity {uuid: uuid})<-[e:MENTIONS]-(n:Episodic) "
            f"RETURN {EPISODIC_EDGE_RETURN}",
            **asked,
        )
        about, _, _ = await self.execute_query(
            "MATCH (l:FtlabGraph {group_id: $group}) RETURN properties(l) AS known", group=group
        )
        known = about[0]["known"] if about else {}
        kept = {key: value for key, value in known.items() if isinstance(value, str)}
        kept.pop("group_id", None)
        mentions = [get_episodic_edge_from_record(record) for record in links]
        return Around(list(found.values()), mentions, kept)

    async def write(self, change: Change) -> None:
        """Make a change: all of it, or nothing. Within `changing` it is made at its end.

        Raises:
            InputError: An attribute is of a kind that FalkorDB doesn't keep.
        """
        async with self.changing(change.group):
            held = self._held.get()
            if held is not None:
                held.changes.append(change)


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """Say in words what a server has answered.

    Raises:
        Unavailable: No server answers there, or it refuses user or password.
    """
    try:
        yield
    except AuthenticationError as error:
        raise Unavailable(
            f"The FalkorDB at {address} refuses user or password. Give the user in the address, as "
            "in falkor://USER@HOST, and the password in FALKORDB_PASSWORD."
        ) from error
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"The FalkorDB at {address} does not answer as it should: {error}. Is it started, and "
            "is the address right?"
        ) from error


def _hold_ms() -> int:
    return int(HOLD_S * 1000)


def _parts(change: Change) -> Iterator[Part]:
    """Return what a change does, in order: what goes, then nodes, edges, and what is known."""
    for kind, _, _ in ENDS.values():
        yield Part(f"MATCH ()-[n:{kind} {{uuid: row}}]->() DELETE n", change.gone_edges)
    for label in LABELS.values():
        yield Part(f"MATCH (n:{label} {{uuid: row}}) DETACH DELETE n", change.gone_nodes)
    nodes: dict[tuple[Any, tuple[str, ...], bool], list[Any]] = {}
    for node in change.nodes:
        labels = tuple(sorted({*node.labels} - {"Entity"})) if isinstance(node, EntityNode) else ()
        nodes.setdefault((type(node), labels, _has_vector(node)), []).append(node)
    for (cls, labels, has_vector), some in nodes.items():
        more = "".join(f" SET n:{label}" for label in labels)
        merge = f"MERGE (n:{LABELS[cls]} {{uuid: row.uuid}}){more}"
        yield Part(f"{merge} {_setting(cls, has_vector)}", [_row(node) for node in some])
    edges: dict[tuple[Any, bool], list[Any]] = {}
    for edge in change.edges:
        edges.setdefault((type(edge), _has_vector(edge)), []).append(edge)
    for (cls, has_vector), some in edges.items():
        kind, start, end = ENDS[cls]
        merge = (
            f"MATCH (a:{start} {{uuid: row.source}}) MATCH (b:{end} {{uuid: row.target}}) "
            f"MERGE (a)-[n:{kind} {{uuid: row.uuid}}]->(b)"
        )
        yield Part(f"{merge} {_setting(cls, has_vector)}", [_row(edge) for edge in some])
    if change.about:
        row = {"group": change.group, "about": dict(change.about)}
        yield Part("MERGE (n:FtlabGraph {group_id: row.group}) SET n += row.about", [row])


def _query(parts: Iterable[Part]) -> str:
    """Return one query of many parts, with the values in front, as FalkorDB takes them."""
    values, clauses = [], []
    for number, part in enumerate(part for part in parts if part.rows):
        values.append(f"p{number}={stringify_param_value(_sendable(part.rows))}")
        clauses.append(f"UNWIND $p{number} AS row {part.query} WITH count(*) AS done")
    return " ".join(["CYPHER", *values, *clauses, "RETURN done"]) if clauses else "RETURN 0"


def _has_vector(item: Any) -> bool:
    name = VECTORS.get(type(item))
    return name is not None and getattr(item, name) is not None


def _setting(cls: Any, has_vector: bool) -> str:
    """Return the Cypher that sets all properties, but a vector that is not given."""
    name = VECTORS.get(cls)
    if name is None:
        return "SET n = row.values"
    if has_vector:
        return f"SET n = row.values SET n.{name} = vecf32(row.vector)"
    return f"WITH n, row, n.{name} AS old SET n = row.values SET n.{name} = old"


def _row(item: Any) -> dict[str, Any]:
    """Return a node or an edge as `_parts` takes it; what is None is no property."""
    values = {key: value for key, value in vars(item).items() if value is not None}
    values |= values.pop("attributes", {})
    for name in ("labels", "episode_metadata", "name_embedding", "fact_embedding"):
        values.pop(name, None)
    if isinstance(item, EpisodicNode):
        values["source"] = item.source.value
    row: dict[str, Any] = {"uuid": item.uuid, "values": values}
    if _has_vector(item):
        row["vector"] = getattr(item, VECTORS[type(item)])
    if type(item) in ENDS:
        row["source"], row["target"] = item.source_node_uuid, item.target_node_uuid
    if type(item) in ENDS and not isinstance(item, EntityEdge):
        values = {key: value for key, value in values.items() if not key.endswith("_node_uuid")}
        row["values"] = values
    for key, value in values.items():
        _check(key, value)
    return row


def _check(key: str, value: Any) -> None:
    """Refuse an attribute that FalkorDB would not keep, and the whole change with it."""
    many = value if isinstance(value, (list, tuple)) else [value]
    is_plain = all(isinstance(item, (str, bool, int, float, datetime)) for item in many)
    is_odd = any(isinstance(item, float) and not math.isfinite(item) for item in many)
    if not key or "`" in key or not is_plain or is_odd:
        raise InputError(
            f"{key!r} = {value!r} can't be an attribute on FalkorDB. Give text, a number, true or "
            "false, or a list of such."
        )


def _sendable(value: Any) -> Any:
    """Return values as FalkorDB takes them: times as text in UTC, text without NUL."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {key: _sendable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return value if value and type(value[0]) is float else [_sendable(item) for item in value]
    return convert_datetimes_to_strings(value)


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
        """Return facts by how well their words match."""
        records = await _by_words(
            driver,
            "CALL db.idx.fulltext.queryRelationships('RELATES_TO', $words) "
            "YIELD relationship AS e, score WITH e, score, startNode(e) AS n, endNode(e) AS m",
            (query, limit),
            _edges_that_pass(search_filter, group_ids),
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
        """Return entities by how well the words of name and summary match."""
        records = await _by_words(
            driver,
            "CALL db.idx.fulltext.queryNodes('Entity', $words) "
            "YIELD node AS n, score WITH n, score",
            (query, limit),
            _nodes_that_pass(search_filter, group_ids),
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
        """Return episodes by how well the words of their text match."""
        records = await _by_words(
            driver,
            "CALL db.idx.fulltext.queryNodes('Episodic', $words) "
            "YIELD node AS e, score WITH e, score",
            (query, limit),
            _in_groups("e", group_ids),
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
        wanted, values = _edges_that_pass(search_filter, group_ids)
        for end, uuid in (("n", source_node_uuid), ("m", target_node_uuid)):
            if uuid:
                wanted.append(f"{end}.uuid = ${end}_uuid")
                values[f"{end}_uuid"] = uuid
        match = ("(n:Entity)-[e:RELATES_TO]->(m:Entity)", "e.fact_embedding", FACT)
        records = await _nearest(driver, match, (search_vector, limit, min_score), (wanted, values))
        return _noted("vector", records, _edge)

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
        chosen = _nodes_that_pass(search_filter, group_ids)
        match = ("(n:Entity)", "n.name_embedding", ENTITY)
        records = await _nearest(driver, match, (search_vector, limit, min_score), chosen)
        return _noted("vector", records, _node)

    async def node_distance_reranker(
        self,
        driver: Any,
        node_uuids: list[str],
        center_node_uuid: str,
        min_score: float = 0,
    ) -> tuple[list[str], list[float]]:
        """Return entities with the center first, then its neighbours; Graphiti's own misreads them.

        Scores are Graphiti's: 10 of the center, 1 of a neighbour, 0 of what is further away.
        """
        records, _, _ = await driver.execute_query(
            "MATCH (c:Entity {uuid: $center})-[:RELATES_TO]-(n:Entity) WHERE n.uuid IN $uuids "
            "RETURN DISTINCT n.uuid AS uuid",
            center=center_node_uuid,
            uuids=list(node_uuids),
        )
        scores = dict.fromkeys(node_uuids, 0.0) | {record["uuid"]: 1.0 for record in records}
        if center_node_uuid in scores:
            scores[center_node_uuid] = 10.0
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        kept = [(uuid, score) for uuid, score in ranked if score >= min_score]
        return [uuid for uuid, _ in kept], [score for _, score in kept]


def _edge(record: Any) -> EntityEdge:
    return get_entity_edge_from_record(dict(record), FALKOR)


def _node(record: Any) -> EntityNode:
    return get_entity_node_from_record(dict(record), FALKOR)


def _in_groups(
    thing: str, group_ids: Sequence[str] | None, *more: str
) -> tuple[list[str], dict[str, Any]]:
    if group_ids is None:
        return list(more), {}
    return [*more, f"{thing}.group_id IN $group_ids"], {"group_ids": list(group_ids)}


def _edges_that_pass(
    wanted: SearchFilters, group_ids: Sequence[str] | None
) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions on facts; FalkorDB knows no choice of labels, so that one is ours."""
    bare = wanted.model_copy(update={"node_labels": None})
    conditions, values = edge_search_filter_query_constructor(bare, FALKOR)
    both = [_labelled(end) for end in ("n", "m")] if wanted.node_labels is not None else []
    more, groups = _in_groups("e", group_ids, *conditions, *both)
    return more, {**values, **groups, "labels": wanted.node_labels}


def _nodes_that_pass(
    wanted: SearchFilters, group_ids: Sequence[str] | None
) -> tuple[list[str], dict[str, Any]]:
    own = [_labelled("n")] if wanted.node_labels is not None else []
    conditions, values = _in_groups("n", group_ids, *own)
    return conditions, {**values, "labels": wanted.node_labels}


def _labelled(thing: str) -> str:
    return f"any(label IN labels({thing}) WHERE label IN $labels)"


async def _by_words(
    driver: Any,
    call: str,
    asked: tuple[str, int],
    chosen: tuple[list[str], Mapping[str, Any]],
    wanted: str,
) -> list[Any]:
    """Ask a full-text index, which has no limit of its own."""
    query, limit = asked
    words = driver.build_fulltext_query(query)
    if not words:
        return []
    conditions, values = chosen
    where = f"WHERE {' AND '.join(f'({item})' for item in conditions)}" if conditions else ""
    records, _, _ = await driver.execute_query(
        f"{call} {where} RETURN score, {wanted} ORDER BY score DESC, uuid LIMIT $limit",
        words=words,
        limit=limit,
        **values,
    )
    return list(records)


async def _nearest(
    driver: Any,
    what: tuple[str, str, str],
    asked: tuple[list[float], int, float],
    chosen: tuple[list[str], Mapping[str, Any]],
) -> list[Any]:
    """Return what passes and is nearest; its score is the cosine."""
    match, vector, wanted = what
    given, limit, least = asked
    conditions, values = chosen
    passes = " AND ".join(f"({item})" for item in (f"{vector} IS NOT NULL", *conditions))
    things = "n, e, m" if vector.startswith("e.") else "n"
    records, _, _ = await driver.execute_query(
        f"MATCH {match} WITH {things} WHERE {passes} "  # so no index of times is asked
        f"WITH {things}, 1 - vec.cosineDistance({vector}, vecf32($vector)) AS score "
        f"WHERE (1 + score) / 2 > $least RETURN score, {wanted} "
        "ORDER BY score DESC, uuid LIMIT $limit",
        vector=given,
        limit=limit,
        least=least,
        **values,
    )
    return list(records)


def _noted(method: str, records: Iterable[Any], make: Any) -> list[Any]:
    made = []
    for record in records:
        values = dict(record)
        note(method, values["uuid"], values.pop("score"))
        made.append(make(values))
    return made
