"""Greedy answers in batches: prompts of like length together, padded on the left.

B: rows of a batch, T: tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

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
    ends = end_tokens(tokenizer, model)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        longest = max(len(tokens[index]) for index in batch)
        pads = [longest - len(tokens[index]) for index in batch]
        filled = [
            [tokenizer.pad_token_id] * n + tokens[index]
            for n, index in zip(pads, batch, strict=True)
        ]
        mask = [[0] * n + [1] * (longest - n) for n in pads]
        with torch.inference_mode():
            made = model.generate(
                input_ids=torch.tensor(filled, device=model.device),  # (B, T)
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends,
            )
        texts = tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            found[index] = text.strip()
        if progress:
            progress(start + len(batch), len(order))
    model.train(was_training)
    return found


def replies(
    model: Any, tokenizer: Any, questions: Sequence[str], *, max_new_tokens: int
) -> list[str]:
    """Return the model's greedy answers to what a person says first, each in a chat of its own."""
    chats = [[{"role": "user", "content": text}] for text in questions]
    texts = [prompt(tokenizer, chat) for chat in chats]
    return answers(model, tokenizer, texts, max_new_tokens=max_new_tokens)
