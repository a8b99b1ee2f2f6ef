"""Training jobs: started here, run elsewhere, watched from anywhere.

`start` looks at rows, tokens and machine first, then hands the job to a worker process that
outlives this one. Every other verb reads the store or leaves a command in the job's mailbox, so
that it works as well from another kernel, a shell, or tomorrow.
"""

import builtins
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from ftlab_kit import checkpoints as kept
from ftlab_kit import datasets
from ftlab_kit import metrics as measured
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, JobFailed, KitError, OutOfRoom, room_on_disk
from ftlab_kit.records import Check, Checkpoint, DatasetVersion, Event, Job, Metric, Rows
from ftlab_kit.trainers import control
from ftlab_kit.workspace import Workspace, now

ASK_S, TERMINATE_S = 10.0, 2.0  # cancel asks so long, then terminates so long, then kills
START_S = 60.0  # a queued job whose supervisor has not reported after this long never will
POLL_S = 0.2


def preflight(ws: Workspace, config: Config, dataset: DatasetVersion | str | int) -> Rows[Check]:
    """Return everything that is looked at before a job may start, with what was found."""
    from ftlab_kit.trainers.checks import look

    return look(ws, config, datasets.get(ws, dataset))


def start(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    held_out: DatasetVersion | int | None = None,
) -> Job:
    """Start a job on a dataset version and return it at once, queued.

    Args:
        held_out: The version whose loss is measured while the job trains; None measures none.

    Raises:
        InputError: Preflight refuses the job; names every check that failed with its cure.
        OutOfRoom: The same, where nothing but memory or disk is short.
    """
    job = _enqueue(ws, config, dataset, held_out=held_out)
    try:
        _launch(ws, job.id)
    except (OSError, subprocess.SubprocessError, KitError) as error:
        words = f"The worker could not be started: {error}"
        control.move(ws, job.id, "failed", error=words)
        raise JobFailed(f"Job {job.id}: {words}") from error
    return status(ws, job)


def _enqueue(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    held_out: DatasetVersion | int | None = None,
) -> Job:
    """Look at a job and write it down as queued, without starting its worker.

    Raises:
        InputError: Preflight refuses the job; names every check that failed with its cure.
    """
    version = datasets.get(ws, dataset)
    refused = [check for check in preflight(ws, config, version) if not check.is_ok]
    if refused:
        reasons = " ".join(f"{check.name}: {check.found}. {check.cure}" for check in refused)
        is_small = {check.name for check in refused} <= {"memory", "disk"}
        kind = OutOfRoom if is_small else InputError
        raise kind(f"Preflight refuses the job. {reasons.strip()}")
    job_id = ws.store.insert(
        "jobs",
        state="queued",
        model=config.model,
        step=0,
        dataset_version_id=version.id,
        held_out_version_id=datasets.get(ws, held_out).id if held_out else None,
        config=config.model_dump(),
        created_at=now(),
    )
    return control.read(ws, job_id)


def list(ws: Workspace) -> Rows[Job]:
    """Return all jobs, the newest first."""
    return Rows(status(ws, row["id"]) for row in ws.store.rows("jobs", descending=True))


def status(ws: Workspace, job: Job | int) -> Job:
    """Return a job as it is now; one whose worker has vanished is failed, and says so."""
    row = control.row(ws, job)
    if row["state"] in control.NEXT and not _is_alive(row):
        _end(row)  # a worker whose supervisor was killed would train on, unseen
        control.move(
            ws,
            row["id"],
            "failed",
            error="The worker has vanished: killed together with its supervisor, or the machine "
            "was restarted. Its checkpoints are kept.",
        )
    return control.read(ws, row["id"])


