"""From a model's files to a model and a tokenizer that can be used."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice out of notebooks and logs; errors still come."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars:
            transformers_logging.enable_progress_bar()


def tokenizer(folder: Path) -> Any:
    """Return a model's tokenizer; its pad token is never its end token.

    A pad token that is also the end token teaches a model never to end, wherever padding is
    masked by its id. Another special token takes its place.

    Raises:
        InputError: The tokenizer has no chat template.
    """
    from transformers import AutoTokenizer

    with quiet():
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not found.chat_template:
        raise InputError(
            f"The tokenizer in {folder} has no chat template; expected one, since rows are chats. "
            "Take the model's instruct version, or put a chat_template.jinja beside the tokenizer."
        )
    if found.pad_token is None or found.pad_token_id == found.eos_token_id:
        spare = [token for token in found.all_special_tokens if token != found.eos_token]
        preferred = [token for token in (found.unk_token, *spare) if token and token in spare]
        if not preferred:
            raise InputError(
                f"The tokenizer in {folder} has no special token besides its end token; expected "
                "one for padding. Set pad_token in its tokenizer_config.json."
            )
        found.pad_token = preferred[0]
    return found


def dtype(precision: str, *, adapter: str) -> str:
    """Return the type that a model's weights are loaded in for training.

    Under an adapter the frozen base may be small; weights that are trained themselves stay fp32.
    """
    small = {"bf16": "bfloat16", "fp16": "float16"}
    return small.get(precision, "float32") if adapter != "none" else "float32"


def load(folder: Path, *, dtype: str = "float32", adapter: Path | None = None) -> Any:
    """Return the causal language model of a folder, with a trained adapter if given.

    On a processor its layers compute by the ways of `products.py`.

    Args:
        dtype: A torch dtype's name.
        adapter: A folder that PEFT wrote; None for the base model itself.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from ftlab_kit.lm.fast.linear import speed_up

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
    model.generation_config.pad_token_id = None
    return speed_up(model)


def load_trained(base: Path, checkpoint: Path, *, dtype: str = "float32") -> Any:
    """Return the model that a job's checkpoint holds: an adapter over its base, or all of it."""
    if (checkpoint / "adapter_config.json").exists():
        return load(base, dtype=dtype, adapter=checkpoint)
    return load(checkpoint, dtype=dtype)


def base_model(model: Any) -> Any:
    """Return the model of transformers under an adapter of PEFT's, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
