"""A model in a local folder: checked in place, never copied."""

import math
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError

# the catalogue's name of a size, and the name of it in every architecture's config
SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "vocabulary": "vocab_size",
    "context_tokens": "max_position_embeddings",
}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def fetch(origin: Path, folder: Path) -> None:
    """Check that the folder holds a config, safetensors and a tokenizer.

    Args:
        origin: The folder itself; it is not copied.
        folder: The same folder.

    Raises:
        InputError: Something is missing, or the weights are pickles.
    """
    for pattern, what in (
        ("config.json", "config.json"),
        ("model*.safetensors", "weights as model.safetensors"),
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
    """Return a model's family, sizes and context, read from its files.

    Raises:
        InputError: transformers doesn't know the architecture, or a size is missing.
    """
    from safetensors import safe_open
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
        sizes = {name: int(getattr(config, attribute)) for name, attribute in SIZES.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{folder / 'config.json'} can't be used ({error}); expected a causal language model "
            "of an architecture that the installed transformers knows. Update transformers."
        ) from error
    n_parameters = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="numpy") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]
            n_parameters += sum(math.prod(shape) for shape in shapes)
    family = str(config.model_type)
    return {"family": family, "parameters_millions": n_parameters / 1e6, **sizes}
