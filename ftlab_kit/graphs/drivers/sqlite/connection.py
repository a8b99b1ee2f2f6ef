"""A connection whose errors about the file are the kit's, wherever a query meets them.

SQLite reads a file as rows are fetched, so that damage can show in any of them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError, Unavailable


def kit_error(error: sqlite3.DatabaseError, path: Path) -> InputError | Unavailable:
    """Return the kit's error for one of SQLite's."""
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(
            f"The graph {path} can't be used now: {error}. Is the disk full, or is another "
            "process writing to it? Try again."
        )
    return InputError(
        f"{path} is damaged, or is not a graph of this kit ({error}). Move it away, and load its "
        "documents again."
    )


class Cursor(sqlite3.Cursor):
    """A cursor of such a connection."""

    connection: "Connection"

    @contextmanager
    def _kit_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise kit_error(error, self.connection.path) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # a fault of the query, not of the file
            raise kit_error(error, self.connection.path) from error

    def execute(self, *query: Any) -> "Cursor":
        """Run a query."""
        with self._kit_errors():
            return super().execute(*query)

    def executemany(self, *query: Any) -> "Cursor":
        """Run a query for many values."""
        with self._kit_errors():
            return super().executemany(*query)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.DatabaseError:
            with self._kit_errors():
                raise

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        with self._kit_errors():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        with self._kit_errors():
            return super().fetchall()


class Connection(sqlite3.Connection):
    """A connection to the file of a graph."""

    path: Path

    def execute(self, *query: Any) -> Cursor:
        """Run a query, and return its rows."""
        return self.cursor(Cursor).execute(*query)

    def executemany(self, *query: Any) -> Cursor:
        """Run a query for many values."""
        return self.cursor(Cursor).executemany(*query)
