"""Attention within short sequences on a processor, as plain matrix products.

torch's flash attention goes through a sequence in blocks, which pays for long ones. In a chat of
some hundred tokens a head's scores are small: all query heads that share a key head (Ainslie et al.
2023, arXiv 2305.13245) are multiplied with it at once, without copying it. Anything else (a mask,
dropout, a cache, long sequences, a GPU) goes to torch's own attention.

Sequences of unequal length may be packed into one row without padding: every layer but attention
treats them as one sequence, and attention starts anew at each boundary. Sequences with a shared
prefix, such as chats with one system prompt, store that prefix once; the later ones attend to the
first one's. `cu_seqlens` encodes the boundaries and takes the place of a mask.

B: batch, Q: query heads, K: key heads, T: tokens, S: tokens that one sequence attends to,
D: size of a head, N: packed sequences.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ftlab_kit.lm.adapters import base_model

NAME = "ftlab_short_attention"
# the longest sequence for which this is faster than torch's own, forward and backward
MAX_LENGTH = {torch.float32: 384, torch.bfloat16: 1024}
PACKABLE = {"full_attention", "sliding_attention"}  # layer types that respect the boundaries


def use_short_attention(model: Any) -> None:
    """Let a model that uses torch's own attention use this one where it is faster."""
    model = base_model(model)
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def can_pack(model: Any) -> bool:
    """Return whether a model keeps packed sequences apart by `cu_seqlens`.

    It does where `attend` is all that looks from one token to another: not in a model with a
    recurrent state or a convolution over time.
    """
    layer_types = getattr(model.config.get_text_config(), "layer_types", None) or PACKABLE
    return (
        model.config._attn_implementation == NAME
        and bool(getattr(model, "_supports_attention_backend", False))
        and not getattr(model, "_is_stateful", False)
        and PACKABLE.issuperset(layer_types)
    )


def cu_seqlens(position_ids: torch.Tensor) -> torch.Tensor:
    """Return the cumulative sequence lengths of a packed row and each one's first position.

    The result `(1, 1, 2, N + 1)` goes in the place of a mask: transformers passes a mask of four
    dimensions on unchanged.

    Args:
        position_ids: `(1, T)`. A sequence starts wherever positions don't count on. One that starts
            at a position p > 0 has a shared prefix: the first p tokens of the last sequence that
            started at 0.
    """
    positions = position_ids[0]  # (T,)
    jumps = (positions.diff() != 1).nonzero().flatten() + 1
    starts = torch.cat([jumps.new_zeros(1), jumps])  # (N,)
    boundaries = torch.cat([starts, starts.new_tensor([len(positions)])])  # (N + 1,)
    first_positions = torch.cat([positions[starts], starts.new_zeros(1)])  # (N + 1,)
    return torch.stack([boundaries, first_positions])[None, None]


