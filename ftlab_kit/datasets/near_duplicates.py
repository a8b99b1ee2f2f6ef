"""Rows that say nearly the same: found by MinHash, then measured.

A row is the set of its runs of three words. Rows whose MinHash signatures agree in one of twenty
bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) are measured against
each other exactly, and are near duplicates if they share 0.8 of their runs (Jaccard). A pair at 0.8
is missed once in 400 times, one at 0.9 never. Within a band a row is measured against the first and
the last few before it, so that even a hundred thousand rows of one pattern take linear time.

N: rows, S: runs of words of all rows.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLD = 0.8
BANDS, PER_BAND = 20, 6
RUN = 3
BACK = 4
AT_ONCE = 5000  # rows whose signatures are made together
# a letter of a script that does not part words is a word
WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]|[^\W぀-ヿ㐀-鿿가-힯฀-๿]+")
MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

Numbers = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows, counted from 0, the later one first, and the share of runs that they share."""

    row: int
    of: int
    share: float


class Sets:
    """Rows in sets, each known by its first row."""

    def __init__(self, count: int) -> None:
        """Begin with every row by itself."""
        self._up = [*range(count)]

    def first(self, row: int) -> int:
        """Return the first row of a row's set."""
        while self._up[row] != row:
            self._up[row] = self._up[self._up[row]]
            row = self._up[row]
        return row

    def unite(self, one: int, other: int) -> None:
        """Make one set of the sets of two rows."""
        low, high = sorted((self.first(one), self.first(other)))
        self._up[high] = low

    def unite_equal(self, keys: Iterable[Any]) -> None:
        """Make one set of all rows with the same key; None is no key."""
        seen: dict[Any, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                self.unite(row, seen.setdefault(key, row))


def near(texts: Iterable[str]) -> list[Pair]:
    """Return pairs that link every set of near duplicates together, in the order of the rows.

    Args:
        texts: What each row says.
    """
    runs, ends = _runs(texts)
    sets, found = Sets(len(ends) - 1), []
    for row, of in _candidates(runs, ends):
        if sets.first(row) != sets.first(of):
            share = _share(runs[ends[row] : ends[row + 1]], runs[ends[of] : ends[of + 1]])
            if share >= THRESHOLD:
                sets.unite(row, of)
                found.append(Pair(row, of, share))
    return sorted(found, key=lambda pair: pair.row)


def _runs(texts: Iterable[str]) -> tuple[Numbers, Sequence[int]]:
    """Return the runs of all texts as numbers `(S,)`, sorted within a text, and where each ends."""
    known: dict[str, int] = {}
    parts, ends = [], [0]
    for text in texts:
        words = WORD.findall(text.lower())
        codes = np.array([known.get(word) or _code(known, word) for word in words], np.uint64)
        runs = np.unique(_joined(codes))
        parts.append(runs)
        ends.append(ends[-1] + len(runs))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64), ends


def _code(known: dict[str, int], word: str) -> int:
    """Return a number for a word that is the same in every process."""
    data = word.encode("utf-8", "surrogatepass")
    known[word] = (zlib.crc32(data) << 32 | zlib.adler32(data)) or 1
    return known[word]


def _joined(codes: Numbers) -> Numbers:
    """Return a number for each run of words; fewer words than a run has are one run."""
    count = max(1, len(codes) - RUN + 1)
    total = np.zeros(count, np.uint64)
    for place in range(min(RUN, len(codes))):
        mixed = codes[place : place + count] * np.uint64(MIX[place])
        total += mixed ^ (mixed >> np.uint64(31))
    total ^= total >> np.uint64(33)
    return total * np.uint64(MIX[0])


def _candidates(runs: Numbers, ends: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Yield pairs of rows that agree in a band, the later one first."""
    from rensa import RMinHash

    if len(ends) < 3:
        return
    signatures = np.empty((len(ends) - 1, BANDS, PER_BAND), np.uint32)
    for start in range(0, len(signatures), AT_ONCE):  # as numpy's they take a tenth of the memory
        stop = min(start + AT_ONCE, len(signatures))
        places = [end - ends[start] for end in ends[start : stop + 1]]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            runs[ends[start] : ends[stop]], places, num_perm=BANDS * PER_BAND, seed=1
        )
        rows = np.array(matrix.to_rows(), np.uint32)
        signatures[start:stop] = rows.reshape(-1, BANDS, PER_BAND)
    for band in range(BANDS):
        _, group = np.unique(signatures[:, band], axis=0, return_inverse=True)
        order = np.argsort(group, kind="stable")
        group = group[order]
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        lengths = np.diff([*starts, len(group)])
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
            members = order[start : start + length].tolist()
            for place in range(1, len(members)):
                before = members[max(0, place - BACK) : place]
                for of in {members[0], *before}:
                    yield members[place], of


def _share(one: Numbers, other: Numbers) -> float:
    """Return the Jaccard similarity of two sets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
