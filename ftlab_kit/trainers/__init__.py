"""Training jobs: started here, run elsewhere, watched and steered from anywhere.

`start` looks at rows, tokens and machine first, then hands the job to a worker process that
outlives this one. Every other verb reads the store or leaves a command in the job's mailbox, so
that it works as well from another kernel, a shell, or tomorrow.

A job that was paused, killed or cut off goes on with `resume` and ends with the same bits as one
that was left alone; one that was steered does so again with `replay`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ftlab_kit import checkpoints as kept
from ftlab_kit import datasets
from ftlab_kit import metrics as measured
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, JobFailed, OutOfRoom, Unavailable
from ftlab_kit.jobs import processes, states
from ftlab_kit.records import (
    Check,
    Checkpoint,
    Curve,
    DatasetVersion,
    Event,
    Job,
    Lineage,
    Metric,
    Rows,
    Sample,
)
from ftlab_kit.trainers import generations
from ftlab_kit.workspace import Workspace, now

ASK_S = 10.0  # cancel asks so long, then terminates, and 2 s later kills
POLL_S = 0.2


def preflight(ws: Workspace, config: Config, dataset: DatasetVersion | str | int) -> Rows[Check]:
    """Return everything that is looked at before a job may start, with what was found."""
    from ftlab_kit.trainers.preflight_checks import look

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
    return _launched(ws, job.id)


def _launched(ws: Workspace, job_id: int) -> Job:
    """Fill the free slots and return a job, which may run now or wait.

    Raises:
        JobFailed: Its supervisor could not be started.
    """
    processes.launch_waiting(ws)
    job = status(ws, job_id)
    if job.state == "failed" and job.started_at is None:
        raise JobFailed(f"Job {job_id}: {job.error}")
    return job


def _enqueue(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    held_out: DatasetVersion | int | None = None,
    comes_from: tuple[int | None, int | None] = (None, None),
    prepare: Callable[[int], None] = lambda job_id: None,
) -> Job:
    """Look at a job and write it down as queued, without starting its worker.

    Args:
        comes_from: The job and the step of the checkpoint that a fork begins with.
        prepare: Called with the job's id before anyone can see and start it.

    Raises:
        InputError: Preflight refuses the job; names every check that failed with its cure.
    """
    version = datasets.get(ws, dataset)
    side = datasets.get(ws, held_out) if held_out else None
    if side and config.method == "grpo":
        raise InputError(
            "grpo measures its reward on every answer and has no held-out loss; expected no "
            "held_out. Leave it out, and score the job afterwards with evaluators.run."
        )
    if config.sample_every_steps and (side or version).kind == "text":
        raise InputError(
            f"sample_every_steps is {config.sample_every_steps}, and version "
            f"{(side or version).id} holds texts, in which nothing is asked; expected chats or "
            "preferences. Hold chats out, or leave it empty."
        )
    refused = [check for check in preflight(ws, config, version) if not check.is_ok]
    if refused:
        reasons = " ".join(f"{check.name}: {check.got}. {check.fix}" for check in refused)
        is_small = {check.name for check in refused} <= {"memory", "disk"}
        kind = OutOfRoom if is_small else InputError
        raise kind(f"Preflight refuses the job. {reasons.strip()}")
    at = now()
    with ws.store.transaction():
        job_id = ws.store.insert(
            "jobs",
            state="queued",
            model=config.model,
            step=0,
            dataset_version_id=version.id,
            held_out_version_id=side.id if side else None,
            config=config.model_dump(),
            parent_id=comes_from[0],
            parent_step=comes_from[1],
            created_at=at,
            queued_at=at,
        )
        prepare(job_id)
    return states.read(ws, job_id)


def list(ws: Workspace) -> Rows[Job]:
    """Return all jobs, the newest first."""
    return Rows(status(ws, row["id"]) for row in ws.store.rows("jobs", descending=True))


def status(ws: Workspace, job: Job | int) -> Job:
    """Return a job as it is now; one whose worker has vanished is failed, and says so."""
    row = states.row(ws, job)
    if processes.mark_dead(ws, row):
        processes.launch_waiting(ws)  # its slot is free
    found = states.read(ws, row["id"])
    if found.state == "running" and processes.is_silent(row):
        since = (now() - (row["heartbeat_at"] or row["launched_at"] or now())).total_seconds()
        words = f"no sign of life for {since:.0f} s: suspended, or stuck in the system"
        return replace(found, note=words)
    if found.state == "queued" and row["launched_at"] is None:
        waiting = ws.store.rows("jobs", order="queued_at", state="queued", launched_at=None)
        ahead = sum(item["queued_at"] < row["queued_at"] for item in waiting)
        return replace(found, note=f"waits for a free slot, {ahead} ahead of it")
    return found


def slots(ws: Workspace, *, jobs: int | None = None) -> int:
    """Return how many jobs may run at once; the others wait in the order of their start.

    Args:
        jobs: The number from now on; None leaves it. At first it is one for each GPU, or one.

    Raises:
        InputError: Fewer than one.
    """
    if jobs is not None:
        if jobs < 1:
            raise InputError(f"jobs is {jobs}; expected at least 1. To stop all, pause each.")
        ws.store.upsert("settings", {"name": "slots"}, value=jobs)
        processes.launch_waiting(ws)
    return processes.slots(ws)


def wait(
    ws: Workspace,
    job: Job | int,
    *,
    until_step: int | None = None,
    timeout_s: float | None = None,
    progress: Callable[[Job], None] | None = None,
) -> Job:
    """Wait until a job is over or paused, or has done a step, and return it.

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
        if found.state == "queued":
            processes.launch_waiting(ws)  # whoever was to do it may be gone
        is_still = found.is_over or found.state == "paused"
        if is_still or is_there or (deadline and time.monotonic() >= deadline):
            return found
        time.sleep(POLL_S)


