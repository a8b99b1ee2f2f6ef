"""Direct preference optimisation: TRL's DPOTrainer on pairs of a better and a worse answer."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from ftlab_kit.configs import Config
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.trainers.run.evaluation import EvalLossMixin, alone, in_halves
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ARGUMENTS = DPOConfig
READS_TOKENS = True
BETA = 0.1
PAIRS_AT_ONCE = 8  # of the held-out ones, where a step learns from as many at once


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, as tokens, and their line in the dataset version."""

    line: int
    prompt: list[int]
    better: list[int]
    worse: list[int]


class PreferenceTrainer(EvalLossMixin, ExactTrainerMixin, DPOTrainer):  # type: ignore[misc]
    """Learns which of two answers is better. Without an adapter a frozen copy is the reference."""

    can_split = True

    def __init__(
        self, *, rows: Sequence[Pair], held_out: Sequence[Pair] | None, **kwargs: Any
    ) -> None:
        """Take pairs as `rows` makes them; the rest is Steered's and TRL's."""
        self.held_out = held_out
        super().__init__(
            lengths=[len(pair.better) + len(pair.worse) for pair in rows],
            train_dataset=_dataset(rows),
            **kwargs,
        )

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset  # tokens already, by the one rule of models/tokens.py

    def pieces(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield pairs in pieces; the better answers are the first half of a micro-batch."""
        n_pairs = self.count_rows(inputs)
        for start in range(0, n_pairs, size):
            part = slice(start, min(start + size, n_pairs))
            cut = {
                name: torch.cat([value[:n_pairs][part], value[n_pairs:][part]])
                for name, value in inputs.items()
            }
            width = int(cut["attention_mask"].sum(1).max())
            yield {name: value[:, :width] for name, value in cut.items()}

    def count_rows(self, inputs: Any) -> int:
        """Return the pairs of a micro-batch."""
        return len(inputs["input_ids"]) // 2

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a micro-batch, without padding."""
        return int(inputs["attention_mask"].sum())

    def sums(self, numbers: Sequence[int]) -> tuple[float, float]:
        """Return the summed loss of some held-out pairs, and how many they are."""
        assert self.held_out is not None
        pairs = [self.held_out[number] for number in numbers]
        size, total = min(PAIRS_AT_ONCE, self.live.micro_batch), 0.0
        with torch.no_grad(), alone(self.accelerator):
            for start in range(0, len(pairs), size):
                total += math.fsum(in_halves(pairs[start : start + size], self._losses))
        self._metrics["eval"].clear()  # TRL's means, which nothing here reads
        return total, float(len(pairs))

    def _losses(self, pairs: Sequence[Pair]) -> list[float]:
        """Return the summed loss of a batch, as the one number of a list."""
        inputs = self._prepare_inputs(self.data_collator([_row(pair) for pair in pairs]))
        inputs.pop("line")
        with self.compute_loss_context_manager():
            return [float(self.compute_loss(self.model, inputs)) * len(pairs)]


def rows(encoded: Sequence[Encoded], config: Config) -> list[Pair]:
    """Return pairs as tokens, without those whose answers are cut away or alike.

    Args:
        encoded: Of each pair the chat with the better answer, then the one with the worse.
    """
    found = []
    for line in range(1, len(encoded) // 2 + 1):
        better, worse = encoded[2 * line - 2], encoded[2 * line - 1]
        ids = (better.input_ids, worse.input_ids)
        # both begin with the prompt and differ in what is answered
        alike = len(os.path.commonprefix(ids))
        n_prompt = min(alike, *(_answer_start(side) for side in (better, worse)))
        if n_prompt < min(map(len, ids)) and ids[0] != ids[1]:
            found.append(Pair(line, ids[0][:n_prompt], ids[0][n_prompt:], ids[1][n_prompt:]))
    return found


def _answer_start(row: Encoded) -> int:
    """Return where the last answer of a row begins."""
    trained = [label != IGNORED for label in row.labels]
    at = len(trained)
    while at and not trained[at - 1]:
        at -= 1
    while at and trained[at - 1]:
        at -= 1
    return at


def settings(config: Config, tokenizer: Any) -> dict[str, Any]:
    """Return what this method alone adds to TRL's arguments."""
    beta = BETA if config.beta is None else config.beta
    return {"max_length": None, "beta": beta}


def _dataset(pairs: Sequence[Pair]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([_row(pair) for pair in pairs])


def _row(pair: Pair) -> dict[str, Any]:
    return {
        "line": pair.line,
        "prompt_ids": pair.prompt,
        "chosen_ids": pair.better,
        "rejected_ids": pair.worse,
    }


TRAINER = PreferenceTrainer
