"""Linear layers computed by oneDNN.

In fp32 torch multiplies matrices by MKL, which uses only AVX2 on an AMD processor, even where the
processor has AVX-512. oneDNN, which torch also ships, uses whatever the processor has.

T: tokens, I and O: a layer's inputs and outputs.
"""

from typing import Any

import torch
from torch import nn


def use_onednn(model: nn.Module) -> None:
    """Let every plain linear layer of a model compute by oneDNN."""
    for module in model.modules():
        if type(module) is nn.Linear:
            # the class alone changes: weights, hooks, names and saved files stay as they are
            module.__class__ = FastLinear


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """Return `x (T, I)` times `weight (O, I)` transposed, plus `bias (O,)`: `(T, O)`."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def can_use_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether `onednn_linear` computes this in the precision that torch would use."""
    is_fp32 = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    return is_fp32 and not torch.is_autocast_enabled("cpu") and x.numel() > 0


class FastLinear(nn.Linear):  # type: ignore[misc]
    """A linear layer that computes by oneDNN where its tensors are fp32 on a processor."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `(..., O)` for an input `(..., I)`."""
        if not can_use_onednn(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled():
            output: torch.Tensor = LinearFunction.apply(input, self.weight, self.bias)
            return output
        return onednn_linear(input, self.weight, self.bias)


class LinearFunction(torch.autograd.Function):  # type: ignore[misc]
    """`onednn_linear` with its gradients, each computed only where it is needed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        """Return `(..., O)`."""
        # only the weight's gradient reads the input: a frozen layer need not keep it
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of input, weight and bias."""
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.size(0))  # (T, O)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = onednn_linear(grad, weight.t()).view(*grads[0].shape[:-1], -1)  # (..., I)
        if ctx.needs_input_grad[1]:
            grad_weight = onednn_linear(grad.t(), x.reshape(-1, x.size(-1)).t())  # (O, I)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)  # (O,)
        return grad_x, grad_weight, grad_bias
