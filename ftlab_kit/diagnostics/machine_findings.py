"""Looks at what a job did with its machine: does it wait for rows, lie idle, or lack memory?"""

import re
import statistics
from collections.abc import Iterator
from typing import Any

from ftlab_kit import device
from ftlab_kit.diagnostics.evidence import Evidence, in_words
from ftlab_kit.records import Finding, Metric, percent
from ftlab_kit.trainers.run_state import RunState

WAITING = 0.3  # of the time between two steps: less is what writing metrics may take
WAITING_S = 0.05  # a step: less is nothing that a person would miss
INTERVALS = 5  # between steps before their median says anything
BUSY = 0.5  # of a GPU's time; a job that fits it well stands above 0.8


def slow_input(seen: Evidence) -> Finding | None:
    """Look for time between steps, beside the time within them, that nothing accounts for."""
    spans = [*_spans(seen)]
    if len(spans) < INTERVALS:
        return None
    wall = statistics.median(wall for wall, _ in spans)
    wait = statistics.median(max(0.0, wall - within) for wall, within in spans)
    if wait < WAITING_S or wait < WAITING * wall:
        return None
    config = seen.config
    changes: dict[str, Any] | None = {"streaming": False} if config.streaming else None
    every = config.log_every_steps
    return Finding(
        problem="slow input",
        importance=3,
        side="machine",
        evidence=(
            f"A step takes {wall:.3g} s from one to the next, and {wall - wait:.3g} s of it are "
            f"spent within it: {percent(wait / wall)} is waiting (metrics every {every} steps)."
        ),
        cause=(
            "streaming turns rows into tokens while the device waits"
            if config.streaming
            else "the disk of the workspace is slow, or the machine is busy with something else"
        ),
        fix=f"Set {in_words(changes)}."
        if changes
        else "Put the workspace on a local disk, and let nothing else run beside the job.",
        changes=changes,
    )


def _spans(seen: Evidence) -> Iterator[tuple[float, float]]:
    """Yield seconds a step from one metric to the next, and those within steps.

    Where a checkpoint, a held-out loss or a command lies between two metrics the time is theirs.
    """
    config = seen.config
    live = RunState(config.but(max_steps=seen.job.total_steps or 1), 1, 1)
    busy = {event.step for event in seen.events if event.step is not None}

    def is_quiet(step: int) -> bool:
        evaluated = seen.job.held_out_version_id and live.is_due(
            config.eval_every_steps or config.save_every_steps, step
        )
        return not (evaluated or live.is_due(config.save_every_steps, step) or step in busy)

    timed = [item for item in seen.metrics if item.at and item.samples_per_s]
    for before, after in zip(timed, timed[1:], strict=False):
        n_steps = after.step - before.step
        # the first steps warm caches up
        if before.step < 2 or not all(map(is_quiet, range(before.step, after.step + 1))):
            continue
        yield _wall(before, after) / n_steps, config.prompts_a_step / (after.samples_per_s or 1.0)


def _wall(before: Metric, after: Metric) -> float:
    assert before.at and after.at
    return (after.at - before.at).total_seconds()


def low_utilisation(seen: Evidence) -> Finding | None:
    """Look for a GPU that is idle half of the time, or cores that no thread uses."""
    shares = [item.gpu_utilisation for item in seen.metrics if item.gpu_utilisation is not None]
    if shares:
        return _idle_gpu(seen, statistics.median(shares)) if len(shares) >= INTERVALS else None
    on_gpu = any(item.gpu_memory_gib is not None for item in seen.metrics)
    config, cores = seen.config, device.threads()
    used = config.threads_per_process() * config.processes
    if on_gpu or not seen.metrics or used * seen.slots >= cores:
        return None
    return Finding(
        problem="low utilisation",
        importance=3,
        side="machine",
        evidence=(
            f"The job computes with {used} of {cores} cores; {seen.slots} such jobs may run "
            "at once."
        ),
        cause=f"threads is {config.threads} for each of {config.processes} processes",
        fix="Set threads=None, which takes one for each core.",
        changes={"threads": None},
    )


def _idle_gpu(seen: Evidence, share: float) -> Finding | None:
    if share >= BUSY:
        return None
    config = seen.config
    is_small = config.rows_at_once < config.share
    changes: dict[str, Any] | None = {"micro_batch": "auto"} if is_small else None
    if changes is None and config.method == "sft" and not (config.packing or config.streaming):
        changes = {"packing": True}
    return Finding(
        problem="low utilisation",
        importance=3,
        side="machine",
        evidence=(
            f"The GPU was busy {percent(share)} of the time, with {config.rows_at_once} of "
            f"{config.effective_batch} rows at once."
        ),
        cause="too little work comes to the GPU at a time",
        fix=f"Set {in_words(changes)}."
        if changes
        else "Raise effective_batch, or take a smaller GPU.",
        changes=changes,
    )


def out_of_memory(seen: Evidence) -> Finding | None:
    """Look for steps that were done again in smaller pieces, and for a job that memory ended."""
    halved = [event for event in seen.events if event.command == "micro_batch"]
    ended = seen.job.error or ""
    is_ended = re.search(r"memory does not hold|ran out of memory", ended) is not None
    if not halved and not is_ended:
        return None
    changes = _smaller(
        seen, int((halved[-1].arguments or {})["rows"]) if halved and not is_ended else None
    )
    words = f"{halved[-1].note} at step {halved[-1].step}" if halved else ended
    fits = f", and {(halved[-1].arguments or {})['rows']} rows fitted" if halved else ""
    return Finding(
        problem="out of memory",
        importance=1 if is_ended else 3,
        side="machine",
        evidence=f"{words[0].upper()}{words[1:].rstrip('.')}{fits}; {seen.config.rows_at_once} "
        f"rows of up to {seen.config.max_length} tokens were taken at once.",
        cause="more rows at once than the memory holds",
        fix=f"Set {in_words(changes)}." if changes else "Take a smaller model, or shorter rows.",
        changes=changes,
    )


def _smaller(seen: Evidence, fitted: int | None) -> dict[str, Any] | None:
    """Return what takes less memory: the pieces that fitted, smaller ones, or less kept."""
    config = seen.config
    if config.rows_at_once > 1:
        most = fitted or config.rows_at_once // 2
        return {"micro_batch": max(n for n in range(1, most + 1) if config.share % n == 0)}
    return None if config.gradient_checkpointing else {"gradient_checkpointing": True}


MACHINE = {
    "slow input": slow_input,
    "low utilisation": low_utilisation,
    "out of memory": out_of_memory,
}
