"""Lines of descent: what a job may go on from, what it hands down, and its whole story."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlab_kit import datasets, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, DiskFull, room_on_disk
from ftlab_kit.jobs import states
from ftlab_kit.records import Checkpoint, Evaluation, Job, Lineage, Rows
from ftlab_kit.trainers import reproducibility
from ftlab_kit.trainers.run_state import FILE, RunState
from ftlab_kit.workspace import Workspace

ROOM = 2.2  # checkpoints' worth of room that a resumed job wants: one is written before one goes
LEAST_BYTES = 2**23
PARENT = "parent"  # the folder in which a fork keeps the checkpoint that it comes from


def look_before_resume(ws: Workspace, row: dict[str, Any], *, allow_drift: bool) -> None:
    """Refuse at once what the worker would refuse in a minute.

    Raises:
        DiskFull: There is no room for the next checkpoints.
        Conflict: Rows, settings, libraries or threads are others than in the checkpoint.
    """
    free, need = shutil.disk_usage(ws.root).free, room_bytes(ws, row["id"])
    if free < need:
        raise DiskFull(
            f"Job {row['id']} wants {need / 2**20:.0f} MiB for its next checkpoints; "
            f"{free / 2**20:.0f} MiB are free. Free some space, then resume it."
        )
    found, _ = integrity.newest_valid(ws, row["id"])
    refuse_drift(row["id"], changes(ws, row, found) if not allow_drift else [])


def changes(ws: Workspace, row: dict[str, Any], found: Checkpoint | None) -> list[str]:
    """Return in words what decides the run's bits and is another thing now than in a checkpoint.

    Raises:
        Conflict: The checkpoint is an older kit's, which kept less than a resume wants.
    """
    if found is None:
        return []
    if not (found.path / FILE).exists():
        raise Conflict(
            f"Checkpoint {found.step} of job {row['id']} was written by an older kit and can't be "
            f"resumed exactly. Train on from it with trainers.fork(ws, {row['id']})."
        )
    return [*reproducibility.between(integrity.manifest(found), reproducibility.facts(ws, row))]


def refuse_drift(job_id: int, changed: list[str]) -> None:
    """Refuse to go on where something has changed.

    Raises:
        Conflict: Names every change and the way out.
    """
    if changed:
        raise Conflict(
            f"Job {job_id} can't go on as if nothing had happened: {'; '.join(changed)}. Bring it "
            f"back, or accept another result with trainers.resume(ws, {job_id}, allow_drift=True)."
        )


def look_before_replay(ws: Workspace, row: dict[str, Any], *, allow_drift: bool) -> None:
    """Refuse to replay what would end with other bits.

    Raises:
        Conflict: Something has changed since, or the guard has rolled the job back.
    """
    if states.events(ws, row["id"], command="rollback"):
        raise Conflict(
            f"Job {row['id']} was rolled back by its guard, to a checkpoint that hung on when it "
            "was paused or saved; a replay would not be exact. Start it anew with trainers.start."
        )
    was = row["facts"] or {}
    changed = (
        [*reproducibility.between(was, reproducibility.facts(ws, row))]
        if was.get("libraries")
        else []
    )
    if changed and not allow_drift:
        raise Conflict(
            f"A replay of job {row['id']} would not be exact: {'; '.join(changed)}. Bring it back, "
            f"or accept another result with trainers.replay(ws, {row['id']}, allow_drift=True)."
        )


def room_bytes(ws: Workspace, job_id: int) -> int:
    """Return the free bytes that a job wants before it goes on."""
    sizes = [item.size_bytes for item in integrity.list(ws, job_id)]
    if not sizes:  # what is trained, with its two moments
        config = Config(**states.row(ws, job_id)["config"])
        sizes = [int(models.memory(ws, config, bytes_per_weight=4).trained_gib * 2**30)]
    return max(LEAST_BYTES, int(ROOM * max(sizes)))


def fork_config(
    ws: Workspace, parent: Job, step: int | None, changes: Mapping[str, Any]
) -> tuple[Config, Checkpoint]:
    """Return the config of a fork and the checkpoint that it begins with.

    Raises:
        Conflict: The checkpoint is damaged, or the new settings can't take its weights over.
    """
    checkpoint = integrity.get(ws, parent.id, step)
    trouble = integrity.verify(checkpoint)
    if trouble:
        raise Conflict(
            f"Checkpoint {checkpoint.step} of job {parent.id} can't be trusted: {trouble}. "
            f"Take another one of trainers.checkpoints(ws, {parent.id})."
        )
    has_live = (checkpoint.path / FILE).exists()
    old = RunState.load(checkpoint.path).config if has_live else Config(**parent.config)
    config = old.but(**changes)
    if config.method == "grpo" and config.beta and config.adapter == "none":
        raise Conflict(
            f"grpo with beta pulls a fork of job {parent.id} towards its parent, which it can do "
            "with an adapter only. Set adapter='lora', or leave beta out."
        )
    if config.model != old.model:
        raise Conflict(
            f"Job {parent.id} trains {old.model}; a fork can't take its weights over into "
            f"{config.model}. Start a new job with trainers.start."
        )
    if (old.adapter, config.adapter) == ("none", "lora"):
        raise Conflict(
            f"Job {parent.id} trained every weight; an adapter on top wants it as a base model. "
            f"Add it with models.add(ws, 'mine', {str(checkpoint.path)!r}), then start on that."
        )
    if "lora" == old.adapter == config.adapter and config.adapter_rank < old.adapter_rank:
        raise Conflict(
            f"The adapter of job {parent.id} has rank {old.adapter_rank}; expected at least that, "
            f"found {config.adapter_rank}. A smaller one can't hold what it has learnt."
        )
    return config, checkpoint


def copy_weights(ws: Workspace, checkpoint: Path, job_id: int) -> None:
    """Give a fork its own hold of the checkpoint, which its parent may remove one day."""
    target = ws.job_folder(job_id) / PARENT
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # of a fork that was never written down
    with room_on_disk(f"the checkpoint that job {job_id} begins with"):
        shutil.copytree(checkpoint, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def copy_adjustments(ws: Workspace, old: Job, job_id: int) -> None:
    """Give a job what decides another's bits: its adjustments at their steps, and its beginning.

    Batches that the guard left out are left out again by themselves; a rollback is refused before.
    """
    commands = ["adjust", *states.OWN]
    for event in states.events(ws, old.id, command=commands, state="applied"):
        states.write(
            ws, job_id, event.command, state="pending", arguments=event.arguments,
            at_step=event.step,
            author=event.author, note=f"as in job {old.id}",
        )  # fmt: skip
    begun = (states.row(ws, old)["facts"] or {}).get("rows_at_once")
    ws.store.update("jobs", {"id": job_id}, facts={"rows_at_once": begun} if begun else None)
    if old.parent_id is not None:
        copy_weights(ws, ws.job_folder(old.id) / PARENT, job_id)


def lineage(ws: Workspace, job: Job) -> Lineage:
    """Return where a job comes from, what was done to it, and what came of it."""
    parents, parent_id = [], job.parent_id
    while parent_id is not None:
        parents.append(states.read(ws, parent_id))
        parent_id = parents[-1].parent_id
    held_out = job.held_out_version_id
    scored = ws.store.rows("evaluations", job_id=job.id)
    return Lineage(
        job=job,
        parents=Rows(parents),
        dataset=datasets.get(ws, job.dataset_version_id),
        held_out=datasets.get(ws, held_out) if held_out else None,
        facts=states.row(ws, job)["facts"] or {},
        events=states.events(ws, job.id),
        checkpoints=integrity.list(ws, job.id),
        forks=Rows(states.record(row) for row in ws.store.rows("jobs", parent_id=job.id)),
        evaluations=Rows(Evaluation.of(row) for row in scored),
    )
