"""Supervised fine-tuning: TRL's SFTTrainer, with the loss computed only at trained positions.

B: rows of a batch, T: tokens.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from ftlab_kit.configs import Config
from ftlab_kit.lm import likelihood
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.trainers.run.evaluation import EvalLossMixin, halve_on_oom
from ftlab_kit.trainers.run.rows import Rows, eager, packed
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ARGUMENTS = SFTConfig
READS_TOKENS = True
# on a processor; larger micro-batches multiply no faster, and take memory
MAX_TOKENS = 2048
OVERHEAD_TOKENS = 200  # what each micro-batch costs besides its tokens, in the time of a token


class ExactSFTTrainer(EvalLossMixin, ExactTrainerMixin, SFTTrainer):  # type: ignore[misc]
    """Trains on answers; the rows of a pack are kept apart by their position ids."""

    can_split = True

    def __init__(self, *, rows: Rows, held_out: Rows | None, **kwargs: Any) -> None:
        """Take rows and held-out rows, and the arguments of ExactTrainerMixin and TRL."""
        self.held_out = held_out
        tokenizer = kwargs["processing_class"]
        super().__init__(
            lengths=rows.lengths,
            train_dataset=_dataset(rows),
            data_collator=_collate(tokenizer.pad_token_id),
            **kwargs,
        )
        likelihood.use_summed_loss(self.model)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of a trained token, over all micro-batches of the step together."""
        model_inputs = {name: value for name, value in inputs.items() if name != "n_real"}
        total = model(**model_inputs, use_cache=False).loss
        count = (
            (inputs["labels"][:, 1:] != IGNORED).sum()
            if num_items_in_batch is None
            else num_items_in_batch
        )
        # gradients are averaged over the processes, while the count is a sum over them
        mean = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        return mean * self.args.world_size

    def micro_batches(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield the rows in micro-batches of at most `size`, packed where the model can.

        On a processor, unless the config has a micro-batch, they are split where it takes the least
        time.
        """
        config, n_rows = self.run_state.config, self.count_rows(inputs)
        # NEFTune scales its noise by a row's own length
        is_packed = config.neftune_alpha is None and likelihood.can_pack(self.model)
        ends = [*range(size, n_rows, size), n_rows]
        if config.micro_batch is None and inputs["input_ids"].device.type == "cpu":
            ends = split_by_cost(inputs["n_real"].tolist(), size, is_padded=not is_packed)
        for start, end in zip([0, *ends], ends, strict=False):
            part = {name: value[start:end] for name, value in inputs.items()}
            n_real = part["n_real"]
            if is_packed:
                # with dropout each row draws its own mask, and so no two rows share a prefix
                packed_rows = likelihood.pack(**part, share_prefixes=not config.adapter_dropout)
                del packed_rows["rows"]
                yield {**packed_rows, "n_real": n_real}
                continue
            width = int(n_real.max())
            yield {
                name: value if name == "n_real" else value[:, :width]
                for name, value in part.items()
            }

    def count_rows(self, inputs: Any) -> int:
        """Return the rows of a batch, packed or not."""
        return len(inputs["n_real"])

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a batch, without padding."""
        return int(inputs["n_real"].sum())

    def eval_sums(self, numbers: Sequence[int]) -> tuple[float, float]:
        """Return the summed loss of the trained tokens of some held-out rows, and their count."""
        encoded = self.held_out.encoded if self.held_out else ()
        rows = [encoded[number] for number in numbers]
        pad = self.processing_class.pad_token_id
        losses: list[float] = []

        def measure(batch: Sequence[int]) -> list[float]:
            return likelihood.nll(self.model, [rows[index] for index in batch], pad_token_id=pad)

        with self.accelerator.autocast():
            for batch in likelihood.batches([len(row.input_ids) for row in rows]):
                losses += halve_on_oom(batch, measure)
        return math.fsum(losses), float(sum(row.n_trained for row in rows))


def rows(encoded: Sequence[Encoded], config: Config) -> Rows:
    """Return chats in the form that the trainer reads, packed if the config says so."""
    rows = eager(encoded)
    return packed(rows, config.max_length) if config.packing else rows


def split_by_cost(lengths: Sequence[int], max_rows: int, *, is_padded: bool) -> list[int]:
    """Return where the micro-batches end that take the least time for rows in this order.

    Args:
        lengths: The rows' lengths in tokens.
        max_rows: Rows of a micro-batch at most.
        is_padded: Whether the rows of a micro-batch are padded to its longest.
    """
    # dynamic programming: cost[n] is the least time for the first n rows, in tokens, and starts[n]
    # is where the last of their micro-batches starts
    cost, starts = [0] + [sys.maxsize] * len(lengths), [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        widest = real = 0
        for start in range(end - 1, max(-1, end - 1 - max_rows), -1):
            widest, real = max(widest, lengths[start]), real + lengths[start]
            tokens = (end - start) * widest if is_padded else real
            if tokens > MAX_TOKENS and start < end - 1:
                break
            if cost[start] + tokens + OVERHEAD_TOKENS < cost[end]:
                cost[end], starts[end] = cost[start] + tokens + OVERHEAD_TOKENS, start
    ends, end = [], len(lengths)
    while end:
        ends.append(end)
        end = starts[end]
    return ends[::-1]


def settings(config: Config, tokenizer: Any) -> dict[str, Any]:
    """Return this method's own arguments for TRL."""
    return {
        "max_length": None,
        "neftune_noise_alpha": config.neftune_alpha,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def _dataset(rows: Rows) -> Any:
    """Return rows as a Hugging Face dataset that looks each one up when it is read."""
    from datasets import Dataset

    def look_up(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        numbers = batch["line"]
        encoded = [rows.encoded[number] for number in numbers]
        columns: dict[str, list[Any]] = {
            "line": [[*rows.lines[number]] for number in numbers],
            "input_ids": [row.input_ids for row in encoded],
            "labels": [row.labels for row in encoded],
        }
        if rows.parts is not None:
            columns["position_ids"] = [_positions(rows.parts[number]) for number in numbers]
        return columns

    return Dataset.from_dict({"line": [*range(len(rows))]}).with_transform(look_up)


def _positions(lengths: Any) -> list[int]:
    return [position for length in lengths for position in range(length)]


def _collate(pad_token_id: int) -> Any:
    """Return the function that collates rows to a batch `(B, T)`, padded on the right."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = likelihood.pad(
            [row["input_ids"] for row in rows], [row["labels"] for row in rows], pad_token_id
        )
        if "position_ids" not in rows[0]:
            return batch
        # padding counts from 0 again: a row of its own, with no trained token
        longest = batch["input_ids"].size(1)
        positions = [
            [*row["position_ids"], *range(longest - len(row["position_ids"]))] for row in rows
        ]
        return {**batch, "position_ids": torch.tensor(positions)}

    return collate


TRAINER = ExactSFTTrainer
