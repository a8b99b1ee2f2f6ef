"""Generate answers: in batches of prompts of similar length, or one as a stream of text.

Prompts are padded on the left. A row that has ended leaves its batch, so that no step is spent on
it while longer answers go on. Each row samples with a random generator of its own, so that an
answer does not depend on the rest of its batch.

B: rows of a batch that have not ended, T: tokens, V: vocabulary.
"""

import inspect
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from transformers import DynamicCache

from ftlab_kit.lm.adapters import base_model
from ftlab_kit.lm.generation_settings import GenerationSettings, eval_mode
from ftlab_kit.lm.tokens import end_tokens, prompt
from ftlab_kit.records import OnProgress, Progress

BATCH = 32
PARTIAL = "\ufffd"  # what the tokenizer decodes the bytes of an unfinished character to


@dataclass(frozen=True, slots=True)
class Completion:
    """A generated answer.

    Attributes:
        text: The answer, without special tokens.
        n_output_tokens: Its tokens, with the end token.
        is_complete: Whether it ended by itself, not at the limit.
        n_input_tokens: The prompt's tokens.
        seconds: The time that its whole batch took.
    """

    text: str
    n_output_tokens: int
    is_complete: bool
    n_input_tokens: int
    seconds: float = field(compare=False)


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    progress: OnProgress | None = None,
) -> list[Completion | None]:
    """Return the model's answer to each rendered prompt, in the order of the prompts.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompts: Texts that end with the template's generation prompt.
        settings: How to generate.
        progress: Called after each batch with the prompts that are answered.

    Returns:
        None for a prompt that was not reached within `settings.max_seconds`.
    """
    started = time.monotonic()
    input_ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    order = sorted(range(len(input_ids)), key=lambda index: len(input_ids[index]))
    completions: list[Completion | None] = [None] * len(input_ids)
    end_ids = torch.tensor(end_tokens(tokenizer, model), device=model.device)
    for start in range(0, len(order), BATCH):
        elapsed_s = time.monotonic() - started
        if settings.max_seconds is not None and elapsed_s > settings.max_seconds:
            break
        batch = order[start : start + BATCH]
        sampler = _Sampler(settings, batch, model.device)
        batch_started = time.perf_counter()
        with eval_mode(model), torch.inference_mode():
            outputs = _generate(model, [input_ids[row] for row in batch], end_ids, sampler)
        texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        seconds = time.perf_counter() - batch_started
        for index, text, output_ids in zip(batch, texts, outputs, strict=True):
            completions[index] = Completion(
                text.strip(),
                len(output_ids),
                output_ids[-1] in end_ids,
                len(input_ids[index]),
                seconds,
            )
        if progress:
            progress(Progress("answers", start + len(batch), len(order)))
    return completions


def stream(
    model: Any, tokenizer: Any, text: str, settings: GenerationSettings
) -> Generator[str, None, Completion]:
    """Yield the answer to a rendered prompt in pieces, as it is generated, and return it.

    The pieces joined are what `complete` returns, except for white space around it. A piece holds
    whole characters: the bytes of an unfinished one wait for the rest. Generation stops with the
    iteration.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        text: A prompt that ends with the template's generation prompt.
        settings: How to generate.
    """
    started = time.perf_counter()
    input_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    end_ids = torch.tensor(end_tokens(tokenizer, model), device=model.device)
    steps = _steps(model, [input_ids], end_ids, _Sampler(settings, [0], model.device))
    output_ids: list[int] = []
    answer = yielded = ""
    while True:
        # the caller's code runs between two pieces: it must not run in inference mode
        with eval_mode(model), torch.inference_mode():
            step = next(steps, None)
        if step is None:
            break
        output_ids += [token for _, token in step]
        # decoded as a whole each time: what a token adds depends on the tokens before it
        answer = tokenizer.decode(output_ids, skip_special_tokens=True)
        finished = answer.rstrip(PARTIAL)
        if len(finished) > len(yielded):
            yield finished[len(yielded) :]
            yielded = finished
    if len(answer) > len(yielded):
        yield answer[len(yielded) :]
    seconds = time.perf_counter() - started
    is_complete = output_ids[-1] in end_ids
    return Completion(answer.strip(), len(output_ids), is_complete, len(input_ids), seconds)


