"""The history of one job in numbers: from its row, metrics, events and checkpoints alone."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median

from ftlab_kit import checkpoints, metrics
from ftlab_kit.configs import Config
from ftlab_kit.jobs import states
from ftlab_kit.records import Checkpoint, Event, Job, JobAnalytics, LossSummary, Metric, RateSummary
from ftlab_kit.workspace import Workspace, now

STILL = ("queued", "paused")  # states in which nothing runs, whatever ran before
COUNTED = ("pause", "resume", "restart", "rollback", "skip")


def of(ws: Workspace, job: Job) -> JobAnalytics:
    """Return what was recorded of a job, without its price and the machine's bound."""
    rows, events = metrics.read(ws, job.id), states.events(ws, job.id, state="applied")
    kept = checkpoints.list(ws, job.id)
    launched_at = states.row(ws, job)["launched_at"]
    trained_s, n_samples = _trained(job, rows)
    n_tokens = next((row.n_tokens for row in reversed(rows) if row.n_tokens), None)
    utilisation = [row.gpu_utilisation for row in rows if row.gpu_utilisation is not None]
    measured = [(item.eval_loss, item.step) for item in kept if item.eval_loss is not None]
    pauses, resumes, restarts, rollbacks, skipped = (
        sum(event.command == command for event in events) for command in COUNTED
    )
    return JobAnalytics(
        job.id,
        job.model,
        job.state,
        job.step,
        *_lasted(job, _signs(job, rows, kept, events), events, launched_at),
        trained_s=trained_s,
        n_tokens=n_tokens,
        tokens_per_s=_spread([row.tokens_per_s for row in rows], _rate(n_tokens, trained_s)),
        samples_per_s=_spread([row.samples_per_s for row in rows], _rate(n_samples, trained_s)),
        gpu_utilisation=_spread(utilisation, fmean(utilisation) if utilisation else None),
        peak_memory_gib=_greatest(row.memory_gib for row in rows),
        peak_gpu_memory_gib=_greatest(row.gpu_memory_gib for row in rows),
        loss=_course((row.loss, row.step) for row in rows),
        eval_loss=_course((row.eval_loss, row.step) for row in rows),
        n_checkpoints=len(kept),
        checkpoints_bytes=sum(item.size_bytes for item in kept),
        best_checkpoint_step=min(measured)[1] if measured else None,
        n_pauses=pauses,
        n_resumes=resumes,
        n_restarts=restarts,
        n_rollbacks=rollbacks,
        n_skipped=skipped,
    )


def _signs(
    job: Job, rows: Sequence[Metric], kept: Sequence[Checkpoint], events: Sequence[Event]
) -> list[datetime]:
    """Return the times at which a job is known to have run: its start, and what it wrote."""
    began = [job.started_at] if job.started_at else []
    wrote = [row.at for row in rows if row.at] + [item.created_at for item in kept]
    return began + wrote + [event.created_at for event in events if event.command == "pause"]


def _lasted(
    job: Job, signs: Sequence[datetime], events: Sequence[Event], launched_at: datetime | None
) -> tuple[float, float | None, float | None]:
    """Return the seconds for which a job waited for its start, lasted since, and ran of these."""
    end = job.finished_at or now()
    # before a job kept its first start, each run wrote its own over it
    began_at = min(signs, default=None)
    waited_s = ((began_at or end) - job.created_at).total_seconds()
    if began_at is None:
        return waited_s, None, None
    duration_s = (end - began_at).total_seconds()
    resumes = [event.created_at for event in events if event.command == "resume"]
    return waited_s, duration_s, duration_s - _still_s(job, signs, resumes, launched_at)


def _still_s(
    job: Job, signs: Sequence[datetime], resumes: Sequence[datetime], launched_at: datetime | None
) -> float:
    """Return the seconds in which a job was paused, lay failed, or waited to go on.

    Each such time begins with the last that the job wrote before it, and ends with the resume; the
    newest one with the launch that followed, or now if there was none.
    """
    total = 0.0
    for at in resumes:
        before = [sign for sign in [*signs, *resumes] if sign < at]
        total += (at - max(before, default=at)).total_seconds()
    if job.state in STILL:
        total += (now() - max([*signs, *resumes])).total_seconds()
    elif resumes and launched_at and launched_at > resumes[-1]:
        total += (launched_at - resumes[-1]).total_seconds()
    return total


def _trained(job: Job, rows: Sequence[Metric]) -> tuple[float | None, int | None]:
    """Return the seconds within steps and the rows learnt from in them.

    A metric's speed is that of all steps since the metric before it.
    """
    known = [(row.step, row.samples_per_s) for row in rows if row.samples_per_s]
    batch, took = Config(**job.config).prompts_a_step, 0.0
    for (before, _), (step, speed) in pairwise([(0, 0.0), *known]):
        took += (step - before) * batch / speed
    return (took, known[-1][0] * batch) if known else (None, None)


def _rate(count: int | None, seconds: float | None) -> float | None:
    return count / seconds if count and seconds else None


def _spread(values: Iterable[float | None], mean: float | None) -> RateSummary:
    known = [value for value in values if value is not None]
    return RateSummary(mean, median(known), max(known)) if known else RateSummary()


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _course(values: Iterable[tuple[float | None, int]]) -> LossSummary:
    known = [(value, step) for value, step in values if value is not None]
    return LossSummary(*known[0], *min(known), *known[-1]) if known else LossSummary()
