"""A graph in one SQLite file, without a server or a key: a Graphiti driver.

Graphiti reads and writes by `graph_operations_interface` (operations.py) and searches by
`search_interface` (search.py). With both complete it sends only three fixed Cypher queries, which
are answered here; any other is refused. Writers queue (BEGIN IMMEDIATE), readers never wait.
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
from ftlab_kit.graphs.drivers.sqlite.operations import SqliteOperations
from ftlab_kit.graphs.drivers.sqlite.search import SqliteSearch

Row = dict[str, Any]

SAGA = "MATCH (s:Saga {name: $name, group_id: $group_id}) RETURN s.uuid AS uuid"
MENTIONED = "MATCH (e:Episodic)-[:MENTIONS]->(n:Entity {uuid: $uuid}) RETURN count(*)"
DUPLICATES = "UNWIND $duplicate_node_uuids AS duplicate_tuple"


class Session(GraphDriverSession):
    """The session that Graphiti's bulk writes need; all use the driver's one connection."""

    provider = GraphProvider.NEO4J

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Do nothing: there is nothing to close."""

    async def run(self, query: str, **values: Any) -> Any:
        """Answer one of the three queries."""
        return await self._driver.execute_query(query, **values)

    async def close(self) -> None:
        """Do nothing: the connection is the driver's."""

    async def execute_write(
        self, func: Callable[..., Awaitable[Any]], *args: Any, **more: Any
    ) -> Any:
        """Run a write as one transaction."""
        async with self._driver.writing():
            return await func(self, *args, **more)


