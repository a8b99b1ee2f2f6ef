"""One run of a training job: from its newest valid checkpoint to the end, a pause, or a rollback.

The worker calls `train`. Several processes, started by torchrun, share a job; the first one alone
writes metrics, checkpoints and events.
"""

import contextlib
import importlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DefaultFlowCallback, PrinterCallback, TrainerCallback, set_seed

from ftlab_kit import datasets, metrics, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import JobFailed, NotFound
from ftlab_kit.jobs import log, states
from ftlab_kit.lm import fast, loading
from ftlab_kit.records import Event
from ftlab_kit.trainers import forks, generations, reproducibility
from ftlab_kit.trainers.run import batch_size, evaluation, setup
from ftlab_kit.trainers.run.callback import AlreadyFinished, CommandCallback
from ftlab_kit.trainers.run.guard import RollbackRequested
from ftlab_kit.trainers.run.trainer import Hooks
from ftlab_kit.trainers.run.wandb_log import Tracker
from ftlab_kit.trainers.run_state import RunState
from ftlab_kit.workspace import Workspace


def is_first_process() -> bool:
    """Return whether this is the first of a job's processes, the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def train(ws: Workspace, job_id: int, callbacks: Sequence[TrainerCallback] = ()) -> str:
    """Train a job and return the state that it ends in: completed, paused or cancelled."""
    config = Config(**states.row(ws, job_id)["config"])
    torch.set_num_threads(config.threads_per_process())
    if config.deterministic and torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
    while True:
        try:
            return _run(ws, job_id, callbacks)
        except RollbackRequested as rollback:
            _roll_back(ws, job_id, rollback)


def _run(ws: Workspace, job_id: int, callbacks: Sequence[TrainerCallback]) -> str:
    """Train from the newest valid checkpoint to the end, a pause, or a rollback."""
    row = states.row(ws, job_id)
    config = Config(**row["config"])
    start, state = _begin(ws, row)
    set_seed(config.seed)
    tracker = Tracker(config, job_id, ws.job_folder(job_id)) if is_first_process() else None
    commands = CommandCallback(ws, job_id, tracker)
    try:
        with loading.quiet():
            trainer = _trainer(ws, row, state, start, commands)
            for callback in callbacks:
                trainer.add_callback(callback)
            with contextlib.suppress(AlreadyFinished):
                trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        if tracker:
            tracker.close()
    return commands.ending or "completed"


def _begin(ws: Workspace, row: dict[str, Any]) -> tuple[Path | None, RunState | None]:
    """Return the checkpoint to go on from and the state in it; None and None for the beginning.

    Raises:
        Conflict: Something that decides the bits has changed, and no one has allowed it.
    """
    job_id = row["id"]
    checkpoint, skipped = integrity.newest_valid(ws, job_id)
    if is_first_process():
        drift = forks.changes(ws, row, checkpoint)
        event = _why_now(ws, job_id)
        if not _is_allowed(ws, job_id, drift):
            forks.refuse_drift(job_id, drift)
        step = checkpoint.step if checkpoint else 0
        for number, why in skipped.items():
            log.write(f"skipped checkpoint {number}: {why}")
        if event is not None:
            result = {"from_step": step, "skipped": skipped, "drift": drift}
            at_step = step if event.command == "resume" else event.step
            ws.store.update("events", {"id": event.id}, step=at_step, result=result)
        integrity.set_aside(ws, job_id, after_step=step)
        shutil.rmtree(ws.job_folder(job_id) / "writing", ignore_errors=True)
        metrics.cut(ws, job_id, after_step=step)
        ws.store.update("jobs", {"id": job_id}, facts=_facts(ws, row), step=step)
    return (checkpoint.path, RunState.load(checkpoint.path)) if checkpoint else (None, None)


def _facts(ws: Workspace, row: dict[str, Any]) -> dict[str, Any]:
    """Return what decides a job's bits, with what an earlier run has added."""
    config = Config(**row["config"])
    precision = config.training_precision()
    return {**(row["facts"] or {}), **reproducibility.facts(ws, row), "precision": precision}


def _why_now(ws: Workspace, job_id: int) -> Event | None:
    """Return the event that has caused this run of a job; None for the first run."""
    causes = states.events(ws, job_id, command=["resume", "restart", "rollback"], state="applied")
    return causes[-1] if causes and causes[-1].result is None else None


def _is_allowed(ws: Workspace, job_id: int, drift: list[str]) -> bool:
    """Return whether these changes were accepted, with this resume or with an earlier one."""
    resumes = states.events(ws, job_id, command="resume", state="applied")
    last = resumes[-1] if resumes else None
    if last is None or not (last.arguments or {}).get("allow_drift"):
        return False
    return last.result is None or last.result["drift"] == drift


