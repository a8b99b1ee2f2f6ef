"""From a target to the model that answers: a base model, a checkpoint, a folder, a hosted model.

A deployment that speaks the OpenAI protocol is a hosted model with an address:
`openai:NAME@https://...`.
"""

import re
import tempfile
from pathlib import Path

from ftlab_kit import checkpoints, device, models
from ftlab_kit.chats.protocol import ChatModel, Target
from ftlab_kit.checkpoints import integrity
from ftlab_kit.errors import Conflict, InputError, NotFound
from ftlab_kit.records import Checkpoint, Export, Job, Model
from ftlab_kit.workspace import Workspace


def open_model(ws: Workspace, target: Target, *, checkpoint: str | int = "last") -> ChatModel:
    """Return the model that answers for a target, its weights loaded.

    Args:
        ws: The workspace.
        target: A model's name, a job or its number, a checkpoint, an export, the path of a model's
            folder or GGUF file, or `provider:model[@url]`.
        checkpoint: Of a job: 'last', 'best', or a step.

    Raises:
        InputError: There is no model at a path, or the name of a hosted one is malformed.
        NotFound: There is no such model, job or checkpoint.
        Conflict: The checkpoint is damaged.
    """
    if isinstance(target, str) and re.match(r"\w+:", target):  # no local model's name has a colon
        from ftlab_kit.chats.hosted import Hosted

        return Hosted(target)
    if isinstance(target, str) and target.isdigit():
        target = int(target)
    if isinstance(target, Export):
        target = target.path
    if isinstance(target, Job | int):
        return _of_job(ws, target.id if isinstance(target, Job) else target, checkpoint)
    if isinstance(target, Checkpoint):
        return _of_checkpoint(ws, target)
    if isinstance(target, Path) or "/" in str(getattr(target, "id", target)):
        return _of_path(Path(str(target)).expanduser())
    name = target.id if isinstance(target, Model) else target
    return _local(name, _base(ws, name))


def _base(ws: Workspace, name: str) -> Path:
    folder = models.pull(ws, name).path
    assert folder is not None, "what was pulled is here"
    return folder


def _local(
    label: str,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    scratch: "tempfile.TemporaryDirectory[str] | None" = None,
) -> ChatModel:
    device.share_cores()
    from ftlab_kit.chats.local import Local

    return Local(label, folder, checkpoint=checkpoint, scratch=scratch)


def _of_job(ws: Workspace, job_id: int, which: str | int) -> ChatModel:
    if ws.store.get("jobs", id=job_id) is None:
        raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
    if which == "best":
        return _of_checkpoint(ws, checkpoints.best(ws, job_id))
    if which != "last" and not str(which).isdigit():
        raise InputError(
            f"checkpoint is {which!r}; expected 'last', 'best' or a step. See them with "
            f"checkpoints.list(ws, {job_id})."
        )
    return _of_checkpoint(ws, integrity.get(ws, job_id, None if which == "last" else int(which)))


def _of_checkpoint(ws: Workspace, checkpoint: Checkpoint) -> ChatModel:
    damage = integrity.verify(checkpoint)
    if damage:
        raise Conflict(
            f"Checkpoint {checkpoint.step} of job {checkpoint.job_id} is damaged: {damage}. "
            "Use another one, or train the job again."
        )
    row = ws.store.get("jobs", id=checkpoint.job_id) or {}
    label = f"job {checkpoint.job_id}, step {checkpoint.step}"
    model = _local(label, _base(ws, row["model"]), checkpoint=checkpoint.path)
    model.job_id, model.step = checkpoint.job_id, checkpoint.step
    return model


def _of_path(path: Path) -> ChatModel:
    if path.suffix != ".gguf":
        from ftlab_kit.models import sources

        sources.named("folder").fetch(path, path)
        return _local(str(path), path)
    from ftlab_kit.models import sources

    if not path.exists():
        raise InputError(f"{path} does not exist; expected a .gguf file. Give the path of one.")
    scratch = tempfile.TemporaryDirectory(prefix="ftlab-gguf-")
    sources.named("gguf").fetch(path, Path(scratch.name))
    return _local(str(path), Path(scratch.name), scratch=scratch)
