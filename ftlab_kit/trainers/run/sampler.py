"""The order in which a job trains on its rows: an endless shuffle that can be entered anywhere.

Passes over the rows, each shuffled anew, follow one another in an endless stream, which is divided
into the batches of the optimizer steps. Each pass has each row once, and a batch is a random
sample: batches of similar length would need less padding, but train worse in the same number of
steps (`python -m tests.benchmarks order`). Within a batch rows are sorted by length, so that a
model that can't pack them has little padding in each micro-batch.

The order depends on the seed alone and can be entered at any batch, so that a job resumes where it
was without reading what it has seen before.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

ENDLESS = 2**40  # what len() returns; no job has as many rows


class ShuffledSampler(Sampler[int]):  # type: ignore[misc]
    """Row numbers without end, batch after batch."""

    def __init__(
        self, lengths: Sequence[int], batch: int, seed: int, *, start: int = 0, processes: int = 1
    ) -> None:
        """Set up the order.

        Args:
            lengths: The length of each row in tokens, or a number that grows with it.
            batch: Rows of an optimizer step.
            seed: Decides the order.
            start: The first batch, counted from 0.
            processes: Processes that share a batch. The rows of each follow one another, dealt out
                like cards, so that no process gets all the long ones.
        """
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.start, self.processes = start, processes
        self.repeats = 1  # how often each batch is given in succession

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            rows = self._stream(index * self.batch, self.batch)
            rows.sort(key=self.lengths.__getitem__)
            for _ in range(self.repeats):
                for process in range(self.processes):
                    yield from rows[process :: self.processes]
            index += 1

    def _stream(self, start: int, count: int) -> list[int]:
        """Return `count` row numbers from a place in the endless stream."""
        n_rows = len(self.lengths)
        rows: list[int] = []
        for number in range(start // n_rows, (start + count - 1) // n_rows + 1):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            rows += torch.randperm(n_rows, generator=generator).tolist()
        skip = start % n_rows
        return rows[skip : skip + count]
