"""Records of models: what the kit knows of a model, and the memory that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftlab_kit.records.shown import LONG, Record


@dataclass(frozen=True, slots=True)
class Model(Record):
    """A base model: its catalogue entry, and its folder once it is in the workspace.

    `skipped` names the sources that were tried first, and why each was skipped. Memory is for a
    LoRA fine-tune of 1,024-token rows in bf16, weights and activations.
    """

    id: str
    family: str
    parameters_millions: float
    context_tokens: int
    licence: str
    gpu_memory_gib: float | None
    hub_id: str | None = field(metadata=LONG)
    is_here: bool
    source: str | None
    skipped: Mapping[str, str] = field(metadata=LONG)
    path: Path | None = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Memory(Record):
    """An estimate of a job's memory; `trained` is the gradients and the optimizer's state."""

    weights_gib: float
    trained_gib: float
    activations_gib: float
    total_gib: float
