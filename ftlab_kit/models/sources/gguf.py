"""A GGUF file, de-quantised once by transformers and saved as safetensors."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ftlab_kit.errors import InputError


def fetch(origin: Path, folder: Path) -> None:
    """De-quantise a GGUF file into the folder, with its tokenizer and chat template.

    Args:
        origin: The .gguf file.
        folder: Where the model goes.

    Raises:
        InputError: It is not a GGUF file, or of an architecture that transformers can't read.
    """
    from ftlab_kit.lm.loading import quiet

    with origin.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{origin} does not begin with GGUF; expected a GGUF model file.")
    with quiet(), _read_once():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options: dict[str, Any] = {"gguf_file": origin.name, "local_files_only": True}
        try:
            tokenizer = AutoTokenizer.from_pretrained(origin.parent, **options)
            model = AutoModelForCausalLM.from_pretrained(
                origin.parent, dtype=torch.float32, **options
            )
        except (ValueError, KeyError, NotImplementedError) as error:
            raise InputError(
                f"{origin} can't be read by transformers ({error}). "
                "Give a GGUF of a supported architecture, or the model's safetensors."
            ) from error
        # the weights are de-quantised, but transformers refuses to save while these are set
        del model.config.quantization_config
        model.hf_quantizer = None
        model.config._name_or_path = origin.stem
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """Keep transformers from parsing the file three times, and hide its progress bar.

    Its loader opens the file again for tokenizer, config and weights, five seconds each with a
    vocabulary of 49,152, and builds the same table of names once per layer. The bar has no switch.
    """
    import gguf
    import tqdm
    from transformers import modeling_gguf_pytorch_utils as loader

    with ExitStack() as patches:
        for name in ("GGUFReader", "get_tensor_name_map"):
            cached = functools.cache(getattr(gguf, name))
            patches.enter_context(patch.object(gguf, name, cached))
        silent = functools.partial(tqdm.tqdm, disable=True)
        patches.enter_context(patch.object(loader, "tqdm", silent))
        yield
