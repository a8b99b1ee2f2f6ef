"""A model in a local folder: checked in place, never copied."""

import json
import math
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def fetch(origin: Path, folder: Path) -> None:
    """Check that the folder holds a config, safetensors and a tokenizer.

    Raises:
        InputError: Something is missing, or the weights are pickles.
    """
    for pattern, what in (
        ("config.json", "config.json"),
        ("*.safetensors", "weights as .safetensors"),
        ("tokenizer*", "a tokenizer (tokenizer.json)"),
    ):
        if any(folder.glob(pattern)):
            continue
        pickles = [path.name for suffix in PICKLES for path in folder.glob(suffix)]
        hint = (
            f" Found {pickles[0]}, a pickle, which is never loaded: convert it to safetensors."
            if pickles and "safetensors" in what
            else " Give the folder that save_pretrained wrote."
        )
        raise InputError(f"{folder} has no {what}; expected a complete Hugging Face model.{hint}")


def facts(folder: Path) -> dict[str, Any]:
    """Return what the files themselves say: family, size, context."""
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    n_parameters = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]
            n_parameters += sum(math.prod(shape) for shape in shapes)
    return {
        "family": str(config.get("model_type", "")),
        "parameters_millions": n_parameters / 1e6,
        "layers": int(config.get("num_hidden_layers", 0)),
        "hidden": int(config.get("hidden_size", 0)),
        "vocabulary": int(config.get("vocab_size", 0)),
        "context_tokens": int(config.get("max_position_embeddings", 0)),
    }
