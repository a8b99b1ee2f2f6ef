"""Ten rows by heart: the flowchart's quickest test of whether model or data is the trouble."""

import statistics
from typing import NamedTuple

from ftlab_kit import datasets, trainers
from ftlab_kit.configs import Config
from ftlab_kit.diagnostics import curve_findings, evidence, row_findings
from ftlab_kit.diagnostics.evidence import Evidence, Reading, rows_in_words
from ftlab_kit.errors import InputError, JobFailed
from ftlab_kit.records import DatasetVersion, Diagnosis, Finding, Job, OnProgress, Rows
from ftlab_kit.workspace import Workspace

# nats a token above the least: each right token has a chance of five in six or so, and the
# likeliest answer is the row's own
KNOWN = 0.2
CONTRADICTING = "contradicting answers"
LAST = 3  # losses whose mean is the end
FALLING = 0.9  # of the loss at half-time: what still falls so fast only wants more steps
# preflight's names for rows that teach nothing, are cut, or have no end
OF_ROWS = ("trained tokens", "whole answers", "end token")


class Size(NamedTuple):
    """How much is trained."""

    steps: int
    n_rows: int


class Learnt(NamedTuple):
    """What came of the training: the losses, and the least that any model could have reached."""

    job: Job | None
    losses: list[float]
    least: float

    @property
    def last(self) -> float | None:
        """The mean of the last losses, None if there are none."""
        return statistics.fmean(self.losses[-LAST:]) if self.losses else None

    @property
    def is_near(self) -> bool:
        """Whether the last losses are as low as they can be, or nearly so."""
        return self.last is not None and self.last <= self.least + KNOWN


def diagnose(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    size: Size,
    progress: OnProgress | None,
) -> Diagnosis:
    """Return what ten rows say of a config and a dataset."""
    whole = datasets.get(ws, dataset)
    _check(config, size)
    few = datasets.sample(ws, whole, min(size.n_rows, whole.n_rows), seed=config.seed)
    config = _small(config, few.n_rows, size.steps)
    refused = [check for check in trainers.preflight(ws, config, few) if not check.is_ok]
    reading = evidence.read(ws, config, few)
    assert reading is not None, "preflight pulled the model"
    found = [*filter(None, (look(reading) for look in row_findings.ROWS.values()))]
    against = _contradiction(ws, whole, few, reading)
    found += [against[0]] if against[0] else []
    if refused and {check.name for check in refused} <= {*OF_ROWS}:
        learnt = Learnt(None, [], row_findings.least_loss(reading.cut))
    else:
        learnt = _train(ws, config, few, reading, progress)
        found += _of_curve(ws, learnt)
    return _diagnosis(learnt, few, Rows(found), against[1])


def _check(config: Config, size: Size) -> None:
    if config.method != "sft":
        raise InputError(
            f"Method {config.method!r} learns no answers by heart; expected 'sft'. Ask with "
            "config.but(method='sft') and chats."
        )
    if size.steps < curve_findings.FEWEST or size.n_rows < 1:
        raise InputError(
            f"overfit_ten was given {size.steps} steps on {size.n_rows} rows; expected at least "
            f"{curve_findings.FEWEST} steps on 1 row. The defaults do."
        )


def _small(config: Config, n_rows: int, steps: int) -> Config:
    """Return a config that sees all of a few rows in each step; how it learns stays as it is."""
    return config.but(
        effective_batch=n_rows,
        micro_batch=None,
        processes=1,
        max_steps=steps,
        schedule="constant",
        save_every_steps=steps,
        log_every_steps=1,
        packing=False,
        streaming=False,
        early_stopping=None,
        guard="stop",
        wandb="off",
    )


def _train(
    ws: Workspace,
    config: Config,
    few: DatasetVersion,
    reading: Reading,
    progress: OnProgress | None,
) -> Learnt:
    job = trainers.start(ws, config, few)
    try:
        job = trainers.wait(ws, job, progress=progress)
    except JobFailed:
        job = trainers.status(ws, job)
    losses = [item.loss for item in trainers.metrics(ws, job) if item.loss is not None]
    return Learnt(job, losses, row_findings.least_loss(reading.cut))


