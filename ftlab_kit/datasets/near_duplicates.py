"""Near duplicates among rows: candidates by MinHash, then measured exactly.

A row is the set of its shingles, runs of three words. Rows whose MinHash signatures agree in one of
twenty bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) are compared, and
are near duplicates if their Jaccard similarity is at least 0.8. A pair at 0.8 is missed once in 400
times, one at 0.9 never. Within a band a row is compared with the first and the last few before it,
so that even a hundred thousand rows of one pattern take linear time.

N: rows, S: shingles of all rows.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLD = 0.8
BANDS, HASHES_PER_BAND = 20, 6
SHINGLE_WORDS = 3
LOOKBACK = 4  # earlier rows of a band that a row is compared with, besides the first
BATCH_ROWS = 5000  # rows whose signatures are made together
# in scripts without spaces between words, each character counts as a word
WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]|[^\W぀-ヿ㐀-鿿가-힯฀-๿]+")
MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

Numbers = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two near duplicates, counted from 0, the later row first, and their Jaccard similarity."""

    row: int
    of: int
    share: float


class DisjointSets:
    """Rows in disjoint sets (union-find); a set is named by its first row."""

    def __init__(self, count: int) -> None:
        """Start with every row in a set of its own."""
        self._parent = [*range(count)]

    def first(self, row: int) -> int:
        """Return the first row of a row's set."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def unite(self, one: int, other: int) -> None:
        """Join the sets of two rows."""
        low, high = sorted((self.first(one), self.first(other)))
        self._parent[high] = low

    def unite_equal(self, keys: Iterable[Any]) -> None:
        """Join all rows with the same key; None is not a key."""
        first_with: dict[Any, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                self.unite(row, first_with.setdefault(key, row))


def find_pairs(texts: Iterable[str]) -> list[Pair]:
    """Return pairs that connect every set of near duplicates, in the order of the rows.

    Args:
        texts: The text of each row.
    """
    shingles, ends = _shingles(texts)
    sets, pairs = DisjointSets(len(ends) - 1), []
    for row, of in _candidates(shingles, ends):
        if sets.first(row) != sets.first(of):
            one, other = (shingles[ends[i] : ends[i + 1]] for i in (row, of))
            share = _jaccard(one, other)
            if share >= THRESHOLD:
                sets.unite(row, of)
                pairs.append(Pair(row, of, share))
    return sorted(pairs, key=lambda pair: pair.row)


def _shingles(texts: Iterable[str]) -> tuple[Numbers, Sequence[int]]:
    """Return all texts' shingles as numbers `(S,)`, sorted within a text, and where each ends."""
    code_of: dict[str, int] = {}
    parts, ends = [], [0]
    for text in texts:
        tokens = WORD.findall(text.lower())
        codes = np.array(
            [code_of.get(token) or _code(code_of, token) for token in tokens], np.uint64
        )
        shingles = np.unique(_combined(codes))
        parts.append(shingles)
        ends.append(ends[-1] + len(shingles))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64), ends


def _code(code_of: dict[str, int], word: str) -> int:
    """Return a word's number, the same in every process, and remember it."""
    data = word.encode("utf-8", "surrogatepass")
    code_of[word] = (zlib.crc32(data) << 32 | zlib.adler32(data)) or 1
    return code_of[word]


def _combined(codes: Numbers) -> Numbers:
    """Return a number for each shingle; a text of fewer words is one shingle."""
    count = max(1, len(codes) - SHINGLE_WORDS + 1)
    total = np.zeros(count, np.uint64)
    for offset in range(min(SHINGLE_WORDS, len(codes))):
        mixed = codes[offset : offset + count] * np.uint64(MULTIPLIERS[offset])
        total += mixed ^ (mixed >> np.uint64(31))
    total ^= total >> np.uint64(33)
    return total * np.uint64(MULTIPLIERS[0])


def _candidates(shingles: Numbers, ends: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Yield pairs of rows whose signatures agree in a band, the later row first."""
    if len(ends) < 3:
        return
    signatures = _signatures(shingles, ends)
    for band in range(BANDS):
        _, group = np.unique(signatures[:, band], axis=0, return_inverse=True)
        order = np.argsort(group, kind="stable")
        group = group[order]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        lengths = np.diff([*starts, len(group)])
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
            members = order[start : start + length].tolist()
            for index in range(1, len(members)):
                before = members[max(0, index - LOOKBACK) : index]
                for of in {members[0], *before}:
                    yield members[index], of


def _signatures(shingles: Numbers, ends: Sequence[int]) -> Any:
    """Return the MinHash signature of each row, `(N, BANDS, HASHES_PER_BAND)`."""
    from rensa import RMinHash

    signatures = np.empty((len(ends) - 1, BANDS, HASHES_PER_BAND), np.uint32)
    # as numpy arrays they take a tenth of the memory, so they are converted batch by batch
    for start in range(0, len(signatures), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(signatures))
        offsets = [end - ends[start] for end in ends[start : stop + 1]]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles[ends[start] : ends[stop]], offsets, num_perm=BANDS * HASHES_PER_BAND, seed=1
        )
        rows = np.array(matrix.to_rows(), np.uint32)
        signatures[start:stop] = rows.reshape(-1, BANDS, HASHES_PER_BAND)
    return signatures


def _jaccard(one: Numbers, other: Numbers) -> float:
    n_shared = len(np.intersect1d(one, other, assume_unique=True))
    return n_shared / (len(one) + len(other) - n_shared)
