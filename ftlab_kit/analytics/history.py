"""The history of one job in numbers: from its row, metrics, events and checkpoints alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median

from ftlab_kit import checkpoints, metrics
from ftlab_kit.configs import Config
from ftlab_kit.jobs import states
from ftlab_kit.records import Checkpoint, Event, Job, JobAnalytics, LossSummary, Metric, RateSummary
from ftlab_kit.workspace import Workspace, now

NOT_RUNNING = ("queued", "paused")  # states without a process, whatever ran before


@dataclass(frozen=True, slots=True)
class _Durations:
    """Seconds in the queue, from start to end, and of these the running ones."""

    waited_s: float
    duration_s: float | None = None
    running_s: float | None = None


def of(ws: Workspace, job: Job) -> JobAnalytics:
    """Return what was recorded of a job, without its price and the machine's peak."""
    rows, events = metrics.read(ws, job.id), states.events(ws, job.id, state="applied")
    saved = checkpoints.list(ws, job.id)
    launched_at = states.row(ws, job)["launched_at"]
    durations = _durations(job, _active_times(job, rows, saved, events), events, launched_at)
    trained_s, n_samples = _trained(job, rows)
    n_tokens = next((row.n_tokens for row in reversed(rows) if row.n_tokens), None)
    utilisation = [row.gpu_utilisation for row in rows if row.gpu_utilisation is not None]
    evaluated = [(item.eval_loss, item.step) for item in saved if item.eval_loss is not None]
    commands = [event.command for event in events]
    return JobAnalytics(
        job_id=job.id,
        model=job.model,
        state=job.state,
        step=job.step,
        waited_s=durations.waited_s,
        duration_s=durations.duration_s,
        running_s=durations.running_s,
        trained_s=trained_s,
        n_tokens=n_tokens,
        tokens_per_s=_rates([row.tokens_per_s for row in rows], _rate(n_tokens, trained_s)),
        samples_per_s=_rates([row.samples_per_s for row in rows], _rate(n_samples, trained_s)),
        gpu_utilisation=_rates(utilisation, fmean(utilisation) if utilisation else None),
        peak_memory_gib=_max(row.memory_gib for row in rows),
        peak_gpu_memory_gib=_max(row.gpu_memory_gib for row in rows),
        loss=_losses((row.loss, row.step) for row in rows),
        eval_loss=_losses((row.eval_loss, row.step) for row in rows),
        n_checkpoints=len(saved),
        checkpoints_bytes=sum(item.size_bytes for item in saved),
        best_checkpoint_step=min(evaluated)[1] if evaluated else None,
        n_pauses=commands.count("pause"),
        n_resumes=commands.count("resume"),
        n_restarts=commands.count("restart"),
        n_rollbacks=commands.count("rollback"),
        n_skipped=commands.count("skip"),
    )


def _active_times(
    job: Job, rows: Sequence[Metric], saved: Sequence[Checkpoint], events: Sequence[Event]
) -> list[datetime]:
    """Return times at which the job surely ran: its start, and whenever it wrote something."""
    started = [job.started_at] if job.started_at else []
    wrote = [row.at for row in rows if row.at] + [item.created_at for item in saved]
    return started + wrote + [event.created_at for event in events if event.command == "pause"]


def _durations(
    job: Job,
    active_times: Sequence[datetime],
    events: Sequence[Event],
    launched_at: datetime | None,
) -> _Durations:
    end = job.finished_at or now()
    # old jobs have the start of their last run as started_at, so the first sign of life counts
    began_at = min(active_times, default=None)
    waited_s = ((began_at or end) - job.created_at).total_seconds()
    if began_at is None:
        return _Durations(waited_s)
    duration_s = (end - began_at).total_seconds()
    resumes = [event.created_at for event in events if event.command == "resume"]
    idle_s = _idle_s(job, active_times, resumes, launched_at)
    return _Durations(waited_s, duration_s, duration_s - idle_s)


def _idle_s(
    job: Job,
    active_times: Sequence[datetime],
    resumes: Sequence[datetime],
    launched_at: datetime | None,
) -> float:
    """Return the seconds in which a job was paused, failed, or waiting to be resumed.

    An idle time begins with the last sign of life before a resume and ends with that resume. A
    resumed job may wait for a slot: then the newest idle time ends with the launch, or now.
    """
    total = 0.0
    for at in resumes:
        before = [time for time in [*active_times, *resumes] if time < at]
        total += (at - max(before, default=at)).total_seconds()
    if job.state in NOT_RUNNING:
        total += (now() - max([*active_times, *resumes])).total_seconds()
    elif resumes and launched_at and launched_at > resumes[-1]:
        total += (launched_at - resumes[-1]).total_seconds()
    return total


def _trained(job: Job, rows: Sequence[Metric]) -> tuple[float | None, int | None]:
    """Return the seconds within steps, and the rows trained on in them.

    A metric's speed is that of all steps since the metric before it.
    """
    speeds = [(row.step, row.samples_per_s) for row in rows if row.samples_per_s]
    n_rows, seconds = Config(**job.config).prompts_a_step, 0.0
    for (before, _), (step, speed) in pairwise([(0, 0.0), *speeds]):
        seconds += (step - before) * n_rows / speed
    return (seconds, speeds[-1][0] * n_rows) if speeds else (None, None)


def _rate(count: int | None, seconds: float | None) -> float | None:
    return count / seconds if count and seconds else None


def _rates(values: Iterable[float | None], mean: float | None) -> RateSummary:
    numbers = [value for value in values if value is not None]
    return RateSummary(mean, median(numbers), max(numbers)) if numbers else RateSummary()


def _max(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _losses(values: Iterable[tuple[float | None, int]]) -> LossSummary:
    losses = [(value, step) for value, step in values if value is not None]
    return LossSummary(*losses[0], *min(losses), *losses[-1]) if losses else LossSummary()
