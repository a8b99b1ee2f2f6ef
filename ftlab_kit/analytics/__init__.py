"""Analytics: what jobs will take, took, what came of them, and which did better.

Every number is computed from what was recorded while they ran; what is not known is None.
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
    Choice,
    DatasetVersion,
    Estimate,
    Failure,
    Job,
    JobAnalytics,
    JobComparison,
    Loading,
    Measure,
    Rows,
    Summary,
)
from ftlab_kit.workspace import Workspace


def job(
    ws: Workspace,
    job: Job | int,
    *,
    usd_per_hour: float | None = None,
    watts: float | None = None,
) -> JobAnalytics:
    """Return what a job took, how fast it was, and what came of it.

    The machine's bound is measured in about a second, unless a job runs, and the greatest is kept:
    where something else keeps the processor busy, efficiency looks better than it is.

    Args:
        usd_per_hour: What an hour of the machine costs, for the cost of the time that it ran.
        watts: What the machine draws while it trains, for the energy of that time.

    Raises:
        NotFound: There is no such job.
        InputError: A price or a power below 0.
    """
    _check_prices(usd_per_hour=usd_per_hour, watts=watts)
    asked = trainers.status(ws, job)
    found = efficiency.efficiency(ws, asked, history.of(ws, asked))
    if found.running_s is None:
        return found
    hours = found.running_s / 3600
    return replace(
        found,
        energy_kwh=None if watts is None else hours * watts / 1000,
        cost_usd=None if usd_per_hour is None else hours * usd_per_hour,
    )


def _check_prices(**prices: float | None) -> None:
    for name, value in prices.items():
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

    Its speed is that of the newest job like it here; without one it is reckoned from the machine's
    own matrix product, which is measured in about a second. Only where the model is here can the
    tokens be counted.

    Args:
        usd_per_hour: What an hour of the machine costs.
        watts: What the machine draws while it trains.

    Raises:
        InputError: A price or a power below 0.
    """
    _check_prices(usd_per_hour=usd_per_hour, watts=watts)
    version = datasets.get(ws, dataset)
    judged = datasets.get(ws, held_out) if held_out else None
    counted = forecast.count(ws, config, version, judged)
    speed, basis = None, "the model is not here yet, so its tokens can't be counted"
    if counted:
        speed, basis = forecast.speed(ws, config, version)
    seconds = (counted.learnt + counted.measured) / speed if counted and speed else None
    hours = None if seconds is None else seconds / 3600
    return Estimate(
        n_steps=forecast.steps(config, version),
        n_tokens=counted.learnt if counted else None,
        tokens_per_s=speed,
        seconds=seconds,
        memory_gib=forecast.memory(ws, config, counted.longest if counted else None).total_gib,
        free_memory_gib=device.free_memory_gib(),
        cost_usd=None if usd_per_hour is None or hours is None else hours * usd_per_hour,
        energy_kwh=None if watts is None or hours is None else hours * watts / 1000,
        basis=basis,
    )


def summary(ws: Workspace) -> Summary:
    """Return all jobs of a workspace in numbers: states, time, tokens, failures, and the best."""
    jobs = trainers.list(ws)[::-1]
    found = [history.of(ws, item) for item in jobs]
    trained_s = [item.trained_s for item in found if item.trained_s is not None]
    n_tokens = [item.n_tokens for item in found if item.n_tokens is not None]
    durations = [
        item.duration_s
        for item in found
        if item.state == "completed" and item.duration_s is not None
    ]
    states = [item.state for item in jobs]
    return Summary(
        n_jobs=len(jobs),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        hours_trained=sum(trained_s) / 3600 if trained_s else None,
        n_tokens=sum(n_tokens) if n_tokens else None,
        median_duration_s=median(durations) if durations else None,
        tokens_per_s=_speeds(found),
        n_checkpoints=sum(item.n_checkpoints for item in found),
        checkpoints_bytes=sum(item.checkpoints_bytes for item in found),
        failures=Rows(_failures(jobs)),
        best=Rows(_leaders(jobs, found)),
    )


def compare(ws: Workspace, *jobs: Job | int) -> JobComparison:
    """Return jobs side by side: only what differs in their settings, and the best by each measure.

    A loss has a winner only where it is of the same rows, method and tokens; a duration where every
    job is completed.

    Args:
        jobs: Two or more.

    Raises:
        InputError: Fewer than two jobs, or one of them twice.
        NotFound: There is no such job.
    """
    found = [trainers.status(ws, item) for item in jobs]
    ids = [item.id for item in found]
    if len(ids) < 2 or len({*ids}) < len(ids):
        named = f"only job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(map(str, ids))}"
        raise InputError(
            f"compare was given {named if ids else 'no job'}; expected two or more, each once. "
            "Name them after ws; trainers.list(ws) shows which there are."
        )
    differences = comparison.differences(ws, found)
    measures = comparison.measures(ws, found, [history.of(ws, item) for item in found])
    return JobComparison(_words(differences, measures, ids), Rows(found), differences, measures)


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


def _words(differences: Rows[Choice], measures: Rows[Measure], ids: Sequence[int]) -> str:
    """Return in one line in what jobs differ and which is best by what."""
    names = ", ".join(item.name for item in differences)
    words = [f"{len(ids)} jobs that differ in {names or 'no setting'}"]
    for job_id in ids:
        won = [item.name for item in measures if item.winner == job_id]
        if won:
            words.append(f"job {job_id} is best by {', '.join(won)}")
    return "; ".join(words)


def _speeds(found: Sequence[JobAnalytics]) -> dict[str, float]:
    """Return the median tokens per second of each model's jobs."""
    speeds: dict[str, list[float]] = {}
    for item in found:
        if item.tokens_per_s.mean is not None:
            speeds.setdefault(item.model, []).append(item.tokens_per_s.mean)
    return {model: median(values) for model, values in speeds.items()}


def _failures(jobs: Sequence[Job]) -> Iterator[Failure]:
    """Yield the reasons for which jobs failed, the most frequent first, in the newest's words."""
    alike: dict[str, list[Job]] = {}
    for item in jobs:
        if item.state == "failed":
            alike.setdefault(re.sub(r"[\d.]+", "0", _reason(item)), []).append(item)
    for same in sorted(alike.values(), key=len, reverse=True):
        yield Failure(_reason(same[-1]), len(same), tuple(item.id for item in same))


def _reason(failed: Job) -> str:
    """Return the first sentence of why a job failed; the others are advice."""
    return (failed.error or "").partition(". ")[0].rstrip(".")


def _leaders(jobs: Sequence[Job], found: Sequence[JobAnalytics]) -> Iterator[BestJob]:
    """Yield the best job of each group whose held-out losses can be compared."""
    groups: dict[tuple[object, ...], list[BestJob]] = {}
    for item, numbers in zip(jobs, found, strict=True):
        loss, step = numbers.eval_loss.best, numbers.eval_loss.best_step
        version_id = item.held_out_version_id
        if loss is not None and step is not None and version_id is not None:
            leader = BestJob(version_id, item.model, 1, item.id, step, loss)
            groups.setdefault(comparison.group(item), []).append(leader)
    for same in groups.values():
        best = min(same, key=lambda leader: leader.eval_loss)
        yield replace(best, n_jobs=len(same))
