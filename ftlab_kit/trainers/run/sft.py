"""Supervised fine-tuning: TRL's SFTTrainer, whose loss is computed at trained positions only."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from ftlab_kit.configs import Config
from ftlab_kit.lm import likelihood
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.trainers.run.evaluation import EvalLossMixin, in_halves
from ftlab_kit.trainers.run.rows import Rows, at_once, packed
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ARGUMENTS = SFTConfig
READS_TOKENS = True
TOKENS_AT_ONCE = 2048  # on a processor: more make no product faster, and want memory
PIECE_TOKENS = 200  # what a piece more costs, in the time that a token takes


class AnswerTrainer(EvalLossMixin, ExactTrainerMixin, SFTTrainer):  # type: ignore[misc]
    """Learns answers; packs are told apart by their position ids."""

    can_split = True

    def __init__(self, *, rows: Rows, held_out: Rows | None, **kwargs: Any) -> None:
        """Take rows and held-out rows; the rest is Steered's and TRL's."""
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
        known = {name: value for name, value in inputs.items() if name != "n_real"}
        total = model(**known, use_cache=False).loss
        count = (
            (inputs["labels"][:, 1:] != IGNORED).sum()
            if num_items_in_batch is None
            else num_items_in_batch
        )
        # the processes' gradients are averaged, and the count is of all of them
        mean = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        return mean * self.args.world_size

    def pieces(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield rows in pieces of at most so many: joined without padding where the model can.

        On a processor, unless the config says how many, they are cut where it takes the least time.
        """
        config, n_rows = self.live.config, self.count_rows(inputs)
        # NEFTune's noise is measured by a row's own length
        is_joined = config.neftune_alpha is None and likelihood.can_pack(self.model)
        is_free = config.micro_batch is None
        ends = [*range(size, n_rows, size), n_rows]
        if is_free and inputs["input_ids"].device.type == "cpu":
            ends = cut(inputs["n_real"].tolist(), size, is_padded=not is_joined)
        for start, end in zip([0, *ends], ends, strict=False):
            part = {name: value[start:end] for name, value in inputs.items()}
            n_real = part["n_real"]
            if is_joined:
                # where each row draws its own dropout, no two have a beginning in common
                joined = likelihood.pack(**part, share_prefixes=not config.adapter_dropout)
                del joined["rows"]
                yield {**joined, "n_real": n_real}
                continue
            width = int(n_real.max())
            yield {
                name: value if name == "n_real" else value[:, :width]
                for name, value in part.items()
            }

    def count_rows(self, inputs: Any) -> int:
        """Return the rows of a micro-batch, joined or not."""
        return len(inputs["n_real"])

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a micro-batch, without padding."""
        return int(inputs["n_real"].sum())

    def sums(self, numbers: Sequence[int]) -> tuple[float, float]:
        """Return the summed loss of the trained tokens of some held-out rows, and their count."""
        assert self.held_out is not None
        rows = [self.held_out.encoded[number] for number in numbers]
        pad = self.processing_class.pad_token_id
        found: list[float] = []

        def measure(batch: Sequence[int]) -> list[float]:
            return likelihood.nll(self.model, [rows[index] for index in batch], pad_token_id=pad)

        with self.accelerator.autocast():
            for batch in likelihood.batches([len(row.input_ids) for row in rows]):
                found += in_halves(batch, measure)
        return math.fsum(found), float(sum(row.n_trained for row in rows))


def rows(encoded: Sequence[Encoded], config: Config) -> Rows:
    """Return chats as a trainer sees them, packed if the config says so."""
    found = at_once(encoded)
    return packed(found, config.max_length) if config.packing else found


def cut(lengths: Sequence[int], most: int, *, is_padded: bool) -> list[int]:
    """Return where to end the pieces of rows in this order so that they take the least time.

    Args:
        lengths: Of the rows, in tokens.
        most: Rows of a piece at the most.
        is_padded: Whether every row of a piece is as wide as its longest.
    """
    best, begins = [0] + [sys.maxsize] * len(lengths), [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        widest = real = 0
        for start in range(end - 1, max(-1, end - 1 - most), -1):
            widest, real = max(widest, lengths[start]), real + lengths[start]
            tokens = (end - start) * widest if is_padded else real
            if tokens > TOKENS_AT_ONCE and start < end - 1:
                break
            if best[start] + tokens + PIECE_TOKENS < best[end]:
                best[end], begins[end] = best[start] + tokens + PIECE_TOKENS, start
    ends, end = [], len(lengths)
    while end:
        ends.append(end)
        end = begins[end]
    return ends[::-1]


def settings(config: Config, tokenizer: Any) -> dict[str, Any]:
    """Return what this method alone adds to TRL's arguments."""
    return {
        "max_length": None,
        "neftune_noise_alpha": config.neftune_alpha,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def _dataset(rows: Rows) -> Any:
    """Return rows as a dataset of `datasets`, which looks each up when it is asked for."""
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
    """Return what joins rows to a batch `(B, T)`, filled on the right."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = likelihood.pad(
            [row["input_ids"] for row in rows], [row["labels"] for row in rows], pad_token_id
        )
        if "position_ids" not in rows[0]:
            return batch
        # what fills up counts from 0 again, a row of its own that no one learns from
        longest = batch["input_ids"].size(1)
        known = [row["position_ids"] for row in rows]
        positions = [[*row, *range(longest - len(row))] for row in known]
        return {**batch, "position_ids": torch.tensor(positions)}

    return collate


TRAINER = AnswerTrainer
