"""Rows as a trainer sees them: encoded at the start, encoded on demand, or packed.

Line numbers of the dataset version go with the rows, so that a message about a batch can name them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from ftlab_kit.lm.tokens import Encoded


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows with their lines, counted from 1, and their lengths in tokens.

    A pack has several lines; `parts` has the lengths of its rows.
    """

    encoded: Sequence[Encoded]
    lines: Sequence[Sequence[int]]
    lengths: Sequence[int]
    parts: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.lines)


def eager(encoded: Sequence[Encoded]) -> Rows:
    """Return rows that are encoded already, without those that have no trained token."""
    trained = [(line, row) for line, row in enumerate(encoded, 1) if row.n_trained]
    rows = [row for _, row in trained]
    return Rows(rows, [[line] for line, _ in trained], [len(row.input_ids) for row in rows])


def lazy(path: Path, encode: Callable[[dict[str, Any]], Encoded]) -> Rows:
    """Return the rows of a JSONL file, each encoded when it is read.

    Only the offsets of the lines are held in memory, and `lengths` are in bytes instead of tokens.

    Args:
        path: The file of a dataset version.
        encode: Returns a row's tokens.
    """
    encoded = _LazyFile(path, encode)
    return Rows(encoded, [[line] for line in range(1, len(encoded) + 1)], encoded.sizes)


def packed(rows: Rows, max_length: int) -> Rows:
    """Return rows packed into sequences of at most `max_length` tokens, by best fit."""
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    numbers = [[index] * length for index, length in enumerate(rows.lengths)]
    packs = pack_dataset(Dataset.from_dict({"row": numbers}), max_length)["row"]
    members = [list(dict.fromkeys(pack)) for pack in packs]
    encoded = [_concatenate([rows.encoded[index] for index in pack]) for pack in members]
    return Rows(
        encoded,
        [[*chain.from_iterable(rows.lines[index] for index in pack)] for pack in members],
        [len(row.input_ids) for row in encoded],
        [[rows.lengths[index] for index in pack] for pack in members],
    )


def _concatenate(rows: Sequence[Encoded]) -> Encoded:
    from ftlab_kit.lm.tokens import IGNORED

    return Encoded(
        input_ids=[*chain.from_iterable(row.input_ids for row in rows)],
        # the token before a row's first one belongs to another row and must not predict it
        labels=[*chain.from_iterable([IGNORED, *row.labels[1:]] for row in rows)],
        n_cut=sum(row.n_cut for row in rows),
        has_end=all(row.has_end for row in rows),
    )


class _LazyFile(Sequence[Encoded]):
    """The lines of a file, each encoded when it is read."""

    def __init__(self, path: Path, encode: Callable[[dict[str, Any]], Encoded]) -> None:
        self.path, self.encode = path, encode
        with path.open("rb") as file:
            self.sizes = [len(line) for line in file]
        self.offsets = [0]
        for size in self.sizes[:-1]:
            self.offsets.append(self.offsets[-1] + size)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: Any) -> Any:
        with self.path.open("rb") as file:
            file.seek(self.offsets[index])
            return self.encode(msgspec.json.decode(file.readline()))

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))
