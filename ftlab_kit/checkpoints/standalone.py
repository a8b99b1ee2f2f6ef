"""From a checkpoint to a model that stands on its own: merged, in a precision, in one format.

An adapter is merged into the base's plain weights, in fp32, and never through 4-bit ones: what a
quantised base has rounded away would be baked in twice (https://github.com/huggingface/peft/issues/
2368 tells how it looks).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftlab_kit import datasets, models
from ftlab_kit.checkpoints import certificate, gguf_file, integrity
from ftlab_kit.errors import Conflict, InputError, NotFound, nearest, room_on_disk
from ftlab_kit.lm import loading
from ftlab_kit.records import Certificate, Checkpoint, DatasetVersion
from ftlab_kit.workspace import Workspace

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# what else of a base a model wants beside its weights
BESIDE = (
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
)
GGUF, CERTIFICATE = "model.gguf", "certificate.json"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be written: a checkpoint over its base, in a format and a precision."""

    got: Checkpoint
    base: Path
    format: str
    precision: str
    anyway: bool


def alone(ws: Workspace) -> FileLock:
    """Return what lets one at a time write a model: it has one in memory, and folders by name."""
    return FileLock(ws.models / ".exports.lock")


def write(ws: Workspace, order: Order, folder: Path, tell: Callable[[str], None]) -> Certificate:
    """Write an export and its certificate into a folder, which has its name only when it is whole.

    Raises:
        Conflict: It says something else than before, and no one wants it anyway.
        DiskFull: Nothing of it is kept.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with room_on_disk(str(folder)):
            tell("asked before")
            taken = certificate.exam(ws, _rows(ws, order.got), order.base)
            plain = loading.load_trained(order.base, order.got.path)
            said = taken.take(plain, loading.tokenizer(order.base))
            del plain
            tell(f"written as {order.format} in {order.precision}")
            back = _write(order, partial)
            tell("read back and asked again")
            after = taken.take(loading.load(back), loading.tokenizer(back))
            if back != partial:
                shutil.rmtree(back)
            made = certificate.compare(taken, said, after, order.precision)
            (partial / CERTIFICATE).write_text(json.dumps(made.as_dict(), indent=1))
        if not made.is_ok and not order.anyway:
            raise Conflict(
                f"The export does not say what the checkpoint says: {certificate.in_words(made)}. "
                "Nothing was kept. Take a finer precision, or anyway=True to have it all the same."
            )
        shutil.rmtree(folder, ignore_errors=True)  # of the same checkpoint, from before
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _write(order: Order, folder: Path) -> Path:
    """Write an export and return the folder from which it can be read back."""
    if order.format != "gguf":
        _merge(order, folder, order.precision)
        return folder
    from ftlab_kit.models import sources

    plain, back = folder / "plain", folder / "back"
    for scratch in (plain, back):
        scratch.mkdir()
    _merge(order, plain, "f32")
    gguf_file.write(plain, folder / GGUF, order.precision)
    shutil.rmtree(plain)
    sources.named("gguf").fetch(folder / GGUF, back)
    return back


def _rows(ws: Workspace, found: Checkpoint) -> DatasetVersion:
    """Return the rows to ask for: held-out ones where the job had some."""
    row = ws.store.get("jobs", id=found.job_id) or {}
    return datasets.get(ws, row["held_out_version_id"] or row["dataset_version_id"])


def base_of(ws: Workspace, found: Checkpoint) -> Path:
    """Return the folder of the base model that a checkpoint was trained from.

    Raises:
        Conflict: The checkpoint is damaged, or its base is quantised.
        NotFound: There is no such job.
    """
    damage = integrity.verify(found)
    if damage:
        raise Conflict(
            f"Checkpoint {found.step} of job {found.job_id} can't be trusted: {damage}. "
            "Take another one."
        )
    row = ws.store.get("jobs", id=found.job_id)
    if row is None:
        raise NotFound(f"There is no job {found.job_id}. See them with trainers.list(ws).")
    folder = models.pull(ws, row["model"]).path
    assert folder is not None
    if "quantization_config" in json.loads((folder / "config.json").read_text()):
        raise Conflict(
            f"The files of {row['model']} are quantised; an adapter is merged into plain weights "
            "only, as rounding would be baked in twice. Train on, or add, the model's own "
            "safetensors, and merge into these."
        )
    return folder


def precision_of(folder: Path) -> str:
    """Return the precision in which a model's files are kept."""
    config = json.loads((folder / "config.json").read_text())
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return next((name for name, kept in DTYPES.items() if kept == dtype), "f32")


def _merge(order: Order, folder: Path, precision: str) -> None:
    """Write base and what a checkpoint has learnt as one model of safetensors."""
    base, checkpoint = order.base, order.got.path
    import torch
    from transformers import AutoModelForCausalLM

    place: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    has_adapter = (checkpoint / "adapter_config.json").exists()
    with loading.quiet():
        source = base if has_adapter else checkpoint
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **place)
        if has_adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(checkpoint))
            try:
                model = model.merge_and_unload(safe_merge=True)
            except ValueError as error:
                raise Conflict(
                    f"Checkpoint {order.got.step} of job {order.got.job_id} can't be merged: "
                    f"what it has learnt is no number in places ({error}). Take an earlier one."
                ) from error
        model = model.to(getattr(torch, DTYPES[precision]))
        model.config._name_or_path = ""
        model.save_pretrained(folder)
    for pattern in BESIDE:
        for path in base.glob(pattern):
            shutil.copy2(path, folder / path.name)


def parted(format: str) -> tuple[str, str]:
    """Return the kind of file and the precision that a format names.

    Raises:
        InputError: There is no such format.
    """
    known = [*(f"safetensors-{name}" for name in DTYPES), *(f"gguf-{name}" for name in DTYPES)]
    known.append("gguf-q8_0")
    if format not in known:
        raise InputError(
            f"format is {format!r}; expected one of {', '.join(known)}.{nearest(format, known)}"
        )
    kind, _, precision = format.partition("-")
    return kind, precision
