"""Attention within short rows on a processor, as plain matrix products.

torch's flash attention goes through a row in blocks, which pays for long rows. In a chat's some
hundred tokens the scores of a head are small: query heads that share a key head (Ainslie et al.
2023, arXiv 2305.13245) are multiplied with it at once, without copies of it. Whatever this is not
made for (a mask, dropout, a cache, long rows, a GPU) goes to torch's.

B: rows, Q: query heads, K: key heads, T: tokens of a row, D: size of a head.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "ftlab_short_rows"
# up to where it is the faster one, forward and backward
LONGEST = {torch.float32: 384, torch.bfloat16: 1024}


def shorten(model: Any) -> None:
    """Let a model that attends by torch's own function take this one where it is the faster."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return what a layer's heads attend to, `(B, T, Q, D)`; transformers' form of the call."""
    if attention_mask is not None or not _is_short(module, query, key, value, kwargs):
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return found
    scale = kwargs.get("scaling") or query.size(-1) ** -0.5
    return ShortRows.apply(query, key, value, scale).transpose(1, 2).contiguous(), None


def _is_short(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, more: dict[str, Any]
) -> bool:
    is_causal = more.get("is_causal")
    is_plain = not more.get("dropout") and not any(
        more.get(name) is not None for name in ("position_bias", "softcap", "s_aux")
    )
    is_one_pass = 1 < query.size(2) == key.size(2) <= LONGEST.get(query.dtype, 0)
    return (
        bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        and is_plain
        and is_one_pass
        and query.dtype == key.dtype == value.dtype
        and query.size(-1) == value.size(-1)
        and query.device.type == "cpu"
    )


class ShortRows(torch.autograd.Function):  # type: ignore[misc]
    """Causal attention by products over whole rows, with the softmax kept for the backward."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> Any:
        """Return `(B, Q, T, D)` for `query (B, Q, T, D)`, `key` and `value (B, K, T, D)`."""
        n_keys, length, size = key.shape[1:]
        # heads of a group after one another: (B K, Q/K T, D)
        queries = query.reshape(len(query) * n_keys, -1, size)
        keys, values = (item.reshape(-1, length, size) for item in (key, value))
        scores = torch.bmm(queries, keys.mT).view(-1, length, length).float()
        ahead = torch.full((length, length), -torch.inf).triu(1)
        scores = torch.softmax(scores.mul_(scale).add_(ahead), -1)
        weights = scores.to(query.dtype).view(len(queries), -1, length)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape)
        return torch.bmm(weights, values).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of query, key and value."""
        queries, keys, values, weights = ctx.saved_tensors
        of_query, of_key = ctx.shapes
        grad = grads[0].reshape(queries.shape)
        of_values = torch.bmm(weights.mT, grad)
        of_weights = torch.bmm(grad, values.mT)
        slope = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        slope.mul_(ctx.scale)
        of_queries, of_keys = torch.bmm(slope, keys), torch.bmm(slope.mT, queries)
        return of_queries.view(of_query), of_keys.view(of_key), of_values.view(of_key), None
