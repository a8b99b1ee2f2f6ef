"""The likelihood of answers, computed only where an answer is.

Training, the held-out loss and perplexity share this: the backbone runs over all tokens, the
language-model head, a fifth of a small model's work, only at positions whose next token is
trained, and a chunk of them at a time, so that the logits never stand whole in memory.

B: rows of a batch, T: tokens, H: hidden size, P: trained positions, V: vocabulary.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutput

from ftlab_kit.models.asking import asking
from ftlab_kit.models.tokens import IGNORED, Encoded

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
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = {"attention_mask": attention_mask, "position_ids": position_ids}
    hidden, targets, rows = _trained(model, input_ids, labels, **known)
    total, losses = _Head(model).losses(hidden, targets)  # (), (P,)
    return total, _by_row(losses, rows, labels)


def _trained(
    model: Any, input_ids: torch.Tensor, labels: torch.Tensor, **known: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the states `(P, H)` before trained tokens, these tokens `(P,)`, their rows `(P,)`."""
    output = model.base_model(input_ids=input_ids, use_cache=False, return_dict=True, **known)
    targets = labels[:, 1:]
    mask = targets != IGNORED
    rows = torch.arange(labels.size(0), device=labels.device)[:, None].expand_as(mask)[mask]
    return output.last_hidden_state[:, :-1][mask], targets[mask], rows


def _by_row(values: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sums `(B,)` of what was found at the positions of each row."""
    sums = torch.zeros(labels.size(0), device=labels.device, dtype=torch.float32)
    return sums.index_add_(0, rows, values.float())


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


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return rows of unequal length as one tensor `(B, T)`, filled on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of a row's trained tokens: their negative log-likelihood, and how many are the likeliest."""

    nll: float
    n_right: int


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
    result, done = [Likelihood(0.0, 0)] * len(rows), 0
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    with asking(model), torch.inference_mode():
        for batch in batches([len(row.input_ids) for row in rows]):
            ids = pad([rows[index].input_ids for index in batch], pad_token_id).to(model.device)
            labels = pad([rows[index].labels for index in batch], IGNORED).to(model.device)
            # no mask: what fills up on the right comes after all that is real
            hidden, targets, places = _trained(inner, ids, labels)
            hits = torch.zeros(len(targets), device=ids.device, dtype=torch.bool)
            _, losses = _Head(inner).losses(hidden, targets, hits=hits if with_hits else None)
            sums = [_by_row(item, places, labels).tolist() for item in (losses, hits)]
            for index, value, n_right in zip(batch, *sums, strict=True):
                result[index] = Likelihood(value, int(n_right))
            done += len(batch)
            if progress:
                progress(done, len(rows))
    return result
