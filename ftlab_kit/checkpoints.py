"""Checkpoints that can't lie: hashed, synced, and named only when they are whole.

A checkpoint is written into a folder of another name; `seal` syncs every file, writes MANIFEST.json
with sizes and SHA-256, syncs that, and renames the folder. What has its name is complete, or
`verify` says which file is not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ftlab_kit.errors import NotFound, room_on_disk
from ftlab_kit.records import Checkpoint, Rows
from ftlab_kit.workspace import Workspace, now

MANIFEST = "MANIFEST.json"


def seal(
    ws: Workspace,
    job_id: int,
    step: int,
    partial: Path,
    *,
    losses: Mapping[str, float | None],
    facts: Mapping[str, Any],
) -> Checkpoint:
    """Turn a written folder into the checkpoint of a step and record it.

    Args:
        partial: The folder as it was written; it is renamed.
        losses: `loss` and `eval_loss` at this step, None where not known.
        facts: What decides the rest of the run, kept in the manifest.

    Raises:
        OutOfRoom: The disk is full; the folder is removed.
    """
    final = ws.job_folder(job_id) / "checkpoints" / f"step-{step:06d}"
    with ExitStack() as undo, room_on_disk(f"checkpoint {step} of job {job_id}"):
        undo.callback(shutil.rmtree, partial, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        files = {path.name: _entry(path) for path in sorted(partial.iterdir())}
        size = sum(entry["bytes"] for entry in files.values())
        manifest = {"job": job_id, "step": step, **losses, **facts, "files": files}
        path = partial / MANIFEST
        path.write_text(json.dumps(manifest, indent=1))
        _sync(path)
        _sync(partial)
        undo.pop_all()
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)
    key = {"job_id": job_id, "step": step}
    ws.store.delete("checkpoints", **key)
    ws.store.insert(
        "checkpoints", **key, **losses, size_bytes=size, path=str(final), created_at=now()
    )
    return get(ws, job_id, step)


def list(ws: Workspace, job_id: int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job, the oldest first."""
    found = ws.store.rows("checkpoints", order="step", job_id=job_id)
    return Rows(Checkpoint(**{**row, "path": Path(row["path"])}) for row in found)


def get(ws: Workspace, job_id: int, step: int | None = None) -> Checkpoint:
    """Return the checkpoint of a step, or the newest.

    Raises:
        NotFound: There is none.
    """
    found = [item for item in list(ws, job_id) if step is None or item.step == step]
    if not found:
        which = "no checkpoint yet" if step is None else f"no checkpoint of step {step}"
        raise NotFound(
            f"Job {job_id} has {which}. See them with trainers.checkpoints(ws, {job_id})."
        )
    return found[-1]


def best(ws: Workspace, job_id: int) -> Checkpoint:
    """Return the checkpoint with the lowest held-out loss; the newest where none was measured."""
    measured = [item for item in list(ws, job_id) if item.eval_loss is not None]
    return min(measured, key=lambda item: item.eval_loss or 0.0) if measured else get(ws, job_id)


def verify(checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with a checkpoint's files, or None if every byte is as written."""
    path = checkpoint.path / MANIFEST
    if not path.exists():
        return f"{path} is missing"
    try:
        files: dict[str, dict[str, Any]] = json.loads(path.read_text())["files"]
    except (ValueError, KeyError):
        return f"{path} is damaged"
    for name, expected in files.items():
        file = checkpoint.path / name
        if not file.exists():
            return f"{file} is missing"
        found = _entry(file, sync=False)
        if found != expected:
            return f"{file} has other bytes than were written"
    return None


def prune(ws: Workspace, job_id: int, *, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best one."""
    found = list(ws, job_id)
    if len(found) <= keep:
        return
    kept = {item.step for item in found[-keep:]} | {best(ws, job_id).step}
    for item in found:
        if item.step not in kept:
            ws.store.delete("checkpoints", id=item.id)
            shutil.rmtree(item.path, ignore_errors=True)


def _entry(path: Path, *, sync: bool = True) -> dict[str, Any]:
    if sync:
        _sync(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
