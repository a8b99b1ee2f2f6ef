"""Who answers: a base model, a job's checkpoint, an export, a folder, a hosted chat model.

Whatever it is, it answers chats. One whose weights are here has a `model` too, so that likelihoods
can be measured; of one that is served elsewhere only answers are known. A deployment that speaks
the OpenAI protocol is a hosted model with an address: `openai:NAME@https://...`.
"""

import re
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from ftlab_kit import checkpoints, device, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.errors import Conflict, InputError, NotFound
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Checkpoint, Export, Job, Message, Model
from ftlab_kit.workspace import Workspace

LATE = "Not asked: the time was up. Give more with max_seconds."

Target = Job | Model | Checkpoint | Export | Path | int | str
Chats = Sequence[Sequence[dict[str, Any]]]
Progress = Callable[[int, int], None]


@runtime_checkable
class ChatModel(Protocol):
    """What answers. `model`, `tokenizer` and their `folder` are None for one that is elsewhere."""

    label: str
    job_id: int | None
    step: int | None
    model: Any
    tokenizer: Any
    folder: Path | None
    cost_usd: float | None
    reasons: dict[int, str]  # why a chat of the last `answers` has none

    def answers(
        self,
        chats: Chats,
        manner: GenerationSettings,
        progress: Progress | None = None,
        *,
        tools: Any = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where there is none, with the reason in `reasons`.

        Args:
            tools: For each chat the functions that may be called, or None.
        """

    def stream(
        self, chat: Sequence[dict[str, Any]], manner: GenerationSettings
    ) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces of whole characters, and return it.

        Joined they are what `answers` says, but for white space around it.
        """

    def close(self) -> None:
        """Give back what was taken."""

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def open_model(ws: Workspace, target: Target, *, checkpoint: str | int = "last") -> ChatModel:
    """Return what answers for a target, its weights loaded.

    Args:
        target: A model's name, a job or its number, a checkpoint, an export, the path of a model's
            folder or GGUF file, or `provider:model[@url]`.
        checkpoint: Of a job: 'last', 'best', or the step of one.

    Raises:
        InputError: No model is at a path, or no hosted one has such a name.
        NotFound: There is no such model, job or checkpoint.
        Conflict: The checkpoint is damaged.
    """
    if isinstance(target, str) and re.match(r"\w+:", target):  # no model's name has a colon
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
    folder = models.pull(ws, name).path
    assert folder is not None
    return _local(name, folder)


def _local(label: str, folder: Path, **more: Any) -> ChatModel:
    device.share_cores()
    from ftlab_kit.chats.local import Local

    return Local(label, folder, **more)


def _of_job(ws: Workspace, job_id: int, which: str | int) -> ChatModel:
    if ws.store.get("jobs", id=job_id) is None:
        raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
    if which == "best":
        return _of_checkpoint(ws, checkpoints.best(ws, job_id))
    if which != "last" and not str(which).isdigit():
        raise InputError(
            f"checkpoint is {which!r}; expected 'last', 'best' or the step of one. See them with "
            f"checkpoints.list(ws, {job_id})."
        )
    return _of_checkpoint(ws, integrity.get(ws, job_id, None if which == "last" else int(which)))


def _of_checkpoint(ws: Workspace, found: Checkpoint) -> ChatModel:
    damage = integrity.verify(found)
    if damage:
        raise Conflict(
            f"Checkpoint {found.step} of job {found.job_id} can't be trusted: {damage}. "
            "Take another one, or train the job again."
        )
    row = ws.store.get("jobs", id=found.job_id) or {}
    folder = models.pull(ws, row["model"]).path
    assert folder is not None
    made = _local(f"job {found.job_id}, step {found.step}", folder, learnt=found.path)
    made.job_id, made.step = found.job_id, found.step
    return made


def _of_path(path: Path) -> ChatModel:
    if path.suffix != ".gguf":
        from ftlab_kit.models.sources import folder

        folder.fetch(path, path)
        return _local(str(path), path)
    from ftlab_kit.models.sources import gguf

    if not path.exists():
        raise InputError(f"{path} does not exist; expected a .gguf file. Give the path of one.")
    scratch = tempfile.TemporaryDirectory(prefix="ftlab-gguf-")
    gguf.fetch(path, Path(scratch.name))
    return _local(str(path), Path(scratch.name), scratch=scratch)
