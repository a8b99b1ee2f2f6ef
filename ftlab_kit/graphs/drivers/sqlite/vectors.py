"""The vectors of one kind of thing in memory: a matrix that grows, and that rows are found in."""

import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 1024


class Vectors:
    """Unit vectors by the id of their row. Shapes: N rows, D numbers a vector."""

    def __init__(self, rows: Iterable[tuple[int, str, bytes]]) -> None:
        """Take all that there are, as (id, group, bytes)."""
        self._ids: NDArray[np.int64] = np.zeros(FIRST_ROWS, np.int64)  # (N,)
        self._groups: NDArray[np.int32] = np.zeros(FIRST_ROWS, np.int32)  # (N,)
        self._matrix: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # (N, D)
        self._at: dict[int, int] = {}
        self._codes: dict[str, int] = {}
        self._n = 0
        self.put(rows)

    def put(self, rows: Iterable[tuple[int, str, bytes]]) -> None:
        """Add vectors, or change those that are here."""
        for number, group, raw in rows:
            vector = np.frombuffer(raw, np.float32)
            if self._at.get(number) is None:
                self._at[number] = self._n
                self._n += 1
                self._grow(len(vector))
            row = self._at[number]
            length = float(np.linalg.norm(vector))
            self._ids[row] = number
            self._groups[row] = self._codes.setdefault(group, len(self._codes))
            self._matrix[row] = vector / length if length else vector

    def _grow(self, dimension: int) -> None:
        if not self._matrix.size:
            self._matrix = np.zeros((FIRST_ROWS, dimension), np.float32)
        if self._n > len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._groups = np.concatenate([self._groups, np.zeros_like(self._groups)])

    def drop(self, ids: Iterable[int]) -> None:
        """Forget vectors: the last row takes the place of one that goes."""
        for number in ids:
            row = self._at.pop(number, None)
            if row is None:
                continue
            self._n -= 1
            if row != self._n:
                moved = int(self._ids[self._n])
                self._ids[row], self._groups[row] = moved, self._groups[self._n]
                self._matrix[row] = self._matrix[self._n]
                self._at[moved] = row

    def nearest(
        self,
        vector: Sequence[float],
        limit: int,
        *,
        groups: Sequence[str] | None = None,
        among: Iterable[int] | None = None,
    ) -> list[tuple[int, float]]:
        """Return ids with their cosines, the greatest first; ties by id.

        Args:
            groups: Only of these groups; all if None.
            among: Only these ids; all if None.
        """
        wanted = np.asarray(vector, np.float32)  # (D,)
        length = float(np.linalg.norm(wanted))
        rows = self._rows(groups, among)
        if not len(rows) or not length:
            return []
        whole = len(rows) == self._n
        matrix = self._matrix[: self._n] if whole else self._matrix[rows]
        cosines = matrix @ (wanted / length)  # (rows,)
        if len(rows) > limit:
            best = np.argpartition(-cosines, limit - 1)[:limit]
        else:
            best = np.arange(len(rows))
        found = [(int(self._ids[rows[item]]), float(cosines[item])) for item in best]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def _rows(self, groups: Sequence[str] | None, among: Iterable[int] | None) -> NDArray[np.int64]:
        if among is not None:
            known = [self._at[number] for number in among if number in self._at]
            rows = np.array(sorted(known), np.int64)
        else:
            rows = np.arange(self._n)
        if groups is None or len(self._codes) < 2 and set(self._codes) <= set(groups):
            return rows
        codes = [self._codes[group] for group in groups if group in self._codes]
        found: NDArray[np.int64] = rows[np.isin(self._groups[rows], codes)]
        return found


def read(db: sqlite3.Connection, table: str, kind: str) -> Vectors:
    """Return the vectors of a kind of nodes or edges."""
    sql = f"SELECT id, group_id, vector FROM {table} WHERE kind = ? AND vector IS NOT NULL"
    return Vectors(db.execute(sql, (kind,)))
