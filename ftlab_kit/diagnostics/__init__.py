"""Diagnostics: what is wrong with a job, why, and the change that fixes it.

This is the documents' flowchart, made runnable. Its first question is always: model or data? A loss
that is flat from the start, rises, or is not finite points to the model's side, its settings. Rows
that are learned fast while held-out rows get worse point to the data. `overfit_ten` answers the
question for a config and a dataset before they cost a night.

A check is a function from a job's evidence to a finding or None, and stands in a table beside its
like: `curve_findings`, `row_findings`, `machine_findings`. Thresholds are constants there, each
with its reason.
"""

from ftlab_kit import trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, NotFound, nearest
from ftlab_kit.records import DatasetVersion, Diagnosis, Finding, Job, OnProgress, Rows
from ftlab_kit.trainers.run_state import is_live
from ftlab_kit.workspace import Workspace

__all__ = ["check", "cure", "explain", "overfit_ten"]

# the question of the flowchart that a problem answers, and the answer
FLOWCHART = {
    "non-finite loss": "Is the loss finite? Not at every step",
    "loss rises": "Does the loss fall? No, it rises",
    "plateau": "Does the loss fall? No, it is flat from the start",
    "spike": "Does it fall smoothly? No, it jumps",
    "short warm-up": "Does it fall smoothly? Not in its first steps",
    "overfitting": "Does the held-out loss fall too? No, it rises",
    "all-masked rows": "Does every row have a trained token? No",
    "truncated answers": "Is every answer complete? No",
    "no end token": "Is every answer complete? Its end is missing",
    "never-ending answers": "Do answers end? No",
    "contradictory answers": "Can ten rows be memorised? Not these",
}
# the answer to "model or data?", by the side of the trouble
SIDES = {
    "settings": "the model's side: its settings must let it learn before rows can matter",
    "data": "the data's side: the model does what it can with these rows",
    "machine": "neither: the run learns as it should, and the machine slows it down",
}
STEPS = 60  # passes over ten rows; a model that can memorise them needs about thirty


def check(ws: Workspace, job: Job | int) -> Rows[Finding]:
    """Return what is wrong with a job, the gravest first; no finding for a healthy one.

    Reads metrics, events, settings, rows as tokens, and evaluations. A running job is judged by
    what it has done so far.

    Args:
        job: A job or its id.

    Raises:
        NotFound: There is no such job.
    """
    from ftlab_kit.diagnostics import curve_findings, evidence, machine_findings, row_findings

    of_job = evidence.gather(ws, job)
    curves = (check(of_job) for check in curve_findings.CURVE_CHECKS.values())
    findings = [next(filter(None, curves), None)]
    findings += [curve_findings.overfitting(of_job), row_findings.never_ending_answers(of_job)]
    if of_job.rows is not None:
        findings += [check(of_job.rows) for check in row_findings.ROW_CHECKS.values()]
    findings += [check(of_job) for check in machine_findings.MACHINE_CHECKS.values()]
    return Rows(sorted(filter(None, findings), key=lambda finding: finding.importance))


def cure(ws: Workspace, job: Job | int, finding: Finding | str) -> Job:
    """Apply a finding's changes and return the job that has them.

    A running job is adjusted if all of the settings can change while it runs. Otherwise a new job
    starts on the same rows and held-out rows, with the settings of the old one and the changes; a
    fork starts where it was forked. A running job goes on; end it with `trainers.cancel`.

    Args:
        job: A job or its id.
        finding: A finding of `check`, or the name of its problem.

    Raises:
        NotFound: The job has no such problem.
        InputError: No setting fixes it, and the message says what to do by hand; or preflight
            refuses the new job.
        Conflict: The settings have these values already.
    """
    from ftlab_kit.diagnostics import evidence

    if isinstance(finding, str):
        finding = _finding(ws, job, finding)
    if not finding.changes:
        raise InputError(
            f"No setting fixes {finding.problem!r} ({finding.cause}); expected a finding with "
            f"changes. By hand: {finding.fix}"
        )
    current = trainers.status(ws, job)
    changes, old = dict(finding.changes), trainers.settings(ws, current)
    config = old.but(**changes)
    if config == old:
        raise Conflict(
            f"Job {current.id} has {evidence.as_arguments(changes)} already; expected a finding of "
            "the job as it is now. Call diagnostics.check again."
        )
    if current.state == "running" and all(is_live(name) for name in changes):
        trainers.adjust(ws, current, **changes)
        return trainers.status(ws, current)
    held_out = current.held_out_version_id
    if current.parent_id is None:
        return trainers.start(ws, config, current.dataset_version_id, held_out=held_out)
    return trainers.fork(
        ws,
        current.parent_id,
        from_checkpoint=current.parent_step,
        dataset=current.dataset_version_id,
        held_out=held_out,
        **config.model_dump(),
    )


def _finding(ws: Workspace, job: Job | int, problem: str) -> Finding:
    """Return a job's finding by the name of its problem."""
    findings = {finding.problem: finding for finding in check(ws, job)}
    if problem not in findings:
        raise NotFound(
            f"The job does not have the problem {problem!r}.{nearest(problem, findings)} Its "
            f"problems: {', '.join(map(repr, findings)) or 'none'}."
        )
    return findings[problem]


def explain(finding: Finding | Diagnosis) -> str:
    """Return a finding as a short paragraph: problem, evidence, model or data, cause and fix.

    For a diagnosis it is the message, and the side that follows from it.

    Args:
        finding: What `check` or `overfit_ten` returned.
    """
    if isinstance(finding, Diagnosis):
        return f"{finding.message} Model or data? That is {SIDES[finding.side]}."
    answer = FLOWCHART.get(finding.problem, "Does it learn? Yes")
    return (
        f"{finding.problem[0].upper()}{finding.problem[1:]}. {finding.evidence} Model or data? "
        f"{answer}: that is {SIDES[finding.side]}. Cause: {finding.cause}. {finding.fix}"
    )


def overfit_ten(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    steps: int = STEPS,
    n_rows: int = 10,
    progress: OnProgress | None = None,
) -> Diagnosis:
    """Train on ten rows, all of them in each step, and tell model trouble from data trouble.

    A model with good settings memorises ten rows. If it does, look for the trouble in the rows; if
    not, the rows show whether they or the settings prevent it.

    Args:
        config: The settings to test; its learning rate is kept.
        dataset: The rows to draw from: a version, its number, or a dataset's name.
        steps: Optimizer steps, each a pass over the rows.
        n_rows: Rows, drawn by the config's seed.
        progress: Called with the steps done whenever the job's step or state has changed.

    Raises:
        InputError: The method does not train on answers, or there are too few rows or steps.
    """
    from ftlab_kit.diagnostics import overfit

    return overfit.diagnose(ws, config, dataset, steps=steps, n_rows=n_rows, progress=progress)
