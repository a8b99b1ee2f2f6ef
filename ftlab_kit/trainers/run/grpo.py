"""Group-relative policy optimisation: TRL's GRPOTrainer on the prompts of chats.

The model answers every prompt several times; answers with a reward above their group's mean become
likelier. The reward compares an answer with the row's reference.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from ftlab_kit.configs import Config
from ftlab_kit.trainers.run.rewards import REWARDS
from ftlab_kit.trainers.run.sampler import ShuffledSampler
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ARGUMENTS = GRPOConfig
READS_TOKENS = False  # the policy is trained on its own answers to the prompts


class ExactGRPOTrainer(ExactTrainerMixin, GRPOTrainer):  # type: ignore[misc]
    """Trains on rewards. Its batches can't be split: the answers of a group belong together."""

    def __init__(self, *, rows: Sequence[dict[str, Any]], held_out: None, **kwargs: Any) -> None:
        """Take rows as `rows` returns them, and the arguments of ExactTrainerMixin and TRL."""
        from datasets import Dataset

        self.held_out = held_out
        name = kwargs["run_state"].config.reward

        def reward(completions: Any, reference: list[str], **_: Any) -> list[float]:
            """Return the reward of each answer."""
            return [
                REWARDS[name](answer[0]["content"], expected)
                for answer, expected in zip(completions, reference, strict=True)
            ]

        reward.__name__ = name
        lengths = [sum(len(turn["content"]) for turn in row["prompt"]) for row in rows]
        super().__init__(
            lengths=lengths,
            train_dataset=Dataset.from_list(rows),
            reward_funcs=[reward],
            **kwargs,
        )

    def _get_train_sampler(self, dataset: Any = None) -> ShuffledSampler:
        config = self.run_state.config
        sampler = _GroupSampler(
            self.lengths, config.prompts_a_step, config.seed, start=self.first_step
        )
        sampler.repeats = self.args.steps_per_generation
        sampler.answers_per_prompt = config.answers_per_prompt
        return sampler

    @property
    def n_tokens(self) -> int:
        """The tokens of prompts and answers so far, as TRL counts them."""
        return int(self.state.num_input_tokens_seen)


class _GroupSampler(ShuffledSampler):
    """Yields each prompt as many times as it is answered."""

    answers_per_prompt = 1

    def __iter__(self) -> Iterator[int]:
        for row in super().__iter__():
            yield from [row] * self.answers_per_prompt


def rows(chats: Iterable[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Return the prompts of chats, each with the answer that the reward compares with."""
    return [
        {
            "line": line,
            "prompt": chat["messages"][:-1],
            "reference": chat["messages"][-1]["content"],
        }
        for line, chat in enumerate(chats, 1)
    ]


def settings(config: Config, tokenizer: Any) -> dict[str, Any]:
    """Return this method's own arguments for TRL."""
    return {
        "num_generations": config.answers_per_prompt,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "beta": config.beta or 0.0,
        "steps_per_generation": config.share // config.rows_at_once,
        "log_completions": False,
        "generation_kwargs": {"pad_token_id": tokenizer.pad_token_id},
    }


TRAINER = ExactGRPOTrainer
