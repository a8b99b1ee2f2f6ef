"""The order in which a job sees its rows: an endless fair shuffle that can be entered anywhere.

The passes over the rows, each shuffled anew, follow one another in an endless stream, which is cut
into the batches of the optimizer steps. Each pass sees each row once, and which rows share a batch
is chance alone: batches of like length would have less padding, but learn less from as many steps
(`python -m tests.benchmarks order`). Within a batch rows are sorted by length, so that a model that
can't take them joined takes them in pieces with little padding.

The order follows from the seed alone and can be entered at any batch, so that a job is resumed
where it was without going over what it has seen.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

ENDLESS = 2**40  # a length for who asks; no job has so many rows


class ShuffledSampler(Sampler[int]):  # type: ignore[misc]
    """Row numbers without end, batch after batch."""

    def __init__(
        self, lengths: Sequence[int], batch: int, seed: int, *, start: int = 0, shares: int = 1
    ) -> None:
        """Order rows.

        Args:
            lengths: The length of each row in tokens, or whatever grows with it.
            batch: Rows to an optimizer step.
            start: The first batch, counted from 0.
            shares: Processes that share a batch: each one's rows follow one another, dealt out
                like cards, so that no process has all the long ones.
        """
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.start, self.shares = start, shares
        self.repeats = 1  # how often each batch is given in a row

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            rows = self._stream(index * self.batch, self.batch)
            rows.sort(key=self.lengths.__getitem__)
            for _ in range(self.repeats):
                for share in range(self.shares):
                    yield from rows[share :: self.shares]
            index += 1

    def _stream(self, start: int, count: int) -> list[int]:
        """Return a stretch of the passes over the rows, one after the other."""
        n_rows = len(self.lengths)
        found: list[int] = []
        for number in range(start // n_rows, (start + count - 1) // n_rows + 1):
            chance = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            found += torch.randperm(n_rows, generator=chance).tolist()
        skip = start % n_rows
        return found[skip : skip + count]
