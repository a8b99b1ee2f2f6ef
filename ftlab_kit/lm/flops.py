"""The FLOP that training a token needs, and the FLOP that a processor can do: the bound of speed.

What is counted are the products that training can't do without. Attention, norms and what is done
twice to save memory are left out, and what rows share is counted for each of them: a share of the
bound is a share of useful work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = 2048  # rows and columns of the product that is measured
ROUNDS = 5
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # what a processor computes in


@dataclass(frozen=True, slots=True)
class Work:
    """The FLOP of a step for each of its tokens, and for each token that is trained besides."""

    token: float
    trained: float

    def flop(self, trained_share: float) -> float:
        """Return the FLOP of a token where this share of the tokens is trained."""
        return self.token + self.trained * trained_share


def needed(folder: Path, *, rank: int | None, targets: str = "all-linear") -> Work | None:
    """Return the work of training the model in a folder, from its config alone.

    None for a model that is not made of linear layers, whose products can't be told from outside.

    A frozen layer is multiplied forward, and backward to its input; what is trained, an adapter's
    matrices or every weight, also backward to itself; the head only where a token is trained.

    Args:
        rank: That of the adapter; None where every weight is trained.
        targets: Layers that have an adapter: all-linear, or module names with commas.
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
    base = sum(layer.in_features * layer.out_features for layer in layers.values())
    if rank is None:
        return Work(6.0 * base, 6.0 * head.weight.numel())
    adapted = sum(
        rank * (layer.in_features + layer.out_features)
        for name, layer in layers.items()
        if _is_target(name, targets)
    )
    return Work(4.0 * base + 6.0 * adapted, 4.0 * head.weight.numel())


def _is_linear(model: Any) -> bool:
    """Return whether nearly all weights are those of linear layers and embeddings."""
    from torch import nn

    kinds = (nn.Linear, nn.Embedding)
    known = {module.weight for module in model.modules() if isinstance(module, kinds)}
    every = sum(weight.numel() for weight in model.parameters())
    return bool(sum(weight.numel() for weight in known) > 0.9 * every)


def _is_target(name: str, targets: str) -> bool:
    """Return whether PEFT gives a layer an adapter."""
    wanted = [target.strip() for target in targets.split(",")]
    return targets == "all-linear" or any(f".{name}".endswith(f".{target}") for target in wanted)


def peak_gflop_per_s(precision: str, threads: int) -> float:
    """Return the GFLOP/s of a large matrix product on this processor; takes about a second.

    The fastest of some rounds, by whichever of torch's two libraries is faster: what else runs on
    the machine can only make it slower.

    Args:
        precision: 'fp32' or 'bf16'.
        threads: Threads to compute with.
    """
    import torch

    from ftlab_kit.lm.fast import linear

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        dtype = getattr(torch, DTYPES[precision])
        # by a generator of its own: whoever asks may have seeded the other one
        chance = torch.Generator().manual_seed(0)
        sides = [torch.randn(SIZE, SIZE, generator=chance).to(dtype) for _ in range(2)]
        ways: list[Callable[..., Any]] = [torch.matmul]
        if torch.backends.mkldnn.is_available():
            ways.append(linear.product)
        least_s = min(_took_s(way, *sides) for way in ways for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(before)
    return float(2 * SIZE**3 / least_s / 1e9)


def _took_s(multiply: Callable[..., Any], left: Any, right: Any) -> float:
    began = time.perf_counter()
    multiply(left, right)
    return time.perf_counter() - began
