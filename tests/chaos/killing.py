"""Kill a worker at random moments, go on until it is done, and compare every step's bits.

The workers are forked from a process that has imported everything, so that a kill costs a second
and not fifteen; what runs in them is the worker's own main, and what goes on is the kit's resume.
"""

import hashlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ftlab_kit import Workspace, trainers
from ftlab_kit.jobs import processes, states, worker
from ftlab_kit.records import Job
from ftlab_kit.trainers.run import job as training

SAME = ("loss", "grad_norm", "learning_rate", "n_tokens", "eval_loss", "epoch", "more")


class Witness(TrainerCallback):
    """Writes the SHA-256 of all trainable weights after every step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: Any, state: Any, flow: Any, model: Any = None, **_: Any) -> None:
        digest = hashlib.sha256()
        for _, weight in sorted(model.named_parameters()):
            if weight.requires_grad:
                digest.update(weight.detach().numpy().tobytes())
        with self.path.open("a") as file:
            file.write(f"{state.global_step} {digest.hexdigest()}\n")


@dataclass(frozen=True)
class Seen:
    """What a job did: hashes by step, as often as the step was done, and its metrics."""

    job: Job
    kills: int
    hashes: dict[int, set[str]]
    metrics: dict[int, tuple[Any, ...]]


def run(
    ws: Workspace,
    job: Job,
    *,
    kills: int = 0,
    after_s: tuple[float, float] = (0.3, 1.5),
    seed: int = 0,
    watchers: Sequence[TrainerCallback] = (),
    before: Callable[[], None] = lambda: None,
) -> Seen:
    """Train a job to its end, killing its workers a number of times.

    Args:
        watchers: Callbacks that observe, or do harm.
        before: What a worker's process does first.
        after_s: The shortest and the longest time after which a worker is killed: three times in
            four counted from when it begins to train, else from when its process does.
    """
    chance, done, counted = random.Random(seed), 0, 0
    path = ws.root / f"witness-{job.id}.txt"
    path.touch()
    while True:
        log = _log(ws, job)
        log_bytes = log.stat().st_size if log.exists() else 0
        pids = _fork(ws, job, [Witness(path), *watchers], before)
        if done < kills:
            is_training = _Begun(log, log_bytes) if chance.random() < 0.75 else lambda: True
            done += _kill(pids, chance.uniform(*after_s), is_training, chance)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        current = states.read(ws, job)
        was_killed = done > counted
        counted = done
        if current.state == "running":
            assert was_killed, f"the worker ended with {codes}\n{log.read_text()[-3000:]}"
            current = trainers.status(ws, job)
        if current.state == "failed" and "vanished" in (current.error or ""):
            processes.requeue(ws, job.id)
        elif current.state != "queued":
            return Seen(current, done, _hashes(path), _metrics(ws, job))


def _fork(
    ws: Workspace, job: Job, watchers: Sequence[TrainerCallback], before: Callable[[], None]
) -> list[int]:
    """Start the workers of a job, with the environment that torchrun gives where there are two."""
    count = int(job.config["processes"])
    shared = {}
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
        shared["OMP_NUM_THREADS"] = "1"
    ws.close()  # no connection is carried over a fork
    pids = []
    for rank in range(count):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if shared else {}
        os.environ.update({**shared, **own})
        code = 1
        try:
            before()
            code = _work(ws.root, job, watchers, is_first=rank == 0)
        finally:
            os._exit(code)
    return pids


def _work(root: Path, job: Job, watchers: Sequence[TrainerCallback], *, is_first: bool) -> int:
    """Be a worker of a job; the store takes it for the supervisor too."""
    ws = Workspace(root)
    log = os.open(_log(ws, job), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if is_first:
        ws.store.update("jobs", {"id": job.id}, **processes.process_columns())
    ws.close()
    train = partial(training.run, callbacks=watchers if is_first else ())
    return worker.main(str(root), job.id, run=train)


def _log(ws: Workspace, job: Job) -> Path:
    return ws.root / f"log-{job.id}.txt"


@dataclass
class _Begun:
    """Whether a worker has written, after what was in its log before, that it trains."""

    log: Path
    log_bytes: int

    def __call__(self) -> bool:
        return self.log.exists() and b" training: step" in self.log.read_bytes()[self.log_bytes :]


def _kill(
    pids: list[int], after_s: float, may_count: Callable[[], bool], chance: random.Random
) -> int:
    """Kill a job's workers after a while, one first; return 0 if they were done before."""
    left_s = after_s
    while left_s > 0:
        if os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return 0
        time.sleep(0.003)
        left_s -= 0.003 if may_count() else 0
    for pid in chance.sample(pids, len(pids)):
        os.kill(pid, signal.SIGKILL)
    return 1


def _hashes(path: Path) -> dict[int, set[str]]:
    hashes: dict[int, set[str]] = {}
    for line in path.read_text().splitlines():
        step, _, digest = line.partition(" ")
        if len(digest) == 64:  # a kill can cut a line
            hashes.setdefault(int(step), set()).add(digest)
    return hashes


def _metrics(ws: Workspace, job: Job) -> dict[int, tuple[Any, ...]]:
    rows = trainers.metrics(ws, job)
    assert len({row.step for row in rows}) == len(rows)
    return {row.step: tuple(getattr(row, name) for name in SAME) for row in rows}


def differences(quiet: Seen, killed: Seen) -> tuple[int, int]:
    """Return how many steps differ in a weight's bit, and how many in a metric."""
    steps = sorted({*quiet.hashes, *killed.hashes})
    weights = sum(quiet.hashes.get(step) != killed.hashes.get(step) for step in steps)
    metrics = sum(
        quiet.metrics.get(step) != killed.metrics.get(step)
        for step in sorted({*quiet.metrics, *killed.metrics})
    )
    return weights, metrics
