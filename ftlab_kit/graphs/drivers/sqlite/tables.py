"""The tables of a graph in one SQLite file, and the connection to it.

A node or an edge of any kind is a row; what only some kinds have stands in `more`, as JSON. Words
are indexed by FTS5, vectors are blobs of float32. Times are UTC in one fixed form, so that they
compare as text. A schema change is a new function at the end of MIGRATIONS.

This is a graph's own file, which Graphiti reads and writes too; the workspace's store is another.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit.errors import Conflict, InputError, Unavailable

WAIT_S = 120
WORDS = {"Entity": "entity_words", "Episodic": "passage_words", "Community": "community_words"}
FACT_WORDS = "fact_words"

NODE_COLUMNS = (
    "id uuid kind group_id name labels summary content source source_description valid_at "
    "created_at more vector"
).split()
EDGE_COLUMNS = (
    "id uuid kind group_id source target name fact created_at expired_at valid_at invalid_at "
    "reference_time episodes more vector"
).split()


def m001_first(db: sqlite3.Connection) -> None:
    """Nodes, edges, their words, and what is known of the graph as a whole."""
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
    for table in (*WORDS.values(), FACT_WORDS):
        db.execute(
            f"CREATE VIRTUAL TABLE {table} USING fts5 (name, body, tokenize='porter unicode61')"
        )


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [m001_first]


def connect(path: Path) -> sqlite3.Connection:
    """Open the file of a graph, make it if missing, and bring its schema up to date.

    Raises:
        InputError: The file is no database.
        Conflict: A newer kit made it.
        Unavailable: Another process has held its lock for two minutes.
    """
    try:
        db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise in_words(error, path) from error
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA cache_size=-65536")
        _migrate(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        raise in_words(error, path) from error
    except Conflict:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        db.execute("ROLLBACK")
        raise Conflict(
            f"{path} has schema {version}; this kit knows {len(MIGRATIONS)}. Install the newer kit."
        )
    for migration in MIGRATIONS[version:]:
        migration(db)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    db.execute("COMMIT")


def in_words(error: sqlite3.DatabaseError, path: Path) -> InputError | Unavailable:
    """Return what is wrong with the file of a graph."""
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(
            f"The graph {path} can't be used now: {error}. Is the disk full, or does another "
            "process hold it? Try again."
        )
    return InputError(f"{path} is no graph of this kit ({error}). Move it away, and load again.")


def text(when: datetime | None) -> str | None:
    """Return a time as text that sorts as times do."""
    return when.astimezone(UTC).isoformat(timespec="microseconds") if when else None


def time(words: str | None) -> datetime | None:
    """Return the time that `text` has written."""
    return datetime.fromisoformat(words) if words else None


def dumped(value: Any) -> str:
    """Return JSON whose bytes depend on the value alone; times become text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    if not isinstance(value, datetime):
        raise InputError(f"{value!r} can't be an attribute; give text, numbers, or lists of these.")
    return str(text(value))


def blob(vector: Sequence[float] | None) -> bytes | None:
    """Return a vector of numbers as float32 bytes."""
    return None if vector is None else np.asarray(vector, dtype=np.float32).tobytes()


def numbers(vector: bytes | None) -> list[float] | None:
    """Return the vector of some bytes."""
    return None if vector is None else np.frombuffer(vector, dtype=np.float32).tolist()


def listed(values: Iterable[Any]) -> str:
    """Return values as JSON, for `IN (SELECT value FROM json_each(?))`."""
    return json.dumps(list(values))
