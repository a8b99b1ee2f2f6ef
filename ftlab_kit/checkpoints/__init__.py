"""Checkpoints: a job's list, its best one, and the models exported from them.

A checkpoint is hashed and renamed when it is complete; `integrity` has that part, and other rooms
use it for what a running job writes and resumes from. An exported model, merged or as GGUF, comes
with a certificate: the same prompts and rows measured before and after.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit import models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.errors import InputError
from ftlab_kit.models import names
from ftlab_kit.records import Certificate, Checkpoint, Export, Job, OnProgress, Rows
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from ftlab_kit.checkpoints.standalone import ExportPlan

__all__ = ["best", "export", "exports", "get", "integrity", "list", "merge"]

HELD_OUT = "eval_loss"  # the measure of `best` unless another one is named


def list(ws: Workspace, job: Job | int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job, the oldest first, with their held-out loss and scores."""
    return integrity.list(ws, _id(job))


def get(ws: Workspace, job: Job | int, step: int | None = None) -> Checkpoint:
    """Return the checkpoint of a step, or the newest.

    Raises:
        NotFound: There is no such checkpoint.
    """
    return integrity.get(ws, _id(job), step)


def best(ws: Workspace, job: Job | int, *, by: str = HELD_OUT) -> Checkpoint:
    """Return the best checkpoint of a job by one measure.

    Args:
        ws: The workspace.
        job: The job, or its number.
        by: `eval_loss`, the loss on held-out rows, or a measure that its checkpoints were scored
            by, such as perplexity or bleu.

    Raises:
        NotFound: There is no checkpoint yet.
        InputError: No checkpoint has that measure.
    """
    get(ws, job)
    measured = [item for item in list(ws, job) if _measure(item, by) is not None]
    if not measured:
        raise InputError(
            f"No checkpoint of job {_id(job)} has the measure {by!r}; expected at least one. Start "
            "jobs with held_out=, or score a checkpoint with evaluators.run(ws, job, rows, "
            "checkpoint=step)."
        )
    # the first of equals: it is as good after less training
    sign = -1.0 if _is_greater_better(ws, by) else 1.0
    return min(measured, key=lambda item: sign * (_measure(item, by) or 0.0))


def merge(
    ws: Workspace,
    job: Job | int,
    name: str,
    *,
    checkpoint: str | int = "last",
    force: bool = False,
    progress: OnProgress | None = None,
) -> Export:
    """Merge a job's adapter into its base, as a model of the workspace, and certify it.

    The model can be scored, trained and exported like any other. Its files have the precision of
    the base's.

    Args:
        ws: The workspace.
        job: The job, or its number.
        name: The new model's name.
        checkpoint: 'last', 'best' by held-out loss, or a step.
        force: Keep it even if its certificate fails.
        progress: Called before each of three steps, which the note names.

    Raises:
        Conflict: The name is taken, the base is quantised, the checkpoint is damaged, or the
            certificate fails; nothing was kept.
        NotFound: There is no such checkpoint.
    """
    from ftlab_kit.checkpoints import standalone

    names.check_new(ws, name)
    chosen = _chosen(ws, job, checkpoint)
    base = standalone.base_of(ws, chosen)
    precision = standalone.precision_of(base)
    plan = standalone.ExportPlan(chosen, base, "safetensors", precision, force)
    with standalone.export_lock(ws):
        names.check_new(ws, name)  # again: another process may have been quicker
        certificate = standalone.write(ws, plan, ws.models / name, progress)
        models.add(ws, name, ws.models / name)
        return _record(ws, plan, ws.models / name, certificate, name)


def export(
    ws: Workspace,
    job: Job | int,
    *,
    format: str = "safetensors-f16",
    checkpoint: str | int = "last",
    force: bool = False,
    progress: OnProgress | None = None,
) -> Export:
    """Write a job's adapter, merged into its base, for use elsewhere, and certify it.

    Args:
        ws: The workspace.
        job: The job, or its number.
        format: 'safetensors', a folder for transformers and vLLM, or 'gguf', one file for llama.cpp
            and Ollama; with '-f32', '-f16', '-bf16' or, for gguf only, '-q8_0'.
        checkpoint: 'last', 'best' by held-out loss, or a step.
        force: Keep it even if its certificate fails.
        progress: Called before each of three steps, which the note names.

    Raises:
        InputError: There is no such format, or the model can't be written in it.
        Conflict: The base is quantised, the checkpoint is damaged, or the certificate fails;
            nothing was kept.
    """
    from ftlab_kit.checkpoints import standalone

    kind, precision = standalone.parse_format(format)
    chosen = _chosen(ws, job, checkpoint)
    base = standalone.base_of(ws, chosen)
    plan = standalone.ExportPlan(chosen, base, kind, precision, force)
    folder = ws.exports / f"job-{chosen.job_id}-step-{chosen.step}-{format}"
    with standalone.export_lock(ws):
        certificate = standalone.write(ws, plan, folder, progress)
        path = folder / standalone.GGUF if kind == "gguf" else folder
        return _record(ws, plan, path, certificate, None)


def exports(ws: Workspace, job: Job | int | None = None) -> Rows[Export]:
    """Return the exports of a job, or of all jobs, the oldest first."""
    rows = ws.store.rows("exports")
    return Rows(_export(row) for row in rows if job is None or row["job_id"] == _id(job))


def _chosen(ws: Workspace, job: Job | int, which: str | int) -> Checkpoint:
    if which == "best":
        return best(ws, job)
    if which != "last" and not str(which).isdigit():
        raise InputError(f"checkpoint is {which!r}; expected 'last', 'best' or a step.")
    return get(ws, job, None if which == "last" else int(which))


def _record(
    ws: Workspace, plan: "ExportPlan", path: Path, certificate: Certificate, model: str | None
) -> Export:
    """Record an export and return it."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    ws.store.delete("exports", path=str(path))
    number = ws.store.insert(
        "exports",
        job_id=plan.checkpoint.job_id,
        step=plan.checkpoint.step,
        format=plan.format,
        precision=plan.precision,
        model=model,
        path=str(path),
        size_bytes=sum(item.stat().st_size for item in files),
        certificate=certificate.as_dict(),
        created_at=now(),
    )
    return _export(ws.store.get("exports", id=number) or {})


def _export(row: dict[str, Any]) -> Export:
    facts = {**row["certificate"]}
    if facts["first_difference"]:
        facts["first_difference"] = tuple(facts["first_difference"])
    return Export(**{**row, "path": Path(row["path"]), "certificate": Certificate(**facts)})


def _is_greater_better(ws: Workspace, measure: str) -> bool:
    """Return whether a greater value is better, as the newest evaluation by the measure says."""
    for row in ws.store.rows("evaluations", descending=True, only=("details",)):
        facts = row["details"].get(measure)
        if isinstance(facts, dict):
            return bool(facts["greater_is_better"])
    return False


def _measure(item: Checkpoint, by: str) -> float | None:
    return item.eval_loss if by == HELD_OUT else item.scores.get(by)


def _id(job: Job | int) -> int:
    return job.id if isinstance(job, Job) else job