class _Sampler:
    """Chooses the next token of each row: the likeliest, or sampled by the row's own generator."""

    def __init__(self, settings: GenerationSettings, rows: Sequence[int], device: Any) -> None:
        self.settings, self.generators = settings, dict[int, torch.Generator]()
        for place, row in enumerate(rows if settings.temperature else ()):
            self.generators[place] = torch.Generator(device)
            if settings.seed is None:
                self.generators[place].seed()
            else:
                self.generators[place].manual_seed(settings.seed * 1_000_003 + row)

    def next(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the next token `(B, 1)` of rows `(B,)` with logits `(B, V)`."""
        if not self.settings.temperature:
            return logits.argmax(-1, keepdim=True)
        probabilities = torch.softmax(logits.float() / self.settings.temperature, -1)  # (B, V)
        sampled = [
            torch.multinomial(row_probabilities, 1, generator=self.generators[row])
            for row_probabilities, row in zip(probabilities, rows.tolist(), strict=True)
        ]
        return torch.stack(sampled)


def _generate(
    model: Any, prompts: Sequence[Sequence[int]], end_ids: torch.Tensor, sampler: _Sampler
) -> list[list[int]]:
    """Return the tokens of the answer to each prompt, up to an end token or the limit."""
    outputs: list[list[int]] = [[] for _ in prompts]
    for row, token in chain.from_iterable(_steps(model, prompts, end_ids, sampler)):
        outputs[row].append(token)
    return outputs


def _steps(
    model: Any, prompts: Sequence[Sequence[int]], end_ids: torch.Tensor, sampler: _Sampler
) -> Iterator[list[tuple[int, int]]]:
    """Yield, step by step, the next token of each row that has not ended, as (row, token)."""
    longest = max(len(row) for row in prompts)
    # any id will do as padding, since the mask hides it
    ids = torch.tensor([[0] * (longest - len(row)) + [*row] for row in prompts])  # (B, T)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])  # (B, T)
    ids, mask = ids.to(end_ids), mask.to(end_ids)
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # (B, T), 0 at a row's first real token
    rows = torch.arange(len(prompts), device=end_ids.device)  # (B,), those that have not ended
    cache = DynamicCache(config=model.config.get_text_config())
    cache_argument = {_cache_name(model): cache}
    for _ in range(sampler.settings.max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **cache_argument,
            logits_to_keep=1,
        ).logits  # (B, 1, V)
        ids = sampler.next(logits[:, -1], rows)  # (B, 1)
        yield [*zip(rows.tolist(), ids.squeeze(1).tolist(), strict=True)]
        goes_on = ~torch.isin(ids.squeeze(1), end_ids)  # (B,)
        if not goes_on.all():
            if not goes_on.any():
                return
            left = goes_on.nonzero().squeeze(1)
            ids, mask, positions, rows = (each[left] for each in (ids, mask, positions, rows))
            cache.batch_select_indices(left)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)  # (B, T + 1)
        positions = positions[:, -1:] + 1


def _cache_name(model: Any) -> str:
    """Return the name of the cache's argument in a model's forward: transformers renamed it."""
    parameters = inspect.signature(type(base_model(model)).forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def greedy_answers(
    model: Any, tokenizer: Any, questions: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """Return the model's greedy answer to each question, each in a chat of its own.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        questions: What a user writes first.
        max_new_tokens: An answer that has not ended by then is cut.
    """
    chats = [[{"role": "user", "content": text}] for text in questions]
    prompts = [prompt(tokenizer, chat) for chat in chats]
    settings = GenerationSettings(max_new_tokens=max_new_tokens)
    completions = complete(model, tokenizer, prompts, settings)
    return [completion.text for completion in completions if completion]
