"""A model as one GGUF file, for llama.cpp and what is built on it, by the `gguf` package's writer.

Written are models of the Llama family (SmolLM, Llama, Mistral) under a byte-level BPE tokenizer;
others want llama.cpp's own converter. llama.cpp turns neighbouring pairs of a head's numbers where
transformers turns halves, so the rows of q and k change places.

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
# llama.cpp's name for how a text is split before merges, by the expression that splits it
SPLITTERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}


def write(folder: Path, path: Path, precision: str) -> str:
    """Write a folder of safetensors as a GGUF file and return who wrote it.

    Raises:
        InputError: A model that neither the kit nor a converter here can write.
        Unavailable: llama.cpp's converter failed.
    """
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    is_ours = config["model_type"] in FAMILIES and _splitter(tokenizer) is not None
    if not is_ours:
        return _convert(folder, path, precision, config["model_type"])
    _write(folder, path, precision, config, tokenizer)
    return "gguf"


def _convert(folder: Path, path: Path, precision: str, family: str) -> str:
    """Let llama.cpp's own converter write the file."""
    tool = shutil.which(CONVERTER)
    if tool is None:
        raise InputError(
            f"A model of the family {family!r} can't be written as GGUF by the kit; expected one "
            f"of {', '.join(FAMILIES)} with a byte-level tokenizer that splits as GPT-2's, "
            f"SmolLM's, Llama 3's or Qwen 2's does. Put llama.cpp's {CONVERTER} on the PATH, and "
            "it will be used."
        )
    command = [sys.executable, tool, str(folder), "--outfile", str(path), "--outtype", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unavailable(f"{CONVERTER} failed ({words}). Run it by hand to see more.")
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
            f"The model stretches its positions ({rope['rope_type']}), which the kit does not "
            f"write into a GGUF; expected plain ones. Put llama.cpp's {CONVERTER} on the PATH."
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
    # llama.cpp would take a head's share of the hidden size, which some models leave
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
    words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
    words |= {number: item["content"] for number, item in added.items()}
    kinds = gguf.TokenType
    texts, types = [], []
    for number in range(config["vocab_size"]):
        texts.append(words.get(number, f"[PAD{number}]"))
        special = added.get(number, {}).get("special")
        kind = kinds.UNUSED if number not in words else kinds.NORMAL
        types.append(kind if special is None else kinds.CONTROL if special else kinds.USER_DEFINED)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(tokenizer))
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    known = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for name in ("bos", "eos", "pad", "unk"):
        number = getattr(known, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_chat_template(known.chat_template)


def _splitter(tokenizer: dict[str, Any]) -> str | None:
    """Return llama.cpp's name for how a byte-level BPE splits a text; None if it is none of these.

    A wrong name is no error anywhere: some texts become other tokens.
    """
    found = tokenizer.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", [found])
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
    per = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                values = tensors.get_tensor(name).to(torch.float32).numpy()
                turned = per.get(name.split(".")[-2])
                values = values if turned is None else _turned(values, turned)
                new = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if new is None:
                    raise InputError(
                        f"The tensor {name} has no place in a GGUF of the Llama family. Put "
                        f"llama.cpp's {CONVERTER} on the PATH."
                    )
                # vectors stay whole: they are few, and norms want it
                plain = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else kind
                if plain.name == "Q8_0" and values.shape[-1] % 32:
                    plain = gguf.GGMLQuantizationType.F16
                with np.errstate(over="ignore"):  # what is too large for f16 the certificate finds
                    data = gguf.quants.quantize(values, plain)
                writer.add_tensor(new, data, raw_dtype=plain)


def _turned(values: "np.ndarray", heads: int) -> "np.ndarray":
    """Return the rows of q or k as llama.cpp has them: `(heads * size, ...)`."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
