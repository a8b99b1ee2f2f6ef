"""What a PEFT adapter changes about a model: its wrapper, and the type of the weights below it."""

from typing import Any


def base_model(model: Any) -> Any:
    """Return the transformers model inside a PEFT wrapper, or the model itself without one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def weight_dtype(precision: str, *, adapter: str) -> str:
    """Return the torch dtype in which a model's weights are loaded for training.

    Under an adapter the base model is frozen and may be in half precision. Weights that are trained
    themselves stay in fp32.

    Args:
        precision: 'fp32', 'bf16' or 'fp16'.
        adapter: The config's adapter; 'none' trains every weight.
    """
    half_precision = {"bf16": "bfloat16", "fp16": "float16"}
    return half_precision.get(precision, "float32") if adapter != "none" else "float32"