class Span(NamedTuple):
    """One packed sequence: its own tokens, and the prefix that it shares with an earlier one."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_length: int = 0

    @property
    def n_seen(self) -> int:
        """The tokens that its last token attends to."""
        return self.prefix_length + self.end - self.start

    def own(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the sequence's own tokens of `(B, heads, T, D)`."""
        return heads[:, :, self.start : self.end]

    def prefix(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the shared prefix of `(B, K, T, D)`."""
        return heads[:, :, self.prefix_start : self.prefix_start + self.prefix_length]

    def seen(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the tokens of `(B, K, T, D)` that the sequence attends to: `(B, K, S, D)`."""
        own = self.own(heads)
        return torch.cat([self.prefix(heads), own], 2) if self.prefix_length else own


def _spans(boundaries: torch.Tensor) -> list[Span]:
    """Return the sequences that `cu_seqlens` encodes."""
    (starts, positions), prefix_start, spans = boundaries[0, 0].tolist(), 0, []
    for start, end, position in zip(starts, starts[1:], positions, strict=False):
        prefix_start = start if position == 0 else prefix_start
        spans.append(Span(start, end, prefix_start, position))
    return spans


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return a layer's attention output `(B, T, Q, D)`, with the signature that transformers calls.

    Args:
        module: The attention layer.
        query: `(B, Q, T, D)`.
        key: `(B, K, T, D)`.
        value: `(B, K, T, D)`.
        attention_mask: A mask, None, or what `cu_seqlens` returns.
        **kwargs: What the layer passes on: scaling, dropout, sliding_window and others.
    """
    is_packed = attention_mask is not None and attention_mask.dtype == torch.long
    spans = [Span(0, query.size(2))]
    if attention_mask is not None and is_packed:
        spans, attention_mask = _spans(attention_mask), None
    longest = max(span.n_seen for span in spans)
    if attention_mask is None and _is_short(module, query, key, value, longest, kwargs):
        scale = kwargs.get("scaling") or query.size(-1) ** -0.5
        return ShortAttention.apply(query, key, value, scale, spans), None
    if not is_packed:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return output
    outputs = []
    for span in spans:
        mask = _mask(span, kwargs.get("sliding_window"))
        sequence = (span.own(query), span.seen(key), span.seen(value))
        outputs.append(sdpa_attention_forward(module, *sequence, mask, **kwargs)[0])
    return torch.cat(outputs, 1), None


def _mask(span: Span, window: int | None) -> torch.Tensor | None:
    """Return what each of a sequence's own tokens attends to, `(1, 1, T, S)`; None if causal."""
    if not span.prefix_length and span.n_seen <= (window or span.n_seen):
        return None
    shape = (span.end - span.start, span.n_seen)
    is_seen = torch.ones(shape, dtype=torch.bool).tril(span.prefix_length)
    return (is_seen.triu(span.prefix_length + 1 - window) if window else is_seen)[None, None]


def _is_short(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    longest: int,
    options: dict[str, Any],
) -> bool:
    """Return whether `ShortAttention` computes this call, and faster than torch's attention."""
    is_causal = options.get("is_causal")
    is_plain = not options.get("dropout") and not any(
        options.get(name) is not None for name in ("position_bias", "softcap", "s_aux")
    )
    # one token, or more keys than queries, means a cache
    is_one_pass = 1 < query.size(2) == key.size(2) and longest <= MAX_LENGTH.get(query.dtype, 0)
    return (
        bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        and is_plain
        and is_one_pass
        and longest <= (options.get("sliding_window") or longest)
        and query.dtype == key.dtype == value.dtype
        and query.size(-1) == value.size(-1)
        and query.device.type == "cpu"
    )


class ShortAttention(torch.autograd.Function):  # type: ignore[misc]
    """Causal attention by products over whole sequences; the softmax is stored for the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        spans: Sequence[Span],
    ) -> Any:
        """Return `(B, T, Q, D)` for `query (B, Q, T, D)`, `key` and `value (B, K, T, D)`."""
        # (B, T, Q, D) in memory, as the layer's output projection reads it
        out, saved = query.new_empty(query.transpose(1, 2).shape), []
        for span in spans:
            own = span.own(query)  # (B, Q, T, D)
            queries, keys, values = _by_key_head(own, span.seen(key), span.seen(value))
            length = span.end - span.start
            future = queries.new_full((length, span.n_seen), -torch.inf)
            future = future.triu_(1 + span.prefix_length)  # (T, S), every prefix token is past
            future = future.repeat(queries.size(1) // length, 1)  # (Q/K T, S)
            # mask, scale and product in one call: the scores are written once
            scores = torch.baddbmm(future, queries, keys.mT, alpha=scale)  # (B K, Q/K T, S)
            weights = torch.softmax(scores, -1)
            output = torch.bmm(weights, values).view(own.shape)  # (B, Q, T, D)
            out[:, span.start : span.end] = output.transpose(1, 2)
            saved += [queries, keys, values, weights]
        ctx.save_for_backward(*saved)
        ctx.scale, ctx.spans, ctx.shapes = scale, spans, (query.shape, key.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of query, key and value."""
        (query_shape, key_shape), saved = ctx.shapes, iter(ctx.saved_tensors)
        grad_query = grads[0].new_empty(query_shape)  # (B, Q, T, D)
        grad_key, grad_value = (grads[0].new_empty(key_shape) for _ in range(2))  # (B, K, T, D)
        for span in ctx.spans:
            queries, keys, values, weights = islice(saved, 4)
            grad = grads[0][:, span.start : span.end].transpose(1, 2).reshape(queries.shape)
            grad_weights = torch.bmm(grad, values.mT)  # (B K, Q/K T, S)
            # the softmax's own backward, in one pass instead of three
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_scores.mul_(ctx.scale)
            own = span.own(grad_query)
            own.copy_(torch.bmm(grad_scores, keys).view(own.shape))
            for total, grad_seen in (
                (grad_key, torch.bmm(grad_scores.mT, queries)),  # (B K, S, D)
                (grad_value, torch.bmm(weights.mT, grad)),
            ):
                own = span.own(total)
                seen = grad_seen.view(*own.shape[:2], -1, own.size(-1))  # (B, K, S, D)
                own.copy_(seen[:, :, span.prefix_length :])
                if span.prefix_length:
                    # the first sequence has written its own already; each sharer adds to the prefix
                    span.prefix(total).add_(seen[:, :, : span.prefix_length])
        return grad_query, grad_key, grad_value, None, None


def _by_key_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries `(B K, Q/K T, D)`, keys and values `(B K, S, D)` of each key head.

    The query heads of a group follow one another, so that one product serves all of them.
    """
    n_key_heads = key.size(0) * key.size(1)
    queries, keys, values = (
        heads.reshape(n_key_heads, -1, heads.size(-1)) for heads in (query, key, value)
    )
    return queries, keys, values
