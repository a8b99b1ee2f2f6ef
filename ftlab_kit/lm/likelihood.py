"""The likelihood of answers, computed only where an answer is.

Training, the held-out loss and perplexity share this: the backbone runs over all tokens, the
language-model head, a fifth of a small model's work, only at positions whose next token is
trained, and a chunk of them at a time, so that the logits never stand whole in memory. Where the
model tells joined rows apart, rows of unequal length are computed as one, without padding, and what
some of them begin with alike is computed once.

B: rows of a batch, T: tokens, H: hidden size, P: trained positions, V: vocabulary.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import Any

import torch
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutput

from ftlab_kit.lm import loading
from ftlab_kit.lm.fast import attention
from ftlab_kit.lm.generation_settings import eval_mode
from ftlab_kit.lm.tokens import IGNORED, Encoded

ALIKE = 8  # tokens that rows have in common before it pays to compute these once
CHUNK = 2**26  # logits at a time, 256 MiB in fp32
CHUNK_CPU = 2**24  # a processor is as fast with fewer, and its memory is the machine's


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
    inner = loading.base_model(model)
    known = {"attention_mask": attention_mask, "position_ids": position_ids}
    hidden, targets, mask = _trained(inner, input_ids, labels, **known)
    total, losses = _Head(inner).losses(hidden, targets)  # (), (P,)
    return total, _by_row(losses, _numbers(input_ids)[:, 1:][mask], len(labels))


def _trained(
    model: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the states `(P, H)` before trained tokens, these tokens `(P,)`, and where they are.

    The last is `(B, T - 1)`, true where the next token is a trained one.
    """
    if position_ids is not None and attention_mask is None and len(input_ids) == 1:
        attention_mask = attention.cu_seqlens(position_ids) if attention.joins(model) else None
    output = model.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
        return_dict=True,
    )
    mask = labels[:, 1:] != IGNORED
    return output.last_hidden_state[:, :-1][mask], labels[:, 1:][mask], mask


def _numbers(rows: torch.Tensor) -> torch.Tensor:
    """Return for each token of rows `(B, T)` the number of its row."""
    return torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)