def wait(
    ws: Workspace,
    job: Job | int,
    *,
    until_step: int | None = None,
    timeout_s: float | None = None,
    progress: Callable[[Job], None] | None = None,
) -> Job:
    """Wait until a job is over, or has done a step, and return it.

    In a notebook `await asyncio.to_thread(trainers.wait, ws, job)` leaves the kernel free.

    Args:
        timeout_s: Return after this long, whatever the state; None waits on.
        progress: Called with the job whenever its step or state has changed.

    Raises:
        JobFailed: The job failed; says why.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    seen = None
    while True:
        found = status(ws, job)
        if progress and (found.state, found.step) != seen:
            progress(found)
        seen = (found.state, found.step)
        if found.state == "failed":
            raise JobFailed(f"Job {found.id} failed at step {found.step}: {found.error}")
        is_there = until_step is not None and found.step >= until_step
        if found.is_over or is_there or (deadline and time.monotonic() >= deadline):
            return found
        time.sleep(POLL_S)


def cancel(ws: Workspace, job: Job | int) -> Job:
    """End a job for good within 15 s and return it; its checkpoints are kept.

    The worker is asked to stop at the next step border and to save; after 10 s its process group
    is terminated, and 2 s later killed.

    Raises:
        Conflict: The job is over already.
    """
    job_id = status(ws, job).id
    control.send(ws, job_id, "cancel")
    if control.move(ws, job_id, "cancelled", only_from="queued"):
        return control.read(ws, job_id)
    deadline = time.monotonic() + ASK_S
    while time.monotonic() < deadline:
        if status(ws, job_id).is_over:
            return _as_cancelled(ws, job_id)
        time.sleep(POLL_S)
    control.move(ws, job_id, "cancelled")  # first, or the supervisor would call it a failure
    _end(control.row(ws, job_id))
    return _as_cancelled(ws, job_id)


def _as_cancelled(ws: Workspace, job_id: int) -> Job:
    job = control.read(ws, job_id)
    if job.state != "cancelled":
        raise Conflict(
            f"Job {job_id} was {job.state} before the command reached it; only a running job can "
            "be cancelled. Its checkpoints are kept."
        )
    return job


def logs(ws: Workspace, job: Job | int, *, last: int = 50) -> str:
    """Return the last lines of what the worker said."""
    path = ws.job_folder(control.read(ws, job).id) / "log.txt"
    if not path.exists():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 400 * last))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-last:])


def metrics(ws: Workspace, job: Job | int, *, after_step: int | None = None) -> Rows[Metric]:
    """Return what was measured at each step, the whole history or what came after a step."""
    return measured.read(ws, control.read(ws, job).id, after_step=after_step)


def checkpoints(ws: Workspace, job: Job | int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job that are kept, the oldest first."""
    return kept.list(ws, control.read(ws, job).id)


def events(ws: Workspace, job: Job | int) -> Rows[Event]:
    """Return the commands that a job was given, and what became of each."""
    return control.events(ws, control.read(ws, job).id)


def _launch(ws: Workspace, job_id: int) -> None:
    folder = ws.job_folder(job_id)
    with room_on_disk(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ftlab_kit.trainers.supervisor", str(ws.root), str(job_id)]
    # the model is here already: a worker never asks the hub; and one process uses one GPU
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": gpu}
    env["TOKENIZERS_PARALLELISM"] = "false"
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, check=True
        )


def _is_alive(row: dict[str, Any]) -> bool:
    """Return whether the supervisor of a job still runs; a zombie does not."""
    if row["pid"] is None:
        return bool((now() - row["created_at"]).total_seconds() < START_S)
    try:
        process = psutil.Process(row["pid"])
        is_same = abs(process.create_time() - row["pid_started_at"]) < 1.0
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(row: dict[str, Any]) -> None:
    """End what still runs of a job: its supervisor and its worker."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for process in _group(row):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        deadline = time.monotonic() + TERMINATE_S
        while _group(row) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _group(row: dict[str, Any]) -> builtins.list[psutil.Process]:
    """Return the living processes of the group that a job's supervisor leads or led."""
    members = []
    for process in psutil.process_iter() if row["pid"] else ():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) != row["pid"] or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # a number is used again some day; a command line with our module and job is ours
            line = process.cmdline()
            if any(part.startswith("ftlab_kit.trainers.") for part in line) and (
                line[-1] == str(row["id"])
            ):
                members.append(process)
    return members
