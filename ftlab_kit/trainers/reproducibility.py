"""What decides the bits of a run besides its checkpoint, and what of it has changed since.

Rows, model, fixed settings, libraries, threads and processes. If one of them differs, a resumed run
ends with other weights, and without this file nothing would say so.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import ftlab_kit
from ftlab_kit import datasets, device, models
from ftlab_kit.configs import Config
from ftlab_kit.trainers.run_state import is_live
from ftlab_kit.workspace import Workspace

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "datasets")
PART_BYTES = 2**20
# settings that don't change the weights
WITHOUT_EFFECT = ("keep_checkpoints", "wandb", "wandb_project", "max_restarts", "guard_tries")


def facts(ws: Workspace, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a job's bits, as it is on this machine now."""
    config = Config(**row["config"])
    model = models.get(ws, config.model).path
    held_out_id = row["held_out_version_id"]
    fixed = {
        name: value
        for name, value in config.model_dump().items()
        if not is_live(name) and name not in WITHOUT_EFFECT
    }
    return {
        "dataset_sha256": _sha256(datasets.get(ws, row["dataset_version_id"]).path),
        "held_out_sha256": _sha256(datasets.get(ws, held_out_id).path) if held_out_id else None,
        "model_sha256": _fingerprints(model) if model else {},
        "settings": fixed,
        "threads": config.threads_per_process(),
        "processes": config.processes,
        "processor": device.processor(),
        "on_gpu": bool(device.gpus()),
        "python": platform.python_version(),
        "ftlab_kit": ftlab_kit.__version__,
        "libraries": {name: installed(name) for name in LIBRARIES},
    }


def between(before: Mapping[str, Any], after: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Yield a text for each difference between two readings of the facts."""
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        label = f"{name} {key}".strip()
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from between(old, new, label)
        elif old != new and key in after:
            yield f"{label} was {_short(old)}, is {_short(new)}"


def _fingerprints(folder: Path) -> dict[str, str]:
    """Return a hash for each of a model's files: of its size, first and last mebibyte.

    Hashing all bytes of a large model would take as long as loading it.
    """
    fingerprints = {}
    for path in sorted(item for item in folder.glob("*.*") if item.is_file()):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(str(size).encode() + file.read(PART_BYTES))
            file.seek(max(0, size - PART_BYTES))
            digest.update(file.read())
        fingerprints[path.name] = digest.hexdigest()
    return fingerprints


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) > 40 else text


def _sha256(path: Path) -> str:
    if not path.exists():
        return "gone"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
