"""Linear layers by the fastest matrix product that torch has for a processor.

In fp32 torch multiplies by MKL, which on an AMD processor stays with AVX2 whatever there is.
oneDNN, which comes with torch too, takes what there is.

Where there is a GPU, or torch was built without oneDNN, every layer stays as it is.

T: tokens, I and O: a layer's inputs and outputs, R: rank of its adapter.
"""

from typing import Any

import torch
from torch import nn

from ftlab_kit.lm.fast import fused


def speed_up(model: nn.Module) -> nn.Module:
    """Let a model's layers compute by the fastest way there is on a processor; return the model.

    Weights, names and results stay; a layer that is none of these, or of another make, does too.
    Calling it again takes over what was added meanwhile.
    """
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return model
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Fast
    # a model that PEFT has adapted has loaded it already; no other one needs it
    if hasattr(model, "peft_config"):
        from ftlab_kit.lm.fast.lora import adapt

        adapt(model)
    fused.shorten(model)
    if hasattr(model, "config"):
        from ftlab_kit.lm.fast import attention

        attention.use_short_attention(model)
    return model


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    """Return `x (T, I)` times `weight (O, I)` transposed, plus `bias (O,)`: `(T, O)`."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def is_fast(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether `product` computes this in the precision in which torch's own would."""
    alike = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    return alike and not torch.is_autocast_enabled("cpu") and x.numel() > 0


class Fast(nn.Linear):  # type: ignore[misc]
    """A linear layer whose products are oneDNN's, where these are fp32 on a processor."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `(..., O)` for an input `(..., I)`."""
        if not is_fast(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled():
            found: torch.Tensor = Product.apply(input, self.weight, self.bias)
            return found
        return product(input, self.weight, self.bias)


class Product(torch.autograd.Function):  # type: ignore[misc]
    """`product` with its gradients, each only where it is wanted."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        """Return `(..., O)`."""
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of input, weight and bias."""
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.size(0))  # (T, O)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = product(grad, weight.t()).view(*grads[0].shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            of_weight = product(grad.t(), x.reshape(-1, x.size(-1)).t())
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum(0)
        return of_x, of_weight, of_bias
