"""Who is scored, or judges: a base model, a job's checkpoint, an export, a hosted chat model.

Whatever it is, it answers chats. One whose weights are here has a `model` too, so that likelihoods
can be measured; of one that is served elsewhere only answers are known. A deployment that speaks
the OpenAI protocol is a hosted model with an address: `openai:NAME@https://...`.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ftlab_kit import chats as hosted
from ftlab_kit import checkpoints, device, models
from ftlab_kit.checkpoints import sealed
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import Conflict, InputError, NotFound
from ftlab_kit.models import generation, tokens, weights
from ftlab_kit.models.generation import Answer, Manner
from ftlab_kit.records import Checkpoint, Export, Job, Model
from ftlab_kit.workspace import Workspace

Target = Job | Model | Checkpoint | Export | Path | int | str
Chats = Sequence[Sequence[dict[str, Any]]]
Progress = Callable[[int, int], None]


class Speaker(Protocol):
    """What answers. `model`, `tokenizer` and their `folder` are None for one that is elsewhere."""

    label: str
    job_id: int | None
    step: int | None
    model: Any
    tokenizer: Any
    folder: Path | None
    cost_usd: float | None
    reasons: dict[int, str]  # why a chat has no answer

    def answers(
        self, chats: Chats, manner: Manner, progress: Progress | None = None, *, tools: Any = None
    ) -> list[Answer | None]:
        """Return the answer to each chat, None where the time did not suffice.

        Args:
            tools: For each chat the functions that may be called, or None.
        """

    def close(self) -> None:
        """Give back what was taken."""


class Local:
    """A model whose weights are here."""

    def __init__(
        self, label: str, folder: Path, *, learnt: Path | None = None, scratch: Any = None
    ) -> None:
        """Load a folder, with what a checkpoint has learnt where there is one."""
        self.label, self._scratch = label, scratch
        self.folder: Path | None = folder
        self.job_id: int | None = None
        self.step: int | None = None
        self.cost_usd: float | None = None
        self.reasons: dict[int, str] = {}
        # a GPU scores in the type it trains in, a processor in the one it is exact in
        dtype = weights.dtype(device.precision("auto"), adapter="lora")
        loaded = (
            weights.trained(folder, learnt, dtype=dtype)
            if learnt
            else weights.load(folder, dtype=dtype)
        )
        self.model = loaded.to(device.kind())
        self.tokenizer = weights.tokenizer(folder)

    def answers(
        self, chats: Chats, manner: Manner, progress: Progress | None = None, *, tools: Any = None
    ) -> list[Answer | None]:
        """Return the answer to each chat, None where the time did not suffice."""
        given = tools or [None] * len(chats)
        prompts = [
            tokens.prompt(self.tokenizer, [*chat], tools=each)
            for chat, each in zip(chats, given, strict=True)
        ]
        return generation.answers(self.model, self.tokenizer, prompts, manner, progress=progress)

    def close(self) -> None:
        """Remove what a GGUF was unpacked into."""
        if self._scratch is not None:
            self._scratch.cleanup()


class Hosted:
    """A chat model that is served elsewhere."""

    model: Any = None
    tokenizer: Any = None

    def __init__(self, ws: Workspace, name: str) -> None:
        """Take its name; nothing is asked yet."""
        self.label, self._ws = name, ws
        self._costs: list[float | None] = []
        self.reasons: dict[int, str] = {}
        self.folder: Path | None = None
        self.job_id: int | None = None
        self.step: int | None = None
        self.cost_usd: float | None = None

    def answers(
        self, chats: Chats, manner: Manner, progress: Progress | None = None, *, tools: Any = None
    ) -> list[Answer | None]:
        """Return the answer to each chat; every one is paid for.

        Raises:
            InputError: The rows have tools, which are not sent.
        """
        if any(tools or ()):
            raise InputError(
                f"These rows give the model tools, and {self.label} would be asked without them; "
                "expected rows without tools. Filter them out with datasets.filter."
            )
        found = hosted.replies(
            self._ws,
            self.label,
            chats,
            max_new_tokens=manner.max_new_tokens,
            temperature=manner.temperature,
            seed=manner.seed,
            max_seconds=manner.max_seconds,
            progress=progress,
            refused=self.reasons.__setitem__,
        )
        self._costs += [item.usage.cost_usd for item in found if item]
        known = [cost for cost in self._costs if cost is not None]
        # a part of the bill is no bill
        self.cost_usd = sum(known) if known and len(known) == len(self._costs) else None
        return [
            Answer(item.content.strip(), item.usage.n_output_tokens, item.is_whole)
            if item
            else None
            for item in found
        ]

    def close(self) -> None:
        """There is nothing to give back."""


def speaker(ws: Workspace, target: Target, config: EvaluationConfig) -> Speaker:
    """Return what answers for a target, its weights loaded.

    Args:
        target: A model's name, a job or its number, a checkpoint, an export, the path of a model's
            folder or GGUF file, or `provider:model[@url]`.

    Raises:
        NotFound: There is no such model, job or checkpoint.
        Conflict: The checkpoint is damaged.
    """
    if isinstance(target, str) and hosted.is_hosted(target):
        return Hosted(ws, target)
    if isinstance(target, str) and target.isdigit():
        target = int(target)
    if isinstance(target, Export):
        target = target.path
    if isinstance(target, Job | int):
        return _of_job(ws, target.id if isinstance(target, Job) else target, config)
    if isinstance(target, Checkpoint):
        return _of_checkpoint(ws, target)
    if isinstance(target, Path) or "/" in str(getattr(target, "id", target)):
        return _of_path(Path(str(target)).expanduser())
    name = target.id if isinstance(target, Model) else target
    folder = models.pull(ws, name).path
    assert folder is not None
    return Local(name, folder)


def _of_job(ws: Workspace, job_id: int, config: EvaluationConfig) -> Speaker:
    if ws.store.get("jobs", id=job_id) is None:
        raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
    which = config.checkpoint
    if which == "best":
        return _of_checkpoint(ws, checkpoints.best(ws, job_id))
    return _of_checkpoint(ws, sealed.get(ws, job_id, None if which == "last" else int(which)))


def _of_checkpoint(ws: Workspace, found: Checkpoint) -> Speaker:
    damage = sealed.verify(found)
    if damage:
        raise Conflict(
            f"Checkpoint {found.step} of job {found.job_id} can't be trusted: {damage}. "
            "Score another one, or train the job again."
        )
    row = ws.store.get("jobs", id=found.job_id) or {}
    folder = models.pull(ws, row["model"]).path
    assert folder is not None
    made = Local(f"job {found.job_id}, step {found.step}", folder, learnt=found.path)
    made.job_id, made.step = found.job_id, found.step
    return made


def _of_path(path: Path) -> Speaker:
    if path.suffix != ".gguf":
        from ftlab_kit.models import folder

        folder.fetch(path, path)
        return Local(str(path), path)
    from ftlab_kit.models import gguf

    if not path.exists():
        raise InputError(f"{path} does not exist; expected a .gguf file. Give the path of one.")
    scratch = tempfile.TemporaryDirectory(prefix="ftlab-gguf-")
    gguf.fetch(path, Path(scratch.name))
    return Local(str(path), Path(scratch.name), scratch=scratch)
