"""Analytics: what jobs will take, what they took, how they went, and which did better.

Every number is computed from what was recorded while they ran; None is not known.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from ftlab_kit import datasets, device, trainers
from ftlab_kit.analytics import comparison, efficiency, forecast, history
from ftlab_kit.configs import Config
from ftlab_kit.errors import InputError
from ftlab_kit.records import (
    BestJob,
    DatasetVersion,
    Estimate,
    Failure,
    Job,
    JobAnalytics,
    JobComparison,
    Loading,
    MeasureComparison,
    Rows,
    SettingDifference,
    Summary,
)
from ftlab_kit.workspace import Workspace

__all__ = ["compare", "estimate", "job", "record_lineage", "summary"]


def job(
    ws: Workspace,
    job: Job | int,
    *,
    usd_per_hour: float | None = None,
    watts: float | None = None,
) -> JobAnalytics:
    """Return what a job took, how fast it was, and how it went.

    Unless a job runs, the machine's peak is measured in about a second, and the highest one is
    kept. If something else keeps the processor busy meanwhile, the MFU looks better than it is.

    Args:
        job: A job or its id.
        usd_per_hour: The price of an hour of the machine, for the cost of the running time.
        watts: The power of the machine while it trains, for the energy of the running time.

    Raises:
        NotFound: There is no such job.
        InputError: A price or a power below 0.
    """
    _check_not_negative("usd_per_hour", usd_per_hour)
    _check_not_negative("watts", watts)
    current = trainers.status(ws, job)
    numbers = efficiency.with_mfu(ws, current, history.of(ws, current))
    if numbers.running_s is None:
        return numbers
    hours = numbers.running_s / 3600
    return replace(
        numbers,
        energy_kwh=None if watts is None else hours * watts / 1000,
        cost_usd=None if usd_per_hour is None else hours * usd_per_hour,
    )


def _check_not_negative(name: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{name} is {value}; expected 0 or more. Leave it out if not known.")


def estimate(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    held_out: DatasetVersion | int | None = None,
    usd_per_hour: float | None = None,
    watts: float | None = None,
) -> Estimate:
    """Return what a job will take: steps, tokens, time, memory and money; nothing is started.

    The speed is that of the newest similar job on this machine. Without one it is derived from the
    machine's peak, which is measured in about a second. Tokens can only be counted once the model
    has been pulled.

    Args:
        config: The job's settings.
        dataset: The rows to train on: a version, its number, or a dataset's name.
        held_out: The rows of the held-out losses, whose time is included.
        usd_per_hour: The price of an hour of the machine.
        watts: The power of the machine while it trains.

    Raises:
        InputError: A price or a power below 0.
        NotFound: There is no such dataset or model.
    """
    _check_not_negative("usd_per_hour", usd_per_hour)
    _check_not_negative("watts", watts)
    version = datasets.get(ws, dataset)
    held_out_version = datasets.get(ws, held_out) if held_out else None
    tokens = forecast.count_tokens(ws, config, version, held_out_version)
    speed, basis = None, "the model has not been pulled yet, so its tokens can't be counted"
    if tokens:
        speed, basis = forecast.speed(ws, config, version)
    seconds = (tokens.trained + tokens.held_out) / speed if tokens and speed else None
    hours = None if seconds is None else seconds / 3600
    return Estimate(
        n_steps=forecast.steps(config, version),
        n_tokens=tokens.trained if tokens else None,
        tokens_per_s=speed,
        seconds=seconds,
        memory_gib=forecast.memory(ws, config, tokens.longest if tokens else None).total_gib,
        free_memory_gib=device.free_memory_gib(),
        cost_usd=None if usd_per_hour is None or hours is None else hours * usd_per_hour,
        energy_kwh=None if watts is None or hours is None else hours * watts / 1000,
        basis=basis,
    )


def summary(ws: Workspace) -> Summary:
    """Return all jobs of a workspace in numbers: states, time, tokens, failures, and the best."""
    jobs = trainers.list(ws)[::-1]
    numbers = [history.of(ws, item) for item in jobs]
    trained_s = [item.trained_s for item in numbers if item.trained_s is not None]
    n_tokens = [item.n_tokens for item in numbers if item.n_tokens is not None]
    durations = [
        item.duration_s
        for item in numbers
        if item.state == "completed" and item.duration_s is not None
    ]
    states = [item.state for item in jobs]
    return Summary(
        n_jobs=len(jobs),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        hours_trained=sum(trained_s) / 3600 if trained_s else None,
        n_tokens=sum(n_tokens) if n_tokens else None,
        median_duration_s=median(durations) if durations else None,
        tokens_per_s=_speeds(numbers),
        n_checkpoints=sum(item.n_checkpoints for item in numbers),
        checkpoints_bytes=sum(item.checkpoints_bytes for item in numbers),
        failures=Rows(_failures(jobs)),
        best=Rows(_best_jobs(jobs, numbers)),
    )


def compare(ws: Workspace, *jobs: Job | int) -> JobComparison:
    """Return jobs side by side: the settings that differ, and the best job by each measure.

    A loss has a winner only where rows, method and tokens are the same; a duration only where every
    job is completed.

    Args:
        jobs: Two or more jobs or their ids.

    Raises:
        InputError: Fewer than two jobs, or one of them twice.
        NotFound: There is no such job.
    """
    current = [trainers.status(ws, item) for item in jobs]
    ids = [item.id for item in current]
    if len(ids) < 2 or len({*ids}) < len(ids):
        named = f"only job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(map(str, ids))}"
        raise InputError(
            f"compare was given {named if ids else 'no job'}; expected two or more, each once. "
            "List the jobs with trainers.list(ws)."
        )
    differences = comparison.differences(ws, current)
    measures = comparison.measures(ws, current, [history.of(ws, item) for item in current])
    message = _message(differences, measures, ids)
    return JobComparison(message, Rows(current), differences, measures)


def record_lineage(ws: Workspace, *, graph: str | None = None) -> Loading:
    """Write the lab's history into a graph as the document 'lab', and return what changed.

    Dataset versions, configs, jobs, events, checkpoints, evaluations and exports become typed
    entities. Called again, it writes what has changed since; what is no longer so has ended.

    Args:
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        Conflict: The graph has another embedder.
        Unavailable: The server or the embedder can't be reached.
    """
    from ftlab_kit.analytics import lineage

    return lineage.record(ws, graph)


def _message(
    differences: Rows[SettingDifference], measures: Rows[MeasureComparison], ids: Sequence[int]
) -> str:
    """Return one line: the settings that differ, and the measures by which each job is best."""
    names = ", ".join(item.name for item in differences)
    parts = [f"{len(ids)} jobs that differ in {names or 'no setting'}"]
    for job_id in ids:
        won = [item.name for item in measures if item.winner == job_id]
        if won:
            parts.append(f"job {job_id} is best by {', '.join(won)}")
    return "; ".join(parts)


def _speeds(numbers: Sequence[JobAnalytics]) -> dict[str, float]:
    """Return the median tokens per second of each model's jobs."""
    speeds: dict[str, list[float]] = {}
    for item in numbers:
        if item.tokens_per_s.mean is not None:
            speeds.setdefault(item.model, []).append(item.tokens_per_s.mean)
    return {model: median(values) for model, values in speeds.items()}


