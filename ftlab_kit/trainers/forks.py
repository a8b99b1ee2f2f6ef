"""Resumes, replays and forks: what a job may continue from, what it copies, and its history."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlab_kit import datasets, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, DiskFull, NotFound, room_on_disk
from ftlab_kit.jobs import states
from ftlab_kit.records import Checkpoint, Evaluation, Job, Lineage, Rows
from ftlab_kit.trainers import reproducibility, run_state
from ftlab_kit.workspace import Workspace

ROOM = 2.2  # checkpoints' worth of free space for a resume: one is written before one is removed
MIN_ROOM_BYTES = 2**23
PARENT = "parent"  # the folder in which a fork keeps the checkpoint that it comes from
COPIED_COMMANDS = ("adjust", *states.CAUSED_BY_RUN)


def newest_valid(ws: Workspace, job_id: int) -> Checkpoint:
    """Return a job's newest checkpoint that verifies.

    Raises:
        NotFound: The job has no valid checkpoint.
    """
    checkpoint, _ = integrity.newest_valid(ws, job_id)
    if checkpoint is None:
        raise NotFound(
            f"Job {job_id} has no checkpoint to answer from. Resume it, or ask while it runs."
        )
    return checkpoint


def look_before_resume(ws: Workspace, row: dict[str, Any], *, allow_drift: bool) -> None:
    """Refuse at once what the worker would refuse in a minute.

    Raises:
        DiskFull: There is no room for the next checkpoints.
        Conflict: Rows, settings, libraries or threads differ from the checkpoint's.
    """
    free_bytes, needed_bytes = shutil.disk_usage(ws.root).free, room_bytes(ws, row["id"])
    if free_bytes < needed_bytes:
        raise DiskFull(
            f"Job {row['id']} needs {needed_bytes / 2**20:.0f} MiB for its next checkpoints; "
            f"{free_bytes / 2**20:.0f} MiB are free. Free some space, then resume it."
        )
    checkpoint, _ = integrity.newest_valid(ws, row["id"])
    refuse_drift(row["id"], changes(ws, row, checkpoint) if not allow_drift else [])


def changes(ws: Workspace, row: dict[str, Any], checkpoint: Checkpoint | None) -> list[str]:
    """Return what decides the run's bits and has changed since a checkpoint, one text for each.

    Raises:
        Conflict: The checkpoint is from an older kit, which kept less than a resume needs.
    """
    if checkpoint is None:
        return []
    if not (checkpoint.path / run_state.FILE).exists():
        raise Conflict(
            f"Checkpoint {checkpoint.step} of job {row['id']} was written by an older kit and "
            "can't be resumed exactly. Train on from it with "
            f"trainers.fork(ws, {row['id']})."
        )
    facts_then, facts_now = integrity.manifest(checkpoint), reproducibility.facts(ws, row)
    return [*reproducibility.between(facts_then, facts_now)]


def refuse_drift(job_id: int, drift: list[str]) -> None:
    """Refuse to go on where something has changed.

    Raises:
        Conflict: Names every change and the way out.
    """
    if drift:
        raise Conflict(
            f"Job {job_id} can't be resumed exactly: {'; '.join(drift)}. Undo the change, or "
            f"accept another result with trainers.resume(ws, {job_id}, allow_drift=True)."
        )


def look_before_replay(ws: Workspace, row: dict[str, Any], *, allow_drift: bool) -> None:
    """Refuse a replay that would end with other bits.

    Raises:
        Conflict: Something has changed since, or the guard has rolled the job back.
    """
    if states.events(ws, row["id"], command="rollback"):
        raise Conflict(
            f"Job {row['id']} was rolled back by its guard, to a checkpoint that depended on when "
            "it was paused or saved; a replay would not be exact. Start it anew with "
            "trainers.start."
        )
    facts = row["facts"] or {}
    if allow_drift or not facts.get("libraries"):
        return
    drift = [*reproducibility.between(facts, reproducibility.facts(ws, row))]
    if drift:
        raise Conflict(
            f"A replay of job {row['id']} would not be exact: {'; '.join(drift)}. Undo the "
            "change, or accept another result with "
            f"trainers.replay(ws, {row['id']}, allow_drift=True)."
        )


def room_bytes(ws: Workspace, job_id: int) -> int:
    """Return the free bytes that a job needs before it goes on."""
    sizes = [checkpoint.size_bytes for checkpoint in integrity.list(ws, job_id)]
    if not sizes:  # the trained weights with their two moments
        config = Config(**states.row(ws, job_id)["config"])
        sizes = [int(models.memory(ws, config, bytes_per_weight=4).trained_gib * 2**30)]
    return max(MIN_ROOM_BYTES, int(ROOM * max(sizes)))


def fork_config(
    ws: Workspace, parent: Job, step: int | None, changes: Mapping[str, Any]
) -> tuple[Config, Checkpoint]:
    """Return the config of a fork and the checkpoint that it begins with.

    Raises:
        Conflict: The checkpoint is damaged, or its weights don't fit the new settings.
    """
    checkpoint = integrity.get(ws, parent.id, step)
    damage = integrity.verify(checkpoint)
    if damage:
        raise Conflict(
            f"Checkpoint {checkpoint.step} of job {parent.id} can't be trusted: {damage}. "
            f"Take another one of trainers.checkpoints(ws, {parent.id})."
        )
    parent_config = run_state.settings_of_checkpoint(checkpoint.path, parent)
    config = parent_config.but(**changes)
    _require_fitting_weights(parent.id, parent_config, config, checkpoint.path)
    return config, checkpoint


def _require_fitting_weights(job_id: int, parent: Config, child: Config, path: Path) -> None:
    """Refuse settings that a parent's weights can't start from."""
    if child.method == "grpo" and child.beta and child.adapter == "none":
        raise Conflict(
            f"grpo with beta pulls a fork of job {job_id} towards its parent, which needs an "
            "adapter. Set adapter='lora', or leave beta out."
        )
    if child.model != parent.model:
        raise Conflict(
            f"Job {job_id} trains {parent.model}; a fork can't use its weights in "
            f"{child.model}. Start a new job with trainers.start."
        )
    if (parent.adapter, child.adapter) == ("none", "lora"):
        raise Conflict(
            f"Job {job_id} trained every weight; an adapter on top needs it as a base model. "
            f"Add it with models.add(ws, 'mine', {str(path)!r}), then start on that."
        )
    if "lora" == parent.adapter == child.adapter and child.adapter_rank < parent.adapter_rank:
        raise Conflict(
            f"The adapter of job {job_id} has rank {parent.adapter_rank}; expected at least that, "
            f"got {child.adapter_rank}. A smaller adapter can't hold the parent's weights."
        )


def copy_weights(ws: Workspace, checkpoint: Path, job_id: int) -> None:
    """Give a fork its own copy of a checkpoint, which its parent may remove one day."""
    target = ws.job_folder(job_id) / PARENT
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # left by a fork that was never written down
    with room_on_disk(f"the checkpoint that job {job_id} begins with"):
        shutil.copytree(checkpoint, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def copy_adjustments(ws: Workspace, original: Job, job_id: int) -> None:
    """Copy what decides a job's bits to its replay: the adjustments and the first weights.

    The guard skips the same batches again by itself; jobs with a rollback are refused before.
    """
    for event in states.events(ws, original.id, command=[*COPIED_COMMANDS], state="applied"):
        states.write(
            ws, job_id, event.command, state="pending", arguments=event.arguments,
            at_step=event.step, author=event.author, note=f"as in job {original.id}",
        )  # fmt: skip
    rows_at_once = (states.row(ws, original)["facts"] or {}).get("rows_at_once")
    facts = {"rows_at_once": rows_at_once} if rows_at_once else None
    ws.store.update("jobs", {"id": job_id}, facts=facts)
    if original.parent_id is not None:
        copy_weights(ws, ws.job_folder(original.id) / PARENT, job_id)


def lineage(ws: Workspace, job: Job) -> Lineage:
    """Return where a job comes from, what was done to it, and what came of it."""
    parents, parent_id = [], job.parent_id
    while parent_id is not None:
        parents.append(states.read(ws, parent_id))
        parent_id = parents[-1].parent_id
    held_out_id = job.held_out_version_id
    evaluations = ws.store.rows("evaluations", job_id=job.id)
    return Lineage(
        job=job,
        parents=Rows(parents),
        dataset=datasets.get(ws, job.dataset_version_id),
        held_out=datasets.get(ws, held_out_id) if held_out_id else None,
        facts=states.row(ws, job)["facts"] or {},
        events=states.events(ws, job.id),
        checkpoints=integrity.list(ws, job.id),
        forks=states.forks(ws, job.id),
        evaluations=Rows(Evaluation.of(row) for row in evaluations),
    )