def _by_row(values: torch.Tensor, rows: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return the sums `(B,)` of what was found at the positions of each row."""
    sums = torch.zeros(n_rows, device=values.device, dtype=torch.float32)
    return sums.index_add_(0, rows, values.float())


def join(
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    n_real: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    shares: bool = True,
) -> dict[str, torch.Tensor]:
    """Return padded rows as one without padding, and where each of them begins.

    How some rows begin alike, up to what is trained, stands there once; the loss and its gradient
    are the same. No row predicts the first token of the next.

    Args:
        n_real: `(B,)`, the real tokens of every row.
        position_ids: `(B, T)`; where these count from 0 again, a row in a row begins.
        shares: Whether a common beginning may stand there once.

    Returns:
        `input_ids`, `labels`, `position_ids`, and `rows`, the number of each token's row: `(1, T)`.
    """
    places = torch.arange(input_ids.size(1), device=input_ids.device).expand_as(input_ids)
    begins = torch.zeros_like(n_real)
    order = torch.arange(len(n_real), device=n_real.device)
    if shares and position_ids is None:
        order, begins = map(begins.new_tensor, _alike(input_ids, labels, n_real))
    is_own = (places < n_real[:, None]) & (places >= begins[:, None])
    found = {
        "input_ids": input_ids,
        "labels": labels.masked_fill(places == begins[:, None], IGNORED),
        "position_ids": places if position_ids is None else position_ids,
        "rows": _numbers(input_ids),
    }
    return {name: value[order][is_own[order]][None] for name, value in found.items()}


def _alike(
    input_ids: torch.Tensor, labels: torch.Tensor, n_real: torch.Tensor
) -> tuple[list[int], list[int]]:
    """Return rows in another order, and of each how many tokens need not stand there again.

    Rows that begin alike follow one another, in groups that leave the fewest tokens. Of a common
    beginning no token is trained, nor the next one, and a token of each row comes after it.
    """
    places = torch.arange(labels.size(1), device=labels.device)
    is_over = (labels != IGNORED) | (places >= n_real[:, None])
    most = (is_over.int().argmax(1) - 1).clamp(min=0).tolist()
    rows = [row[:end] for row, end in zip(input_ids.tolist(), most, strict=True)]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    pairs = pairwise(rows[number] for number in order)
    alike = [0, *(len(commonprefix(pair)) for pair in pairs)]  # as the row before it
    saved, groups = [0], [0]  # at the most by the first so many rows, and where the last group is
    for end in range(1, len(order) + 1):
        best, common = (saved[-1], end - 1), sys.maxsize
        for start in range(end - 2, -1, -1):
            common = min(common, alike[start + 1])
            if common < ALIKE:
                break
            best = max(best, (saved[start] + common * (end - 1 - start), start))
        saved.append(best[0])
        groups.append(best[1])
    begins, end = [0] * len(order), len(order)
    while end:
        start = groups[end]
        for number in order[start + 1 : end]:
            begins[number] = min(alike[start + 1 : end])
        end = start
    return order, begins


def answer_when_labelled(model: Any) -> None:
    """Let a model answer a call with labels by the sum of `answer_loss`.

    So that the loss is the model's own forward, which is what data-parallel wrappers and autocast
    hook into. A call without labels stays as it is.
    """
    inner = loading.base_model(model)
    plain = inner.forward

    @functools.wraps(plain)
    def forward(*args: Any, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None:
            return plain(*args, **kwargs)
        known = {name: kwargs.get(name) for name in ("attention_mask", "position_ids")}
        total, _ = answer_loss(inner, kwargs["input_ids"], labels, **known)
        return CausalLMOutput(loss=total)

    inner.forward = forward


class AnswerLoss(torch.autograd.Function):  # type: ignore[misc]
    """The head's loss with its gradient made at once, a chunk of positions at a time.

    So no logit is kept or computed twice (the way of Liger's fused linear cross-entropy, Hsu et al.
    2024, arXiv 2410.10989); whatever a head has to train gets its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Any, *weights: torch.Tensor
    ) -> Any:
        """Return the sum `()` of the losses of hidden states `(P, H)`, and each by itself `(P,)`.

        Args:
            head: Computes the logits of some positions; `weights` is what it trains.
        """
        of_hidden, of_weights = torch.empty_like(hidden), [torch.zeros_like(w) for w in weights]
        losses = hidden.new_zeros(len(targets), dtype=torch.float32)
        for part in head.parts(len(targets)):
            states = hidden[part].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(states)  # (P, V)
            logs, target = torch.log_softmax(logits.detach(), -1), targets[part, None]
            losses[part] = -logs.gather(1, target).squeeze(1)
            # softmax less one at the target, in the place of the logarithms
            slope = logs.exp_().scatter_add_(1, target, logs.new_full(target.shape, -1.0))
            slopes = torch.autograd.grad(logits, [states, *weights], slope)
            of_hidden[part] = slopes[0]
            for total, of_weight in zip(of_weights, slopes[1:], strict=True):
                total += of_weight
        ctx.save_for_backward(of_hidden, *of_weights)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the hidden states and of the head's weights."""
        of_hidden, *of_weights = (grads[0] * item for item in ctx.saved_tensors)
        return of_hidden, None, None, *of_weights


