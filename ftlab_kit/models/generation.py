"""Answers in batches: prompts of like length together, padded on the left.

A row that has ended leaves its batch, so that the long answers do not wait for the short ones. The
likeliest token is taken, or, with a temperature, one is drawn by each row's own random numbers, so
that an answer does not hang on who else is in the batch.

B: rows of a batch, T: tokens, V: vocabulary.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from ftlab_kit.models.asking import asking
from ftlab_kit.models.tokens import end_tokens, prompt

BATCH = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said: its text, its tokens, and whether it ended by itself; None if not told."""

    text: str
    n_tokens: int | None
    is_whole: bool | None


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made.

    `max_new_tokens` cuts an answer that has not ended by then; `temperature` 0 takes the likeliest
    token; after `max_seconds` no batch is begun any more.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    max_seconds: float | None = None


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    manner: Manner,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer | None]:
    """Return the model's answer to each rendered prompt, in the order of the prompts.

    Args:
        prompts: Texts that end with the template's generation prompt.
        progress: Called with prompts done and prompts in all.

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
        with asking(model), torch.inference_mode():
            made = _said(model, [tokens[row] for row in batch], ends, draws)
        texts = tokenizer.batch_decode(made, skip_special_tokens=True)
        for index, text, said in zip(batch, texts, made, strict=True):
            found[index] = Answer(text.strip(), len(said), said[-1] in ends)
        if progress:
            progress(start + len(batch), len(order))
    return found


class _Draws:
    """The next token of each row: the likeliest, or drawn by random numbers of the row's own."""

    def __init__(self, manner: Manner, numbers: Sequence[int], device: Any) -> None:
        self.manner, self.chance = manner, {}
        if manner.temperature:
            self.chance = {
                at: torch.Generator(device).manual_seed(manner.seed * 1_000_003 + number)
                for at, number in enumerate(numbers)
            }

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
    longest = max(len(row) for row in prompts)
    # what is filled up with is behind the mask and never looked at
    ids = torch.tensor([[0] * (longest - len(row)) + [*row] for row in prompts]).to(ends)  # (B, T)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts]).to(ends)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    said: list[list[int]] = [[] for _ in prompts]
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
        for row, token in zip(rows.tolist(), ids.squeeze(1).tolist(), strict=True):
            said[row].append(token)
        goes_on = ~torch.isin(ids.squeeze(1), ends)
        if not goes_on.all():
            if not goes_on.any():
                break
            left = goes_on.nonzero().squeeze(1)
            ids, mask, positions, rows = (item[left] for item in (ids, mask, positions, rows))
            cache.batch_select_indices(left)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions[:, -1:] + 1
    return said


def _cache_name(model: Any) -> str:
    """Return what transformers calls the cache in a model's forward: it has renamed it once."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = inspect.signature(type(inner).forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def replies(
    model: Any, tokenizer: Any, questions: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """Return the model's greedy answers to what a person says first, each in a chat of its own."""
    chats = [[{"role": "user", "content": text}] for text in questions]
    texts = [prompt(tokenizer, chat) for chat in chats]
    found = answers(model, tokenizer, texts, Manner(max_new_tokens=max_new_tokens))
    return [item.text for item in found if item]
