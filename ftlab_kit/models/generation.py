"""Greedy answers in batches: prompts of like length together, padded on the left.

A row that has ended leaves its batch, so that the long answers do not wait for the short ones.

B: rows of a batch, T: tokens, V: vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from ftlab_kit.models.tokens import end_tokens, prompt

BATCH = 32


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Return the model's greedy answer to each rendered prompt, in the order of the prompts.

    Args:
        prompts: Texts that end with the template's generation prompt.
        max_new_tokens: An answer that has not ended by then is cut.
        progress: Called with prompts done and prompts in all.
    """
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    found = [""] * len(tokens)
    ends = torch.tensor(end_tokens(tokenizer, model), device=model.device)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        with torch.inference_mode():
            made = _greedy(model, [tokens[index] for index in batch], ends, max_new_tokens)
        texts = tokenizer.batch_decode(made, skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            found[index] = text.strip()
        if progress:
            progress(start + len(batch), len(order))
    model.train(was_training)
    return found


def _greedy(
    model: Any, prompts: Sequence[Sequence[int]], ends: torch.Tensor, max_new_tokens: int
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
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **cached,
            logits_to_keep=1,
        ).logits  # (B, 1, V)
        ids = logits[:, -1].argmax(-1, keepdim=True)
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
    return answers(model, tokenizer, texts, max_new_tokens=max_new_tokens)
