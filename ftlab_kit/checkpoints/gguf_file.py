"""A model as one GGUF file, for llama.cpp and what is built on it, by the `gguf` package's writer.

The kit writes models of the Llama family (SmolLM, Llama, Mistral) with a byte-level BPE tokenizer;
others need llama.cpp's own converter. llama.cpp rotates neighbouring pairs of a head's numbers
where transformers rotates halves, so the rows of q and k are permuted.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit.errors import InputError, Unavailable

FAMILIES = ("llama", "mistral")
CONVERTER = "convert_hf_to_gguf.py"
# llama.cpp's name for a pre-tokenizer, by the expression that splits the text before merges
SPLITTERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}


def write(folder: Path, path: Path, precision: str) -> str:
    """Write a folder of safetensors as a GGUF file and return the name of the writer.

    Raises:
        InputError: Neither the kit nor an installed converter can write this model.
        Unavailable: llama.cpp's converter failed.
    """
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    is_supported = config["model_type"] in FAMILIES and _splitter(tokenizer) is not None
    if not is_supported:
        return _convert(folder, path, precision, config["model_type"])
    _write(folder, path, precision, config, tokenizer)
    return "gguf"


def _convert(folder: Path, path: Path, precision: str, family: str) -> str:
    """Let llama.cpp's own converter write the file."""
    tool = shutil.which(CONVERTER)
    if tool is None:
        raise InputError(
            f"The kit can't write a model of the family {family!r} as GGUF; expected one of "
            f"{', '.join(FAMILIES)} with a byte-level tokenizer that splits as GPT-2's, SmolLM's, "
            f"Llama 3's or Qwen 2's does. Put llama.cpp's {CONVERTER} on the PATH, and it will be "
            "used."
        )
    command = [sys.executable, tool, str(folder), "--outfile", str(path), "--outtype", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{CONVERTER} failed ({reason}). Run it by hand to see more.")
    return CONVERTER


def _write(
    folder: Path, path: Path, precision: str, config: dict[str, Any], tokenizer: dict[str, Any]
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    _add_sizes(writer, config, precision)
    _add_tokens(writer, folder, config, tokenizer)
    _add_tensors(writer, folder, config, precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: Any, config: dict[str, Any], precision: str) -> None:
    import gguf

    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise InputError(
            f"The model scales its rotary positions ({rope['rope_type']}), which the kit does not "
            f"write as GGUF; expected plain ones. Put llama.cpp's {CONVERTER} on the PATH."
        )
    kinds = gguf.LlamaFileType
    files = {"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "bf16": kinds.MOSTLY_BF16}
    writer.add_file_type(files.get(precision, kinds.MOSTLY_Q8_0))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_name("ftlab export")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    size = config.get("head_dim") or config["hidden_size"] // heads
    # llama.cpp assumes hidden size / heads, which does not hold for some models
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokens(
    writer: Any, folder: Path, config: dict[str, Any], tokenizer: dict[str, Any]
) -> None:
    import gguf
    from transformers import AutoTokenizer

    added = {item["id"]: item for item in tokenizer["added_tokens"]}
    vocabulary = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    vocabulary |= {number: item["content"] for number, item in added.items()}
    kinds = gguf.TokenType
    texts, types = [], []
    for number in range(config["vocab_size"]):
        texts.append(vocabulary.get(number, f"[PAD{number}]"))
        special = added.get(number, {}).get("special")
        kind = kinds.UNUSED if number not in vocabulary else kinds.NORMAL
        types.append(kind if special is None else kinds.CONTROL if special else kinds.USER_DEFINED)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(tokenizer))
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for name in ("bos", "eos", "pad", "unk"):
        number = getattr(loaded, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_chat_template(loaded.chat_template)


def _splitter(tokenizer: dict[str, Any]) -> str | None:
    """Return llama.cpp's name for how a byte-level BPE splits a text, None if it has none.

    A wrong name would raise no error: some texts would become other tokens.
    """
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if tokenizer["model"].get("type") != "BPE" or not steps or steps[-1]["type"] != "ByteLevel":
        return None
    before, last = steps[:-1], steps[-1]
    if last.get("use_regex", True):
        digits = [{"type": "Digits", "individual_digits": True}]
        return "gpt-2" if not before else "smollm" if before == digits else None
    is_split = len(before) == 1 and before[0]["type"] == "Split"
    return SPLITTERS.get(before[0]["pattern"].get("Regex", "")) if is_split else None


def _add_tensors(writer: Any, folder: Path, config: dict[str, Any], precision: str) -> None:
    import gguf
    import torch
    from safetensors import safe_open

    kind = getattr(gguf.GGMLQuantizationType, precision.upper())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    heads_of = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                values = tensors.get_tensor(name).to(torch.float32).numpy()
                n_heads = heads_of.get(name.split(".")[-2])
                values = values if n_heads is None else _permuted(values, n_heads)
                new = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if new is None:
                    raise InputError(
                        f"GGUF has no name for the tensor {name} in the Llama family. Put "
                        f"llama.cpp's {CONVERTER} on the PATH."
                    )
                # vectors stay in full precision: they are small, and norms need it
                plain = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else kind
                if plain.name == "Q8_0" and values.shape[-1] % 32:
                    plain = gguf.GGMLQuantizationType.F16
                with np.errstate(over="ignore"):  # too large for f16: the certificate shows it
                    data = gguf.quants.quantize(values, plain)
                writer.add_tensor(new, data, raw_dtype=plain)


def _permuted(values: "np.ndarray", heads: int) -> "np.ndarray":
    """Return the rows of q or k in llama.cpp's order: `(heads * size, ...)`."""
    # (H * S, ...) -> (H, 2, S / 2, ...): transformers keeps a head's two halves one after the
    # other, llama.cpp wants them interleaved
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
