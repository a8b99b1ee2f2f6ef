"""Adapted layers as one function: PEFT's LoRA on a linear layer, computed by oneDNN's products.

What PEFT computes (Hu et al. 2021, arXiv 2106.09685), `x W' + s (x A') B'`, with its own names,
states and files. Only the way is another: the low-rank product is added in place, nothing is
computed for frozen weights, and what the adapter needs of its input is kept once.

In bf16 also the sum is another, and the better one. What an adapter has learnt in its first steps
is less than half of the last digit that bf16 has for `x W'`: added to what is rounded already, as
PEFT adds it, it is lost. Here both are summed before they are rounded, so that bf16 learns what
fp32 does. See `products.py` for the letters.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn

from ftlab_kit.lm.fast.linear import is_fast, product


def adapt(model: nn.Module) -> None:
    """Let every plain LoRA layer of a model compute by `Adapted`."""
    for module in model.modules():
        if type(module) is Linear and isinstance(module.base_layer, nn.Linear):
            module.__class__ = FastAdapted


class FastAdapted(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, whose usual case is one function."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `(..., O)` for an input `(..., I)`."""
        name = self._only(x) if not args and not kwargs else None
        if name is None:
            found: torch.Tensor = super().forward(x, *args, **kwargs)
            return found
        dropout, base = self.lora_dropout[name], self.base_layer
        seen = dropout(x) if dropout.training and not isinstance(dropout, nn.Identity) else None
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        found = Adapted.apply(x, seen, a, b, (base, self.scaling[name]))
        return found

    def _only(self, x: torch.Tensor) -> str | None:
        """Return the one adapter in use; None where something else is asked for."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1:
            return None
        name = names[0]
        is_plain = name not in self.lora_variant and self.lora_A[name].bias is None
        is_plain = is_plain and self.lora_B[name].bias is None
        weights = (self.base_layer.weight, self.lora_A[name].weight)
        is_frozen = not self.base_layer.weight.requires_grad
        return str(name) if is_plain and is_frozen and _are_fast(x, *weights) else None


def _are_fast(x: torch.Tensor, base: torch.Tensor, low: torch.Tensor) -> bool:
    if is_fast(x, base):
        return bool(low.dtype == torch.float32)
    # the frozen weights are in bf16 already, the adapter's are fp32
    is_bf16 = base.dtype == torch.bfloat16 in (x.dtype, _autocast())
    return bool(is_bf16 and x.device.type == "cpu" and x.numel() > 0)


def _autocast() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


class Adapted(torch.autograd.Function):  # type: ignore[misc]
    """A frozen linear layer with an adapter beside it: forward in three products, backward in five.

    The adapter sees the input, or the input after dropout. Everything is computed in the type of
    the frozen weights; the adapter's gradients come in its own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        seen: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        over: tuple[nn.Linear, float],
    ) -> Any:
        """Return `(..., O)`.

        Args:
            seen: What the adapter sees instead of the input.
            a: `(R, I)`.
            b: `(O, R)`.
            over: The frozen layer, and the scale of what the adapter adds to it.
        """
        base, scale = over
        kind = base.weight.dtype
        flat = x.reshape(-1, x.size(-1)).to(kind)  # (T, I)
        read = flat if seen is None else seen.reshape(flat.shape).to(kind)
        a_, b_ = a.to(kind), (b * scale).to(kind)
        low = product(read, a_)  # (T, R)
        if kind == torch.float32:
            out = product(flat, base.weight, base.bias)  # (T, O)
            out.addmm_(low, b_.t())
        else:  # the small one first: the large one is added to it before the sum is rounded
            out = product(low, b_)
            out.addmm_(flat, base.weight.t())
            if base.bias is not None:
                out += base.bias
        ctx.save_for_backward(read, low, a_, b_)
        ctx.base, ctx.scale, ctx.has_own = base, scale, seen is not None
        ctx.kinds = (x.dtype, a.dtype)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of input, of what the adapter saw, and of its two weights."""
        read, low, a, b = ctx.saved_tensors
        weight, (of_input, of_adapter) = ctx.base.weight, ctx.kinds
        shape = (*grads[0].shape[:-1], weight.size(1))
        grad = grads[0].reshape(-1, weight.size(0)).to(weight.dtype)  # (T, O)
        of_low = product(grad, b.t())  # (T, R)
        of_x = of_seen = None
        if ctx.needs_input_grad[0]:
            of_x = product(grad, weight.t())  # (T, I)
            if not ctx.has_own:
                of_x.addmm_(of_low, a)
            of_x = of_x.view(shape).to(of_input)
        if ctx.has_own and ctx.needs_input_grad[1]:
            of_seen = product(of_low, a.t()).view(shape).to(of_input)
        of_a = product(of_low.t(), read.t()).to(of_adapter)  # (R, I)
        # the transpose has rows as long as O, which oneDNN does faster than columns of R
        of_b = product(low.t(), grad.t()).to(of_adapter).mul_(ctx.scale).t()  # (O, R)
        return of_x, of_seen, of_a, of_b, None
