"""Overfit ten rows on purpose: the quickest test of whether model or data is the trouble."""

import statistics
from dataclasses import dataclass

from ftlab_kit import datasets, trainers
from ftlab_kit.configs import Config
from ftlab_kit.diagnostics import curve_findings, row_findings
from ftlab_kit.diagnostics.evidence import TokenizedRows, gather, listed, tokenize
from ftlab_kit.errors import Conflict, InputError, JobFailed
from ftlab_kit.records import DatasetVersion, Diagnosis, Finding, Job, OnProgress, Rows
from ftlab_kit.workspace import Workspace

# nats per token above the minimum: each correct token has a probability of five in six or so, and
# the likeliest answer is the row's own
MARGIN = 0.2
CONTRADICTORY = "contradictory answers"
LAST = 3  # losses whose mean is the end
FALLING = 0.9  # of the loss at half-time: a loss that still falls this fast needs more steps
# preflight's names for rows that teach nothing, are cut, or have no end
CHECKS_OF_ROWS = {"trained tokens", "whole answers", "end token"}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The losses of a training, and the lowest that any model could have reached."""

    job: Job | None
    losses: list[float]
    min_loss: float

    @property
    def last(self) -> float | None:
        """The mean of the last losses, None if there are none."""
        return statistics.fmean(self.losses[-LAST:]) if self.losses else None

    @property
    def is_near_minimum(self) -> bool:
        """Whether the last losses are within the margin of the minimum."""
        return self.last is not None and self.last <= self.min_loss + MARGIN


def diagnose(
    ws: Workspace,
    config: Config,
    dataset: DatasetVersion | str | int,
    *,
    steps: int,
    n_rows: int,
    progress: OnProgress | None,
) -> Diagnosis:
    """Return what training on a few rows says about a config and a dataset."""
    version = datasets.get(ws, dataset)
    _check(config, steps, n_rows)
    few = datasets.sample(ws, version, min(n_rows, version.n_rows), seed=config.seed)
    config = _for_few_rows(config, few.n_rows, steps)
    failed = {check.name for check in trainers.preflight(ws, config, few) if not check.is_ok}
    rows = tokenize(ws, config, few)
    if rows is None:
        raise Conflict(
            f"The model {config.model} was deleted meanwhile; expected it here. Call "
            "diagnostics.overfit_ten again."
        )
    findings = [*filter(None, (check(rows) for check in row_findings.ROW_CHECKS.values()))]
    everywhere = row_findings.contradicting(ws, version)
    contradiction = _contradiction(ws, version, few, rows, everywhere)
    findings += [contradiction] if contradiction else []
    if failed and failed <= CHECKS_OF_ROWS:
        result = TrainingResult(None, [], row_findings.min_loss(rows.cut))
    else:
        result = _train(ws, config, few, rows, progress)
        findings += _curve_findings(ws, result)
    return _diagnosis(result, few, Rows(findings), everywhere)


def _check(config: Config, steps: int, n_rows: int) -> None:
    if config.method != "sft":
        raise InputError(
            f"Method {config.method!r} does not train on answers; expected 'sft'. Use "
            "config.but(method='sft') and chats."
        )
    if steps < curve_findings.MIN_LOSSES or n_rows < 1:
        raise InputError(
            f"overfit_ten was given {steps} steps on {n_rows} rows; expected at least "
            f"{curve_findings.MIN_LOSSES} steps on 1 row. Leave both out for the defaults."
        )


def _for_few_rows(config: Config, n_rows: int, steps: int) -> Config:
    """Return a config that sees all of a few rows in each step, and otherwise trains as before."""
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
    rows: TokenizedRows,
    progress: OnProgress | None,
) -> TrainingResult:
    job = trainers.start(ws, config, few)
    try:
        job = trainers.wait(ws, job, progress=progress)
    except JobFailed:
        job = trainers.status(ws, job)
    losses = [item.loss for item in trainers.metrics(ws, job) if item.loss is not None]
    return TrainingResult(job, losses, row_findings.min_loss(rows.cut))


def _curve_findings(ws: Workspace, result: TrainingResult) -> list[Finding]:
    """Return what the curve says about the settings, where the rows were not memorised."""
    if result.job is None or result.is_near_minimum:
        return []
    evidence = gather(ws, result.job)
    checks = (check(evidence) for check in curve_findings.CURVE_CHECKS.values())
    finding = next(filter(None, checks), None)
    # a flat curve at a usual rate points to the rows, and those are checked anyway
    return [finding] if finding and finding.side == "settings" else []


def _contradiction(
    ws: Workspace,
    version: DatasetVersion,
    few: DatasetVersion,
    rows: TokenizedRows,
    everywhere: tuple[int, ...],
) -> Finding | None:
    """Return the finding that the few rows contradict each other, if they do."""
    among_few = row_findings.contradicting(ws, few)
    if not among_few:
        return None
    min_loss = row_findings.min_loss(rows.cut)
    return Finding(
        problem=CONTRADICTORY,
        importance=1,
        side="data",
        evidence=(
            f"{len(among_few)} of the {few.n_rows} rows have the prompt of an earlier row and "
            f"another answer, {len(everywhere)} of all {version.n_rows}: {listed(everywhere)}. No "
            f"model can reach a loss below {min_loss:.3g} on the {few.n_rows} rows."
        ),
        cause="the same prompt has different answers, and nothing says which one is meant",
        fix=(
            "Keep one answer for each prompt: datasets.filter(ws, dataset, "
            "without=diagnosis.contradicting)."
        ),
        changes=None,
    )


def _diagnosis(
    result: TrainingResult,
    few: DatasetVersion,
    findings: Rows[Finding],
    contradicting: tuple[int, ...],
) -> Diagnosis:
    side, message = _verdict(result, findings)
    losses, last = result.losses, result.last
    summary = f"{few.n_rows} rows"
    if last is not None:
        summary += f", loss from {losses[0]:.3g} to {last:.3g} in {len(losses)} steps"
    is_contradictory = any(finding.problem == CONTRADICTORY for finding in findings)
    return Diagnosis(
        side=side,
        message=f"{summary}: {message}",
        is_memorised=None if last is None else result.is_near_minimum and not is_contradictory,
        job_id=result.job.id if result.job else None,
        n_rows=few.n_rows,
        n_steps=len(losses) if result.job else None,
        first_loss=losses[0] if losses else None,
        last_loss=last,
        loss_margin=MARGIN,
        min_loss=result.min_loss,
        findings=findings,
        contradicting=contradicting,
    )


def _verdict(result: TrainingResult, findings: Rows[Finding]) -> tuple[str, str]:
    """Return the side of the trouble, and why."""
    of_data = [finding for finding in findings if finding.side == "data"]
    if result.job is None:
        return "data", f"preflight refused them. {findings[0].evidence} {findings[0].fix}"
    contradiction = next((item for item in findings if item.problem == CONTRADICTORY), None)
    if contradiction:
        near = "the model is close to it" if result.is_near_minimum else "the model is far from it"
        return "data", (f"no model can memorise them. {contradiction.evidence[:-1]}; {near}.")
    if result.is_near_minimum:
        more = f" One finding already: {of_data[0].evidence}" if of_data else ""
        message = "memorised. Model and settings can learn; look for the trouble in the rows."
        return "data", message + more
    if result.job.state == "failed":
        return "settings", f"the job failed. {result.job.error}"
    if findings:
        worst = min(findings, key=lambda finding: finding.importance)
        return worst.side, f"not memorised: {worst.problem}. {worst.evidence} {worst.fix}"
    return "settings", _not_memorised(result)


def _not_memorised(result: TrainingResult) -> str:
    half_time = statistics.fmean(result.losses[len(result.losses) // 2 :][:LAST])
    if result.last is not None and result.last < FALLING * half_time:
        return "not memorised yet, and still falling. Try again with more steps."
    return "not memorised. Try a higher learning_rate or adapter_rank, or a larger model."
