"""Training jobs: started here, run elsewhere, watched and steered from anywhere.

`start` checks rows, tokens and machine first, then hands the job to a worker process that outlives
this one. Every other verb reads the store or puts a command into the job's mailbox, so it works as
well from another kernel, from a shell, or tomorrow.

A job that was paused, killed or interrupted goes on with `resume` and ends with the same bits as an
undisturbed one. A job that was steered does so again with `replay`.

Other rooms also use two files: `run_state` (a job's settings and counters at a step) and
`generations` (its answers to the same prompts while it trains). What the worker runs is in `run/`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ftlab_kit import chats, datasets, jobs
from ftlab_kit import checkpoints as all_checkpoints
from ftlab_kit import metrics as all_metrics
from ftlab_kit.configs import Config, takes_settings
from ftlab_kit.errors import InputError, OutOfRoom
from ftlab_kit.records import (
    Check,
    Checkpoint,
    Curve,
    DatasetVersion,
    Event,
    Job,
    Lineage,
    Metric,
    OnProgress,
    Rows,
    Sample,
)
from ftlab_kit.trainers import forks, generations, run_state
from ftlab_kit.workspace import Workspace

__all__ = [
    "adjust", "cancel", "checkpoint", "checkpoints", "curves", "evaluate", "events", "fork",
    "generations", "lineage", "list", "logs", "metrics", "pause", "preflight", "replay", "resume",
    "run_state", "sample", "samples", "settings", "slots", "start", "status", "wait",
]  # fmt: skip

KIND = "train"


def preflight(ws: Workspace, config: Config, dataset: DatasetVersion | str | int) -> Rows[Check]:
    """Return everything that is checked before a job may start, with the result of each check."""
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
        ws: The workspace.
        config: The settings of the job.
        dataset: The version to train on; a dataset's name means its newest version.
        held_out: The version whose loss is measured while the job trains; None for none.

    Raises:
        InputError: Preflight refuses the job; names every failed check and its fix.
        OutOfRoom: The same, where only memory or disk is short.
    """
    return jobs.launch(ws, _enqueue(ws, config, dataset, held_out=held_out))


def _enqueue(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    held_out: DatasetVersion | int | None = None,
    parent_id: int | None = None,
    parent_step: int | None = None,
    prepare: Callable[[int], None] = lambda job_id: None,
) -> Job:
    """Check a job and write it down as queued, without starting its worker.

    Args:
        ws: The workspace.
        config: The settings of the job.
        dataset: The version to train on.
        held_out: The version whose loss is measured; None for none.
        parent_id: The job that a fork begins with.
        parent_step: The step of the checkpoint that a fork begins with.
        prepare: Called with the job's id before anyone else can see and start it.

    Raises:
        InputError: Preflight refuses the job; names every failed check and its fix.
    """
    version = datasets.get(ws, dataset)
    held_out_version = datasets.get(ws, held_out) if held_out else None
    _require_use_of_held_out(config, version, held_out_version)
    refused = [check for check in preflight(ws, config, version) if not check.is_ok]
    if refused:
        reasons = " ".join(f"{check.name}: {check.got}. {check.fix}" for check in refused)
        is_about_room = {check.name for check in refused} <= {"memory", "disk"}
        error = OutOfRoom if is_about_room else InputError
        raise error(f"Preflight refuses the job. {reasons.strip()}")
    return jobs.create(
        ws,
        kind=KIND,
        model=config.model,
        config=config.model_dump(),
        dataset_version_id=version.id,
        held_out_version_id=held_out_version.id if held_out_version else None,
        parent_id=parent_id,
        parent_step=parent_step,
        prepare=prepare,
    )


def _require_use_of_held_out(
    config: Config, version: DatasetVersion, held_out: DatasetVersion | None
) -> None:
    """Refuse held-out rows and sample answers that the method or the rows can't give."""
    if held_out and config.method == "grpo":
        raise InputError(
            "grpo measures its reward on every answer and has no held-out loss; expected no "
            "held_out. Leave it out, and score the job afterwards with evaluators.run."
        )
    sampled = held_out or version
    if config.sample_every_steps and sampled.kind == "text":
        raise InputError(
            f"sample_every_steps is {config.sample_every_steps}, but version {sampled.id} holds "
            "texts without prompts; expected chats or preferences. Hold chats out, or leave "
            "sample_every_steps empty."
        )


