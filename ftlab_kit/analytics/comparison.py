"""Jobs side by side: in which settings they differ, and which did best by each measure.

A measure has a winner only where it is fair: losses of other rows, or in another model's tokens,
are numbers of different things; times and memory are never the same twice, and a lead of less than
a few hundredths says nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlab_kit import datasets
from ftlab_kit.configs import Config
from ftlab_kit.jobs import states
from ftlab_kit.records import Choice, Job, JobAnalytics, Measure, Rows, show
from ftlab_kit.trainers import run_state
from ftlab_kit.workspace import Workspace

# what must be the same for losses to be comparable
JUDGED = ("method", "model", "max_length")
TRAINED_ON = (*JUDGED, "dataset")
HELD_OUT = (*JUDGED, "held_out", "eval_rows")
NOISE = 0.02  # the share by which what hangs on the machine differs by itself


@dataclass(frozen=True, slots=True)
class ComparedMeasure:
    """A measure, what makes it comparable, and whether a job must be completed to take part.

    `lead` is the share of the second best by which the best must be better.
    """

    name: str
    of: Callable[[JobAnalytics], float | None]
    greater_is_better: bool | None = False
    alike: Sequence[str] = ()
    lead: float = NOISE
    is_of_whole: bool = False


COMPARED_MEASURES = (
    ComparedMeasure("last_loss", lambda found: found.loss.last, alike=TRAINED_ON, lead=0.0),
    ComparedMeasure("best_eval_loss", lambda found: found.eval_loss.best, alike=HELD_OUT, lead=0.0),
    ComparedMeasure("tokens_per_s", lambda found: found.tokens_per_s.mean, True, ("processor",)),
    ComparedMeasure(
        "running_s", lambda found: found.running_s, alike=("processor",), is_of_whole=True
    ),
    ComparedMeasure("peak_memory_gib", lambda found: found.peak_memory_gib),
    ComparedMeasure("peak_gpu_memory_gib", lambda found: found.peak_gpu_memory_gib),
    ComparedMeasure("n_tokens", lambda found: found.n_tokens, None),
    ComparedMeasure("checkpoints_bytes", lambda found: found.checkpoints_bytes),
)


def differences(ws: Workspace, jobs: Sequence[Job]) -> Rows[Choice]:
    """Return the settings and dataset versions in which jobs differ, adjustments included."""
    given = [_given(ws, job) for job in jobs]
    names = [*dict.fromkeys(name for facts in given for name in facts if name != "processor")]
    values = {name: tuple(facts.get(name) for facts in given) for name in names}
    return Rows(
        Choice(name, found)
        for name, found in values.items()
        if any(value != found[0] for value in found)
    )


def measures(ws: Workspace, jobs: Sequence[Job], found: Sequence[JobAnalytics]) -> Rows[Measure]:
    """Return every measure of some jobs with its winner, or with why there is none."""
    given = [_given(ws, job) for job in jobs]
    return Rows(_measure(contest, jobs, found, given) for contest in COMPARED_MEASURES)


def group(job: Job) -> tuple[Any, ...]:
    """Return what must be the same in two jobs for their held-out losses to be comparable."""
    config = Config(**job.config).model_dump()
    return (job.held_out_version_id, *(config[name] for name in (*JUDGED, "eval_rows")))


def _measure(
    contest: ComparedMeasure,
    jobs: Sequence[Job],
    found: Sequence[JobAnalytics],
    given: Sequence[Mapping[str, Any]],
) -> Measure:
    values = tuple(contest.of(item) for item in found)
    known = [(value, job.id) for value, job in zip(values, jobs, strict=True) if value is not None]
    known.sort(reverse=bool(contest.greater_is_better))
    words = _no_contest(contest, jobs, given)
    if words is None and len(known) < 2:
        words = "measured of fewer than two"
    if words is None:
        (best, winner), (second, _) = known[:2]
        if abs(best - second) > contest.lead * abs(second):
            return Measure(contest.name, values, contest.greater_is_better, winner)
        words = f"no lead of more than {contest.lead:.0%}" if contest.lead else "a tie"
    return Measure(contest.name, values, contest.greater_is_better, None, words)


def _no_contest(
    contest: ComparedMeasure, jobs: Sequence[Job], given: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why no job can win by a measure; None if one can."""
    if contest.greater_is_better is None:
        return "neither more nor less is better"
    apart = [name for name in contest.alike if any(it[name] != given[0][name] for it in given)]
    if apart:
        return f"not comparable: not the same {', '.join(apart)}"
    if contest.is_of_whole and any(job.state != "completed" for job in jobs):
        return "not comparable: not all are completed"
    return None


def _given(ws: Workspace, job: Job) -> dict[str, Any]:
    """Return what a job was given: rows, what it began with, settings, and the machine."""
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
    found = datasets.get(ws, version_id)
    return f"{found.dataset} {found.side}, version {found.id}"


def _adjusted(ws: Workspace, job: Job, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that were adjusted while a job ran, with every value they had."""
    found: dict[str, str] = {}
    for event in run_state.adjustments(ws, job.id):
        for name, value in (event.arguments or {}).items():
            before = found.get(name, show(config[name]))
            found[name] = f"{before}, {show(value)} from step {event.step}"
    return found