def pause(ws: Workspace, job: Job | int) -> Job:
    """Stop a job after the step under way, free its device, and return it, paused.

    Its checkpoint holds all that decides the rest; `resume` goes on as if nothing had happened.

    Raises:
        Conflict: The job does not run, or was over before the command reached it.
    """
    running = status(ws, job)
    event = _settled(ws, states.send(ws, running.id, "pause"))
    if event.state == "refused":
        raise Conflict(f"Job {event.job_id} was not paused: {event.note}.")
    processes.wait_until_gone(running.worker_pid, timeout_s=ASK_S)
    return status(ws, event.job_id)


def resume(ws: Workspace, job: Job | int, *, allow_drift: bool = False) -> Job:
    """Go on with a paused or failed job from its newest checkpoint that verifies.

    Where a checkpoint is damaged the one before is taken, and the event says which was skipped and
    why. The job waits for a free slot like any other.

    Args:
        allow_drift: Go on although rows, settings, libraries or threads are others than before;
            what has changed is kept with the event.

    Raises:
        Conflict: The job runs, waits, is completed or cancelled; or something has changed.
        OutOfRoom: The disk has no room for its checkpoints.
    """
    from ftlab_kit.trainers import forks

    found = status(ws, job)
    states.require(ws, found.id, "resume")
    forks.look_before_resume(ws, states.row(ws, found.id), allow_drift=allow_drift)
    processes.requeue(ws, found.id, arguments={"allow_drift": allow_drift})
    return _launched(ws, found.id)


def cancel(ws: Workspace, job: Job | int) -> Job:
    """End a job for good within 15 s and return it; its checkpoints are kept.

    The worker is asked to stop at the next step border and to save; after 10 s its processes are
    terminated, and 2 s later killed. A job that waits or is paused is cancelled at once.

    Raises:
        Conflict: The job is over already.
    """
    job_id = status(ws, job).id
    try:
        with ws.store.lock_timeout(ASK_S / 2):
            _ask_to_end(ws, job_id)
            # before its processes end, or the supervisor would call it a failure
            states.move(ws, job_id, "cancelled")
    except Unavailable:
        # suspended within a transaction, a worker holds the lock on the store until it is gone
        processes.end(ws, job_id)
        states.move(ws, job_id, "cancelled")
    processes.end(ws, job_id)
    processes.launch_waiting(ws)
    return _as_cancelled(ws, job_id)


def _ask_to_end(ws: Workspace, job_id: int) -> None:
    """Ask a job to end, and wait a while for it to do so; one without a worker ends at once."""
    states.send(ws, job_id, "cancel")
    deadline = time.monotonic() + ASK_S
    while time.monotonic() < deadline:
        # before its worker runs no one else reads the command
        if states.move(ws, job_id, "cancelled", only_from=("queued", "paused")):
            return
        if status(ws, job_id).is_over:
            return
        time.sleep(POLL_S)


def _as_cancelled(ws: Workspace, job_id: int) -> Job:
    job = states.read(ws, job_id)
    if job.state != "cancelled":
        raise Conflict(
            f"Job {job_id} was {job.state} before the command reached it; only a running job can "
            "be cancelled. Its checkpoints are kept."
        )
    return job


