"""The order in which a job sees its rows: an endless fair shuffle with little padding.

The passes over the rows, each shuffled anew, follow one another in an endless stream. It is cut
into windows of eight batches; inside a window rows are sorted by length, cut into batches, and the
batches shuffled. Each pass sees each row once; which rows share a batch changes from pass to pass.

The order follows from the seed alone and can be entered at any batch, so that a job is resumed
where it was without going over what it has seen.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 8
ENDLESS = 2**40  # a length for who asks; no job has so many rows


class RowStream(Sampler[int]):  # type: ignore[misc]
    """Row numbers without end, in batches of like length."""

    def __init__(
        self, lengths: Sequence[int], batch: int, seed: int, *, start: int = 0, repeats: int = 1
    ) -> None:
        """Order rows.

        Args:
            lengths: The length of each row in tokens, or whatever grows with it.
            batch: Rows to an optimizer step.
            start: The first batch, counted from 0.
            repeats: How often each batch is given in a row.
        """
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.start, self.repeats = start, repeats

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            window = self._window(index // WINDOW)
            for batch in window[index % WINDOW :]:
                for _ in range(self.repeats):
                    yield from batch
                index += 1

    def _window(self, number: int) -> list[list[int]]:
        """Return the batches of a window of the endless stream."""
        size = WINDOW * self.batch
        rows = sorted(self._stream(number * size, size), key=self.lengths.__getitem__)
        batches = [rows[at : at + self.batch] for at in range(0, size, self.batch)]
        order = torch.randperm(WINDOW, generator=self._chance("window", number)).tolist()
        return [batches[index] for index in order]

    def _stream(self, start: int, count: int) -> list[int]:
        """Return a stretch of the passes over the rows, one after the other."""
        n_rows = len(self.lengths)
        found: list[int] = []
        for number in range(start // n_rows, (start + count - 1) // n_rows + 1):
            found += torch.randperm(n_rows, generator=self._chance("pass", number)).tolist()
        skip = start % n_rows
        return found[skip : skip + count]

    def _chance(self, what: str, number: int) -> torch.Generator:
        salt = {"pass": 0, "window": 1}[what]
        return torch.Generator().manual_seed((self.seed * 1_000_003 + number) * 2 + salt)
