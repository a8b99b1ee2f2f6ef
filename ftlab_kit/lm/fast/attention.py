"""Attention within short rows on a processor, as plain matrix products.

torch's flash attention goes through a row in blocks, which pays for long rows. In a chat's some
hundred tokens the scores of a head are small: query heads that share a key head (Ainslie et al.
2023, arXiv 2305.13245) are multiplied with it at once, without copies of it. Whatever this is not
made for (a mask, dropout, a cache, long rows, a GPU) goes to torch's.

Rows of unequal length may come joined to one, without padding: everything but attention goes over
their tokens as over one row's, and attention begins anew where a row begins. Rows that begin alike,
as chats with one system prompt do, need that beginning once: each later one goes on from it.
`borders` says where, in the place of a mask.

B: rows, Q: query heads, K: key heads, T: tokens of a row, D: size of a head, N: joined rows.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ftlab_kit.lm import loading

NAME = "ftlab_short_rows"
# up to where it is the faster one, forward and backward
LONGEST = {torch.float32: 384, torch.bfloat16: 1024}
PLAIN = {"full_attention", "sliding_attention"}  # layers that tell joined rows apart


def use_short_attention(model: Any) -> None:
    """Let a model that attends by torch's own function take this one where it is the faster."""
    model = loading.base_model(model)
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def joins(model: Any) -> bool:
    """Return whether a model tells rows that come as one apart by their borders.

    It does where `attend` is all that looks from one token to another: not in a model with a
    recurrent state or a convolution over time.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or PLAIN
    return (
        model.config._attn_implementation == NAME
        and bool(getattr(model, "_supports_attention_backend", False))
        and not getattr(model, "_is_stateful", False)
        and PLAIN.issuperset(kinds)
    )


def cu_seqlens(position_ids: torch.Tensor) -> torch.Tensor:
    """Return where joined rows begin, and at which position, `(1, 1, 2, N + 1)`; last, the end.

    It goes in the place of a mask: what has four dimensions transformers hands on as it is.

    Args:
        position_ids: `(1, T)`. A row begins where they do not go on. One that begins at a position
            past 0 goes on from as many tokens of the last row that began at 0.
    """
    positions = position_ids[0]
    jumps = (positions.diff() != 1).nonzero().flatten() + 1
    begins = torch.cat([jumps.new_zeros(1), jumps])
    made = [torch.cat([begins, begins.new_tensor([len(positions)])])]
    made += [torch.cat([positions[begins], begins.new_zeros(1)])]
    return torch.stack(made)[None, None]


class Span(NamedTuple):
    """A row within joined ones: from where to where, and after how many tokens from where."""

    start: int
    end: int
    root: int = 0
    before: int = 0

    @property
    def seen(self) -> int:
        """The tokens that its last one sees."""
        return self.before + self.end - self.start

    def queries(self, item: torch.Tensor) -> torch.Tensor:
        """Return what of `(B, Q, T, D)` is the row's own."""
        return item[:, :, self.start : self.end]

    def keys(self, item: torch.Tensor) -> torch.Tensor:
        """Return what of `(B, K, T, D)` the row sees."""
        own = self.queries(item)
        return torch.cat([self.shared(item), own], 2) if self.before else own

    def shared(self, item: torch.Tensor) -> torch.Tensor:
        """Return what of `(B, K, T, D)` the row goes on from."""
        return item[:, :, self.root : self.root + self.before]


