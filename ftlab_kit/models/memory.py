"""How much memory a job takes, before it is tried.

Weights, and gradients with AdamW's two moments for what is trained, follow from the model's sizes.
Activations by Korthikanti et al. 2022 (arXiv 2205.05198): 34 bytes a token, layer and hidden unit
at 16 bits, attention without its score matrix; one layer of them with gradient checkpointing.
Logits for half of the tokens, as answers are about half of a chat.
"""

from dataclasses import dataclass
from typing import Protocol

from ftlab_kit.models.catalogue import Entry
from ftlab_kit.records import Memory

GIB = 2**30
# seven linear layers of a Llama-like block are together about as wide as 24 hidden sizes
WIDTHS = 24


class Demand(Protocol):
    """The settings that memory depends on; a Config has them all."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def adapter(self) -> str: ...  # noqa: D102
    @property
    def adapter_rank(self) -> int: ...  # noqa: D102
    @property
    def rows_at_once(self) -> int: ...  # noqa: D102
    @property
    def max_length(self) -> int: ...  # noqa: D102
    @property
    def gradient_checkpointing(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Least:
    """The smallest useful job: one row of 1,024 tokens at a time, under an adapter."""

    model: str = ""
    adapter: str = "lora"
    adapter_rank: int = 16
    rows_at_once: int = 1
    max_length: int = 1024
    gradient_checkpointing: bool = False


LEAST = Least()


def estimate(entry: Entry, settings: Demand, bytes_per_weight: int) -> Memory:
    """Return the memory of a job on a model, by its parts."""
    weights = entry.parameters_millions * 1e6
    adapter = settings.adapter_rank * WIDTHS * entry.hidden * entry.layers
    trained = weights if settings.adapter == "none" else adapter
    tokens = settings.rows_at_once * min(settings.max_length, entry.context_tokens)
    layers = 1 if settings.gradient_checkpointing else entry.layers
    activations = 17 * bytes_per_weight * tokens * entry.hidden * layers
    logits = 4 * tokens / 2 * entry.vocabulary
    parts = [weights * bytes_per_weight, trained * 12, activations + logits]
    weights_gib, trained_gib, activations_gib = (part / GIB for part in parts)
    return Memory(weights_gib, trained_gib, activations_gib, sum(parts) / GIB)
