"""Answers to a few fixed prompts between two steps: greedy, scored, in bounded time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ftlab_kit.configs import Config
from ftlab_kit.lm import generation, tokens
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.trainers.generations import Prompt
from ftlab_kit.trainers.run import evaluation

BATCH = 4  # prompts between two looks at the clock
# a few prompts take seconds; longer than this, a job that is to pause would seem to hang
LIMIT_S = 30.0
NO_PROMPTS = (
    "no prompts to answer: these rows are texts without prompts; expected chats or preferences. "
    "Hold some out, or leave sample_every_steps empty"
)


@dataclass(slots=True)
class Generations:
    """The answer to each prompt, None where there is none; `messages` say why not."""

    answers: list[str | None] = field(default_factory=list)
    is_complete: list[bool | None] = field(default_factory=list)
    scores: list[dict[str, float | None]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def means(self) -> dict[str, float]:
        """The means over the prompts that were answered, by the names that metrics have for them.

        `sample_chrf` is from 0 to 100, `sample_tokens` an answer's length, `sample_ended` the share
        of answers that ended by themselves.
        """
        series = {
            "sample_chrf": [scores.get("chrf") for scores in self.scores],
            "sample_tokens": [scores.get("tokens") for scores in self.scores],
            "sample_ended": [None if ended is None else float(ended) for ended in self.is_complete],
        }
        measured = {
            name: [value for value in values if value is not None]
            for name, values in series.items()
        }
        return {name: fmean(values) for name, values in measured.items() if values}


def generate(model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: Config) -> Generations:
    """Return a model's greedy answers to prompts, scored, and why some are missing."""
    messages = [] if prompts else [NO_PROMPTS]
    answers: dict[int, Any] = {}
    texts = _rendered(tokenizer, prompts, config, messages)
    deadline, numbers = time.monotonic() + LIMIT_S, [*texts]
    settings = GenerationSettings(max_new_tokens=config.sample_tokens)

    def measure(batch: Sequence[int]) -> list[Any]:
        return generation.complete(model, tokenizer, [texts[at] for at in batch], settings)

    for start in range(0, len(numbers), BATCH):
        if time.monotonic() > deadline:
            n_left = len(numbers) - start
            messages.append(f"the other {n_left} were left out after {LIMIT_S:.0f} s")
            break
        batch = numbers[start : start + BATCH]
        try:
            with evaluation.preserve_rng(model):
                answers |= zip(batch, evaluation.halve_on_oom(batch, measure), strict=True)
        except evaluation.EVALUATION_ERRORS as error:
            rows = _row_names(prompts, batch)
            messages.append(f"{rows} could not be answered ({evaluation.first_line(error)})")
    return _scored(prompts, answers, messages)


def _rendered(
    tokenizer: Any, prompts: Sequence[Prompt], config: Config, messages: list[str]
) -> dict[int, str]:
    """Return prompts in the model's template; say in `messages` which ones can't be used."""
    texts = {}
    for at, prompt in enumerate(prompts):
        try:
            text = tokens.prompt(tokenizer, prompt.messages, tools=prompt.tools)
            length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        except evaluation.EVALUATION_ERRORS as error:
            messages.append(
                f"row {prompt.row} has no usable prompt ({evaluation.first_line(error)})"
            )
            continue
        if length > config.max_length:
            messages.append(f"row {prompt.row} has a prompt of {length} tokens, over max_length")
            continue
        texts[at] = text
    return texts


def _row_names(prompts: Sequence[Prompt], batch: Sequence[int]) -> str:
    numbers = ", ".join(str(prompts[at].row) for at in batch)
    return f"row{'s' if len(batch) > 1 else ''} {numbers}"


def _scored(prompts: Sequence[Prompt], answers: dict[int, Any], messages: list[str]) -> Generations:
    generations = Generations(messages=messages)
    for at, prompt in enumerate(prompts):
        answer = answers.get(at)
        generations.answers.append(answer and answer.text)
        generations.is_complete.append(answer and answer.is_complete)
        generations.scores.append({} if answer is None else _scores(prompt, answer))
    return generations


def _scores(prompt: Prompt, answer: Any) -> dict[str, float | None]:
    """Return an answer's chrF against its reference, and its length in tokens."""
    import sacrebleu

    chrf = None
    if prompt.reference.strip():  # the reference may be a tool call without text
        chrf = float(sacrebleu.sentence_chrf(answer.text, [prompt.reference]).score)
    return {"chrf": chrf, "tokens": float(answer.n_output_tokens)}
