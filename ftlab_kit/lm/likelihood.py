"""The loss of answers, computed only where a token is trained.

Training, the held-out loss and perplexity share this. The backbone runs over all tokens. The
language-model head, a fifth of a small model's work, runs only at positions whose next token is
trained, a chunk of them at a time, so that the logits of a batch never stand in memory as a whole.
Where the model can keep packed sequences apart, rows of unequal length are packed into one without
padding, and a prefix that some of them share is computed once.

B: rows of a batch, T: tokens, H: hidden size, P: trained positions, V: vocabulary.
"""

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import Any

import torch
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutput

from ftlab_kit.lm.adapters import base_model
from ftlab_kit.lm.fast import attention
from ftlab_kit.lm.generation_settings import eval_mode
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.records import OnProgress, Progress

MIN_SHARED = 8  # the shortest prefix that pays to be computed once
CHUNK = 2**26  # logits at a time, 256 MiB in fp32
CHUNK_CPU = 2**24  # a processor is as fast with fewer, and they take the machine's own memory


def summed_loss(
    model: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed negative log-likelihood of the trained tokens, and each row's sum.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        input_ids: `(B, T)`.
        labels: `(B, T)`, IGNORED where not trained.
        attention_mask: `(B, T)`, 0 on padding.
        position_ids: `(B, T)` instead of a mask, for packed rows: where positions start again,
            attention starts anew.

    Returns:
        The sum, `()`, and the sums by row without gradient, `(B,)`.
    """
    inner = base_model(model)
    places = {"attention_mask": attention_mask, "position_ids": position_ids}
    hidden, targets, mask = _trained_positions(inner, input_ids, labels, **places)
    total, losses = _Head(inner).losses(hidden, targets)  # (), (P,)
    return total, _sum_by_row(losses, _row_numbers(input_ids)[:, 1:][mask], len(labels))


def can_pack(model: Any) -> bool:
    """Return whether a model computes packed sequences as it computes each alone.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
    """
    return attention.can_pack(base_model(model))


def _trained_positions(
    model: Any,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the hidden states `(P, H)` that predict trained tokens, and these tokens `(P,)`.

    Third comes the mask `(B, T - 1)` of their positions: true where the next token is trained.
    """
    if position_ids is not None and attention_mask is None and len(input_ids) == 1:
        attention_mask = attention.cu_seqlens(position_ids) if attention.can_pack(model) else None
    # the backbone alone: the head would compute logits for every token
    output = model.base_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=False,
        return_dict=True,
    )
    mask = labels[:, 1:] != IGNORED  # (B, T - 1): position t predicts token t + 1
    return output.last_hidden_state[:, :-1][mask], labels[:, 1:][mask], mask


def _row_numbers(rows: torch.Tensor) -> torch.Tensor:
    """Return the number of its row for each token of rows `(B, T)`."""
    return torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)