def _failures(jobs: Sequence[Job]) -> Iterator[Failure]:
    """Yield the reasons why jobs failed, the most frequent first; the newest job's text is shown.

    Reasons that differ only in their numbers are the same.
    """
    groups: dict[str, list[Job]] = {}
    for item in jobs:
        if item.state == "failed":
            groups.setdefault(re.sub(r"[\d.]+", "0", _reason(item)), []).append(item)
    for same in sorted(groups.values(), key=len, reverse=True):
        yield Failure(_reason(same[-1]), len(same), tuple(item.id for item in same))


def _reason(failed: Job) -> str:
    """Return the first sentence of a job's error; the others are advice."""
    return (failed.error or "").partition(". ")[0].rstrip(".")


def _best_jobs(jobs: Sequence[Job], numbers: Sequence[JobAnalytics]) -> Iterator[BestJob]:
    """Yield the best job of each group whose held-out losses are comparable."""
    groups: dict[tuple[object, ...], list[BestJob]] = {}
    for item, its_numbers in zip(jobs, numbers, strict=True):
        loss, step = its_numbers.eval_loss.best, its_numbers.eval_loss.best_step
        version_id = item.held_out_version_id
        if loss is not None and step is not None and version_id is not None:
            candidate = BestJob(version_id, item.model, 1, item.id, step, loss)
            groups.setdefault(comparison.group(item), []).append(candidate)
    for same in groups.values():
        best = min(same, key=lambda candidate: candidate.eval_loss)
        yield replace(best, n_jobs=len(same))