class _Head:
    """A model's language-model head, its logits shaped as the model shapes them."""

    def __init__(self, model: Any) -> None:
        self.layer = model.get_output_embeddings()
        self.scale, self.cap = _shape_of_logits(model.config)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits `(P, V)` of hidden states `(P, H)`."""
        logits: torch.Tensor = self.layer(hidden).float()
        logits = logits if self.scale == 1.0 else logits * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    def parts(self, count: int) -> Iterator[slice]:
        """Yield all positions in as few parts of about one size as memory wants."""
        weight = self.layer.weight
        size = max(64, (CHUNK if weight.is_cuda else CHUNK_CPU) // weight.size(0))
        each = math.ceil(count / max(1, math.ceil(count / size)))
        return (slice(start, start + each) for start in range(0, count, max(1, each)))

    def losses(
        self, hidden: torch.Tensor, targets: torch.Tensor, *, hits: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum `()` of the losses, and each by itself without gradient `(P,)`.

        Args:
            hits: `(P,)`, filled with where the likeliest token is the target; not while training.
        """
        if torch.is_grad_enabled():
            weights = [item for item in self.layer.parameters() if item.requires_grad]
            total, each = AnswerLoss.apply(hidden, targets, self, *weights)
            return total, each
        each = hidden.new_zeros(len(targets), dtype=torch.float32)
        for part in self.parts(len(targets)):
            logits = self(hidden[part])
            each[part] = functional.cross_entropy(logits, targets[part], reduction="none")
            if hits is not None:
                hits[part] = logits.argmax(-1) == targets[part]
        return each.sum(), each


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


def _in_order(rows: Sequence[Encoded], *, budget_tokens: int = 2048) -> Iterator[list[int]]:
    """Yield row numbers in batches of at most so many tokens, rows that begin alike together."""
    batch: list[int] = []
    tokens = 0
    for row in sorted(range(len(rows)), key=lambda index: rows[index].input_ids):
        length = len(rows[row].input_ids)
        if batch and tokens + length > budget_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += length
    if batch:
        yield batch


def pad(
    input_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Return rows of unequal length as `input_ids` and `labels` `(B, T)`, and `n_real` `(B,)`.

    They are filled on the right and need no mask: what fills up comes after all that is real, and
    no token looks ahead.
    """
    return {
        "input_ids": filled(input_ids, pad_token_id),
        "labels": filled(labels, IGNORED),
        "n_real": torch.tensor([len(row) for row in input_ids]),
    }


def filled(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of unequal length as one tensor `(B, T)`, filled on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of a row's trained tokens: their negative log-likelihood, and how many are the likeliest."""

    nll: float
    n_correct: int


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
    made = _each(model, rows, pad_token_id, progress, with_hits=False)
    return [item.nll for item in made]


def likelihoods(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_token_id: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Likelihood]:
    """Return what a model makes of every row's answers, in the order of the rows."""
    return _each(model, rows, pad_token_id, progress, with_hits=True)


def _each(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    progress: Callable[[int, int], None] | None,
    *,
    with_hits: bool,
) -> list[Likelihood]:
    result, done, inner = [Likelihood(0.0, 0)] * len(rows), 0, loading.base_model(model)
    lengths = [len(row.input_ids) for row in rows]
    with eval_mode(model), torch.inference_mode():
        for batch in _in_order(rows) if attention.joins(inner) else batches(lengths):
            taken = [rows[index] for index in batch]
            made = pad(
                [row.input_ids for row in taken], [row.labels for row in taken], pad_token_id
            )
            known = {name: value.to(model.device) for name, value in made.items()}
            if attention.joins(inner):
                known = join(**known)
                numbers = known.pop("rows")
            else:
                del known["n_real"]
                numbers = _numbers(known["input_ids"])
            hidden, targets, mask = _trained(inner, **known)
            hits = torch.zeros(len(targets), device=mask.device, dtype=torch.bool)
            _, losses = _Head(inner).losses(hidden, targets, hits=hits if with_hits else None)
            owners = numbers[:, 1:][mask]
            sums = [_by_row(item, owners, len(batch)).tolist() for item in (losses, hits)]
            for index, value, n_correct in zip(batch, *sums, strict=True):
                result[index] = Likelihood(value, int(n_correct))
            done += len(batch)
            if progress:
                progress(done, len(rows))
    return result
