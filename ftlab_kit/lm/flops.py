"""The FLOP that training a token needs, and the FLOP/s of a processor: the limit of speed.

Only matrix products that training can't do without are counted. Attention, norms, and whatever is
computed twice to save memory are left out; tokens that rows share are counted for each row. So a
share of the limit is useful work alone: model FLOPs utilisation (MFU), as in Chowdhery et al. 2022
(arXiv 2204.02311).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = 2048  # rows and columns of the product that is timed
ROUNDS = 5
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # the precisions that can be timed


@dataclass(frozen=True, slots=True)
class TokenFlop:
    """The FLOP of training: of every token, and on top of that of a token that is trained."""

    every: float
    trained: float

    def mean(self, trained_share: float) -> float:
        """Return the mean FLOP of a token where this share of the tokens is trained."""
        return self.every + self.trained * trained_share


def training_flop(
    folder: Path, *, rank: int | None, targets: str = "all-linear"
) -> TokenFlop | None:
    """Return the FLOP that training the model in a folder needs, from its config alone.

    A frozen layer is multiplied forward, and backward to its input. What is trained, an adapter's
    matrices or every weight, is also multiplied backward to its own gradient. The head is computed
    only where a token is trained.

    Args:
        folder: The folder of the model.
        rank: The adapter's rank; None where every weight is trained.
        targets: The layers that have an adapter: all-linear, or module names with commas.

    Returns:
        None for a model that is not made of linear layers, whose products can't be counted.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_config(config)
    if not _is_linear(model):
        return None
    head = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    # 2 FLOP a weight for each product: forward, to the input, to the weight itself
    base = sum(layer.in_features * layer.out_features for layer in layers.values())
    if rank is None:
        return TokenFlop(6.0 * base, 6.0 * head.weight.numel())
    adapters = sum(
        rank * (layer.in_features + layer.out_features)
        for name, layer in layers.items()
        if _is_target(name, targets)
    )
    return TokenFlop(4.0 * base + 6.0 * adapters, 4.0 * head.weight.numel())


def _is_linear(model: Any) -> bool:
    """Return whether nearly all weights belong to linear layers and embeddings."""
    from torch import nn

    linear_weights = {
        module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))
    }
    total = sum(weight.numel() for weight in model.parameters())
    return bool(sum(weight.numel() for weight in linear_weights) > 0.9 * total)


def _is_target(name: str, targets: str) -> bool:
    """Return whether PEFT gives a layer an adapter."""
    suffixes = [target.strip() for target in targets.split(",")]
    return targets == "all-linear" or any(f".{name}".endswith(f".{suffix}") for suffix in suffixes)


def peak_gflop_per_s(precision: str, threads: int) -> float:
    """Return the GFLOP/s of a large matrix product on this processor; takes about a second.

    It is the fastest of some rounds, by the faster of torch's two libraries: other work on the
    machine can only slow a round down.

    Args:
        precision: 'fp32' or 'bf16'.
        threads: Threads to compute with.
    """
    import torch

    from ftlab_kit.lm.fast import linear

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        dtype = getattr(torch, DTYPES[precision])
        # a generator of its own: the caller may have seeded torch's
        generator = torch.Generator().manual_seed(0)
        factors = [torch.randn(SIZE, SIZE, generator=generator).to(dtype) for _ in range(2)]
        libraries: list[Callable[..., Any]] = [torch.matmul]
        if torch.backends.mkldnn.is_available():
            libraries.append(linear.onednn_linear)
        fastest_s = min(_time_s(matmul, *factors) for matmul in libraries for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(threads_before)
    return float(2 * SIZE**3 / fastest_s / 1e9)


def _time_s(matmul: Callable[..., Any], left: Any, right: Any) -> float:
    started = time.perf_counter()
    matmul(left, right)
    return time.perf_counter() - started
