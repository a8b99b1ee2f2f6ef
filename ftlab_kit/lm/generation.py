"""Answers in batches, prompts of like length together, padded on the left; or one, piece by piece.

A row that has ended leaves its batch, so that the long answers do not wait for the short ones. The
likeliest token is taken, or, with a temperature, one is drawn by each row's own random numbers, so
that an answer does not hang on who else is in the batch.

B: rows of a batch, T: tokens, V: vocabulary.
"""

import inspect
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from transformers import DynamicCache

from ftlab_kit.lm import loading
from ftlab_kit.lm.generation_settings import GenerationSettings, eval_mode
from ftlab_kit.lm.tokens import end_tokens, prompt
from ftlab_kit.records import OnProgress, Progress

BATCH = 32
HALF = "\ufffd"  # what bytes are shown as that are no whole character yet


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said: its text, its tokens, and whether it ended by itself.

    `seconds` are those of all that were asked with it.
    """

    text: str
    n_tokens: int
    is_complete: bool
    n_input_tokens: int
    seconds: float = field(compare=False)


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    manner: GenerationSettings,
    *,
    progress: OnProgress | None = None,
) -> list[Answer | None]:
    """Return the model's answer to each rendered prompt, in the order of the prompts.

    Args:
        prompts: Texts that end with the template's generation prompt.
        progress: Called with the number of prompts answered.

    Returns:
        None for a prompt for which the time did not suffice.
    """
    began = time.monotonic()
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    found: list[Answer | None] = [None] * len(tokens)
    ends = torch.tensor(end_tokens(tokenizer, model), device=model.device)
    for start in range(0, len(order), BATCH):
        if manner.max_seconds is not None and time.monotonic() - began > manner.max_seconds:
            break
        batch = order[start : start + BATCH]
        draws = _Draws(manner, batch, model.device)
        asked = time.perf_counter()
        with eval_mode(model), torch.inference_mode():
            made = _said(model, [tokens[row] for row in batch], ends, draws)
        texts = tokenizer.batch_decode(made, skip_special_tokens=True)
        seconds = time.perf_counter() - asked
        for index, text, said in zip(batch, texts, made, strict=True):
            is_complete, n_asked = said[-1] in ends, len(tokens[index])
            found[index] = Answer(text.strip(), len(said), is_complete, n_asked, seconds)
        if progress:
            progress(Progress("answers", start + len(batch), len(order)))
    return found


def stream(
    model: Any, tokenizer: Any, text: str, manner: GenerationSettings
) -> Generator[str, None, Answer]:
    """Yield the answer to a rendered prompt in pieces, as it is made, and return it.

    Joined they are what `answers` says, but for white space around it. A piece is whole characters:
    the bytes of half a one wait for the others. Whoever stops iterating stops the model.

    Args:
        text: Ends with the template's generation prompt.
    """
    began = time.perf_counter()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ends = torch.tensor(end_tokens(tokenizer, model), device=model.device)
    steps = _steps(model, [ids], ends, _Draws(manner, [0], model.device))
    made: list[int] = []
    said = told = ""
    while True:
        # between two pieces other code runs, and finds the model and torch as they were
        with eval_mode(model), torch.inference_mode():
            step = next(steps, None)
        if step is None:
            break
        made += [token for _, token in step]
        # all of it each time, a small part of a step: what a token adds hangs on those before it
        said = tokenizer.decode(made, skip_special_tokens=True)
        whole = said.rstrip(HALF)
        if len(whole) > len(told):
            yield whole[len(told) :]
            told = whole
    if len(said) > len(told):
        yield said[len(told) :]
    seconds = time.perf_counter() - began
    return Answer(said.strip(), len(made), made[-1] in ends, len(ids), seconds)


class _Draws:
    """The next token of each row: the likeliest, or drawn by random numbers of the row's own."""

    def __init__(self, manner: GenerationSettings, numbers: Sequence[int], device: Any) -> None:
        self.manner, self.chance = manner, dict[int, torch.Generator]()
        for at, number in enumerate(numbers if manner.temperature else ()):
            self.chance[at] = torch.Generator(device)
            if manner.seed is None:
                self.chance[at].seed()
            else:
                self.chance[at].manual_seed(manner.seed * 1_000_003 + number)

    def next(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return a token for each of the rows that are still speaking, `(B, 1)`."""
        if not self.manner.temperature:
            return logits.argmax(-1, keepdim=True)
        shares = torch.softmax(logits.float() / self.manner.temperature, -1)  # (B, V)
        drawn = [
            torch.multinomial(share, 1, generator=self.chance[row])
            for share, row in zip(shares, rows.tolist(), strict=True)
        ]
        return torch.stack(drawn)


def _said(
    model: Any, prompts: Sequence[Sequence[int]], ends: torch.Tensor, draws: _Draws
) -> list[list[int]]:
    """Return what a model says after each prompt, up to an end token or so many tokens."""
    said: list[list[int]] = [[] for _ in prompts]
    for row, token in chain.from_iterable(_steps(model, prompts, ends, draws)):
        said[row].append(token)
    return said


def _steps(
    model: Any, prompts: Sequence[Sequence[int]], ends: torch.Tensor, draws: _Draws
) -> Iterator[list[tuple[int, int]]]:
    """Yield, step by step, each row that still speaks with the token that it says."""
    longest = max(len(row) for row in prompts)
    # what is filled up with is behind the mask and never looked at
    ids = torch.tensor([[0] * (longest - len(row)) + [*row] for row in prompts]).to(ends)  # (B, T)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts]).to(ends)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    rows = torch.arange(len(prompts), device=ends.device)  # which are still speaking
    cache = DynamicCache(config=model.config.get_text_config())
    cached = {_cache_name(model): cache}
    for _ in range(draws.manner.max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **cached,
            logits_to_keep=1,
        ).logits  # (B, 1, V)
        ids = draws.next(logits[:, -1], rows)
        yield [*zip(rows.tolist(), ids.squeeze(1).tolist(), strict=True)]
        goes_on = ~torch.isin(ids.squeeze(1), ends)
        if not goes_on.all():
            if not goes_on.any():
                return
            left = goes_on.nonzero().squeeze(1)
            ids, mask, positions, rows = (item[left] for item in (ids, mask, positions, rows))
            cache.batch_select_indices(left)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions[:, -1:] + 1


def _cache_name(model: Any) -> str:
    """Return what transformers calls the cache in a model's forward: it has renamed it once."""
    inner = loading.base_model(model)
    names = inspect.signature(type(inner).forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def replies(
    model: Any, tokenizer: Any, questions: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """Return the model's greedy answers to what a person says first, each in a chat of its own."""
    chats = [[{"role": "user", "content": text}] for text in questions]
    texts = [prompt(tokenizer, chat) for chat in chats]
    found = answers(model, tokenizer, texts, GenerationSettings(max_new_tokens=max_new_tokens))
    return [item.text for item in found if item]
