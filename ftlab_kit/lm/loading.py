"""Load a model and its tokenizer from a folder."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError
from ftlab_kit.lm.fast import speed_up


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and advice in notebooks and logs; errors still show."""
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
    """Return a model's tokenizer, with a pad token that is not its end token.

    Where padding is masked by its id, a pad token that is also the end token would mask the end
    token too, and the model would never learn to stop. Another special token takes its place.

    Raises:
        InputError: The tokenizer has no chat template, or no token to pad with.
    """
    from transformers import AutoTokenizer

    with quiet():
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not loaded.chat_template:
        raise InputError(
            f"The tokenizer in {folder} has no chat template; expected one, since rows are chats. "
            "Take the model's instruct version, or put a chat_template.jinja beside the tokenizer."
        )
    if loaded.pad_token is None or loaded.pad_token_id == loaded.eos_token_id:
        spare = [token for token in loaded.all_special_tokens if token != loaded.eos_token]
        candidates = [token for token in (loaded.unk_token, *spare) if token and token in spare]
        if not candidates:
            raise InputError(
                f"The tokenizer in {folder} has no special token besides its end token; expected "
                "one for padding. Set pad_token in its tokenizer_config.json."
            )
        loaded.pad_token = candidates[0]
    return loaded


def load(folder: Path, *, dtype: str = "float32", adapter: Path | None = None) -> Any:
    """Return the causal language model of a folder, with a trained adapter if given.

    On a processor its layers are replaced by the faster ones of `lm.fast`.

    Args:
        folder: A model as `save_pretrained` writes it.
        dtype: The name of a torch dtype.
        adapter: A folder that PEFT wrote; None for the base model itself.
    """
    import torch
    from transformers import AutoModelForCausalLM

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
    """Return the model that a job's checkpoint holds.

    Args:
        base: The folder of the base model.
        checkpoint: A folder with an adapter over that base model, or with a whole model.
        dtype: The name of a torch dtype.
    """
    if (checkpoint / "adapter_config.json").exists():
        return load(base, dtype=dtype, adapter=checkpoint)
    return load(checkpoint, dtype=dtype)