def _spans(mask: torch.Tensor) -> list[Span]:
    (begins, positions), root, found = mask[0, 0].tolist(), 0, []
    for start, end, position in zip(begins, begins[1:], positions, strict=False):
        root = start if position == 0 else root
        found.append(Span(start, end, root, position))
    return found


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return what a layer's heads attend to, `(B, T, Q, D)`; transformers' form of the call."""
    is_joined = attention_mask is not None and attention_mask.dtype == torch.long
    spans = [Span(0, query.size(2))]
    if attention_mask is not None and is_joined:
        spans, attention_mask = _spans(attention_mask), None
    longest = max(span.seen for span in spans)
    if attention_mask is None and _is_short(module, query, key, value, longest, kwargs):
        scale = kwargs.get("scaling") or query.size(-1) ** -0.5
        return ShortRows.apply(query, key, value, scale, spans), None
    if not is_joined:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return found
    rows = []
    for span in spans:
        mask = _mask(span, kwargs.get("sliding_window"))
        given = (span.queries(query), span.keys(key), span.keys(value))
        rows.append(sdpa_attention_forward(module, *given, mask, **kwargs)[0])
    return torch.cat(rows, 1), None


def _mask(span: Span, window: int | None) -> torch.Tensor | None:
    """Return which of the tokens that a row sees each of its own does; None for all before it."""
    if not span.before and span.seen <= (window or span.seen):
        return None
    seen = torch.ones(span.end - span.start, span.seen, dtype=torch.bool).tril(span.before)
    return (seen.triu(span.before + 1 - window) if window else seen)[None, None]


def _is_short(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    longest: int,
    more: dict[str, Any],
) -> bool:
    is_causal = more.get("is_causal")
    is_plain = not more.get("dropout") and not any(
        more.get(name) is not None for name in ("position_bias", "softcap", "s_aux")
    )
    is_one_pass = 1 < query.size(2) == key.size(2) and longest <= LONGEST.get(query.dtype, 0)
    return (
        bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        and is_plain
        and is_one_pass
        and longest <= (more.get("sliding_window") or longest)
        and query.dtype == key.dtype == value.dtype
        and query.size(-1) == value.size(-1)
        and query.device.type == "cpu"
    )


class ShortRows(torch.autograd.Function):  # type: ignore[misc]
    """Causal attention by products over whole rows, with the softmax kept for the backward."""

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
        out, kept = query.new_empty(query.transpose(1, 2).shape), []
        for span in spans:
            row = (span.queries(query), span.keys(key), span.keys(value))
            queries, keys, values = _by_key_head(*row)
            length = span.end - span.start
            ahead = queries.new_full((length, span.seen), -torch.inf).triu_(1 + span.before)
            ahead = ahead.repeat(queries.size(1) // length, 1)
            weights = torch.baddbmm(ahead, queries, keys.mT, alpha=scale)
            weights = torch.softmax(weights, -1)  # (B K, Q/K T, T)
            found = torch.bmm(weights, values).view(row[0].shape)
            out[:, span.start : span.end] = found.transpose(1, 2)
            kept += [queries, keys, values, weights]
        ctx.save_for_backward(*kept)
        ctx.scale, ctx.spans, ctx.shapes = scale, spans, (query.shape, key.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of query, key and value."""
        (of_query, of_key), kept = ctx.shapes, iter(ctx.saved_tensors)
        made = [grads[0].new_empty(shape) for shape in (of_query, of_key, of_key)]
        for span in ctx.spans:
            queries, keys, values, weights = islice(kept, 4)
            grad = grads[0][:, span.start : span.end].transpose(1, 2).reshape(queries.shape)
            of_weights = torch.bmm(grad, values.mT)
            slope = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            slope.mul_(ctx.scale)
            own = span.queries(made[0])
            own.copy_(torch.bmm(slope, keys).view(own.shape))
            for item, found in zip(
                made[1:], (torch.bmm(slope.mT, queries), torch.bmm(weights.mT, grad)), strict=True
            ):
                own = span.queries(item)
                parts = found.view(*own.shape[:2], -1, own.size(-1))
                own.copy_(parts[:, :, span.before :])
                if span.before:
                    span.shared(item).add_(parts[:, :, : span.before])
        return *made, None, None


def _by_key_head(*row: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return queries, keys and values by key head, heads of a group after one another.

    `(B K, Q/K T, D)` and twice `(B K, T, D)`.
    """
    heads = row[1].size(0) * row[1].size(1)
    return [item.reshape(heads, -1, item.size(-1)) for item in row]
