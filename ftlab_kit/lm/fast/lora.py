"""PEFT's LoRA on a linear layer as one autograd function, computed by oneDNN.

It computes what PEFT does (Hu et al. 2021, arXiv 2106.09685), `x W' + s (x A') B'`, with PEFT's
names, states and files, but faster: the low-rank product is added in place, frozen weights get no
gradient, and the input that the adapter needs is stored once.

In bf16 it also rounds differently, and better. Early in training an adapter's contribution is
smaller than bf16's rounding error. PEFT rounds the layer's output first and so loses it; here both
are summed first and rounded once, so that bf16 learns what fp32 does.

T: tokens, I and O: a layer's inputs and outputs, R: rank of its adapter.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn

from ftlab_kit.lm.fast.linear import can_use_onednn, onednn_linear


def use_fast_lora(model: nn.Module) -> None:
    """Let every plain LoRA layer of a model compute by `LoraFunction`."""
    for module in model.modules():
        if type(module) is Linear and isinstance(module.base_layer, nn.Linear):
            module.__class__ = FastLoraLinear


class FastLoraLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, with its usual case in one function and the others left to PEFT."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `(..., O)` for an input `(..., I)`."""
        name = self._single_adapter(x) if not args and not kwargs else None
        if name is None:
            output: torch.Tensor = super().forward(x, *args, **kwargs)
            return output
        dropout, base = self.lora_dropout[name], self.base_layer
        is_dropping = dropout.training and not isinstance(dropout, nn.Identity)
        dropped = dropout(x) if is_dropping else None
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        output = LoraFunction.apply(x, dropped, a, b, base, self.scaling[name])
        return output

    def _single_adapter(self, x: torch.Tensor) -> str | None:
        """Return the one active adapter, or None where this is not the case computed here."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1:
            return None
        name = names[0]
        is_plain = name not in self.lora_variant and self.lora_A[name].bias is None
        is_plain = is_plain and self.lora_B[name].bias is None
        base, a = self.base_layer.weight, self.lora_A[name].weight
        return str(name) if is_plain and not base.requires_grad and _is_fast(x, base, a) else None


def _is_fast(x: torch.Tensor, base: torch.Tensor, a: torch.Tensor) -> bool:
    if can_use_onednn(x, base):
        return bool(a.dtype == torch.float32)
    # frozen weights are in bf16 already, while the adapter's are in fp32
    is_bf16 = base.dtype == torch.bfloat16 in (x.dtype, _autocast_dtype())
    # a processor with AVX2 alone has no bf16 product in oneDNN: PEFT computes there
    can_bf16 = is_bf16 and x.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(can_bf16 and x.numel() > 0)


def _autocast_dtype() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


class LoraFunction(torch.autograd.Function):  # type: ignore[misc]
    """A frozen linear layer plus its adapter: three products forward, five backward.

    Everything is computed in the type of the frozen weights; the adapter's gradients come in the
    adapter's own type.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        base: nn.Linear,
        scale: float,
    ) -> Any:
        """Return `(..., O)`.

        Args:
            ctx: Autograd's context.
            x: The input `(..., I)`.
            dropped: The input after the adapter's dropout, `(..., I)`; None where there is none.
            a: The adapter's A, `(R, I)`.
            b: The adapter's B, `(O, R)`.
            base: The frozen layer.
            scale: The factor on what the adapter adds: alpha / r.
        """
        dtype = base.weight.dtype
        flat = x.reshape(-1, x.size(-1)).to(dtype)  # (T, I)
        adapter_in = flat if dropped is None else dropped.reshape(flat.shape).to(dtype)  # (T, I)
        a_cast, b_scaled = a.to(dtype), (b * scale).to(dtype)
        low_rank = onednn_linear(adapter_in, a_cast)  # (T, R)
        if dtype == torch.float32:
            out = onednn_linear(flat, base.weight, base.bias)  # (T, O)
            out.addmm_(low_rank, b_scaled.t())  # in place: no second (T, O) is written
        else:
            # the small term first: addmm_ adds the large one in fp32 and rounds the sum once
            out = onednn_linear(low_rank, b_scaled)  # (T, O)
            out.addmm_(flat, base.weight.t())
            if base.bias is not None:
                out += base.bias
        ctx.save_for_backward(adapter_in, low_rank, a_cast, b_scaled)
        ctx.base, ctx.scale, ctx.has_dropout = base, scale, dropped is not None
        ctx.input_dtype, ctx.adapter_dtype = x.dtype, a.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the input, of the dropped-out input, of A and of B."""
        adapter_in, low_rank, a, b_scaled = ctx.saved_tensors
        weight = ctx.base.weight
        shape = (*grads[0].shape[:-1], weight.size(1))
        grad = grads[0].reshape(-1, weight.size(0)).to(weight.dtype)  # (T, O)
        grad_low_rank = onednn_linear(grad, b_scaled.t())  # (T, R)
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = onednn_linear(grad, weight.t())  # (T, I)
            if not ctx.has_dropout:
                grad_x.addmm_(grad_low_rank, a)  # both paths read the same input
            grad_x = grad_x.view(shape).to(ctx.input_dtype)
        if ctx.has_dropout and ctx.needs_input_grad[1]:
            grad_dropped = onednn_linear(grad_low_rank, a.t()).view(shape).to(ctx.input_dtype)
        grad_a = onednn_linear(grad_low_rank.t(), adapter_in.t()).to(ctx.adapter_dtype)  # (R, I)
        # computed as (R, O): oneDNN is faster on long rows of O than on columns of R
        grad_b = onednn_linear(low_rank.t(), grad.t()).to(ctx.adapter_dtype)
        grad_b = grad_b.mul_(ctx.scale).t()  # (O, R)
        return grad_x, grad_dropped, grad_a, grad_b, None, None
