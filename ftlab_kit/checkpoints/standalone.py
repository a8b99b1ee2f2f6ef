"""From a checkpoint to a standalone model: merged, in a precision, in one format.

An adapter is merged into the base's plain weights, in fp32, and never into 4-bit ones: their
rounding would be baked in twice (https://github.com/huggingface/peft/issues/2368 shows the effect).
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftlab_kit import datasets, models
from ftlab_kit.checkpoints import certificate, gguf_file, integrity
from ftlab_kit.errors import Conflict, InputError, NotFound, nearest, room_on_disk
from ftlab_kit.lm import loading
from ftlab_kit.models import sources
from ftlab_kit.records import Certificate, Checkpoint, DatasetVersion, OnProgress, Progress
from ftlab_kit.workspace import Workspace

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# files of a base model that belong to a model beside its weights
COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
)
GGUF, CERTIFICATE = "model.gguf", "certificate.json"


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is to be written: a checkpoint merged into its base, in a format and a precision."""

    checkpoint: Checkpoint
    base: Path
    format: str
    precision: str
    force: bool  # keep it although its certificate fails


def export_lock(ws: Workspace) -> FileLock:
    """Return the lock that lets one export at a time run: each holds a model in memory."""
    return FileLock(ws.models / ".exports.lock")


def write(
    ws: Workspace, plan: ExportPlan, folder: Path, progress: OnProgress | None
) -> Certificate:
    """Write an export and its certificate into a folder, which is named only when it is complete.

    Raises:
        Conflict: The certificate fails, and the plan does not force it.
        DiskFull: Nothing of it is kept.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with room_on_disk(str(folder)):
            _report(progress, 0, "measuring the checkpoint")
            probe = certificate.probe(ws, _rows(ws, plan.checkpoint), plan.base)
            trained = loading.load_trained(plan.base, plan.checkpoint.path)
            before = probe.measure(trained, loading.tokenizer(plan.base))
            del trained
            _report(progress, 1, f"writing {plan.format} in {plan.precision}")
            back = _write(plan, partial)
            _report(progress, 2, "reading it back and measuring again")
            after = probe.measure(loading.load(back), loading.tokenizer(back))
            if back != partial:
                shutil.rmtree(back)
            verdict = certificate.compare(probe, before, after, plan.precision)
            (partial / CERTIFICATE).write_text(json.dumps(verdict.as_dict(), indent=1))
        if not verdict.is_ok and not plan.force:
            raise Conflict(
                "The exported model does not answer as the checkpoint does: "
                f"{certificate.describe(verdict)}. Nothing was kept. Choose a finer precision, or "
                "force=True to keep it all the same."
            )
        shutil.rmtree(folder, ignore_errors=True)  # an earlier export of the same checkpoint
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _report(progress, 3, "done")
    return verdict


def _report(progress: OnProgress | None, done: int, note: str) -> None:
    if progress:
        progress(Progress("export", done, 3, note))


def _write(plan: ExportPlan, folder: Path) -> Path:
    """Write an export and return the folder from which it can be read back."""
    if plan.format != "gguf":
        _merge(plan, folder, plan.precision)
        return folder
    plain, back = folder / "plain", folder / "back"
    for scratch in (plain, back):
        scratch.mkdir()
    _merge(plan, plain, "f32")
    gguf_file.write(plain, folder / GGUF, plan.precision)
    shutil.rmtree(plain)
    sources.named("gguf").fetch(folder / GGUF, back)
    return back


def _rows(ws: Workspace, checkpoint: Checkpoint) -> DatasetVersion:
    """Return the rows to measure on: held-out ones if the job had some."""
    row = ws.store.get("jobs", id=checkpoint.job_id) or {}
    return datasets.get(ws, row["held_out_version_id"] or row["dataset_version_id"])


def base_of(ws: Workspace, checkpoint: Checkpoint) -> Path:
    """Return the folder of the base model that a checkpoint was trained from.

    Raises:
        Conflict: The checkpoint is damaged, or its base is quantised.
        NotFound: There is no such job.
    """
    damage = integrity.verify(checkpoint)
    if damage:
        raise Conflict(
            f"Checkpoint {checkpoint.step} of job {checkpoint.job_id} is damaged: {damage}. "
            "Use another one."
        )
    row = ws.store.get("jobs", id=checkpoint.job_id)
    if row is None:
        raise NotFound(f"There is no job {checkpoint.job_id}. See them with trainers.list(ws).")
    folder = models.pull(ws, row["model"]).path
    assert folder is not None, "what was pulled is here"
    if "quantization_config" in json.loads((folder / "config.json").read_text()):
        raise Conflict(
            f"The files of {row['model']} are quantised; an adapter is merged into plain weights "
            "only, as rounding would be baked in twice. Add the model's own safetensors, and merge "
            "into those."
        )
    return folder


def precision_of(folder: Path) -> str:
    """Return the precision of a model's files."""
    config = json.loads((folder / "config.json").read_text())
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return next((name for name, full in DTYPES.items() if full == dtype), "f32")


def _merge(plan: ExportPlan, folder: Path, precision: str) -> None:
    """Write the base with a checkpoint's adapter merged into it as one model of safetensors."""
    base, checkpoint = plan.base, plan.checkpoint.path
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    has_adapter = (checkpoint / "adapter_config.json").exists()
    with loading.quiet():
        source = base if has_adapter else checkpoint
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
        if has_adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(checkpoint))
            try:
                model = model.merge_and_unload(safe_merge=True)
            except ValueError as error:
                raise Conflict(
                    f"Checkpoint {plan.checkpoint.step} of job {plan.checkpoint.job_id} can't be "
                    f"merged: its adapter holds NaN or infinity ({error}). Use an earlier one."
                ) from error
        model = model.to(getattr(torch, DTYPES[precision]))
        model.config._name_or_path = ""
        model.save_pretrained(folder)
    for pattern in COMPANIONS:
        for path in base.glob(pattern):
            shutil.copy2(path, folder / path.name)


def parse_format(format: str) -> tuple[str, str]:
    """Return the kind of file and the precision of a format.

    Raises:
        InputError: There is no such format.
    """
    formats = [*(f"safetensors-{name}" for name in DTYPES), *(f"gguf-{name}" for name in DTYPES)]
    formats.append("gguf-q8_0")
    if format not in formats:
        raise InputError(
            f"format is {format!r}; expected one of {', '.join(formats)}.{nearest(format, formats)}"
        )
    kind, _, precision = format.partition("-")
    return kind, precision
