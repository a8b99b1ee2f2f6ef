"""Checkpoints that are complete or not there: hashed, synced, and renamed at the end.

A checkpoint is written into a folder of another name. `commit` syncs every file, writes
MANIFEST.json with sizes and SHA-256, and the manifest's own hash, syncs both, and renames the
folder. A folder with the final name is complete, or `verify` says which file is not.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ftlab_kit.errors import NotFound, room_on_disk
from ftlab_kit.records import Checkpoint, Rows
from ftlab_kit.workspace import Workspace, now

MANIFEST = "MANIFEST.json"
DIGEST = "MANIFEST.sha256"  # of the manifest itself


def commit(
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
    final = _folder(ws, job_id, step)
    with ExitStack() as undo, room_on_disk(f"checkpoint {step} of job {job_id}"):
        undo.callback(shutil.rmtree, partial, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        paths = sorted(path for path in partial.rglob("*") if path.is_file())
        files = {str(path.relative_to(partial)): _entry(path) for path in paths}
        manifest = {"job": job_id, "step": step, **losses, **facts, "files": files}
        path = partial / MANIFEST
        path.write_text(json.dumps(manifest, indent=1))
        (partial / DIGEST).write_text(_entry(path)["sha256"])
        _sync(partial / DIGEST)
        _sync(partial)
        undo.pop_all()
    old = final.with_suffix(".old")
    if final.exists():
        final.rename(old)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
    return _record(ws, job_id, manifest, final)


def _folder(ws: Workspace, job_id: int, step: int) -> Path:
    return ws.job_folder(job_id) / "checkpoints" / f"step-{step:06d}"


def _record(ws: Workspace, job_id: int, facts: Mapping[str, Any], folder: Path) -> Checkpoint:
    """Write the row of a committed checkpoint."""
    key = {"job_id": job_id, "step": facts["step"]}
    values = {"loss": facts["loss"], "eval_loss": facts["eval_loss"], "path": str(folder)}
    values["size_bytes"] = sum(entry["bytes"] for entry in facts["files"].values())
    with ws.store.transaction():
        ws.store.delete("checkpoints", **key)
        ws.store.insert("checkpoints", **key, **values, created_at=now())
    return get(ws, job_id, facts["step"])


def list(ws: Workspace, job_id: int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job, the oldest first."""
    rows = ws.store.rows("checkpoints", order="step", job_id=job_id)
    scores = _scores(ws, job_id)
    return Rows(
        Checkpoint(**{**row, "path": Path(row["path"])}, scores=scores.get(row["step"], {}))
        for row in rows
    )


def _scores(ws: Workspace, job_id: int) -> dict[int, dict[str, float | None]]:
    """Return the scores of each step's checkpoint; the newest evaluation counts."""
    scores: dict[int, dict[str, float | None]] = {}
    for row in ws.store.rows("evaluations", only=("step", "scores"), job_id=job_id):
        scores.setdefault(row["step"], {}).update(row["scores"])
    return scores


def get(ws: Workspace, job_id: int, step: int | None = None) -> Checkpoint:
    """Return the checkpoint of a step, or the newest.

    Raises:
        NotFound: There is none.
    """
    matches = [item for item in list(ws, job_id) if step is None or item.step == step]
    if not matches:
        which = "no checkpoint yet" if step is None else f"no checkpoint of step {step}"
        raise NotFound(
            f"Job {job_id} has {which}. See them with trainers.checkpoints(ws, {job_id})."
        )
    return matches[-1]


def _best(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Return the checkpoint with the lowest held-out loss; the newest if none was measured."""
    measured = [item for item in checkpoints if item.eval_loss is not None]
    return min(measured, key=lambda item: item.eval_loss or 0.0) if measured else checkpoints[-1]


def verify(checkpoint: Checkpoint | Path) -> str | None:
    """Return what is wrong with a checkpoint's files, or None if every byte is as written.

    Args:
        checkpoint: The checkpoint, or its folder.
    """
    folder = checkpoint if isinstance(checkpoint, Path) else checkpoint.path
    path = folder / MANIFEST
    if not path.exists():
        return f"{path} is missing"
    digest = folder / DIGEST
    if not digest.exists() or _entry(path, sync=False)["sha256"] != digest.read_text():
        return f"{path} has other bytes than were written"
    files: dict[str, dict[str, Any]] = json.loads(path.read_bytes())["files"]
    for name, expected in files.items():
        file = folder / name
        if not file.exists():
            return f"{file} is missing"
        if _entry(file, sync=False) != expected:
            return f"{file} has other bytes than were written"
    return None


def manifest(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was recorded when a checkpoint was committed."""
    facts: dict[str, Any] = json.loads((checkpoint.path / MANIFEST).read_text())
    return facts


def newest_valid(ws: Workspace, job_id: int) -> tuple[Checkpoint | None, dict[int, str]]:
    """Return the newest checkpoint that verifies, and what is wrong with each newer one, by step.

    A checkpoint whose worker was killed between the commit and the row is recognised by its folder.
    None if no checkpoint verifies.
    """
    _adopt(ws, job_id)
    skipped: dict[int, str] = {}
    for checkpoint in reversed(list(ws, job_id)):
        damage = verify(checkpoint)
        if damage is None:
            return checkpoint, skipped
        skipped[checkpoint.step] = damage
    return None, skipped


def _adopt(ws: Workspace, job_id: int) -> None:
    """Record committed folders that have no row, and finish renames that a kill interrupted."""
    for path in (ws.job_folder(job_id) / "checkpoints").glob("step-*.old"):
        if path.with_suffix("").exists():
            shutil.rmtree(path, ignore_errors=True)
        else:  # killed between two renames
            path.rename(path.with_suffix(""))
    recorded = {item.path for item in list(ws, job_id)}
    for path in (ws.job_folder(job_id) / "checkpoints").glob(f"step-*/{MANIFEST}"):
        if path.parent not in recorded and path.parent.suffix == "":
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged manifest
                _record(ws, job_id, json.loads(path.read_text()), path.parent)


def set_aside(ws: Workspace, job_id: int, *, after_step: int) -> None:
    """Remove the checkpoints after a step from the list; their folders stay, as `.damaged`."""
    for item in list(ws, job_id):
        if item.step > after_step:
            ws.store.delete("checkpoints", id=item.id)
            if item.path.exists():
                aside = item.path.with_suffix(".damaged")
                shutil.rmtree(aside, ignore_errors=True)
                item.path.rename(aside)


def prune(ws: Workspace, job_id: int, *, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints and the best one."""
    complete = [item for item in list(ws, job_id) if _is_complete(item)]
    if len(complete) <= keep:
        return
    keep_steps = {item.step for item in complete[-keep:]} | {_best(complete).step}
    for item in complete:
        if item.step not in keep_steps:
            # renamed first, or a kill would leave half of it under its name
            gone = item.path.with_suffix(".gone")
            item.path.rename(gone)
            ws.store.delete("checkpoints", id=item.id)
            shutil.rmtree(gone, ignore_errors=True)
    for leftover in complete[0].path.parent.glob("step-*.*"):
        if int(leftover.stem.rpartition("-")[2]) < complete[-keep].step:
            shutil.rmtree(leftover, ignore_errors=True)


def _is_complete(checkpoint: Checkpoint) -> bool:
    """Return whether every file is there in its size, without reading the files."""
    try:
        files = manifest(checkpoint)["files"].items()
        return all(
            (checkpoint.path / name).stat().st_size == entry["bytes"] for name, entry in files
        )
    except (OSError, ValueError, KeyError):
        return False


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