def _trainer(
    ws: Workspace,
    row: dict[str, Any],
    state: RunState | None,
    start: Path | None,
    commands: CommandCallback,
) -> Any:
    """Return the trainer of a job with its model and rows."""
    config = Config(**row["config"])
    method = importlib.import_module(setup.METHODS[config.method])
    base = models.get(ws, config.model)
    if base.path is None:
        raise NotFound(
            f"The files of model {config.model} are gone; expected them, since preflight had them. "
            f"Get them with models.pull(ws, {config.model!r}), then resume the job."
        )
    tokenizer = loading.tokenizer(base.path)
    version_id, held_out_id = row["dataset_version_id"], row["held_out_version_id"]
    rows = setup.rows(ws, datasets.get(ws, version_id), config, base, tokenizer)
    held_out = None
    if held_out_id:  # its loss is measured row by row, so its rows are not packed
        unpacked = config.but(packing=False)
        held_out = setup.rows(ws, datasets.get(ws, held_out_id), unpacked, base, tokenizer)
    n_measured = len(evaluation.choose_rows(len(held_out or ()), config.eval_rows))
    log.write(f"model {config.model}, {len(rows)} rows, {n_measured} held-out rows measured")
    if n_left_out := datasets.get(ws, version_id).n_rows - setup.count_rows(rows):
        log.write(f"left out: {n_left_out} rows without a trained token")
    model = setup.model(ws, row, base.path)
    is_new = state is None
    state = state or RunState.begin(config, len(rows), config.rows_at_once)
    trainer = method.TRAINER(
        model=model,
        args=setup.arguments(state.config, ws.job_folder(row["id"]) / "writing", tokenizer),
        rows=rows,
        held_out=held_out,
        run_state=state,
        start=start,
        hooks=_hooks(ws, row, commands),
        peft_config=setup.adapter(config),
        processing_class=tokenizer,
        callbacks=[commands],
        **setup.reference(ws, row, base.path),
    )
    fast.speed_up(trainer.model)  # the adapters that TRL has put in
    setup.warm_start(ws, row, trainer.model)
    for unused in (PrinterCallback, DefaultFlowCallback):
        trainer.remove_callback(unused)
    commands.trainer = trainer
    commands.prompts = generations.prompts(datasets.rows(ws, held_out_id or version_id))
    _require_world_size(trainer, config)
    if is_new:
        state.micro_batch = batch_size.starting_micro_batch(ws, row, trainer)
    log.write(f"trained parameters: {_n_trained(trainer.model):,}")
    return trainer


def _require_world_size(trainer: Any, config: Config) -> None:
    if trainer.args.world_size != config.processes:
        raise JobFailed(
            f"The job runs in {trainer.args.world_size} processes; its config expects "
            f"{config.processes}. Check in the log whether torchrun has started them."
        )


def _hooks(ws: Workspace, row: dict[str, Any], commands: CommandCallback) -> Hooks:
    """Return what the trainer calls when it has written, split or skipped something."""
    job_id, config = row["id"], Config(**row["config"])
    facts = reproducibility.facts(ws, row)

    def commit(written: Path) -> None:
        step = int(written.name.rpartition("-")[2])
        state = commands.trainer.run_state
        manifest = {**facts, "epoch": state.epoch(step), "config": state.config.model_dump()}
        integrity.commit(ws, job_id, step, written, losses=commands.losses, facts=manifest)
        integrity.prune(ws, job_id, keep=config.keep_checkpoints)
        commands.committed(step)
        log.write(f"checkpoint at step {step}")

    def halved(rows: int, why: str) -> None:
        step = commands.trainer.state.global_step
        batch_size.remember(ws, row, rows)
        _write_event(ws, job_id, "micro_batch", step, {"rows": rows}, f"memory ran out: {why}")
        log.write(f"step {step + 1}: memory ran out, {rows} rows at once from here")

    def skipped(message: str, lines: list[int]) -> None:
        if commands.is_first:
            arguments = {"lines": lines, **commands.trainer.step_metrics}
            step = commands.trainer.state.global_step
            _write_event(ws, job_id, "skip", step, arguments, message)
            log.write(message)

    def stopped(message: str) -> None:
        if commands.is_first:
            step, values = commands.trainer.state.global_step + 1, commands.trainer.step_metrics
            metrics.write(ws, job_id, step, **values, note=message)

    def count_rollbacks() -> int:
        return len(states.events(ws, job_id, command="rollback"))

    return Hooks(commit, halved, skipped, stopped, count_rollbacks)


def _write_event(
    ws: Workspace, job_id: int, command: str, step: int, arguments: dict[str, Any], note: str
) -> None:
    """Write an event that the run itself has caused, once: a resumed run meets it again."""
    events = states.events(ws, job_id, command=command, step=step)
    # NaN is not equal to itself: compare texts
    if str(arguments) not in {str(event.arguments) for event in events}:
        states.write(
            ws, job_id, command, state="applied", step=step, arguments=arguments, note=note,
            author="worker",
        )  # fmt: skip


def _roll_back(ws: Workspace, job_id: int, rollback: RollbackRequested) -> None:
    """Record a rollback, and halve the learning rate from its checkpoint on.

    A learning rate that a person has set since then is undone with the steps.
    """
    if not is_first_process():
        return
    rate = rollback.rate / 2
    checkpoint, _ = integrity.newest_valid(ws, job_id)
    step = checkpoint.step if checkpoint else 0
    applied = RunState.load(checkpoint.path).applied if checkpoint else []
    with ws.store.transaction():
        for event in states.events(ws, job_id, command="adjust", state="applied"):
            if event.id not in applied and "learning_rate" in (event.arguments or {}):
                ws.store.update("events", {"id": event.id}, state="undone")
        states.write(
            ws, job_id, "adjust", state="applied", step=step, author="guard",
            arguments={"learning_rate": rate}, result={"learning_rate": [rollback.rate, rate]},
        )  # fmt: skip
        states.write(
            ws, job_id, "rollback", state="applied", step=rollback.step, note=rollback.message,
            author="guard", arguments={"lines": rollback.lines, "to_step": step},
        )  # fmt: skip
    log.write(f"{rollback.message}: back to step {step}, learning rate {rate:g}")


def _n_trained(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