def list(ws: Workspace) -> Rows[Job]:
    """Return all training jobs, the newest first."""
    return jobs.list(ws, kind=KIND)


def status(ws: Workspace, job: Job | int) -> Job:
    """Return a job as it is now; one whose worker has vanished is failed, and says so.

    Raises:
        NotFound: There is no such job.
    """
    return jobs.status(ws, job)


def settings(ws: Workspace, job: Job | int, *, with_pending: bool = False) -> Config:
    """Return a job's settings as they are now: its config with the adjustments it has applied.

    Args:
        ws: The workspace.
        job: The job or its id.
        with_pending: Also with the adjustments that it has not applied yet.
    """
    return run_state.settings(ws, jobs.states.read(ws, job), with_pending=with_pending)


def slots(ws: Workspace, *, jobs: int | None = None) -> int:
    """Return how many jobs may run at once; the others wait in the order of their start.

    Args:
        ws: The workspace.
        jobs: The new number; None leaves it. The default is one for each GPU, or one.

    Raises:
        InputError: Fewer than one.
    """
    from ftlab_kit.jobs import slots

    return slots(ws, jobs=jobs)


def wait(
    ws: Workspace,
    job: Job | int,
    *,
    until_step: int | None = None,
    timeout_s: float | None = None,
    progress: OnProgress | None = None,
) -> Job:
    """Wait until a job is over or paused, or has done a step, and return it.

    Args:
        ws: The workspace.
        job: The job or its id.
        until_step: Return once this step is done; None waits for the end.
        timeout_s: Return after this long, whatever the state; None waits on.
        progress: Called with the steps done whenever the job's step or state has changed.

    Raises:
        JobFailed: The job failed; says why.
    """
    return jobs.wait(ws, job, until_step=until_step, timeout_s=timeout_s, progress=progress)


def pause(ws: Workspace, job: Job | int) -> Job:
    """Stop a job after the step under way, free its device, and return it, paused.

    Its checkpoint holds everything that decides the rest, so `resume` goes on exactly.

    Raises:
        Conflict: The job does not run, or ended before it read the command.
        Unavailable: The worker gives no sign of life; the command stays in its mailbox.
    """
    return jobs.pause(ws, job)


def resume(ws: Workspace, job: Job | int, *, allow_drift: bool = False) -> Job:
    """Go on with a paused or failed job from its newest valid checkpoint.

    If a checkpoint is damaged the one before it is used, and the event says which was skipped and
    why. The job waits for a free slot like any other.

    Args:
        ws: The workspace.
        job: The job or its id.
        allow_drift: Go on although rows, settings, libraries or threads have changed; the event
            keeps what has changed.

    Raises:
        Conflict: The job is queued, running, completed or cancelled; or something has changed.
        OutOfRoom: The disk has no room for its checkpoints.
    """
    current = jobs.states.require(ws, status(ws, job).id, "resume")
    forks.look_before_resume(ws, jobs.states.row(ws, current), allow_drift=allow_drift)
    return jobs.resume(ws, current, arguments={"allow_drift": allow_drift})


def cancel(ws: Workspace, job: Job | int) -> Job:
    """End a job for good within 15 s and return it; its checkpoints are kept.

    The worker gets the command to stop at the next step border and to save; after 10 s its
    processes are terminated, and 2 s later killed. A queued or paused job is cancelled at once.

    Raises:
        Conflict: The job is over already.
    """
    return jobs.cancel(ws, job)


def checkpoint(ws: Workspace, job: Job | int) -> Checkpoint:
    """Make a running job write a checkpoint after the step under way, and return it.

    Raises:
        Conflict: The job does not run, or ended before it read the command.
    """
    event = jobs.send(ws, job, "checkpoint")
    return all_checkpoints.get(ws, event.job_id, event.step)