def checkpoint(ws: Workspace, job: Job | int) -> Checkpoint:
    """Make a running job write a checkpoint after the step under way, and return it.

    Raises:
        Conflict: The job does not run, or ended before the command reached it.
    """
    event = _applied(ws, states.send(ws, status(ws, job).id, "checkpoint"))
    return kept.get(ws, event.job_id, event.step)


def evaluate(ws: Workspace, job: Job | int) -> Event:
    """Make a running job measure its held-out loss after the step under way.

    Returns:
        The event; its result has `eval_loss`.

    Raises:
        Conflict: The job does not run, has no held-out rows, or ended before.
    """
    return _applied(ws, states.send(ws, status(ws, job).id, "evaluate"))


def adjust(ws: Workspace, job: Job | int, *, at_step: int | None = None, **changes: Any) -> Event:
    """Change settings of a job while it runs, and return the event with old and new values.

    The schedule follows, the change stays through pauses and resumes, and `replay` makes it again.
    A job that waits or is paused takes it when it goes on: its event is pending until then.

    Args:
        at_step: The step after which to change; None as soon as possible.
        changes: Settings that are marked live, as configs.settings() shows.

    Raises:
        ConfigError: No such setting, or a value out of bounds.
        Conflict: A setting that can't change while a job runs, or a job that is over.
    """
    from ftlab_kit.trainers import run_state

    found = status(ws, job)
    if not changes:
        raise InputError(
            "adjust was given nothing to change; expected settings such as "
            "learning_rate=1e-4. See which are live with configs.settings()."
        )
    run_state.check(Config(**found.config), changes)
    changes = {name: getattr(Config(**found.config).but(**changes), name) for name in changes}
    event = states.send(ws, found.id, "adjust", changes, at_step=at_step)
    return event if at_step is not None or found.state != "running" else _applied(ws, event)


