"""Diagnostics: what is wrong with a job, why, and the change that cures it.

The documents' flowchart made runnable. Its first question is always the same: model or data? A loss
that is flat from the start, rises, or is no number points at the model's side, its settings; rows
that are learnt fast and held-out ones that get worse point at the data. `overfit_ten` asks it of a
config and a dataset before they cost a night.

A look is a function from what a job has left to a finding or None, and stands in a table beside its
like: `curves.py`, `rows.py`, `machine.py`. Thresholds are constants there, each with its reason.
"""

from ftlab_kit import trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, NotFound, nearest
from ftlab_kit.records import DatasetVersion, Diagnosis, Finding, Job, OnProgress, Rows
from ftlab_kit.trainers.run_state import is_live
from ftlab_kit.workspace import Workspace

# the question of the flowchart at which a finding turns off, and the answer there
SIGNS = {
    "no number": "Is the loss a number? Not at every step",
    "loss rises": "Does the loss fall? No, it rises",
    "plateau": "Does the loss fall? No, it is flat from the start",
    "spike": "Does it fall evenly? No, it jumps",
    "short warm-up": "Does it fall evenly? Not in its first steps",
    "over-fitting": "Do rows that were held out get better too? No",
    "all-masked rows": "Is every row learnt from? No",
    "cut answers": "Is every row learnt whole? No",
    "no end token": "Is every row learnt whole? Not its end",
    "never-ending answers": "Do answers end? No",
    "contradicting answers": "Can ten rows be learnt by heart? Not these",
}
# what it answers to "model or data?", by the side on which the trouble lies
PATHS = {
    "settings": "the model's side: its settings must let it learn before rows can matter",
    "data": "the data's side: the model does what it can with these rows",
    "machine": "neither: the run learns what it should, and the machine is in its way",
}
STEPS = 60  # as many passes over ten rows; a model that can learn them does so in about thirty


def check(ws: Workspace, job: Job | int) -> Rows[Finding]:
    """Return what is wrong with a job, the gravest first; nothing of a healthy one.

    Reads metrics, events, settings, rows as tokens, and evaluations. A job that runs is judged by
    what it has done so far.

    Raises:
        NotFound: There is no such job.
    """
    from ftlab_kit.diagnostics import curve_findings, evidence, machine_findings, row_findings

    seen = evidence.gather(ws, job)
    found = [next(filter(None, (look(seen) for look in curve_findings.CURVES.values())), None)]
    found += [curve_findings.overfitting(seen), row_findings.endless(seen)]
    if seen.reading is not None:
        found += [look(seen.reading) for look in row_findings.ROWS.values()]
    found += [look(seen) for look in machine_findings.MACHINE.values()]
    return Rows(sorted(filter(None, found), key=lambda item: item.importance))


def cure(ws: Workspace, job: Job | int, finding: Finding | str) -> Job:
    """Apply what a finding says and return the job that has it.

    A running job is adjusted where all of the settings can change while it runs. Else a new job
    starts on the same rows, held out ones too, with the settings of the old one and the changes; a
    fork begins again where it was forked. What runs goes on: `trainers.cancel` ends it.

    Args:
        finding: What `check` has found, or its problem in its words.

    Raises:
        NotFound: The job has no such problem.
        InputError: No setting cures it; says what to do by hand. Or preflight refuses the new job.
        Conflict: The settings have these values already.
    """
    from ftlab_kit.diagnostics import evidence

    if isinstance(finding, str):
        finding = _named(ws, job, finding)
    if not finding.changes:
        raise InputError(
            f"No setting cures {finding.problem!r}: {finding.cause}; expected a finding with "
            f"changes. By hand: {finding.fix}"
        )
    found = trainers.status(ws, job)
    changes, old = dict(finding.changes), trainers.settings(ws, found)
    config = old.but(**changes)
    if config == old:
        raise Conflict(
            f"Job {found.id} has {evidence.in_words(changes)} already; expected a finding of this "
            "job as it is now. Look again with diagnostics.check."
        )
    if found.state == "running" and all(is_live(name) for name in changes):
        trainers.adjust(ws, found, **changes)
        return trainers.status(ws, found)
    held_out = found.held_out_version_id
    if found.parent_id is None:
        return trainers.start(ws, config, found.dataset_version_id, held_out=held_out)
    return trainers.fork(
        ws,
        found.parent_id,
        from_checkpoint=found.parent_step,
        dataset=found.dataset_version_id,
        held_out=held_out,
        **config.model_dump(),
    )


def _named(ws: Workspace, job: Job | int, problem: str) -> Finding:
    """Return what is found wrong with a job under a name."""
    found = {item.problem: item for item in check(ws, job)}
    if problem not in found:
        raise NotFound(
            f"Nothing of the name {problem!r} is wrong with the job; found is "
            f"{', '.join(map(repr, found)) or 'nothing'}.{nearest(problem, found)}"
        )
    return found[problem]


def explain(finding: Finding | Diagnosis) -> str:
    """Return a finding in a short paragraph: what, how it shows, model or data, why, and the cure.

    Of a diagnosis of ten rows it is what they say, and the path that follows.
    """
    if isinstance(finding, Diagnosis):
        return f"{finding.message} Model or data? That is {PATHS[finding.side]}."
    sign = SIGNS.get(finding.problem, "Does it learn? Yes")
    return (
        f"{finding.problem[0].upper()}{finding.problem[1:]}. {finding.evidence} Model or data? "
        f"{sign}: that is {PATHS[finding.side]}. Cause: {finding.cause}. {finding.fix}"
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
    """Train on ten rows, all of them in each step, and tell a model's trouble from the data's.

    A model with settings that work learns ten rows by heart. If it does, look for the trouble in
    the rows; if not, the rows say whether they or the settings prevent it.

    Args:
        steps: Optimizer steps, each a pass over the rows, at the config's learning rate.
        n_rows: Rows, drawn by the config's seed.
        progress: Called with the steps done whenever the job's step or state has changed.

    Raises:
        InputError: The method learns no answers, or there are too few rows or steps.
    """
    from ftlab_kit.diagnostics import overfit

    return overfit.diagnose(ws, config, dataset, overfit.Size(steps, n_rows), progress)