def evaluate(ws: Workspace, job: Job | int) -> Event:
    """Make a running job measure its held-out loss after the step under way.

    Returns:
        The event; its result has `eval_loss`.

    Raises:
        Conflict: The job does not run, has no held-out rows, or ended before it read the command.
    """
    return jobs.send(ws, job, "evaluate")


@takes_settings(Config, only_live=True)
def adjust(ws: Workspace, job: Job | int, *, at_step: int | None = None, **changes: Any) -> Event:
    """Change settings of a job while it runs, and return the event with old and new values.

    The schedule follows, the change survives pauses and resumes, and `replay` makes it again. A
    queued or paused job applies it when it goes on; until then its event is pending.

    Args:
        ws: The workspace.
        job: The job or its id.
        at_step: The step after which to change; None as soon as possible.
        changes: Settings that are marked live, as configs.settings() shows.

    Raises:
        ConfigError: No such setting, or a value out of bounds.
        Conflict: A setting that can't change while a job runs, or a job that is over.
    """
    config = Config(**status(ws, job).config)
    if not changes:
        raise InputError(
            "adjust was given nothing to change; expected settings such as "
            "learning_rate=1e-4. See which are live with configs.settings()."
        )
    run_state.check(config, changes)
    adjusted = config.but(**changes)
    arguments = {name: getattr(adjusted, name) for name in changes}
    return jobs.send(ws, job, "adjust", arguments, at_step=at_step)