class Driver(GraphDriver):
    """A graph in a file: Graphiti's methods, and those of `protocol.Driver`."""

    # Graphiti chooses Cypher by provider; what it sends for Neo4j fits these rows best
    provider = GraphProvider.NEO4J
    _database = ""

    def __init__(self, path: Path) -> None:
        """Open the file; create it if missing.

        Raises:
            InputError: The file is not a graph.
            Conflict: A newer kit wrote it.
            Unavailable: Another process has locked it.
        """
        self.path = path
        self.db = tables.connect(path)
        self.db.row_factory = sqlite3.Row
        self.graph_operations_interface = SqliteOperations()
        self.search_interface = SqliteSearch()
        self._vector_indexes: dict[tuple[str, str], vectors.VectorIndex] = {}
        self._indexed_version = self._version()
        self._writer = asyncio.Lock()
        self._is_writing: ContextVar[bool] = ContextVar("is_writing", default=False)

    # Graphiti's part

    async def execute_query(self, cypher_query_: str, **values: Any) -> Any:
        """Answer one of the three queries that Graphiti sends to every driver in Cypher.

        Raises:
            InputError: It is a different query.
        """
        query = " ".join(cypher_query_.split())
        values = values.get("params") or values
        if query.startswith(SAGA):
            sagas = self.nodes("Saga", name=[values["name"]], group_id=[values["group_id"]])
            return [saga.model_dump() for saga in map(row_codec.decode_node, sagas)], None, None
        if query.startswith(MENTIONED):
            mentions = self.edges("MENTIONS", target=[values["uuid"]])
            return [{"episode_count": len(mentions)}], None, None
        if query.startswith(DUPLICATES):
            return [], None, None  # nothing here makes edges named IS_DUPLICATE_OF
        raise InputError(
            f"A graph in a file does not run Cypher: {query[:80]!r}. Use the verbs of graphs, or "
            "copy the graph to Neo4j with graphs.copy and query it there."
        )

    def session(self, database: str | None = None) -> Session:
        """Return a session; all share the one connection."""
        return Session(self)

    async def close(self) -> None:
        """Close the file."""
        self.db.close()

    async def delete_all_indexes(self) -> None:
        """Do nothing: the indices are part of the tables."""

    async def build_indices_and_constraints(self, delete_existing: bool = False) -> None:
        """Do nothing: the indices are part of the tables."""

    # the kit's part: protocol.Driver

    @asynccontextmanager
    async def write_transaction(self, group: str) -> AsyncIterator[None]:
        """Be the only writer, across processes: nothing read inside changes."""
        async with self.writing():
            yield

    async def around(self, group: str, uuids: Sequence[str]) -> Neighbourhood:
        """Return the neighbourhood of entities."""
        ends = tables.json_array(uuids)
        # two searches by index: with OR, SQLite reads the whole table
        sql = " UNION ".join(
            f"SELECT * FROM edges WHERE {end} IN (SELECT value FROM json_each(?1)) "
            "AND kind = 'RELATES_TO'"
            for end in ("source", "target")
        )
        facts = [row_codec.decode_edge(dict(row)) for row in self.db.execute(sql, (ends,))]
        mentions = [row_codec.decode_edge(row) for row in self.edges("MENTIONS", target=uuids)]
        about = self.db.execute(
            "SELECT name, value FROM about WHERE substr(name, 1, ?) = ?",  # _ is a wildcard in LIKE
            (len(group) + 1, f"{group}/"),
        )
        metadata = {row["name"].removeprefix(f"{group}/"): row["value"] for row in about}
        return Neighbourhood(facts, mentions, metadata)

    async def write(self, change: Change) -> None:
        """Write a change: all of it, or nothing."""
        async with self.writing():
            self.drop_edges(change.deleted_edges)
            self.drop_nodes(change.deleted_nodes)
            self.put_nodes(map(row_codec.encode_node, change.nodes))
            self.put_edges(map(row_codec.encode_edge, change.edges))
            about = [(f"{change.group}/{name}", value) for name, value in change.metadata.items()]
            self.db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about)

    # rows

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Hold a write transaction; one inside another joins it."""
        if self._is_writing.get():
            yield
            return
        async with self._writer:
            self.db.execute("BEGIN IMMEDIATE")
            token = self._is_writing.set(True)
            try:
                yield
                self.db.execute("COMMIT")
            finally:
                self._is_writing.reset(token)
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                    self._vector_indexes.clear()

    def put_nodes(self, new: Iterable[Row]) -> None:
        """Write nodes, each whole; one without a vector keeps the stored vector."""
        rows = list(new)
        self._put("nodes", tables.NODE_COLUMNS, rows)
        for kind, table in tables.TEXT_INDEXES.items():
            body = "content" if kind == "Episodic" else "summary"
            self._index(table, body, [row for row in rows if row["kind"] == kind])

    def put_edges(self, new: Iterable[Row]) -> None:
        """Write edges, each whole; one without a vector keeps the stored vector."""
        rows = list(new)
        self._put("edges", tables.EDGE_COLUMNS, rows)
        facts = [row for row in rows if row["kind"] == "RELATES_TO"]
        self._index(tables.FACT_INDEX, "fact", facts)

    def _put(self, table: str, columns: Sequence[str], rows: list[Row]) -> None:
        if not rows:
            return
        uuids = tables.json_array(row["uuid"] for row in rows)
        sql = f"SELECT uuid, id FROM {table} WHERE uuid IN (SELECT value FROM json_each(?))"
        ids = dict(self.db.execute(sql, (uuids,)).fetchall())
        (last,) = self.db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
        for row in rows:
            row["is_new"] = row["uuid"] not in ids
            row["id"] = ids.setdefault(row["uuid"], last + 1)
            last = max(last, row["id"])
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns[2:-1])
        values = ", ".join(f":{name}" for name in columns)
        self.db.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT (uuid) DO "
            f"UPDATE SET {changes}, vector = coalesce(excluded.vector, vector)",
            rows,
        )
        for kind in {row["kind"] for row in rows}:
            if index := self._vector_indexes.get((table, kind)):
                new = (row for row in rows if row["kind"] == kind and row["vector"] is not None)
                index.put((row["id"], row["group_id"], row["vector"]) for row in new)

    def _index(self, table: str, body: str, rows: list[Row]) -> None:
        """Write the text of rows into a full-text index."""
        old = [(row["id"],) for row in rows if not row["is_new"]]
        self.db.executemany(f"DELETE FROM {table} WHERE rowid = ?", old)
        self.db.executemany(
            f"INSERT INTO {table} (rowid, name, body) VALUES (:id, :name, :{body})", rows
        )

    def drop_nodes(self, uuids: Iterable[str]) -> None:
        """Delete nodes with the edges that touch them."""
        nodes = tables.json_array(uuids)
        sql = (
            "SELECT uuid FROM edges WHERE source IN (SELECT value FROM json_each(?1)) "
            "OR target IN (SELECT value FROM json_each(?1))"
        )
        self.drop_edges([row[0] for row in self.db.execute(sql, (nodes,))])
        self._drop("nodes", nodes)

    def drop_edges(self, uuids: Iterable[str]) -> None:
        """Delete edges."""
        self._drop("edges", tables.json_array(uuids))

    def _drop(self, table: str, uuids: str) -> None:
        sql = f"SELECT id, kind FROM {table} WHERE uuid IN (SELECT value FROM json_each(?))"
        for row_id, kind in self.db.execute(sql, (uuids,)).fetchall():
            text = tables.FACT_INDEX if kind == "RELATES_TO" else tables.TEXT_INDEXES.get(kind)
            if text:
                self.db.execute(f"DELETE FROM {text} WHERE rowid = ?", (row_id,))
            self.db.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))
            if index := self._vector_indexes.get((table, kind)):
                index.drop([row_id])

    def nodes(self, kind: str | None = None, **where: Sequence[Any]) -> list[Row]:
        """Return nodes whose columns have one of the given values, by descending uuid."""
        return self._rows("nodes", kind, where)

    def edges(self, kind: str | None = None, **where: Sequence[Any]) -> list[Row]:
        """Return edges whose columns have one of the given values, by descending uuid."""
        return self._rows("edges", kind, where)

    def _rows(self, table: str, kind: str | None, where: Mapping[str, Sequence[Any]]) -> list[Row]:
        conditions = [f"{name} IN (SELECT value FROM json_each(?))" for name in where]
        values = [tables.json_array(value) for value in where.values()]
        if kind:
            conditions.append("kind = ?")
            values.append(kind)
        condition = " AND ".join(conditions) or "1"
        sql = f"SELECT * FROM {table} WHERE {condition} ORDER BY uuid DESC"
        return [dict(row) for row in self.db.execute(sql, values)]

    def vector_index(self, table: str, kind: str) -> vectors.VectorIndex:
        """Return the vectors of a kind; read again after another process has written."""
        if (version := self._version()) != self._indexed_version:
            self._vector_indexes.clear()
            self._indexed_version = version
        if (table, kind) not in self._vector_indexes:
            self._vector_indexes[table, kind] = vectors.read(self.db, table, kind)
        return self._vector_indexes[table, kind]

    def _version(self) -> int:
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])