def sample(
    ws: Workspace, job: Job | int, prompts: Sequence[str], *, max_new_tokens: int = 64
) -> Rows[Sample]:
    """Return the answers of a job's weights as they are now, to what a person says.

    A running job answers between two steps, and its run stays the same to the bit. One that does
    not run answers from its newest checkpoint, in this process.

    Args:
        max_new_tokens: An answer is cut there.

    Raises:
        Conflict: The job ended before the command reached it.
        NotFound: The job does not run and has no checkpoint yet.
    """
    found = status(ws, job)
    if not prompts or max_new_tokens < 1:
        raise InputError(
            f"sample was given {len(prompts)} prompts and max_new_tokens={max_new_tokens}; "
            "expected at least one of each."
        )
    asked = {"prompts": [*prompts], "max_new_tokens": max_new_tokens}
    if found.state == "running":
        event = _applied(ws, states.send(ws, found.id, "sample", asked))
        answers = (event.result or {})["answers"]
    else:
        from ftlab_kit.trainers import resting

        answers = resting.answers(ws, found, [*prompts], max_new_tokens)
    return Rows(
        Sample(prompt=prompt, reference="", answer=answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    )


def samples(ws: Workspace, job: Job | int, *, step: int | None = None) -> Rows[Sample]:
    """Return what a job answered to the same prompts while it trained, in the order of the steps.

    A job does so where `sample_every_steps` is set. Of each answer the scores are `chrf`, its
    likeness to the reference from 0 to 100, and its length in `tokens`; their means over the
    prompts are among the metrics of the step, as `sample_chrf`, `sample_tokens`, `sample_ended`.

    Args:
        step: Only the answers after this step.

    Raises:
        NotFound: There are none of this step.
    """
    return generations.read(ws, states.read(ws, job).id, step)


def _settled(ws: Workspace, event: Event) -> Event:
    """Wait until a command is applied or refused, or waits for the job to go on again.

    Raises:
        Unavailable: The worker gives no sign of life; the command stays in its mailbox.
    """
    while (found := states.event(ws, event.id)).state == "pending":
        job = status(ws, event.job_id)
        if job.state not in states.WORKING:
            return states.event(ws, event.id)
        if job.state == "running" and job.note:
            raise Unavailable(
                f"Job {job.id} can't take the command {event.command!r} now: {job.note}. It stays "
                f"in the mailbox. End the job with trainers.cancel(ws, {job.id})."
            )
        time.sleep(POLL_S)
    return found


def _applied(ws: Workspace, event: Event) -> Event:
    found = _settled(ws, event)
    if found.state == "refused":
        raise Conflict(f"Job {found.job_id} refused the command {found.command!r}: {found.note}.")
    return found


def fork(
    ws: Workspace,
    job: Job | int,
    *,
    from_checkpoint: int | None = None,
    dataset: DatasetVersion | str | int | None = None,
    held_out: DatasetVersion | int | None = None,
    **changes: Any,
) -> Job:
    """Start a new job with what another has learnt up to a checkpoint, and return it.

    Weights are taken over, into a larger adapter too; optimizer, schedule and the order of the rows
    begin anew: on the same rows another `seed` gives another order. Where it comes from is kept:
    `lineage`.

    Args:
        from_checkpoint: The step of the checkpoint; the newest if None.
        dataset: Other rows; those of the job if None.
        held_out: Other held-out rows; with a new dataset none if None.
        changes: Settings that differ from the job's, adjustments included.

    Raises:
        NotFound: There is no such checkpoint.
        Conflict: The checkpoint is damaged, or the new settings can't take its weights over.
    """
    from ftlab_kit.trainers import forks

    parent = status(ws, job)
    config, checkpoint = forks.fork_config(ws, parent, from_checkpoint, changes)
    if dataset is None:
        dataset = parent.dataset_version_id
        held_out = held_out or parent.held_out_version_id
    made = _enqueue(
        ws,
        config,
        dataset,
        held_out=held_out,
        comes_from=(parent.id, checkpoint.step),
        prepare=lambda job_id: forks.copy_weights(ws, checkpoint.path, job_id),
    )
    return _launched(ws, made.id)


def replay(ws: Workspace, job: Job | int, *, allow_drift: bool = False) -> Job:
    """Start a job again with the same rows, settings and steering, to end with the same bits.

    Every adjustment that was applied is made again at its step.

    Args:
        allow_drift: Replay although rows, libraries or threads are others than they were.

    Raises:
        Conflict: Something has changed since, or the guard has rolled the job back: where it went
            back to hung on when it was paused.
        InputError: Preflight refuses the job.
    """
    from ftlab_kit.trainers import forks

    old = status(ws, job)
    forks.look_before_replay(ws, states.row(ws, old), allow_drift=allow_drift)
    return _launched(ws, _again(ws, old).id)


def _again(ws: Workspace, old: Job) -> Job:
    """Write a job down once more, with its adjustments waiting for their steps."""
    from ftlab_kit.trainers import forks

    return _enqueue(
        ws,
        Config(**old.config),
        old.dataset_version_id,
        held_out=old.held_out_version_id,
        comes_from=(old.parent_id, old.parent_step),
        prepare=lambda job_id: forks.copy_adjustments(ws, old, job_id),
    )


def lineage(ws: Workspace, job: Job | int) -> Lineage:
    """Return where a job comes from, what was done to it, and what came of it."""
    from ftlab_kit.trainers import forks

    return forks.lineage(ws, status(ws, job))


def logs(ws: Workspace, job: Job | int, *, last: int = 50) -> str:
    """Return the last lines of what the worker said."""
    path = ws.job_folder(states.read(ws, job).id) / "log.txt"
    if not path.exists():
        return ""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 400 * last))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-last:])


def metrics(ws: Workspace, job: Job | int, *, after_step: int | None = None) -> Rows[Metric]:
    """Return what was measured at each step, the whole history or what came after a step."""
    return measured.read(ws, states.read(ws, job).id, after_step=after_step)


def curves(
    ws: Workspace,
    job: Job | int,
    *names: str,
    first_step: int | None = None,
    last_step: int | None = None,
    at_most: int = 256,
) -> Rows[Curve]:
    """Return metrics of a job as curves of bounded size, however long it has run.

    Args:
        names: Fields of a metric, such as loss; more.reward is one that a method alone measures.
        first_step: Only from this step on.
        last_step: Only up to this step.
        at_most: Stretches of steps in a curve, each with its least and greatest value.

    Raises:
        InputError: A metric has no such field.
    """
    within = (first_step, last_step)
    job_id = states.read(ws, job).id
    return measured.curves(ws, job_id, names, within=within, at_most=at_most)


def checkpoints(ws: Workspace, job: Job | int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job that are kept, the oldest first."""
    return kept.list(ws, states.read(ws, job).id)


def events(ws: Workspace, job: Job | int, *, last: int | None = None) -> Rows[Event]:
    """Return the commands that a job was given, and what became of each, the oldest first.

    Args:
        last: Only the newest so many.
    """
    return states.events(ws, states.read(ws, job).id, last=last)
