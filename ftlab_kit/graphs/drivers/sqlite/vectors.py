"""The vectors of one kind of nodes or edges in memory: a matrix that grows, for exact search."""

import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 1024


class VectorIndex:
    """Unit vectors by the id of their row. `N` rows, `D` numbers in a vector."""

    def __init__(self, rows: Iterable[tuple[int, str, bytes]]) -> None:
        """Take every vector as (id, group, bytes)."""
        self._ids: NDArray[np.int64] = np.zeros(FIRST_ROWS, np.int64)  # (N,)
        self._groups: NDArray[np.int32] = np.zeros(FIRST_ROWS, np.int32)  # (N,)
        self._matrix: NDArray[np.float32] = np.zeros((0, 0), np.float32)  # (N, D)
        self._position: dict[int, int] = {}  # id -> row of the matrix
        self._codes: dict[str, int] = {}
        self._n = 0
        self.put(rows)

    def put(self, rows: Iterable[tuple[int, str, bytes]]) -> None:
        """Add vectors, or replace those with the same id."""
        for row_id, group, raw in rows:
            vector = np.frombuffer(raw, np.float32)
            if self._position.get(row_id) is None:
                self._position[row_id] = self._n
                self._n += 1
                self._grow(len(vector))
            row = self._position[row_id]
            length = float(np.linalg.norm(vector))
            self._ids[row] = row_id
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
        """Remove vectors; the last row fills the gap of each."""
        for row_id in ids:
            row = self._position.pop(row_id, None)
            if row is None:
                continue
            self._n -= 1
            if row != self._n:
                moved = int(self._ids[self._n])
                self._ids[row], self._groups[row] = moved, self._groups[self._n]
                self._matrix[row] = self._matrix[self._n]
                self._position[moved] = row

    def nearest(
        self,
        vector: Sequence[float],
        limit: int,
        *,
        groups: Sequence[str] | None = None,
        among: Iterable[int] | None = None,
    ) -> list[tuple[int, float]]:
        """Return ids with their cosines, greatest first; equal ones by id.

        Args:
            groups: Only vectors of these groups; all if None.
            among: Only vectors of these ids; all if None.
        """
        query = np.asarray(vector, np.float32)  # (D,)
        length = float(np.linalg.norm(query))
        rows = self._rows(groups, among)
        if not len(rows) or not length:
            return []
        is_all = len(rows) == self._n
        matrix = self._matrix[: self._n] if is_all else self._matrix[rows]  # (rows, D)
        cosines = matrix @ (query / length)  # (rows,)
        if len(rows) > limit:
            # a partition is linear; only the best are sorted
            best = np.argpartition(-cosines, limit - 1)[:limit]
        else:
            best = np.arange(len(rows))
        matches = [(int(self._ids[rows[at]]), float(cosines[at])) for at in best]
        return sorted(matches, key=lambda match: (-match[1], match[0]))

    def _rows(self, groups: Sequence[str] | None, among: Iterable[int] | None) -> NDArray[np.int64]:
        if among is not None:
            positions = [self._position[row_id] for row_id in among if row_id in self._position]
            rows = np.array(sorted(positions), np.int64)
        else:
            rows = np.arange(self._n)
        if groups is None or len(self._codes) < 2 and set(self._codes) <= set(groups):
            return rows
        codes = [self._codes[group] for group in groups if group in self._codes]
        in_groups: NDArray[np.int64] = rows[np.isin(self._groups[rows], codes)]
        return in_groups


def read(db: sqlite3.Connection, table: str, kind: str) -> VectorIndex:
    """Return the vectors of a kind of nodes or edges."""
    sql = f"SELECT id, group_id, vector FROM {table} WHERE kind = ? AND vector IS NOT NULL"
    return VectorIndex(db.execute(sql, (kind,)))
