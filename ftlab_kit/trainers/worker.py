"""The process that trains one job, and nothing else.

    python -m ftlab_kit.trainers.worker WORKSPACE JOB_ID

It takes the job from the store, goes on from its newest checkpoint that verifies, trains, and
writes metrics, checkpoints and its end back. Several of them, started by torchrun, share a job; the
first one alone writes. It never talks to the lab side.
"""

import contextlib
import importlib
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import DefaultFlowCallback, PrinterCallback, TrainerCallback, set_seed

from ftlab_kit import datasets, metrics, models
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import DiskFull, JobFailed, KitError, room_on_disk
from ftlab_kit.jobs import processes, states
from ftlab_kit.jobs.supervisor import CRASHED
from ftlab_kit.lm import loading
from ftlab_kit.lm.fast import linear
from ftlab_kit.records import Event
from ftlab_kit.trainers import forks, generations, reproducibility
from ftlab_kit.trainers.run import batch_size, evaluation, setup
from ftlab_kit.trainers.run.callback import CommandCallback, NothingLeft, say
from ftlab_kit.trainers.run.guard import RolledBack
from ftlab_kit.trainers.run.trainer import Hooks
from ftlab_kit.trainers.run.wandb_log import Tracker
from ftlab_kit.trainers.run_state import RunState
from ftlab_kit.workspace import Workspace, now


def main(root: str, job_id: int, watchers: Sequence[TrainerCallback] = ()) -> int:
    """Train a job to its end, or to where it is told to stop, and return the exit code.

    Args:
        watchers: Callbacks that look on, for tests and measurements.
    """
    ws = Workspace(root)
    is_first = os.environ.get("RANK", "0") == "0"
    began = states.row(ws, job_id)["started_at"] or now()  # a job that goes on began before
    mine: dict[str, Any] = {"started_at": began, "worker_pid": os.getpid(), "error": None}
    if is_first and not states.move(ws, job_id, "running", **mine):
        return 0
    if states.read(ws, job_id).state not in states.WORKING:
        return 0
    try:
        beating = _heartbeat(ws, job_id) if is_first else contextlib.nullcontext()
        with beating, room_on_disk(f"what job {job_id} leaves behind"):
            state = train(ws, job_id, watchers)
    except DiskFull as error:
        ws.drop_ballast()
        return _end(ws, job_id, "paused", is_first, note=str(error))
    except KitError as error:
        return _end(ws, job_id, "failed", is_first, error=str(error))
    except Exception as error:
        traceback.print_exc()
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        words += f" The log has more: trainers.logs(ws, {job_id})."
        # the supervisor decides whether this is the end
        held = processes.owned_by_me(job_id) if is_first else {"id": job_id, "state": "running"}
        ws.store.update("jobs", held, error=words)
        return CRASHED
    return _end(ws, job_id, state, is_first) if is_first else 0


def _end(ws: Workspace, job_id: int, state: str, is_first: bool, **values: Any) -> int:
    """Record the end of a run; what only one of several processes has met, that one says."""
    mine = {"worker_pid": os.getpid()} if is_first else None
    states.move(ws, job_id, state, only_from="running", held_by=mine, **values)
    return 1 if state == "failed" else 0