def _sum_by_row(values: torch.Tensor, rows: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Return each row's sum `(B,)` of values `(P,)`, whose row numbers are `(P,)`."""
    sums = torch.zeros(n_rows, device=values.device, dtype=torch.float32)
    return sums.index_add_(0, rows, values.float())


def pack(
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    n_real: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    share_prefixes: bool = True,
) -> dict[str, torch.Tensor]:
    """Return padded rows packed into one without padding.

    A prefix that rows share, up to where training starts, is stored once; the loss and its gradient
    stay the same. No row predicts the first token of the next.

    Args:
        input_ids: `(B, T)`.
        labels: `(B, T)`, IGNORED where not trained.
        n_real: `(B,)`, the real tokens of every row.
        position_ids: `(B, T)` of rows that are packs already: a sequence starts where they start
            again at 0.
        share_prefixes: Whether a shared prefix may be stored once.

    Returns:
        `input_ids`, `labels`, `position_ids`, and `rows`, the number of each token's row: `(1, T)`
        with T now the tokens that are left.
    """
    places = torch.arange(input_ids.size(1), device=input_ids.device).expand_as(input_ids)  # (B, T)
    starts = torch.zeros_like(n_real)  # (B,), the first token of each row that is stored
    order = torch.arange(len(n_real), device=n_real.device)
    if share_prefixes and position_ids is None:
        order, starts = map(starts.new_tensor, _share_prefixes(input_ids, labels, n_real))
    is_stored = (places < n_real[:, None]) & (places >= starts[:, None])  # (B, T)
    columns = {
        "input_ids": input_ids,
        # the token before it in the pack belongs to another row and must not predict it
        "labels": labels.masked_fill(places == starts[:, None], IGNORED),
        "position_ids": places if position_ids is None else position_ids,
        "rows": _row_numbers(input_ids),
    }
    return {name: value[order][is_stored[order]][None] for name, value in columns.items()}


def _share_prefixes(
    input_ids: torch.Tensor, labels: torch.Tensor, n_real: torch.Tensor
) -> tuple[list[int], list[int]]:
    """Return an order of the rows, and how many of each row's first tokens need not be stored.

    Rows with a shared prefix follow one another, in the groups that leave the fewest tokens. In a
    shared prefix neither a token nor the one after it is trained, and each row goes on after it.
    """
    places = torch.arange(labels.size(1), device=labels.device)
    is_over = (labels != IGNORED) | (places >= n_real[:, None])  # (B, T)
    # up to one before the first trained token, whose loss needs the hidden state before it
    limits = (is_over.int().argmax(1) - 1).clamp(min=0).tolist()
    rows = [row[:limit] for row, limit in zip(input_ids.tolist(), limits, strict=True)]
    order = sorted(range(len(rows)), key=rows.__getitem__)  # shared prefixes become neighbours
    pairs = pairwise(rows[number] for number in order)
    shared = [0, *(len(commonprefix(pair)) for pair in pairs)]  # with the row before it
    # dynamic programming over the sorted rows: saved[n] is the most tokens that the first n rows
    # can save, and groups[n] is where the last of their groups starts
    saved, groups = [0], [0]
    for end in range(1, len(order) + 1):
        best, prefix = (saved[-1], end - 1), sys.maxsize
        for start in range(end - 2, -1, -1):
            prefix = min(prefix, shared[start + 1])
            if prefix < MIN_SHARED:
                break
            best = max(best, (saved[start] + prefix * (end - 1 - start), start))
        saved.append(best[0])
        groups.append(best[1])
    starts, end = [0] * len(order), len(order)
    while end:
        start = groups[end]
        for number in order[start + 1 : end]:
            starts[number] = min(shared[start + 1 : end])
        end = start
    return order, starts


def use_summed_loss(model: Any) -> None:
    """Let a model return `summed_loss` as its loss when it is called with labels.

    The loss then comes from the model's own forward, into which data-parallel wrappers and autocast
    hook. A call without labels stays as it is.
    """
    inner = base_model(model)
    plain = inner.forward

    @functools.wraps(plain)
    def forward(*args: Any, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None:
            return plain(*args, **kwargs)
        places = {name: kwargs.get(name) for name in ("attention_mask", "position_ids")}
        total, _ = summed_loss(inner, kwargs["input_ids"], labels, **places)
        return CausalLMOutput(loss=total)

    inner.forward = forward


class FusedLinearCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    """Head and cross-entropy in one, with the gradient computed in the forward, chunk by chunk.

    So no logit is stored or computed twice, as in Liger's fused linear cross-entropy (Hsu et al.
    2024, arXiv 2410.10989). Whatever the head has to train gets its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Any, *weights: torch.Tensor
    ) -> Any:
        """Return the sum `()` of the losses, and each position's loss `(P,)` without gradient.

        Args:
            ctx: Autograd's context.
            hidden: Hidden states `(P, H)`.
            targets: The tokens that they should predict, `(P,)`.
            head: Computes the logits of some positions.
            weights: What the head has to train.
        """
        grad_hidden, grad_weights = torch.empty_like(hidden), [torch.zeros_like(w) for w in weights]
        losses = hidden.new_zeros(len(targets), dtype=torch.float32)
        for chunk in head.chunks(len(targets)):
            states = hidden[chunk].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(states)  # (P, V) of the chunk
            log_probs, target = torch.log_softmax(logits.detach(), -1), targets[chunk, None]
            losses[chunk] = -log_probs.gather(1, target).squeeze(1)
            # d loss / d logits = softmax - one_hot(target), written over the log-probabilities
            minus_one = log_probs.new_full(target.shape, -1.0)
            grad_logits = log_probs.exp_().scatter_add_(1, target, minus_one)
            grads = torch.autograd.grad(logits, [states, *weights], grad_logits)
            grad_hidden[chunk] = grads[0]
            for total, grad_weight in zip(grad_weights, grads[1:], strict=True):
                total += grad_weight
        ctx.save_for_backward(grad_hidden, *grad_weights)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the hidden states and of the head's weights."""
        grad_hidden, *grad_weights = (grads[0] * grad for grad in ctx.saved_tensors)
        return grad_hidden, None, None, *grad_weights


class _Head:
    """A model's language-model head, with the scale and soft cap that the model puts on logits."""

    def __init__(self, model: Any) -> None:
        self.layer = model.get_output_embeddings()
        self.scale, self.cap = _scale_and_cap(model.config)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits `(P, V)` of hidden states `(P, H)`."""
        logits: torch.Tensor = self.layer(hidden).float()
        logits = logits if self.scale == 1.0 else logits * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    def chunks(self, count: int) -> Iterator[slice]:
        """Yield all positions in as few chunks of about one size as fit in memory."""
        weight = self.layer.weight  # (V, H)
        limit = max(64, (CHUNK if weight.is_cuda else CHUNK_CPU) // weight.size(0))
        size = math.ceil(count / max(1, math.ceil(count / limit)))
        return (slice(start, start + size) for start in range(0, count, max(1, size)))

    def losses(
        self, hidden: torch.Tensor, targets: torch.Tensor, *, is_correct: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum `()` of the losses, and each position's loss `(P,)` without gradient.

        Args:
            hidden: `(P, H)`.
            targets: `(P,)`.
            is_correct: `(P,)`, filled with whether the likeliest token is the target; only without
                gradients.
        """
        if torch.is_grad_enabled():
            weights = [weight for weight in self.layer.parameters() if weight.requires_grad]
            total, losses = FusedLinearCrossEntropy.apply(hidden, targets, self, *weights)
            return total, losses
        losses = hidden.new_zeros(len(targets), dtype=torch.float32)
        for chunk in self.chunks(len(targets)):
            logits = self(hidden[chunk])  # (P, V) of the chunk
            losses[chunk] = functional.cross_entropy(logits, targets[chunk], reduction="none")
            if is_correct is not None:
                is_correct[chunk] = logits.argmax(-1) == targets[chunk]
        return losses.sum(), losses


def _scale_and_cap(config: Any) -> tuple[float, float | None]:
    """Return the factor and the soft cap that some families put on their logits."""
    text = config.get_text_config()
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(text, name, None) is not None:
            return float(getattr(text, name)), None
    if getattr(text, "logits_scaling", None) is not None:
        return 1 / float(text.logits_scaling), None
    return 1.0, getattr(text, "final_logit_softcapping", None)


def batches(lengths: Sequence[int], *, budget_tokens: int = 2048) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, within the budget with padding included.

    Args:
        lengths: Of the rows, in tokens.
        budget_tokens: Of a batch; a longer row is a batch of its own.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[row] > budget_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _packed_batches(rows: Sequence[Encoded], *, budget_tokens: int = 2048) -> Iterator[list[int]]:
    """Yield row numbers in batches within the budget, with rows that share a prefix together."""
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

    Rows are padded on the right and need no mask: padding comes after every real token, and no
    token attends to a later one.
    """
    return {
        "input_ids": pad_right(input_ids, pad_token_id),
        "labels": pad_right(labels, IGNORED),
        "n_real": torch.tensor([len(row) for row in input_ids]),
    }


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of unequal length as one tensor `(B, T)`, padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The negative log-likelihood of a row's trained tokens, and how many are the likeliest."""

    nll: float
    n_correct: int


def nll(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_token_id: int,
    progress: OnProgress | None = None,
) -> list[float]:
    """Return the summed negative log-likelihood of every row's answers, in the order of the rows.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        rows: Chats as `tokens.encode` returns them.
        pad_token_id: The tokenizer's.
        progress: Called after each batch with the rows that are done.
    """
    per_row = _per_row(model, rows, pad_token_id, progress, with_correct=False)
    return [row.nll for row in per_row]


def likelihoods(
    model: Any,
    rows: Sequence[Encoded],
    *,
    pad_token_id: int,
    progress: OnProgress | None = None,
) -> list[Likelihood]:
    """Return the likelihood of every row's answers, in the order of the rows.

    Args:
        model: A causal language model of transformers, with or without a PEFT adapter.
        rows: Chats as `tokens.encode` returns them.
        pad_token_id: The tokenizer's.
        progress: Called after each batch with the rows that are done.
    """
    return _per_row(model, rows, pad_token_id, progress, with_correct=True)


def _per_row(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    progress: OnProgress | None,
    *,
    with_correct: bool,
) -> list[Likelihood]:
    likelihoods, done, inner = [Likelihood(0.0, 0)] * len(rows), 0, base_model(model)
    is_packed = attention.can_pack(inner)
    lengths = [len(row.input_ids) for row in rows]
    with eval_mode(model), torch.inference_mode():
        for batch in _packed_batches(rows) if is_packed else batches(lengths):
            chosen = [rows[index] for index in batch]
            padded = pad(
                [row.input_ids for row in chosen], [row.labels for row in chosen], pad_token_id
            )
            inputs = {name: value.to(model.device) for name, value in padded.items()}
            if is_packed:
                inputs = pack(**inputs)
                row_numbers = inputs.pop("rows")  # (1, T)
            else:
                del inputs["n_real"]
                row_numbers = _row_numbers(inputs["input_ids"])  # (B, T)
            hidden, targets, mask = _trained_positions(inner, **inputs)
            correct = torch.zeros(len(targets), device=mask.device, dtype=torch.bool)  # (P,)
            _, losses = _Head(inner).losses(
                hidden, targets, is_correct=correct if with_correct else None
            )
            owners = row_numbers[:, 1:][mask]  # (P,)
            sums = [_sum_by_row(each, owners, len(batch)).tolist() for each in (losses, correct)]
            for index, total, n_correct in zip(batch, *sums, strict=True):
                likelihoods[index] = Likelihood(total, int(n_correct))
            done += len(batch)
            if progress:
                progress(Progress("losses", done, len(rows)))
    return likelihoods