def _of_curve(ws: Workspace, learnt: Learnt) -> list[Finding]:
    """Return what the curve says of the settings, where the rows were not learnt."""
    if learnt.job is None or learnt.is_near:
        return []
    seen: Evidence = evidence.gather(ws, learnt.job)
    found = next(filter(None, (look(seen) for look in curve_findings.CURVES.values())), None)
    # a flat curve at a usual rate points to the rows, and these are looked at anyway
    return [found] if found and found.side == "settings" else []


def _contradiction(
    ws: Workspace, whole: DatasetVersion, few: DatasetVersion, reading: Reading
) -> tuple[Finding | None, tuple[int, ...]]:
    """Return the finding that rows contradict each other, and those of the whole version."""
    among, everywhere = row_findings.contradicting(ws, few), row_findings.contradicting(ws, whole)
    if not among:
        return None, everywhere
    least = row_findings.least_loss(reading.cut)
    found = Finding(
        problem=CONTRADICTING,
        importance=1,
        side="data",
        evidence=(
            f"{len(among)} of the {few.n_rows} rows ask what an earlier one asks and answer "
            f"otherwise, {len(everywhere)} of all {whole.n_rows}: {rows_in_words(everywhere)}. No "
            f"model gets below a loss of {least:.3g} on the {few.n_rows}."
        ),
        cause="the same question has different answers, and nothing tells which is meant",
        fix=(
            "Keep one answer to each question: datasets.filter(ws, dataset, "
            "without=diagnosis.contradicting)."
        ),
        changes=None,
    )
    return found, everywhere


def _diagnosis(
    learnt: Learnt, few: DatasetVersion, found: Rows[Finding], against: tuple[int, ...]
) -> Diagnosis:
    side, words = _verdict(learnt, found)
    losses, last = learnt.losses, learnt.last
    began = f"{few.n_rows} rows"
    if last is not None:
        began += f", loss from {losses[0]:.3g} to {last:.3g} in {len(losses)} steps"
    is_contradicting = any(item.problem == CONTRADICTING for item in found)
    return Diagnosis(
        side=side,
        message=f"{began}: {words}",
        is_learnt=None if last is None else learnt.is_near and not is_contradicting,
        job_id=learnt.job.id if learnt.job else None,
        n_rows=few.n_rows,
        n_steps=len(losses) if learnt.job else None,
        loss_first=losses[0] if losses else None,
        loss_last=last,
        loss_known=KNOWN,
        loss_least=learnt.least,
        findings=found,
        contradicting=against,
    )


def _verdict(learnt: Learnt, found: Rows[Finding]) -> tuple[str, str]:
    """Return the side of the trouble and why, in words."""
    of_rows = [item for item in found if item.side == "data"]
    if learnt.job is None:
        return "data", f"preflight refuses them. {found[0].evidence} {found[0].fix}"
    contradiction = next((item for item in found if item.problem == CONTRADICTING), None)
    if contradiction:
        near = "which it is near" if learnt.is_near else "far from which it still is"
        return "data", f"no model can learn them by heart. {contradiction.evidence[:-1]}, {near}."
    if learnt.is_near:
        more = f" Among these already: {of_rows[0].evidence}" if of_rows else ""
        words = "learnt by heart. Model and settings can learn; look for the trouble in the rows."
        return "data", words + more
    if learnt.job.state == "failed":
        return "settings", f"the job failed. {learnt.job.error}"
    if found:
        worst = min(found, key=lambda item: item.importance)
        return worst.side, f"not learnt: {worst.problem}. {worst.evidence} {worst.fix}"
    return "settings", _not_learnt(learnt)


def _not_learnt(learnt: Learnt) -> str:
    before = statistics.fmean(learnt.losses[len(learnt.losses) // 2 :][:LAST])
    if learnt.last is not None and learnt.last < FALLING * before:
        return "not learnt yet, and still falling. Ask again with more steps."
    return "not learnt. Try a higher learning_rate or adapter_rank, or a larger model."
