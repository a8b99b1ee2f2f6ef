"""The tables of a graph in one SQLite file, and the connection to it.

A node or an edge of any kind is a row; fields that only some kinds have are JSON in `more`. FTS5
indexes the text, vectors are blobs of float32. Times are UTC in one fixed format, so that they sort
as text. A schema change is a new function at the end of MIGRATIONS.

This file belongs to one graph, and Graphiti reads and writes it too. The workspace's store is a
different file.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit.errors import Conflict, InputError, KitError
from ftlab_kit.graphs.drivers.sqlite.connection import Connection, kit_error

WAIT_S = 120
TEXT_INDEXES = {
    "Entity": "entity_words",
    "Episodic": "passage_words",
    "Community": "community_words",
}
FACT_INDEX = "fact_words"

NODE_COLUMNS = (
    "id uuid kind group_id name labels summary content source source_description valid_at "
    "created_at more vector"
).split()
EDGE_COLUMNS = (
    "id uuid kind group_id source target name fact created_at expired_at valid_at invalid_at "
    "reference_time episodes more vector"
).split()


def m001_first(db: sqlite3.Connection) -> None:
    """Nodes, edges, the full-text indexes of both, and `about`, the graph's own metadata."""
    nodes = ", ".join(f"{name} TEXT" for name in NODE_COLUMNS[2:-1])
    edges = ", ".join(f"{name} TEXT" for name in EDGE_COLUMNS[2:-1])
    db.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    for table, columns in (("nodes", nodes), ("edges", edges)):
        db.execute(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, {columns}, "
            "vector BLOB)"
        )
        db.execute(f"CREATE INDEX {table}_group ON {table} (kind, group_id)")
        db.execute(f"CREATE INDEX {table}_name ON {table} (name)")
    for side in ("source", "target"):
        db.execute(f"CREATE INDEX edges_{side} ON edges ({side}, kind)")
    for table in (*TEXT_INDEXES.values(), FACT_INDEX):
        db.execute(
            f"CREATE VIRTUAL TABLE {table} USING fts5 (name, body, tokenize='porter unicode61')"
        )


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [m001_first]


def connect(path: Path) -> Connection:
    """Open the file of a graph, make it if missing, and bring its schema up to date.

    Raises:
        InputError: The file is not a database.
        Conflict: A newer kit made it.
        Unavailable: Another process has held its lock for two minutes.
    """
    try:
        db = sqlite3.connect(
            path,
            timeout=WAIT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
    except sqlite3.OperationalError as error:
        raise kit_error(error, path) from error
    db.path = path
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA cache_size=-65536")
        _migrate(db, path)
    except KitError:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        db.execute("ROLLBACK")
        raise Conflict(
            f"{path} has schema {version}; this kit supports {len(MIGRATIONS)}. "
            "Install the newer kit."
        )
    for migration in MIGRATIONS[version:]:
        migration(db)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    db.execute("COMMIT")


def format_time(time: datetime | None) -> str | None:
    """Return a time as text that sorts as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds") if time else None


def parse_time(text: str | None) -> datetime | None:
    """Return the time of a text that `format_time` wrote."""
    return datetime.fromisoformat(text) if text else None


def dump_json(value: Any) -> str:
    """Return JSON whose bytes depend on the value alone; times become text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_time_as_text)


def _time_as_text(value: Any) -> str:
    if not isinstance(value, datetime):
        raise InputError(f"{value!r} can't be an attribute; give text, numbers, or lists of them.")
    return str(format_time(value))


def vector_bytes(vector: Sequence[float] | None) -> bytes | None:
    """Return a vector as float32 bytes."""
    return None if vector is None else np.asarray(vector, dtype=np.float32).tobytes()


def vector_floats(vector: bytes | None) -> list[float] | None:
    """Return the vector that float32 bytes hold."""
    return None if vector is None else np.frombuffer(vector, dtype=np.float32).tolist()


def json_array(values: Iterable[Any]) -> str:
    """Return values as JSON, for `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))
