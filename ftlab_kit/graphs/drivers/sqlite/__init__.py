"""The graph in one SQLite file: no server, no key. Graphiti's own driver, by its two extensions.

Graphiti asks `graph_operations_interface` to keep and fetch (`kept`), and `search_interface` to
find (`found`); with both whole, no Cypher is left but three fixed questions, which are answered
here. Any other is refused by name. Writers queue (BEGIN IMMEDIATE), readers never wait.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from graphiti_core.driver.driver import GraphDriver, GraphDriverSession, GraphProvider

from ftlab_kit.errors import InputError
from ftlab_kit.graphs.drivers.protocol import Change, Neighbourhood
from ftlab_kit.graphs.drivers.sqlite import row_codec, tables, vectors
from ftlab_kit.graphs.drivers.sqlite.operations import GraphOperations
from ftlab_kit.graphs.drivers.sqlite.search import SearchMixin

Row = dict[str, Any]

SAGA = "MATCH (s:Saga {name: $name, group_id: $group_id}) RETURN s.uuid AS uuid"
MENTIONED = "MATCH (e:Episodic)-[:MENTIONS]->(n:Entity {uuid: $uuid}) RETURN count(*)"
DUPLICATES = "UNWIND $duplicate_node_uuids AS duplicate_tuple"


class Session(GraphDriverSession):
    """What Graphiti hands its bulk writes to; the rows go to the driver's own connection."""

    provider = GraphProvider.NEO4J

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Leave it; there is nothing to close."""

    async def run(self, query: str, **values: Any) -> Any:
        """Answer one of the three questions."""
        return await self._driver.execute_query(query, **values)

    async def close(self) -> None:
        """Close nothing: the connection is the driver's."""

    async def execute_write(
        self, func: Callable[..., Awaitable[Any]], *args: Any, **more: Any
    ) -> Any:
        """Do a write as one transaction."""
        async with self._driver.writing():
            return await func(self, *args, **more)


