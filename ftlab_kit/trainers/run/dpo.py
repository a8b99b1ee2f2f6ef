"""Direct preference optimisation: TRL's DPOTrainer on pairs of a chosen and a rejected answer."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from ftlab_kit.configs import Config
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.trainers.run.evaluation import EvalLossMixin, halve_on_oom, without_gathering
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ARGUMENTS = DPOConfig
READS_TOKENS = True
BETA = 0.1
MAX_EVAL_PAIRS = 8  # held-out pairs at a time, where a micro-batch has as many


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, as tokens, and their line in the dataset version."""

    line: int
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class ExactDPOTrainer(EvalLossMixin, ExactTrainerMixin, DPOTrainer):  # type: ignore[misc]
    """Trains on preferences. Without an adapter a frozen copy of the model is the reference."""

    can_split = True

    def __init__(
        self, *, rows: Sequence[Pair], held_out: Sequence[Pair] | None, **kwargs: Any
    ) -> None:
        """Take pairs as `rows` returns them, and the arguments of ExactTrainerMixin and TRL."""
        self.held_out = held_out
        super().__init__(
            lengths=[len(pair.chosen) + len(pair.rejected) for pair in rows],
            train_dataset=_dataset(rows),
            **kwargs,
        )

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset  # tokenised already, by lm/tokens.py

    def micro_batches(self, inputs: Any, size: int) -> Iterator[Any]:
        """Yield the pairs in micro-batches; the first half of a batch are the chosen answers."""
        n_pairs = self.count_rows(inputs)
        for start in range(0, n_pairs, size):
            part = slice(start, min(start + size, n_pairs))
            micro_batch = {
                name: torch.cat([value[:n_pairs][part], value[n_pairs:][part]])
                for name, value in inputs.items()
            }
            width = int(micro_batch["attention_mask"].sum(1).max())
            yield {name: value[:, :width] for name, value in micro_batch.items()}

    def count_rows(self, inputs: Any) -> int:
        """Return the pairs of a batch."""
        return len(inputs["input_ids"]) // 2

    def count_tokens(self, inputs: Any) -> int:
        """Return the real tokens of a batch, without padding."""
        return int(inputs["attention_mask"].sum())

    def eval_sums(self, numbers: Sequence[int]) -> tuple[float, float]:
        """Return the summed loss of some held-out pairs, and their number."""
        pairs = [(self.held_out or ())[number] for number in numbers]
        size, total = min(MAX_EVAL_PAIRS, self.run_state.micro_batch), 0.0
        with torch.no_grad(), without_gathering(self.accelerator):
            for start in range(0, len(pairs), size):
                total += math.fsum(halve_on_oom(pairs[start : start + size], self._losses))
        self._metrics["eval"].clear()  # TRL's own means, which are not used
        return total, float(len(pairs))

    def _losses(self, pairs: Sequence[Pair]) -> list[float]:
        """Return a list with the summed loss of a batch."""
        inputs = self._prepare_inputs(self.data_collator([_row(pair) for pair in pairs]))
        inputs.pop("line")
        with self.compute_loss_context_manager():
            return [float(self.compute_loss(self.model, inputs)) * len(pairs)]


def rows(encoded: Sequence[Encoded], config: Config) -> list[Pair]:
    """Return pairs as tokens, without those whose answers are cut off or equal.

    Args:
        encoded: For each pair the chat with the chosen answer, then the one with the rejected.
        config: The job's settings.
    """
    pairs = []
    for line in range(1, len(encoded) // 2 + 1):
        chosen, rejected = encoded[2 * line - 2], encoded[2 * line - 1]
        ids = (chosen.input_ids, rejected.input_ids)
        # both start with the prompt; the answers may share their first tokens with each other
        n_shared = len(os.path.commonprefix(ids))
        n_prompt = min(n_shared, *(_answer_start(side) for side in (chosen, rejected)))
        if n_prompt < min(map(len, ids)) and ids[0] != ids[1]:
            pairs.append(Pair(line, ids[0][:n_prompt], ids[0][n_prompt:], ids[1][n_prompt:]))
    return pairs


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
    """Return this method's own arguments for TRL."""
    beta = BETA if config.beta is None else config.beta
    return {"max_length": None, "beta": beta}


def _dataset(pairs: Sequence[Pair]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([_row(pair) for pair in pairs])


def _row(pair: Pair) -> dict[str, Any]:
    return {
        "line": pair.line,
        "prompt_ids": pair.prompt,
        "chosen_ids": pair.chosen,
        "rejected_ids": pair.rejected,
    }


TRAINER = ExactDPOTrainer
