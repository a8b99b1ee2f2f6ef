"""The workspace's tables, their migrations, and plain verbs over them.

SQL stands here and in `graphs/drivers`, which keep a graph in a database of its own.

SQLAlchemy Core on SQLite. Every writing transaction is BEGIN IMMEDIATE with a long wait, in WAL
mode: writers queue, a reader never waits, and "database is locked" does not occur. (A plain BEGIN
that reads first and writes later can't wait for the lock: SQLite refuses it at once.)

TABLES is today's schema, which a new workspace gets. A change of schema is also a new function at
the end of MIGRATIONS, for existing workspaces: one made by an older kit is migrated when it is
opened, one made by a newer kit is refused.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.dialects.sqlite import insert as insert_or_update

from ftlab_kit.errors import Conflict, DiskFull, InputError, Unavailable

Row = dict[str, Any]
BUCKET = ("first", "last", "n", "low", "high", "mean")
WAIT_S = 120  # SQLite's queue of writers is not fair: eight in a tight loop waited up to 12 s


class UtcTime(sa.TypeDecorator[datetime]):
    """A time that is UTC on both sides; SQLite itself stores no time zone."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the UTC time without its zone."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Return the time with its zone."""
        return value.replace(tzinfo=UTC) if value else None


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, UtcTime, nullable=nullable)


def _of(name: str, table: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.ForeignKey(f"{table}.id"), nullable=nullable, index=True)


TABLES = sa.MetaData()

sa.Table("schema", TABLES, sa.Column("version", sa.Integer, nullable=False))

sa.Table(
    "dataset_versions",
    TABLES,
    _id(),
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("dataset", sa.String, nullable=False, index=True),
    sa.Column("side", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False, server_default="chat"),
    sa.Column("n_rows", sa.Integer, nullable=False),
    sa.Column("n_refused", sa.Integer, nullable=False),
    sa.Column("content_sha256", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    _of("parent_id", "dataset_versions", nullable=True),
    sa.Column("derivation", sa.JSON, nullable=False, server_default="{}"),
    _time("created_at"),
    _time("added_at"),
)

sa.Table(
    "qualities",
    TABLES,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("content_sha256", sa.String, nullable=False, index=True),
    sa.Column("facts", sa.JSON, nullable=False),
    _time("created_at"),
)

sa.Table(
    "models",
    TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("folder", sa.String, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    _time("created_at"),
)

sa.Table(
    "configs",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("settings", sa.JSON, nullable=False),
    _time("created_at"),
)

sa.Table(
    "jobs",
    TABLES,
    _id(),
    sa.Column("kind", sa.String, nullable=False, server_default="train"),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("total_steps", sa.Integer),
    _of("dataset_version_id", "dataset_versions"),
    _of("held_out_version_id", "dataset_versions", nullable=True),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("facts", sa.JSON),
    _of("parent_id", "jobs", nullable=True),
    sa.Column("parent_step", sa.Integer),
    sa.Column("slot", sa.Integer),
    _time("launched_at", nullable=True),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_started_at", sa.Float),
    sa.Column("boot_id", sa.String),
    sa.Column("worker_pid", sa.Integer),
    _time("heartbeat_at", nullable=True),
    _time("created_at"),
    _time("queued_at", nullable=True),
    _time("started_at", nullable=True),
    _time("finished_at", nullable=True),
)

sa.Table(
    "metrics",
    TABLES,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    *(
        sa.Column(name, sa.Float)
        for name in (
            "epoch",
            "loss",
            "eval_loss",
            "learning_rate",
            "grad_norm",
            "tokens_per_s",
            "samples_per_s",
            "memory_gib",
            "gpu_memory_gib",
            "gpu_utilisation",
            "cpu_utilisation",
            "remaining_s",
        )
    ),
    sa.Column("n_tokens", sa.Integer),
    sa.Column("more", sa.JSON),
    sa.Column("note", sa.Text),
    _time("at"),
)

sa.Table(
    "events",
    TABLES,
    _id(),
    _of("job_id", "jobs"),
    sa.Column("command", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("step", sa.Integer),
    sa.Column("at_step", sa.Integer),
    sa.Column("author", sa.String),
    sa.Column("arguments", sa.JSON),
    sa.Column("result", sa.JSON),
    sa.Column("note", sa.Text),
    _time("created_at"),
)

sa.Table(
    "checkpoints",
    TABLES,
    _id(),
    _of("job_id", "jobs"),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("loss", sa.Float),
    sa.Column("eval_loss", sa.Float),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    _time("created_at"),
    sa.UniqueConstraint("job_id", "step"),
)

sa.Table(
    "evaluations",
    TABLES,
    _id(),
    sa.Column("target", sa.String, nullable=False),
    _of("job_id", "jobs", nullable=True),
    sa.Column("step", sa.Integer),
    _of("dataset_version_id", "dataset_versions", nullable=True),
    sa.Column("n_rows", sa.Integer, nullable=False),
    sa.Column("scores", sa.JSON, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("samples", sa.JSON, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("n_tokens", sa.Integer),
    sa.Column("cost_usd", sa.Float),
    _time("created_at"),
)

sa.Table(
    "exports",
    TABLES,
    _id(),
    _of("job_id", "jobs"),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("format", sa.String, nullable=False),
    sa.Column("precision", sa.String, nullable=False),
    sa.Column("model", sa.String),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("certificate", sa.JSON, nullable=False),
    _time("created_at"),
)

sa.Table(
    "batch_sizes",
    TABLES,
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("length_tokens", sa.Integer, primary_key=True),
    sa.Column("device", sa.String, primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
)

sa.Table(
    "documents",
    TABLES,
    _id(),
    sa.Column("graph", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("format", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, default=0),
    sa.Column("content_sha256", sa.String),
    *(
        sa.Column(name, sa.Integer, nullable=False, default=0)
        for name in ("n_chunks", "n_entities", "n_facts", "n_tokens")
    ),
    sa.Column("cost_usd", sa.Float),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("enriched", sa.JSON),
    _time("dated_at", nullable=True),
    _time("loaded_at", nullable=True),
    _time("created_at"),
    # empty in rows of an older kit, until the graph is opened that tells whose they are
    sa.Column("owner", sa.String, nullable=False, server_default=""),
    sa.UniqueConstraint("graph", "owner", "name"),
)

sa.Table(
    "settings",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)


def m001_first(connection: sa.Connection) -> None:
    """The first release: nothing to change."""


def m002_steering(connection: sa.Connection) -> None:
    """Pause, resume, adjust, queue and lineage; batch sizes that fit; settings of the workspace."""
    new = {
        "jobs": "note TEXT, facts JSON, parent_id INTEGER REFERENCES jobs (id), "
        "parent_step INTEGER, slot INTEGER, launched_at DATETIME, boot_id VARCHAR, "
        "heartbeat_at DATETIME, queued_at DATETIME, worker_pid INTEGER",
        "metrics": "more JSON, note TEXT",
        "events": "at_step INTEGER, who VARCHAR, asked JSON, result JSON",
    }
    for table, columns in new.items():
        for column in columns.split(","):
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column.strip()}")
    for name in ("batch_sizes", "settings"):
        TABLES.tables[name].create(connection)


def m003_datasets(connection: sa.Connection) -> None:
    """Kinds of rows and how a version was derived; reports of quality."""
    for column in ("kind VARCHAR NOT NULL DEFAULT 'chat'", "made JSON NOT NULL DEFAULT '{}'"):
        connection.exec_driver_sql(f"ALTER TABLE dataset_versions ADD COLUMN {column}")
    TABLES.tables["qualities"].create(connection)
    versions = TABLES.tables["dataset_versions"]
    for number, path in connection.execute(sa.select(versions.c.id, versions.c.path)).all():
        if not Path(path).exists():
            continue
        # before there were kinds, a version's first row showed it
        with Path(path).open("rb") as file:
            if b'"chosen":' in file.readline():
                change = sa.update(versions).where(versions.c.id == number)
                connection.execute(change.values(kind="preference"))


def m004_evaluations(connection: sa.Connection) -> None:
    """Scores of rows, steps and costs; evaluations without a dataset; exports."""
    # SQLite can't drop a NOT NULL: the table is created anew
    connection.exec_driver_sql("ALTER TABLE evaluations RENAME TO evaluations_before")
    for name in ("job_id", "dataset_version_id"):
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS ix_evaluations_{name}")
    for name in ("evaluations", "exports"):
        TABLES.tables[name].create(connection)
    columns = "id, target, job_id, dataset_version_id, n_rows, scores, details, samples, seconds"
    connection.exec_driver_sql(
        f"INSERT INTO evaluations ({columns}, counts, created_at) "
        f"SELECT {columns}, '{{}}', created_at FROM evaluations_before"
    )
    connection.exec_driver_sql("DROP TABLE evaluations_before")


def m005_processor(connection: sa.Connection) -> None:
    """The processor utilisation of a job."""
    connection.exec_driver_sql("ALTER TABLE metrics ADD COLUMN cpu_utilisation FLOAT")


def m006_documents(connection: sa.Connection) -> None:
    """Documents of knowledge graphs."""
    TABLES.tables["documents"].create(connection)


def m007_names(connection: sa.Connection) -> None:
    """The field's words for columns, a table and keys inside JSON; jobs of more than one kind."""
    new_names = {
        "dataset_versions": {"made": "derivation"},
        "events": {"who": "author", "asked": "arguments"},
        "exports": {"form": "format"},
        "documents": {"form": "format"},
    }
    for table, columns in new_names.items():
        present = _columns(connection, table)
        for old, new in columns.items():
            # a table that an earlier migration has just created has today's names already
            if old in present:
                connection.exec_driver_sql(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    if _columns(connection, "fits"):
        connection.exec_driver_sql("ALTER TABLE fits RENAME TO batch_sizes")
    if "kind" not in _columns(connection, "jobs"):
        connection.exec_driver_sql(
            "ALTER TABLE jobs ADD COLUMN kind VARCHAR NOT NULL DEFAULT 'train'"
        )
    new_keys = [
        ("evaluations", "samples", "is_whole", "is_complete"),
        ("events", "result", "is_whole", "is_complete"),
        ("exports", "certificate", "least_same", "min_same"),
        ("exports", "certificate", "most_change", "max_change"),
    ]
    for table, column, old, new in new_keys:
        # inside a JSON string the quotes are escaped, so that no person's text is touched
        connection.exec_driver_sql(
            f"UPDATE {table} SET {column} = replace({column}, '\"{old}\":', '\"{new}\":') "
            f"WHERE {column} IS NOT NULL"
        )


def m008_document_owners(connection: sa.Connection) -> None:
    """Documents of two owners under one name in one graph."""
    old = _columns(connection, "documents")
    if "owner" in old:
        return
    # SQLite can't change a constraint: the table is made anew
    connection.exec_driver_sql("ALTER TABLE documents RENAME TO documents_before")
    TABLES.tables["documents"].create(connection)
    names = ", ".join(sorted(old))
    connection.exec_driver_sql(
        f"INSERT INTO documents ({names}) SELECT {names} FROM documents_before ORDER BY id"
    )
    connection.exec_driver_sql("DROP TABLE documents_before")


def _columns(connection: sa.Connection, table: str) -> set[str]:
    """Return the names of a table's columns, none if there is no such table."""
    return {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")}


MIGRATIONS: list[Callable[[sa.Connection], None]] = [
    m001_first,
    m002_steering,
    m003_datasets,
    m004_evaluations,
    m005_processor,
    m006_documents,
    m007_names,
    m008_document_owners,
]


class Store:
    """The workspace's database. Rows go in and come out as plain dicts."""

    def __init__(self, path: Path) -> None:
        """Open the database file, create it if missing, and bring its schema up to date.

        Raises:
            InputError: The file is not a database of this kit.
            Conflict: A newer kit wrote it.
        """
        self.path = path
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT_S})
        sa.event.listen(engine, "connect", _set_up)
        sa.event.listen(engine, "begin", _begin)
        self._local = threading.local()
        self._reader = engine
        self._writer = engine.execution_options(immediate=True)
        with ExitStack() as undo:
            undo.callback(engine.dispose)
            with FileLock(f"{path}.lock"), _explained(path):
                _migrate(self._writer, path)
            undo.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Hold the write lock for several verbs that belong together: all take effect, or none.

        Raises:
            DiskFull: Nothing of the transaction was written.
            Unavailable: Another process holds the lock for longer than the time limit.
        """
        if (current := self._current()) is not None:
            yield current
            return
        wait_s = getattr(self._local, "wait_s", WAIT_S)
        writer = self._writer.execution_options(wait_s=wait_s)
        with _explained(self.path), writer.begin() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    @contextmanager
    def lock_timeout(self, wait_s: float) -> Iterator[None]:
        """Limit how long this thread waits for the write lock (seconds)."""
        self._local.wait_s = wait_s
        try:
            yield
        finally:
            self._local.wait_s = WAIT_S

    def _current(self) -> sa.Connection | None:
        """Return the connection of this thread's transaction, if it is in one."""
        return getattr(self._local, "connection", None)

    def insert(self, table: str, **values: Any) -> int:
        """Add a row and return its id (its row number where the table has no id)."""
        with self.transaction() as connection:
            result = connection.execute(sa.insert(TABLES.tables[table]).values(**values))
            return int(result.lastrowid)

    def insert_new(self, table: str, **values: Any) -> bool:
        """Add a row unless one with its key is there already; return whether it was added."""
        statement = insert_or_update(TABLES.tables[table]).values(**values).on_conflict_do_nothing()
        with self.transaction() as connection:
            return bool(connection.execute(statement).rowcount)

    def upsert(self, table: str, key: Mapping[str, Any], **values: Any) -> None:
        """Write values into the row with this primary key; add it if missing."""
        statement = insert_or_update(TABLES.tables[table]).values(**key, **values)
        with self.transaction() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=list(key), set_=values)
            )

    def update(self, table: str, where: Mapping[str, Any], **values: Any) -> int:
        """Change the rows that match and return how many did: a compare-and-set."""
        target = TABLES.tables[table]
        with self.transaction() as connection:
            return connection.execute(
                sa.update(target).where(*_conditions(target, where)).values(**values)
            ).rowcount

    def delete(self, table: str, *, after: tuple[str, Any] | None = None, **where: Any) -> int:
        """Remove the rows that match and return how many.

        Args:
            table: The table.
            after: A column and a value: only rows in which the column is greater.
            where: Column and value; a list of values means any of them.
        """
        target = TABLES.tables[table]
        conditions = _conditions(target, where)
        if after is not None:
            conditions.append(target.c[after[0]] > after[1])
        with self.transaction() as connection:
            return connection.execute(sa.delete(target).where(*conditions)).rowcount

    def get(self, table: str, **where: Any) -> Row | None:
        """Return the newest row that matches, or None."""
        rows = self.rows(table, descending=True, limit=1, **where)
        return rows[0] if rows else None

    def rows(
        self,
        table: str,
        *,
        order: str | None = None,
        after: Any = None,
        descending: bool = False,
        limit: int | None = None,
        only: Sequence[str] = (),
        **where: Any,
    ) -> list[Row]:
        """Return the rows that match, in the order of one column.

        Args:
            table: The table.
            order: The column to sort by; the first one if None.
            after: Only rows in which that column is greater.
            descending: Whether to begin with the greatest.
            limit: The largest number of rows; None is no limit.
            only: The columns to return; all if none is named.
            where: Column and value; a list of values means any of them.
        """
        target = TABLES.tables[table]
        column = target.c[order] if order else next(iter(target.c))
        columns = [target.c[name] for name in only] or [*target.c]
        statement = sa.select(*columns).where(*_conditions(target, where))
        if after is not None:
            statement = statement.where(column > after)
        statement = statement.order_by(column.desc() if descending else column).limit(limit)
        if (current := self._current()) is not None:
            return [dict(row) for row in current.execute(statement).mappings()]
        with self._reader.begin() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def downsample(
        self,
        table: str,
        x: str,
        ys: Sequence[str],
        *,
        width: int,
        within: tuple[int | None, int | None] = (None, None),
        **where: Any,
    ) -> dict[str, list[Row]]:
        """Downsample columns: per bucket of `width` values of `x`, what the column holds there.

        Args:
            table: The table.
            x: A column of whole numbers.
            ys: Columns of numbers; "more.loss" is a number inside a column of JSON.
            width: The values of x that one bucket covers.
            within: Smallest and largest x; None is no bound.
            where: Column and value; a list of values means any of them.

        Returns:
            For each column its buckets that have a value, in order: the `first` and `last` x with
            one, their number `n`, and `low`, `high` and `mean`.
        """
        target = TABLES.tables[table]
        place = target.c[x]
        conditions = _conditions(target, where)
        conditions += [place >= within[0]] if within[0] is not None else []
        conditions += [place <= within[1]] if within[1] is not None else []
        parts: list[sa.ColumnElement[Any]] = []
        for name in ys:
            column, _, key = name.partition(".")
            y = target.c[column][key].as_float() if key else target.c[column]
            x_of_y = sa.case((y.is_not(None), place))
            parts += [sa.func.min(x_of_y), sa.func.max(x_of_y), sa.func.count(y)]
            parts += [sa.func.min(y), sa.func.max(y), sa.func.avg(y)]
        bucket = sa.cast(place, sa.Integer) // width
        statement = sa.select(*parts).where(*conditions).group_by(bucket).order_by(bucket)
        with self._reader.begin() as connection:
            buckets = connection.execute(statement).all()
        size = len(BUCKET)
        columns: dict[str, list[Row]] = {}
        for index, name in enumerate(ys):
            rows = (row[index * size : (index + 1) * size] for row in buckets)
            columns[name] = [dict(zip(BUCKET, row, strict=True)) for row in rows if row[2]]
        return columns

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise the kit's errors for SQLite's of a lock, a full disk, or a file of another kind."""
    try:
        yield
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        if "disk is full" in str(error):
            raise DiskFull(
                f"The disk is full while writing {path}; nothing of it was kept. "
                "Free some space, then try again."
            ) from error
        if "database is locked" in str(error):
            raise Unavailable(
                f"Another process holds the lock on {path} and does not release it; perhaps it is "
                "suspended. End its job with trainers.cancel, or end the process."
            ) from error
        if "not a database" in str(error):
            raise InputError(
                f"{path} is not a database. Expected the store of a workspace. "
                "Move the file away, or open another folder as the workspace."
            ) from error
        raise


def _conditions(table: sa.Table, where: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [
        table.c[name].in_(value) if isinstance(value, (list, tuple)) else table.c[name] == value
        for name, value in where.items()
    ]


def _set_up(connection: sqlite3.Connection, _: Any) -> None:
    # the driver would begin transactions itself, and always deferred ones
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("immediate", False):
        wait_ms = int(1000 * options.get("wait_s", WAIT_S))
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait_ms}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def _migrate(engine: sa.Engine, path: Path) -> None:
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()
    with engine.begin() as connection:
        exists = sa.inspect(connection).has_table("schema")
        version = (
            connection.execute(sa.text("SELECT version FROM schema")).scalar() if exists else 0
        )
        if version is None or version > len(MIGRATIONS):
            raise Conflict(
                f"{path} has schema version {version}; this kit reads versions up to "
                f"{len(MIGRATIONS)}. Update the kit: pip install -U ftlab-kit."
            )
        if not exists:
            TABLES.create_all(connection)
        for migration in MIGRATIONS[version:] if exists else ():
            migration(connection)
        if version < len(MIGRATIONS):
            schema = TABLES.tables["schema"]
            connection.execute(sa.delete(schema))
            connection.execute(sa.insert(schema).values(version=len(MIGRATIONS)))