@contextlib.contextmanager
def _heartbeat(ws: Workspace, job_id: int) -> Iterator[None]:
    """Give a sign of life every few seconds, also within a long step."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(processes.HEARTBEAT_S):
            with contextlib.suppress(DiskFull):  # the trainer will meet it too, and say so
                ws.store.update("jobs", processes.owned_by_me(job_id), heartbeat_at=now())

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def train(ws: Workspace, job_id: int, watchers: Sequence[TrainerCallback] = ()) -> str:
    """Train a job and return the state that it ends in: completed, paused or cancelled."""
    import torch

    row = states.row(ws, job_id)
    config = Config(**row["config"])
    torch.set_num_threads(processes.threads(config))
    if config.deterministic and torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
    while True:
        try:
            return _run(ws, row, watchers)
        except RolledBack as back:
            _roll_back(ws, row, back)


def _run(ws: Workspace, row: dict[str, Any], watchers: Sequence[TrainerCallback]) -> str:
    """Train from the newest checkpoint that verifies to the end, a pause, or a way back."""
    row = states.row(ws, row["id"])
    config, job_id = Config(**row["config"]), row["id"]
    is_first = os.environ.get("RANK", "0") == "0"
    start, live = _begin(ws, row)
    set_seed(config.seed)
    tracker = None
    if is_first:
        tracker = Tracker(config, job_id, ws.job_folder(job_id))
    steering = CommandCallback(ws, job_id, tracker)
    try:
        with loading.quiet():
            trainer = _trainer(ws, row, live, start, steering)
            for watcher in watchers:
                trainer.add_callback(watcher)
            with contextlib.suppress(NothingLeft):
                trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        if tracker:
            tracker.close()
    return steering.ending or "completed"


def _begin(ws: Workspace, row: dict[str, Any]) -> tuple[Path | None, RunState | None]:
    """Return the checkpoint to go on from and the state in it; None and None for the beginning.

    Raises:
        Conflict: What decides the bits has changed since, and no one allowed it.
    """
    job_id = row["id"]
    found, skipped = integrity.newest_valid(ws, job_id)
    if os.environ.get("RANK", "0") == "0":
        changed = forks.changes(ws, row, found)
        event = _why_now(ws, job_id)
        if not _is_allowed(ws, job_id, changed):
            forks.refuse_drift(job_id, changed)
        step = found.step if found else 0
        for number, why in skipped.items():
            say(f"skipped checkpoint {number}: {why}")
        if event is not None:
            said = {"from_step": step, "skipped": skipped, "drift": changed}
            at = step if event.command == "resume" else event.step
            ws.store.update("events", {"id": event.id}, step=at, result=said)
        integrity.set_aside(ws, job_id, after_step=step)
        shutil.rmtree(ws.job_folder(job_id) / "writing", ignore_errors=True)
        metrics.cut(ws, job_id, after_step=step)
        facts = {**(row["facts"] or {}), **reproducibility.facts(ws, row)}
        facts["precision"] = processes.precision(Config(**row["config"]))
        ws.store.update("jobs", {"id": job_id}, facts=facts, step=step)
    return (found.path, RunState.load(found.path)) if found else (None, None)


def _why_now(ws: Workspace, job_id: int) -> Event | None:
    """Return the event that this run of a job owes itself to; None for the first."""
    found = states.events(ws, job_id, command=["resume", "restart", "rollback"], state="applied")
    return found[-1] if found and found[-1].result is None else None


def _is_allowed(ws: Workspace, job_id: int, changed: list[str]) -> bool:
    """Return whether someone accepted these changes: with this resume, or with one before."""
    resumes = states.events(ws, job_id, command="resume", state="applied")
    last = resumes[-1] if resumes else None
    if last is None or not (last.arguments or {}).get("allow_drift"):
        return False
    return last.result is None or last.result["drift"] == changed


def _trainer(
    ws: Workspace,
    row: dict[str, Any],
    live: RunState | None,
    start: Path | None,
    steering: CommandCallback,
) -> Any:
    """Return the trainer of a job with its model and rows."""
    config = Config(**row["config"])
    method = importlib.import_module(setup.METHODS[config.method])
    found = models.get(ws, config.model)
    assert found.path is not None, "preflight pulled the model"
    tokenizer = loading.tokenizer(found.path)
    sides = [row["dataset_version_id"], row["held_out_version_id"]]
    rows = setup.rows(ws, datasets.get(ws, sides[0]), config, found, tokenizer)
    held_out = None
    if sides[1]:  # judged row by row: no packs
        alone = config.but(packing=False)
        held_out = setup.rows(ws, datasets.get(ws, sides[1]), alone, found, tokenizer)
    n_left_out = datasets.get(ws, sides[0]).n_rows - setup.count(rows)
    n_measured = len(evaluation.chosen(len(held_out or ()), config.eval_rows))
    say(f"model {config.model}, {len(rows)} rows, {n_measured} held-out ones measured")
    if n_left_out:
        say(f"left out: {n_left_out} rows without a trained token")
    model = setup.model(ws, row, found.path)
    is_new = live is None
    live = live or RunState.begin(config, len(rows), config.rows_at_once)
    trainer = method.TRAINER(
        model=model,
        args=setup.arguments(live.config, ws.job_folder(row["id"]) / "writing", tokenizer),
        rows=rows,
        held_out=held_out,
        live=live,
        start=start,
        hooks=_hooks(ws, row, steering),
        peft_config=setup.adapter(config),
        processing_class=tokenizer,
        callbacks=[steering],
        **setup.reference(ws, row, found.path),
    )
    linear.speed_up(trainer.model)  # the adapters that TRL has put in
    setup.warm_start(ws, row, trainer.model)
    for unused in (PrinterCallback, DefaultFlowCallback):
        trainer.remove_callback(unused)
    steering.trainer = trainer
    steering.prompts = generations.prompts(datasets.rows(ws, sides[1] or sides[0]))
    _assert_world(trainer, config)
    if is_new:
        live.piece = batch_size.rows_at_once(ws, row, trainer)
    say(f"trained parameters: {_trained(trainer.model):,}")
    return trainer


def _assert_world(trainer: Any, config: Config) -> None:
    if trainer.args.world_size != config.processes:
        raise JobFailed(
            f"The job runs in {trainer.args.world_size} processes; its config says "
            f"{config.processes}. Is torchrun there? See the log."
        )


def _hooks(ws: Workspace, row: dict[str, Any], steering: CommandCallback) -> Hooks:
    """Return what the trainer calls when it has written, split or skipped something."""
    job_id, config = row["id"], Config(**row["config"])
    facts = reproducibility.facts(ws, row)

    def seal(written: Path) -> None:
        step = int(written.name.rpartition("-")[2])
        live = steering.trainer.live
        known = {**facts, "epoch": live.epoch(step), "config": live.config.model_dump()}
        integrity.commit(ws, job_id, step, written, losses=steering.losses, facts=known)
        integrity.prune(ws, job_id, keep=config.keep_checkpoints)
        steering.sealed(step)
        say(f"checkpoint at step {step}")

    def halved(rows: int, why: str) -> None:
        step = steering.trainer.state.global_step
        batch_size.remember(ws, row, rows)
        _note(ws, job_id, "micro_batch", step, {"rows": rows}, f"memory ran out: {why}")
        say(f"step {step + 1}: memory ran out, {rows} rows at once from here")

    def skipped(words: str, lines: list[int]) -> None:
        if steering.is_first:
            asked = {"lines": lines, **steering.trainer.measured}
            _note(ws, job_id, "skip", steering.trainer.state.global_step, asked, words)
            say(words)

    def stopped(words: str) -> None:
        if steering.is_first:
            step, seen = steering.trainer.state.global_step + 1, steering.trainer.measured
            metrics.write(ws, job_id, step, **seen, note=words)

    def rollbacks() -> int:
        return len(states.events(ws, job_id, command="rollback"))

    return Hooks(seal, halved, skipped, stopped, rollbacks)


def _note(
    ws: Workspace, job_id: int, what: str, step: int, asked: dict[str, Any], words: str
) -> None:
    """Write an event that the run itself brought about, once: a resumed run meets it again."""
    # a value that is no number is equal to nothing: compared as it is written
    known = {str(event.arguments) for event in states.events(ws, job_id, command=what, step=step)}
    if str(asked) not in known:
        states.write(
            ws,
            job_id,
            what,
            state="applied",
            step=step,
            arguments=asked,
            note=words,
            author="worker",
        )


def _roll_back(ws: Workspace, row: dict[str, Any], back: RolledBack) -> None:
    """Note a way back, and halve the learning rate from the checkpoint on.

    What a person has set the rate to in between is undone with the steps that are.
    """
    job_id, rate = row["id"], back.rate / 2
    if os.environ.get("RANK", "0") != "0":
        return
    found, _ = integrity.newest_valid(ws, job_id)
    step = found.step if found else 0
    applied = RunState.load(found.path).applied if found else []
    with ws.store.transaction():
        for event in states.events(ws, job_id, command="adjust", state="applied"):
            if event.id not in applied and "learning_rate" in (event.arguments or {}):
                ws.store.update("events", {"id": event.id}, state="undone")
        states.write(
            ws, job_id, "adjust", state="applied", step=step, author="guard",
            arguments={"learning_rate": rate}, result={"learning_rate": [back.rate, rate]},
        )  # fmt: skip
        states.write(
            ws, job_id, "rollback", state="applied", step=back.step, note=back.message,
            author="guard",
            arguments={"lines": back.lines, "to_step": step},
        )  # fmt: skip
    say(f"{back.message}: back to step {step}, learning rate {rate:g}")


def _trained(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