def sample(
    ws: Workspace, job: Job | int, prompts: Sequence[str], *, max_new_tokens: int = 64
) -> Rows[Sample]:
    """Return the greedy answers of a job's current weights to prompts.

    A running job answers between two steps, and its run stays the same to the bit. A job that does
    not run answers from its newest valid checkpoint, in this process.

    Args:
        ws: The workspace.
        job: The job or its id.
        prompts: What a person says; each is a chat of its own.
        max_new_tokens: The length at which an answer is cut.

    Raises:
        Conflict: The job ended before it read the command.
        NotFound: The job does not run and has no checkpoint yet.
    """
    current = status(ws, job)
    if not prompts or max_new_tokens < 1:
        raise InputError(
            f"sample was given {len(prompts)} prompts and max_new_tokens={max_new_tokens}; "
            "expected at least one of each."
        )
    if current.state == "running":
        arguments = {"prompts": [*prompts], "max_new_tokens": max_new_tokens}
        event = jobs.send(ws, current, "sample", arguments)
        answers = (event.result or {})["answers"]
    else:
        newest = forks.newest_valid(ws, current.id)
        messages = chats.replies(ws, newest, prompts, max_new_tokens=max_new_tokens)
        answers = [message.content if message else "" for message in messages]
    return Rows(
        Sample(prompt=prompt, reference="", answer=answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    )


def samples(ws: Workspace, job: Job | int, *, step: int | None = None) -> Rows[Sample]:
    """Return what a job answered to the same prompts while it trained, in the order of the steps.

    A job does so if `sample_every_steps` is set. Each answer has the scores `chrf`, its similarity
    to the reference from 0 to 100, and `tokens`, its length. Their means over the prompts are
    metrics of the step: `sample_chrf`, `sample_tokens`, `sample_ended`.

    Args:
        ws: The workspace.
        job: The job or its id.
        step: Only the answers after this step.

    Raises:
        NotFound: There are no answers of this step.
    """
    return generations.read(ws, jobs.states.read(ws, job).id, step)


@takes_settings(Config)
def fork(
    ws: Workspace,
    job: Job | int,
    *,
    from_checkpoint: int | None = None,
    dataset: DatasetVersion | str | int | None = None,
    held_out: DatasetVersion | int | None = None,
    **changes: Any,
) -> Job:
    """Start a new job from the weights of another job's checkpoint, and return it.

    The weights are copied, also into a larger adapter. Optimizer, schedule and the order of the
    rows begin anew; on the same rows another `seed` gives another order. `lineage` shows where the
    job comes from.

    Args:
        ws: The workspace.
        job: The parent job or its id.
        from_checkpoint: The step of the checkpoint; None for the newest.
        dataset: Other rows; None for those of the parent.
        held_out: Other held-out rows; None for those of the parent, or none with a new dataset.
        changes: Settings that differ from the parent's, its adjustments included.

    Raises:
        NotFound: There is no such checkpoint.
        Conflict: The checkpoint is damaged, or its weights don't fit the new settings.
    """
    parent = status(ws, job)
    config, origin = forks.fork_config(ws, parent, from_checkpoint, changes)
    if dataset is None:
        dataset = parent.dataset_version_id
        held_out = held_out or parent.held_out_version_id
    child = _enqueue(
        ws,
        config,
        dataset,
        held_out=held_out,
        parent_id=parent.id,
        parent_step=origin.step,
        prepare=lambda job_id: forks.copy_weights(ws, origin.path, job_id),
    )
    return jobs.launch(ws, child)


def replay(ws: Workspace, job: Job | int, *, allow_drift: bool = False) -> Job:
    """Start a job again with the same rows, settings and steering, to end with the same bits.

    Every adjustment that was applied is applied again at its step.

    Args:
        ws: The workspace.
        job: The job or its id.
        allow_drift: Replay although rows, libraries or threads have changed.

    Raises:
        Conflict: Something has changed since, or the guard has rolled the job back: the checkpoint
            it returned to depended on when it was paused.
        InputError: Preflight refuses the job.
    """
    original = status(ws, job)
    forks.look_before_replay(ws, jobs.states.row(ws, original), allow_drift=allow_drift)
    return jobs.launch(ws, _again(ws, original))


def _again(ws: Workspace, original: Job) -> Job:
    """Write a job down once more, with its adjustments waiting for their steps."""
    return _enqueue(
        ws,
        Config(**original.config),
        original.dataset_version_id,
        held_out=original.held_out_version_id,
        parent_id=original.parent_id,
        parent_step=original.parent_step,
        prepare=lambda job_id: forks.copy_adjustments(ws, original, job_id),
    )


def lineage(ws: Workspace, job: Job | int) -> Lineage:
    """Return where a job comes from, what was done to it, and what came of it."""
    return forks.lineage(ws, status(ws, job))


def logs(ws: Workspace, job: Job | int, *, last: int = 50) -> str:
    """Return the last lines of a job's log.

    Args:
        ws: The workspace.
        job: The job or its id.
        last: How many lines.
    """
    return jobs.logs(ws, job, last=last)


def metrics(ws: Workspace, job: Job | int, *, after_step: int | None = None) -> Rows[Metric]:
    """Return what was measured at each step.

    Args:
        ws: The workspace.
        job: The job or its id.
        after_step: Only later steps; None for all.
    """
    return all_metrics.read(ws, jobs.states.read(ws, job).id, after_step=after_step)


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
        ws: The workspace.
        job: The job or its id.
        names: Fields of a metric, such as loss; more.reward is one that only one method measures.
        first_step: Only from this step on.
        last_step: Only up to this step.
        at_most: Buckets of steps in a curve, each with its lowest and highest value.

    Raises:
        InputError: A metric has no such field.
    """
    within = (first_step, last_step)
    job_id = jobs.states.read(ws, job).id
    return all_metrics.curves(ws, job_id, names, within=within, at_most=at_most)


def checkpoints(ws: Workspace, job: Job | int) -> Rows[Checkpoint]:
    """Return the checkpoints of a job, the oldest first."""
    return all_checkpoints.list(ws, jobs.states.read(ws, job).id)


def events(ws: Workspace, job: Job | int, *, last: int | None = None) -> Rows[Event]:
    """Return the commands that a job was sent, and what became of each, the oldest first.

    Args:
        ws: The workspace.
        job: The job or its id.
        last: Only this many of the newest; None for all.
    """
    return jobs.events(ws, job, last=last)