class Driver(GraphDriver):
    """A graph in a file. Its methods that are not Graphiti's are those of `protocol.Driver`."""

    # where Graphiti tells dialects apart, ours has the properties of Neo4j's
    provider = GraphProvider.NEO4J
    _database = ""

    def __init__(self, path: Path) -> None:
        """Open the file, make it if missing.

        Raises:
            InputError: The file is no graph.
            Conflict: A newer kit made it.
            Unavailable: Another process holds it.
        """
        self.path = path
        self.db = tables.connect(path)
        self.db.row_factory = sqlite3.Row
        self.graph_operations_interface = GraphOperations()
        self.search_interface = SearchMixin()
        self._vectors: dict[tuple[str, str], vectors.Vectors] = {}
        self._seen = self._version()
        self._writer = asyncio.Lock()
        self._holds: ContextVar[bool] = ContextVar("holds", default=False)

    # what Graphiti asks of a driver

    async def execute_query(self, cypher_query_: str, **values: Any) -> Any:
        """Answer one of the three questions that Graphiti asks in Cypher of every driver.

        Raises:
            InputError: It is another one.
        """
        query = " ".join(cypher_query_.split())
        values = values.get("params") or values
        if query.startswith(SAGA):
            sagas = self.nodes("Saga", name=[values["name"]], group_id=[values["group_id"]])
            return [saga.model_dump() for saga in map(row_codec.node, sagas)], None, None
        if query.startswith(MENTIONED):
            found = self.edges("MENTIONS", target=[values["uuid"]])
            return [{"episode_count": len(found)}], None, None
        if query.startswith(DUPLICATES):
            return [], None, None  # nothing here makes edges named IS_DUPLICATE_OF
        raise InputError(
            f"The graph in a file takes no Cypher: {query[:80]!r}. Use the rooms' verbs, or copy "
            "the graph to Neo4j with graphs.copy and ask there."
        )

    def session(self, database: str | None = None) -> Session:
        """Return a session; all are over the one connection."""
        return Session(self)

    async def close(self) -> None:
        """Close the file."""
        self.db.close()

    async def delete_all_indexes(self) -> None:
        """Do nothing: the indices are part of the tables."""

    async def build_indices_and_constraints(self, delete_existing: bool = False) -> None:
        """Do nothing: the indices are part of the tables."""

    # what the kit asks of a driver

    @asynccontextmanager
    async def write_transaction(self, group: str) -> AsyncIterator[None]:
        """Hold the one writer's place, in every process: what is read in here stays so."""
        async with self.writing():
            yield

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return the facts that touch some entities, and which episodes mention these."""
        wanted = tables.listed(uuids)
        # two searches by index: asked with OR, SQLite reads the whole table
        sql = " UNION ".join(
            f"SELECT * FROM edges WHERE {end} IN (SELECT value FROM json_each(?1)) "
            "AND kind = 'RELATES_TO'"
            for end in ("source", "target")
        )
        facts = [row_codec.edge(dict(row)) for row in self.db.execute(sql, (wanted,))]
        links = [row_codec.edge(row) for row in self.edges("MENTIONS", target=uuids)]
        about = self.db.execute("SELECT name, value FROM about WHERE name LIKE ?", (f"{group}/%",))
        known = {row["name"].removeprefix(f"{group}/"): row["value"] for row in about}
        return Neighbourhood(facts, links, known)

    async def write(self, change: Change) -> None:
        """Make a change: all of it, or nothing."""
        async with self.writing():
            self.drop_edges(change.deleted_edges)
            self.drop_nodes(change.deleted_nodes)
            self.put_nodes(map(row_codec.of_node, change.nodes))
            self.put_edges(map(row_codec.of_edge, change.edges))
            about = [(f"{change.group}/{name}", value) for name, value in change.metadata.items()]
            self.db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about)

    # rows

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Hold a transaction; one within another is a part of it."""
        if self._holds.get():
            yield
            return
        async with self._writer:
            try:
                self.db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise tables.in_words(error, self.path) from error
            token = self._holds.set(True)
            try:
                yield
                self.db.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                raise tables.in_words(error, self.path) from error
            finally:
                self._holds.reset(token)
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                    self._vectors.clear()

    def put_nodes(self, new: Iterable[Row]) -> None:
        """Write nodes, each whole; a vector that is not given stays."""
        given = list(new)
        self._put("nodes", tables.NODE_COLUMNS, given)
        for kind, table in tables.WORDS.items():
            body = "content" if kind == "Episodic" else "summary"
            self._index(table, body, [row for row in given if row["kind"] == kind])

    def put_edges(self, new: Iterable[Row]) -> None:
        """Write edges, each whole; a vector that is not given stays."""
        given = list(new)
        self._put("edges", tables.EDGE_COLUMNS, given)
        facts = [row for row in given if row["kind"] == "RELATES_TO"]
        self._index(tables.FACT_WORDS, "fact", facts)

    def _put(self, table: str, columns: Sequence[str], given: list[Row]) -> None:
        if not given:
            return
        wanted = tables.listed(row["uuid"] for row in given)
        sql = f"SELECT uuid, id FROM {table} WHERE uuid IN (SELECT value FROM json_each(?))"
        known = dict(self.db.execute(sql, (wanted,)).fetchall())
        (last,) = self.db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
        for row in given:
            row["is_new"] = row["uuid"] not in known
            row["id"] = known.setdefault(row["uuid"], last + 1)
            last = max(last, row["id"])
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns[2:-1])
        values = ", ".join(f":{name}" for name in columns)
        self.db.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT (uuid) DO "
            f"UPDATE SET {changes}, vector = coalesce(excluded.vector, vector)",
            given,
        )
        for kind in {row["kind"] for row in given}:
            held = self._vectors.get((table, kind))
            if held:
                mine = (row for row in given if row["kind"] == kind and row["vector"] is not None)
                held.put((row["id"], row["group_id"], row["vector"]) for row in mine)

    def _index(self, table: str, body: str, given: list[Row]) -> None:
        """Write the words of rows into a table of words."""
        old = [(row["id"],) for row in given if not row["is_new"]]
        self.db.executemany(f"DELETE FROM {table} WHERE rowid = ?", old)
        self.db.executemany(
            f"INSERT INTO {table} (rowid, name, body) VALUES (:id, :name, :{body})", given
        )

    def drop_nodes(self, uuids: Iterable[str]) -> None:
        """Delete nodes with the edges that touch them."""
        wanted = tables.listed(uuids)
        sql = (
            "SELECT uuid FROM edges WHERE source IN (SELECT value FROM json_each(?1)) "
            "OR target IN (SELECT value FROM json_each(?1))"
        )
        self.drop_edges([row[0] for row in self.db.execute(sql, (wanted,))])
        self._drop("nodes", wanted)

    def drop_edges(self, uuids: Iterable[str]) -> None:
        """Delete edges."""
        self._drop("edges", tables.listed(uuids))

    def _drop(self, table: str, wanted: str) -> None:
        sql = f"SELECT id, kind FROM {table} WHERE uuid IN (SELECT value FROM json_each(?))"
        for number, kind in self.db.execute(sql, (wanted,)).fetchall():
            words = tables.FACT_WORDS if kind == "RELATES_TO" else tables.WORDS.get(kind)
            if words:
                self.db.execute(f"DELETE FROM {words} WHERE rowid = ?", (number,))
            self.db.execute(f"DELETE FROM {table} WHERE id = ?", (number,))
            if held := self._vectors.get((table, kind)):
                held.drop([number])

    def nodes(self, kind: str | None = None, **where: Sequence[Any]) -> list[Row]:
        """Return nodes whose columns have one of the values given, by descending uuid."""
        return self._rows("nodes", kind, where)

    def edges(self, kind: str | None = None, **where: Sequence[Any]) -> list[Row]:
        """Return the rows of edges whose columns have one of the values given."""
        return self._rows("edges", kind, where)

    def _rows(self, table: str, kind: str | None, where: Mapping[str, Sequence[Any]]) -> list[Row]:
        conditions = [f"{name} IN (SELECT value FROM json_each(?))" for name in where]
        values = [tables.listed(value) for value in where.values()]
        if kind:
            conditions.append("kind = ?")
            values.append(kind)
        chosen = " AND ".join(conditions) or "1"
        sql = f"SELECT * FROM {table} WHERE {chosen} ORDER BY uuid DESC"
        return [dict(row) for row in self.db.execute(sql, values)]

    def vectors(self, table: str, kind: str) -> vectors.Vectors:
        """Return the vectors of a kind; read again where another process has written."""
        if (version := self._version()) != self._seen:
            self._vectors.clear()
            self._seen = version
        if (table, kind) not in self._vectors:
            self._vectors[table, kind] = vectors.read(self.db, table, kind)
        return self._vectors[table, kind]

    def _version(self) -> int:
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])
