"""Checkpoints: which there are and which is best, and the models that are made of them.

How one is written so that it can't lie stands in `sealed`. What leaves the kit, merged or as GGUF,
comes with a certificate: the same prompts and rows before and after, by numbers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit import models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.errors import InputError
from ftlab_kit.models import names
from ftlab_kit.records import Certificate, Checkpoint, Export, Job, Rows
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from ftlab_kit.checkpoints.standalone import Order

HELD_OUT = "eval_loss"  # what best goes by unless another measure is named


def list(ws: Workspace, job: Job | int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job, the oldest first, with their held-out loss and scores."""
    return integrity.list(ws, _id(job))


def get(ws: Workspace, job: Job | int, step: int | None = None) -> Checkpoint:
    """Return the checkpoint of a step, or the newest.

    Raises:
        NotFound: There is none.
    """
    return integrity.get(ws, _id(job), step)


def best(ws: Workspace, job: Job | int, *, by: str = HELD_OUT) -> Checkpoint:
    """Return the best checkpoint of a job by one measure.

    Args:
        by: `eval_loss`, the loss on held-out rows, or a measure by which checkpoints were scored,
            as perplexity or bleu.

    Raises:
        NotFound: There is no checkpoint yet.
        InputError: None was measured so.
    """
    found = list(ws, job)
    get(ws, job)
    known = [item for item in found if _measure(item, by) is not None]
    if not known:
        raise InputError(
            f"No checkpoint of job {_id(job)} has a measure {by!r}; expected one at least. Start "
            "jobs with held_out=, or score its checkpoints with evaluators.run(ws, job, rows, "
            "checkpoint=step)."
        )
    # the first of equals: it has learnt as much in less time
    sign = -1.0 if _is_greater_better(ws, by) else 1.0
    return min(known, key=lambda item: sign * (_measure(item, by) or 0.0))


def merge(
    ws: Workspace,
    job: Job | int,
    name: str,
    *,
    checkpoint: str | int = "last",
    anyway: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Merge what a job has learnt into its base, as a model of the workspace, and certify it.

    The model can be scored, trained on and exported like any other. Its files are in the precision
    of the base's.

    Args:
        name: What the model is called from now on.
        checkpoint: 'last', 'best' by held-out loss, or a step.
        anyway: Keep it although its certificate fails.
        progress: Called with what is being done.

    Raises:
        Conflict: The name is taken, the base is quantised, the checkpoint is damaged, or the
            certificate fails; nothing was kept.
        NotFound: There is no such checkpoint.
    """
    from ftlab_kit.checkpoints import standalone

    names.check_new(ws, name)
    found = _chosen(ws, job, checkpoint)
    base = standalone.base_of(ws, found)
    order = standalone.Order(found, base, "safetensors", standalone.precision_of(base), anyway)
    with standalone.alone(ws):
        names.check_new(ws, name)  # again: someone may have been quicker
        certificate = standalone.write(ws, order, ws.models / name, progress or _silently)
        models.add(ws, name, ws.models / name)
        return _written(ws, order, ws.models / name, certificate, name)


def export(
    ws: Workspace,
    job: Job | int,
    *,
    format: str = "safetensors-f16",
    checkpoint: str | int = "last",
    anyway: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Write what a job has learnt, merged into its base, for use elsewhere, and certify it.

    Args:
        format: 'safetensors', a folder as transformers and vLLM read it, or 'gguf', one file as
            llama.cpp and Ollama read it; with '-f32', '-f16', '-bf16' or, of gguf, '-q8_0'.
        checkpoint: 'last', 'best' by held-out loss, or a step.
        anyway: Keep it although its certificate fails.
        progress: Called with what is being done.

    Raises:
        InputError: No such format, or a model that can't be written so.
        Conflict: The base is quantised, the checkpoint is damaged, or the certificate fails;
            nothing was kept.
    """
    from ftlab_kit.checkpoints import standalone

    kind, precision = standalone.parted(format)
    found = _chosen(ws, job, checkpoint)
    order = standalone.Order(found, standalone.base_of(ws, found), kind, precision, anyway)
    folder = ws.exports / f"job-{found.job_id}-step-{found.step}-{format}"
    with standalone.alone(ws):
        certificate = standalone.write(ws, order, folder, progress or _silently)
        path = folder / standalone.GGUF if kind == "gguf" else folder
        return _written(ws, order, path, certificate, None)


def exports(ws: Workspace, job: Job | int | None = None) -> Rows[Export]:
    """Return what was made of a job's checkpoints, or of all, the oldest first."""
    found = ws.store.rows("exports")
    return Rows(_export(row) for row in found if job is None or row["job_id"] == _id(job))


def _chosen(ws: Workspace, job: Job | int, which: str | int) -> Checkpoint:
    if which == "best":
        return best(ws, job)
    if which != "last" and not str(which).isdigit():
        raise InputError(f"checkpoint is {which!r}; expected 'last', 'best' or a step.")
    return get(ws, job, None if which == "last" else int(which))


def _silently(words: str) -> None:
    """Say nothing."""


def _written(
    ws: Workspace, order: "Order", path: Path, certificate: Certificate, model: str | None
) -> Export:
    """Write an export down and return it."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    ws.store.delete("exports", path=str(path))
    number = ws.store.insert(
        "exports",
        job_id=order.got.job_id,
        step=order.got.step,
        format=order.format,
        precision=order.precision,
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
    """Return whether more of a measure is better, as the newest evaluation with it says."""
    for row in ws.store.rows("evaluations", descending=True, only=("details",)):
        facts = row["details"].get(measure)
        if isinstance(facts, dict):
            return bool(facts["greater_is_better"])
    return False


def _measure(item: Checkpoint, by: str) -> float | None:
    return item.eval_loss if by == HELD_OUT else item.scores.get(by)


def _id(job: Job | int) -> int:
    return job.id if isinstance(job, Job) else job
