"""Rows as a trainer sees them: encoded at the start, or when they are needed, or packed.

Each is a sequence of `Encoded`, whose lines in the dataset version go with it, so that whatever is
wrong with a batch can be said by line.
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
    """Encoded rows with their lines, numbered from 1, and their lengths in tokens.

    A pack has several lines and the lengths of its rows in `parts`.
    """

    encoded: Sequence[Encoded]
    lines: Sequence[Sequence[int]]
    lengths: Sequence[int]
    parts: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.lines)


def at_once(encoded: Sequence[Encoded]) -> Rows:
    """Return rows that are encoded already, without those in which nothing is trained."""
    kept = [(line, row) for line, row in enumerate(encoded, 1) if row.n_trained]
    rows = [row for _, row in kept]
    return Rows(rows, [[line] for line, _ in kept], [len(row.input_ids) for row in rows])


def when_needed(path: Path, encode: Callable[[dict[str, Any]], Encoded]) -> Rows:
    """Return the rows of a JSONL file, each encoded when it is asked for.

    Nothing but the offsets of the lines is held in memory. How long a row is in bytes stands for
    its length in tokens.
    """
    lazy = _Lazy(path, encode)
    return Rows(lazy, [[line] for line in range(1, len(lazy) + 1)], lazy.sizes)


def packed(rows: Rows, max_length: int) -> Rows:
    """Return rows joined to packs of at most so many tokens, best fit first."""
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    numbers = [[index] * length for index, length in enumerate(rows.lengths)]
    packs = pack_dataset(Dataset.from_dict({"row": numbers}), max_length)["row"]
    members = [list(dict.fromkeys(pack)) for pack in packs]
    encoded = [_joined([rows.encoded[index] for index in pack]) for pack in members]
    return Rows(
        encoded,
        [[*chain.from_iterable(rows.lines[index] for index in pack)] for pack in members],
        [len(row.input_ids) for row in encoded],
        [[rows.lengths[index] for index in pack] for pack in members],
    )


def _joined(rows: Sequence[Encoded]) -> Encoded:
    from ftlab_kit.lm.tokens import IGNORED

    return Encoded(
        input_ids=[*chain.from_iterable(row.input_ids for row in rows)],
        # a row's first token is what no row predicts: not the one before it in the pack either
        labels=[*chain.from_iterable([IGNORED, *row.labels[1:]] for row in rows)],
        n_cut=sum(row.n_cut for row in rows),
        has_end=all(row.has_end for row in rows),
    )


class _Lazy(Sequence[Encoded]):
    """The lines of a file, encoded one by one."""

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
