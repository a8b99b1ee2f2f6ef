"""A graph on a Neo4j server, 5.26 or newer: Graphiti's own driver, with three things of ours.

A change is one transaction that holds the graph's lock node, so that two who load at once queue
and nothing is ever half loaded; rows are written many at a time, whole. A search without filters
asks vector indices, one with filters compares what passes, so that a limit never comes before a
filter. What Graphiti writes stays as it is; the lock node (label FtlabGraph) is all that is new.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from graphiti_core.driver.neo4j_driver import Neo4jDriver
from graphiti_core.edges import EntityEdge, get_episodic_edge_from_record
from graphiti_core.graph_queries import get_fulltext_indices, get_range_indices
from graphiti_core.models.edges.edge_db_queries import EPISODIC_EDGE_RETURN
from neo4j import AsyncGraphDatabase
from neo4j.exceptions import AuthError, DriverError, Neo4jError

from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.graphs.drivers.neo4j.search import FACT, INDICES, SearchMixin, edge
from ftlab_kit.graphs.drivers.neo4j.writes import ENDS, LABELS, drop, put_edges, put_nodes
from ftlab_kit.graphs.drivers.protocol import Change, Neighbourhood

WAIT_S = 60
LOCK = "MERGE (l:FtlabGraph {group_id: $group}) SET l.held_at = timestamp()"
UNIQUE = (
    "CREATE CONSTRAINT ftlab_graph IF NOT EXISTS FOR (l:FtlabGraph) REQUIRE l.group_id IS UNIQUE"
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
        self.search_interface = SearchMixin()

    async def check_connection(self) -> None:
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

    async def prepare(self, dimension: int) -> None:
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
        """Do nothing: `prepare` has built them, one after the other."""

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
    async def write_transaction(self, group: str) -> AsyncIterator[None]:
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

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return the facts that touch some entities, and which episodes mention these."""
        found: dict[str, EntityEdge] = {}
        for arrow in ("(n)-[e:RELATES_TO]->(m)", "(m)<-[e:RELATES_TO]-(n)"):
            end = "n" if arrow.startswith("(n)") else "m"
            records = await self._read(
                f"UNWIND $uuids AS uuid MATCH ({end}:Entity {{uuid: uuid}}) MATCH {arrow} "
                f"RETURN DISTINCT {FACT}",
                uuids=list(uuids),
            )
            edges = [edge(record) for record in records]
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
        return Neighbourhood(list(found.values()), mentions, kept)

    async def write(self, change: Change) -> None:
        """Make a change: all of it, or nothing."""
        async with self.write_transaction(change.group):
            tx = self._tx.get()
            for kind, _, _ in ENDS.values():
                await drop(tx, f"MATCH ()-[n:{kind}]->()", "DELETE n", change.deleted_edges)
            for label in LABELS.values():
                await drop(tx, f"MATCH (n:{label})", "DETACH DELETE n", change.deleted_nodes)
            await put_nodes(tx, change.nodes)
            await put_edges(tx, change.edges)
            if change.metadata:
                query = "MATCH (l:FtlabGraph {group_id: $group}) SET l += $about"
                result = await tx.run(query, group=change.group, about=dict(change.metadata))
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
