"""The order in which a job sees its rows: a fair shuffle with little padding.

Rows are shuffled, cut into windows of eight batches, sorted by length inside a window, and the
window's batches shuffled again. Each epoch sees each row once; which rows share a batch changes
from epoch to epoch; the order follows from seed and epoch alone.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 8


class LengthOrder(Sampler[int]):  # type: ignore[misc]
    """Row numbers of one epoch, batches of like length."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        """Order rows with these lengths in tokens, `batch` to an optimizer step."""
        self.lengths = lengths
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        chance = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=chance).tolist()
        # a batch that is not full stays last: in between it would shift all that follow
        whole = len(order) - len(order) % self.batch
        size = WINDOW * self.batch
        batches = []
        for start in range(0, whole, size):
            window = sorted(order[start : min(start + size, whole)], key=self.lengths.__getitem__)
            batches += [window[at : at + self.batch] for at in range(0, len(window), self.batch)]
        for index in torch.randperm(len(batches), generator=chance).tolist():
            yield from batches[index]
        yield from order[whole:]
