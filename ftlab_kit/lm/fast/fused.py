"""RMSNorm and the SwiGLU gate, each as one autograd function with a short backward.

RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) and SwiGLU (Shazeer 2020, arXiv 2002.05202)
stand between the matrix products of nearly every open model. Written step by step, as in
transformers, they read and write memory two to three times as often, and store more of it for the
backward.

A module is replaced only if the fused function gives the same output on a probe: families that
scale or shift differently stay as they are.

H: hidden size.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# the relative difference up to which two outputs count as the same
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def use_fused_layers(model: nn.Module) -> None:
    """Let the norms and gated layers of a model compute by the functions here, where equal."""
    for module in model.modules():
        for is_candidate, forward in ((_is_rms_norm, _rms_norm), (_is_swiglu, _swiglu)):
            if is_candidate(module) and _gives_the_same(module, forward):
                # a bound method, so that a deep copy of the module is bound to the copy
                module.forward = MethodType(forward, module)


def _is_rms_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    has_parts = hasattr(module, "variance_epsilon") and isinstance(weight, nn.Parameter)
    return type(module).__name__.endswith("RMSNorm") and has_parts


def _is_swiglu(module: Any) -> bool:
    parts = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
    return all(isinstance(part, nn.Module) for part in parts) and _has_silu(module)


def _has_silu(module: Any) -> bool:
    activation = getattr(module, "act_fn", None)
    return isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"


def _gives_the_same(module: Any, forward: Any) -> bool:
    """Return whether a module and the function in its place give the same output on a probe."""
    weight = module.weight if hasattr(module, "weight") else module.gate_proj.weight
    if weight.dtype not in TOLERANCE or weight.device.type != "cpu":
        return False
    probe = torch.linspace(-1, 2, weight.size(-1), dtype=weight.dtype)[None]  # (1, H)
    with torch.no_grad():
        expected, output = module(probe), forward(module, probe)
    return bool(torch.allclose(expected, output, rtol=TOLERANCE[weight.dtype], atol=1e-5))


def _rms_norm(module: Any, hidden_states: torch.Tensor) -> Any:
    return FusedRMSNorm.apply(hidden_states, module.weight, module.variance_epsilon)


def _swiglu(module: Any, x: torch.Tensor) -> Any:
    return module.down_proj(FusedSwiGLU.apply(module.gate_proj(x), module.up_proj(x)))


class FusedRMSNorm(torch.autograd.Function):  # type: ignore[misc]
    """RMSNorm: `x / sqrt(mean(x²) + eps) * weight`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
        """Return `(..., H)` for `x (..., H)` and `weight (H,)`."""
        wide = x if x.dtype != torch.bfloat16 else x.float()  # a sum of squares needs fp32
        # one pass over x, where x.pow(2).mean() would write a second tensor of its size
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # (..., 1)
        inverse = norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, inverse)  # the normed x is cheaper to make anew
        return (wide * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of input and weight."""
        x, weight, inverse = ctx.saved_tensors
        wide = x if x.dtype != torch.bfloat16 else x.float()
        grad, grad_weight = grads[0].to(wide.dtype), None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * wide).mul_(inverse).flatten(0, -2).sum(0).to(weight.dtype)  # (H,)
        scaled = grad * weight  # (..., H)
        # the part of the gradient along x, by which the norm itself changes
        along = torch.linalg.vecdot(scaled, wide)[..., None]  # (..., 1)
        along.mul_(inverse.pow(3)).div_(-x.size(-1))
        return torch.addcmul(scaled.mul_(inverse), wide, along).to(x.dtype), grad_weight, None


class FusedSwiGLU(torch.autograd.Function):  # type: ignore[misc]
    """`silu(gate) * up`, which stores only `gate` and `up` for the backward."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> Any:
        """Return a tensor of the shape of both."""
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of gate and up."""
        gate, up = ctx.saved_tensors
        grad_up = functional.silu(gate).mul_(grads[0])  # computed again: cheaper than stored
        grad_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return grad_gate, grad_up
