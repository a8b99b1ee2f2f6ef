"""The likelihood of answers, computed only where an answer is.

Training, the held-out loss and perplexity share this: the backbone runs over all tokens, the
language-model head, a fifth of a small model's work, only at positions whose next token is
trained, and a chunk of them at a time, so that the logits never stand whole in memory.

B: rows of a batch, T: tokens, H: hidden size, P: trained positions, V: vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from ftlab_kit.models.tokens import IGNORED, Encoded

CHUNK = 2**26  # logits at a time, 256 MiB in fp32


def answer_loss(
    model: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed negative log-likelihood of the trained tokens, and a row's own sums.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        input_ids: `(B, T)`.
        labels: `(B, T)`, IGNORED where not trained.
        attention_mask: `(B, T)`, 0 on padding.
        position_ids: `(B, T)` instead of a mask, for packs: where they begin again at 0, attention
            begins anew.

    Returns:
        The sum, `()`, and the sums by row without gradient, `(B,)`.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    output = model.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
        return_dict=True,
    )
    targets = labels[:, 1:]
    mask = targets != IGNORED
    hidden = output.last_hidden_state[:, :-1][mask]  # (P, H)
    losses = _token_losses(model, hidden, targets[mask])  # (P,)
    rows = torch.arange(labels.size(0), device=labels.device)[:, None].expand_as(mask)[mask]
    sums = torch.zeros(labels.size(0), device=labels.device, dtype=torch.float32)
    return losses.sum(), sums.index_add_(0, rows, losses.detach())


def answer_when_labelled(model: Any) -> None:
    """Let a model answer a call with labels by the sum of `answer_loss`.

    So that the loss is the model's own forward, which is what data-parallel wrappers and autocast
    hook into. A call without labels stays as it is.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain = inner.forward

    @functools.wraps(plain)
    def forward(*args: Any, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None:
            return plain(*args, **kwargs)
        known = {name: kwargs.get(name) for name in ("attention_mask", "position_ids")}
        total, _ = answer_loss(inner, kwargs["input_ids"], labels, **known)
        return CausalLMOutput(loss=total)

    inner.forward = forward


def _token_losses(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the losses `(P,)` of hidden states `(P, H)` against targets `(P,)`."""
    head, scale, cap = model.get_output_embeddings(), *_shape_of_logits(model.config)

    def losses(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = head(part).float() * scale  # (P, V)
        logits = cap * torch.tanh(logits / cap) if cap else logits
        return functional.cross_entropy(logits, target, reduction="none")

    size = max(64, CHUNK // head.weight.size(0))
    if len(targets) <= size:
        return losses(hidden, targets)
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat(
        [checkpoint(losses, part, target, use_reentrant=False) for part, target in parts]
    )


def _shape_of_logits(config: Any) -> tuple[float, float | None]:
    """Return the factor and the soft cap that some families put on their logits."""
    text = config.get_text_config()
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(text, name, None) is not None:
            return float(getattr(text, name)), None
    if getattr(text, "logits_scaling", None) is not None:
        return 1 / float(text.logits_scaling), None
    return 1.0, getattr(text, "final_logit_softcapping", None)


def batches(lengths: Sequence[int], *, budget_tokens: int = 2048) -> Iterator[list[int]]:
    """Yield row numbers in batches of like length, padding included at most the budget."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[row] > budget_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of unequal length as one tensor `(B, T)`, filled on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def nll(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_token_id: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Return the summed negative log-likelihood of every row's answers, in the order of the rows.

    Args:
        rows: Chats as `tokens.encode` makes them.
        progress: Called with rows done and rows in all.
    """
    result, done = [0.0] * len(rows), 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in batches([len(row.input_ids) for row in rows]):
            ids = pad([rows[index].input_ids for index in batch], pad_token_id)
            mask = pad([[1] * len(rows[index].input_ids) for index in batch], 0)
            labels = pad([rows[index].labels for index in batch], IGNORED)
            device = model.device
            _, sums = answer_loss(
                model, ids.to(device), labels.to(device), attention_mask=mask.to(device)
            )
            for index, value in zip(batch, sums.tolist(), strict=True):
                result[index] = value
            done += len(batch)
            if progress:
                progress(done, len(rows))
    model.train(was_training)
    return result
