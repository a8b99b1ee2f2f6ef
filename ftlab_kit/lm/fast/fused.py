"""What stands between a block's matrix products, each as one function with a short backward.

RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) and the gate of SwiGLU (Shazeer 2020, arXiv
2002.05202), which nearly every open model has. Step by step, as transformers writes them, they read
and write memory two to three times as often, and keep more of it for the backward.

A module is taken over only if it computes the same on a probe: families that scale or shift
otherwise stay as they are.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# how far apart two ways to compute the same may be
NEAR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def shorten(model: nn.Module) -> None:
    """Let the norms and gated layers of a model compute by the functions here, where alike."""
    for module in model.modules():
        for is_one, forward in ((_is_norm, _norm), (_is_gated, _gated)):
            if is_one(module) and _is_same(module, forward):
                # a bound method, which a copy of the module binds to the copy
                module.forward = MethodType(forward, module)


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    has_parts = hasattr(module, "variance_epsilon") and isinstance(weight, nn.Parameter)
    return type(module).__name__.endswith("RMSNorm") and has_parts


def _is_gated(module: Any) -> bool:
    parts = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
    return all(isinstance(part, nn.Module) for part in parts) and _is_silu(module)


def _is_silu(module: Any) -> bool:
    act = getattr(module, "act_fn", None)
    return isinstance(act, nn.SiLU) or type(act).__name__ == "SiLUActivation"


def _is_same(module: Any, forward: Any) -> bool:
    """Return whether a module says on a probe what a function says in its place."""
    weight = module.weight if hasattr(module, "weight") else module.gate_proj.weight
    if weight.dtype not in NEAR or weight.device.type != "cpu":
        return False
    probe = torch.linspace(-1, 2, weight.size(-1), dtype=weight.dtype)[None]
    with torch.no_grad():
        wanted, found = module(probe), forward(module, probe)
    return bool(torch.allclose(wanted, found, rtol=NEAR[weight.dtype], atol=1e-5))


def _norm(module: Any, hidden_states: torch.Tensor) -> Any:
    return Norm.apply(hidden_states, module.weight, module.variance_epsilon)


def _gated(module: Any, x: torch.Tensor) -> Any:
    return module.down_proj(Gate.apply(module.gate_proj(x), module.up_proj(x)))


class Norm(torch.autograd.Function):  # type: ignore[misc]
    """RMSNorm: `x / sqrt(mean(x²) + eps) * weight`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
        """Return `(..., H)` for `x (..., H)` and `weight (H,)`."""
        wide = x if x.dtype != torch.bfloat16 else x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.size(-1)).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of input and weight."""
        x, weight, inverse = ctx.saved_tensors
        wide = x if x.dtype != torch.bfloat16 else x.float()
        grad, of_weight = grads[0].to(wide.dtype), None
        if ctx.needs_input_grad[1]:
            of_weight = (grad * wide).mul_(inverse).flatten(0, -2).sum(0).to(weight.dtype)
        scaled = grad * weight
        along = torch.linalg.vecdot(scaled, wide)[..., None]
        along.mul_(inverse.pow(3)).div_(-x.size(-1))
        return torch.addcmul(scaled.mul_(inverse), wide, along).to(x.dtype), of_weight, None


class Gate(torch.autograd.Function):  # type: ignore[misc]
    """`silu(gate) * up`, of which only `gate` and `up` are kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> Any:
        """Return a tensor of the shape of both."""
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of gate and up."""
        gate, up = ctx.saved_tensors
        of_up = functional.silu(gate).mul_(grads[0])
        of_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return of_gate, of_up
