"""A graph on a Neo4j server, 5.26 or newer: Graphiti's own driver, extended in three ways.

A change is one transaction that holds the graph's lock node, so that two writers queue and nothing
is ever half loaded. Rows are written whole, in batches. A search without filters uses the vector
indices; one with filters compares the rows that pass, so that a filter always comes before the
limit. Graphiti's own nodes and edges stay as they are; the lock node (label FtlabGraph) is the only
addition.
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
from ftlab_kit.graphs.drivers.neo4j.search import FACT, INDICES, Neo4jSearch, edge
from ftlab_kit.graphs.drivers.neo4j.writes import ENDS, LABELS, delete, put_edges, put_nodes
from ftlab_kit.graphs.drivers.protocol import Change, Neighbourhood

WAIT_S = 60
LOCK = "MERGE (l:FtlabGraph {group_id: $group}) SET l.held_at = timestamp()"
UNIQUE = (
    "CREATE CONSTRAINT ftlab_graph IF NOT EXISTS FOR (l:FtlabGraph) REQUIRE l.group_id IS UNIQUE"
)


class Driver(Neo4jDriver):
    """A graph on a server: Graphiti's methods, and those of `protocol.ServerDriver`."""

    def __init__(self, uri: str, user: str, password: str, database: str = "neo4j") -> None:
        """Create the driver without connecting. Don't call it inside a running event loop."""
        super().__init__(uri, user, password, database)
        self.uri = uri
        self._graphiti_client: Any = self.client  # it would print a notice for every query
        self.client: Any = AsyncGraphDatabase.driver(
            uri, auth=(user, password), notifications_min_severity="OFF"
        )
        self._dimension = 0
        self._is_indexed = self._is_ready = False
        self._tx: ContextVar[Any] = ContextVar("tx", default=None)
        self.search_interface = Neo4jSearch()

    async def check_connection(self) -> None:
        """Check that the server answers and accepts the user.

        Raises:
            Unavailable: The server does not answer, or refuses user or password.
        """
        with kit_errors(self.uri):
            await self.client.verify_connectivity()

    async def execute_query(self, cypher_query_: str, **values: Any) -> Any:
        """Run a query on the server; its errors become the kit's."""
        with kit_errors(self.uri):
            return await super().execute_query(cypher_query_, **values)

    async def prepare(self, dimension: int) -> None:
        """Check the connection, and build the indices that are missing.

        Vector indices are built after the first vectors are stored: an index that grows row by row
        takes four times as long.

        Raises:
            Unavailable: The server does not answer, or refuses user or password.
            InputError: Its indices hold vectors of another size.
        """
        self._dimension = dimension
        with kit_errors(self.uri):
            await self.client.verify_connectivity()
            indices = [*get_range_indices(self.provider), *get_fulltext_indices(self.provider)]
            for query in (UNIQUE, *indices):
                await self.run(query)
            await self.run("CALL db.awaitIndexes($wait)", wait=WAIT_S)
        built = await self._vector_indices()
        sizes = {index["options"]["indexConfig"]["vector.dimensions"] for index in built}
        if sizes - {dimension}:
            raise InputError(
                f"The graph at {self.uri} holds vectors of {sizes.pop()} numbers, but the embedder "
                f"makes {dimension}. Name the embedder that the graph was made with."
            )
        self._is_indexed = len(built) == len(INDICES)

    async def build_indices_and_constraints(self, delete_existing: bool = False) -> None:
        """Do nothing: `prepare` has built them, one after the other."""

    async def run(self, query: str, **values: Any) -> list[Any]:
        """Run a query in a transaction of its own, and return its records."""
        result = await self.client.execute_query(query, values, database_=self._database)
        return list(result.records)

    async def _vector_indices(self) -> list[Any]:
        query = "SHOW INDEXES YIELD name, state, options WHERE name IN $names RETURN state, options"
        return await self.run(query, names=list(INDICES))

    async def _index_vectors(self) -> None:
        for name, on in INDICES.items():
            await self.run(
                f"CREATE VECTOR INDEX {name} IF NOT EXISTS {on} OPTIONS {{indexConfig: "
                f"{{`vector.dimensions`: {int(self._dimension)}, "
                "`vector.similarity_function`: 'cosine', `vector.quantization.enabled`: false}}"
            )
        self._is_indexed = True

    async def has_index(self) -> bool:
        """Return whether the vector indices can be used; they are filled in the background."""
        if not self._is_ready and self._is_indexed:
            self._is_ready = all(
                index["state"] == "ONLINE" for index in await self._vector_indices()
            )
        return self._is_ready

    async def close(self) -> None:
        """Close both connections."""
        await self._graphiti_client.close()
        await super().close()

    # the kit's part: protocol.Driver

    @asynccontextmanager
    async def write_transaction(self, group: str) -> AsyncIterator[None]:
        """Be the only writer: hold the graph's lock node in one transaction."""
        if self._tx.get() is not None:
            yield
            return
        with kit_errors(self.uri):
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
            await self.run("CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()")
            if not self._is_indexed:
                await self._index_vectors()

    async def _read(self, query: str, **values: Any) -> list[Any]:
        tx = self._tx.get()
        if tx is not None:
            return [record async for record in await tx.run(query, **values)]
        records, _, _ = await self.execute_query(query, routing_="r", **values)
        return list(records)

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return the neighbourhood of entities."""
        facts: dict[str, EntityEdge] = {}
        for arrow in ("(n)-[e:RELATES_TO]->(m)", "(m)<-[e:RELATES_TO]-(n)"):
            end = "n" if arrow.startswith("(n)") else "m"
            records = await self._read(
                f"UNWIND $uuids AS uuid MATCH ({end}:Entity {{uuid: uuid}}) MATCH {arrow} "
                f"RETURN DISTINCT {FACT}",
                uuids=list(uuids),
            )
            facts |= {fact.uuid: fact for fact in map(edge, records)}
        links = await self._read(
            "UNWIND $uuids AS uuid MATCH (n:Episodic)-[e:MENTIONS]->(m:Entity {uuid: uuid}) "
            f"RETURN {EPISODIC_EDGE_RETURN}",
            uuids=list(uuids),
        )
        locks = await self._read(
            "MATCH (l:FtlabGraph {group_id: $group}) RETURN properties(l) AS lock", group=group
        )
        properties = locks[0]["lock"] if locks else {}
        metadata = {
            key: value
            for key, value in properties.items()
            if isinstance(value, str) and key != "group_id"
        }
        mentions = [get_episodic_edge_from_record(record) for record in links]
        return Neighbourhood(list(facts.values()), mentions, metadata)

    async def write(self, change: Change) -> None:
        """Write a change: all of it, or nothing."""
        async with self.write_transaction(change.group):
            tx = self._tx.get()
            for kind, _, _ in ENDS.values():
                await delete(tx, f"MATCH ()-[n:{kind}]->()", "DELETE n", change.deleted_edges)
            for label in LABELS.values():
                await delete(tx, f"MATCH (n:{label})", "DETACH DELETE n", change.deleted_nodes)
            await put_nodes(tx, change.nodes)
            await put_edges(tx, change.edges)
            if change.metadata:
                query = "MATCH (l:FtlabGraph {group_id: $group}) SET l += $metadata"
                result = await tx.run(query, group=change.group, metadata=dict(change.metadata))
                await result.consume()


@contextmanager
def kit_errors(uri: str) -> Iterator[None]:
    """Turn the errors of Neo4j's driver into the kit's.

    Raises:
        Unavailable: The server does not answer, or refuses user or password.
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
            f"The Neo4j at {uri} failed: {error}. Check that it is running and that the address is "
            "right."
        ) from error
