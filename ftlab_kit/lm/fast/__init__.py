"""Faster layers for a processor: oneDNN products, LoRA, fused norms and gates, short attention.

They compute what torch, transformers and PEFT compute, with the same weights, names and files.
`speed_up` puts them into a model. Importing this room loads no torch.
"""

from typing import Any

__all__ = ["speed_up"]


def speed_up(model: Any) -> Any:
    """Replace a model's layers by faster ones where they compute the same, and return the model.

    Weights, parameter names and outputs stay. A layer of a kind that is not known here stays too.
    Call it again after layers were added, such as an adapter. With a GPU, or in a torch without
    oneDNN, nothing is replaced.
    """
    import torch

    from ftlab_kit.lm.fast import attention, fused, linear

    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return model
    linear.use_onednn(model)
    # PEFT takes a second to import, and only a model that has an adapter needs it
    if hasattr(model, "peft_config"):
        from ftlab_kit.lm.fast import lora

        lora.use_fast_lora(model)
    fused.use_fused_layers(model)
    if hasattr(model, "config"):
        attention.use_short_attention(model)
    return model
