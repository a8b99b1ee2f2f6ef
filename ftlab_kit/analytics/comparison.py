"""Jobs side by side: the settings that differ, and the best job by each measure.

A measure has a winner only where the comparison is fair. Losses on other rows, or in another
model's tokens, measure different things. Times and memory vary from run to run, so a small lead
says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab_kit import datasets
from ftlab_kit.configs import Config
from ftlab_kit.jobs import states
from ftlab_kit.records import Job, JobAnalytics, MeasureComparison, Rows, SettingDifference, show
from ftlab_kit.trainers import run_state
from ftlab_kit.workspace import Workspace

# what must be the same for losses to be comparable
SAME_LOSS = ("method", "model", "max_length")
SAME_TRAINING_ROWS = (*SAME_LOSS, "dataset")
SAME_HELD_OUT_ROWS = (*SAME_LOSS, "held_out", "eval_rows")
NOISE = 0.02  # times and memory of the same job differ by this share from run to run


@dataclass(frozen=True, slots=True)
class ComparedMeasure:
    """A measure of jobs, and what makes it comparable.

    Args:
        name: Shown in the table.
        value: Returns the measure of one job.
        greater_is_better: None where neither direction is better.
        must_match: Settings, rows and machine that must be the same for all jobs.
        min_lead: The share of the second best by which the winner must be better.
        needs_completion: Whether all jobs must be completed.
    """

    name: str
    value: Callable[[JobAnalytics], float | None]
    greater_is_better: bool | None = False
    must_match: Sequence[str] = ()
    min_lead: float = NOISE
    needs_completion: bool = False


COMPARED_MEASURES = (
    ComparedMeasure(
        "last_loss", lambda job: job.loss.last, must_match=SAME_TRAINING_ROWS, min_lead=0.0
    ),
    ComparedMeasure(
        "best_eval_loss", lambda job: job.eval_loss.best, must_match=SAME_HELD_OUT_ROWS, min_lead=0
    ),
    ComparedMeasure(
        "tokens_per_s",
        lambda job: job.tokens_per_s.mean,
        greater_is_better=True,
        must_match=("processor",),
    ),
    ComparedMeasure(
        "running_s", lambda job: job.running_s, must_match=("processor",), needs_completion=True
    ),
    ComparedMeasure("peak_memory_gib", lambda job: job.peak_memory_gib),
    ComparedMeasure("peak_gpu_memory_gib", lambda job: job.peak_gpu_memory_gib),
    ComparedMeasure("n_tokens", lambda job: job.n_tokens, greater_is_better=None),
    ComparedMeasure("checkpoints_bytes", lambda job: job.checkpoints_bytes),
)


def differences(ws: Workspace, jobs: Sequence[Job]) -> Rows[SettingDifference]:
    """Return the settings and dataset versions that differ between jobs, adjustments included."""
    inputs = [_inputs(ws, job) for job in jobs]
    names = [*dict.fromkeys(name for facts in inputs for name in facts if name != "processor")]
    values = {name: tuple(facts.get(name) for facts in inputs) for name in names}
    return Rows(
        SettingDifference(name, of_jobs)
        for name, of_jobs in values.items()
        if any(value != of_jobs[0] for value in of_jobs)
    )


def measures(
    ws: Workspace, jobs: Sequence[Job], numbers: Sequence[JobAnalytics]
) -> Rows[MeasureComparison]:
    """Return every measure of some jobs with its winner, or with the reason why it has none."""
    inputs = [_inputs(ws, job) for job in jobs]
    return Rows(_compared(measure, jobs, numbers, inputs) for measure in COMPARED_MEASURES)


def group(job: Job) -> tuple[Any, ...]:
    """Return what must be the same in two jobs for their held-out losses to be comparable."""
    config = Config(**job.config).model_dump()
    return (job.held_out_version_id, *(config[name] for name in (*SAME_LOSS, "eval_rows")))


def _compared(
    measure: ComparedMeasure,
    jobs: Sequence[Job],
    numbers: Sequence[JobAnalytics],
    inputs: Sequence[Mapping[str, Any]],
) -> MeasureComparison:
    values = tuple(measure.value(item) for item in numbers)
    ranking = [
        (value, job.id) for value, job in zip(values, jobs, strict=True) if value is not None
    ]
    ranking.sort(reverse=bool(measure.greater_is_better))
    note = _why_not_comparable(measure, jobs, inputs)
    if note is None and len(ranking) < 2:
        note = "measured for fewer than two jobs"
    if note is None:
        (best, winner), (second, _) = ranking[:2]
        if abs(best - second) > measure.min_lead * abs(second):
            return MeasureComparison(measure.name, values, measure.greater_is_better, winner)
        note = f"no lead of more than {measure.min_lead:.0%}" if measure.min_lead else "a tie"
    return MeasureComparison(measure.name, values, measure.greater_is_better, None, note)


def _why_not_comparable(
    measure: ComparedMeasure, jobs: Sequence[Job], inputs: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why no job can win by a measure; None if one can."""
    if measure.greater_is_better is None:
        return "neither more nor less is better"
    unequal = [
        name
        for name in measure.must_match
        if any(facts[name] != inputs[0][name] for facts in inputs)
    ]
    if unequal:
        return f"not comparable: different {', '.join(unequal)}"
    if measure.needs_completion and any(job.state != "completed" for job in jobs):
        return "not comparable: not all are completed"
    return None


def _inputs(ws: Workspace, job: Job) -> dict[str, Any]:
    """Return what went into a job: rows, starting point, settings, and the machine."""
    config = Config(**job.config).model_dump()
    parent = f"job {job.parent_id}, step {job.parent_step}" if job.parent_id else None
    return {
        "dataset": _version(ws, job.dataset_version_id),
        "held_out": _version(ws, job.held_out_version_id),
        "forked_from": parent,
        **config,
        **_adjusted(ws, job, config),
        "processor": (states.row(ws, job)["facts"] or {}).get("processor"),
    }


def _version(ws: Workspace, version_id: int | None) -> str | None:
    if version_id is None:
        return None
    version = datasets.get(ws, version_id)
    return f"{version.dataset} {version.side}, version {version.id}"


def _adjusted(ws: Workspace, job: Job, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that were adjusted while a job ran, with every value they had."""
    values: dict[str, str] = {}
    for event in run_state.adjustments(ws, job.id):
        for name, value in (event.arguments or {}).items():
            before = values.get(name, show(config[name]))
            values[name] = f"{before}, {show(value)} from step {event.step}"
    return values
