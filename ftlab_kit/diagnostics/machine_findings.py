"""Checks of how a job used its machine: does it wait for rows, sit idle, or lack memory?"""

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ftlab_kit import device
from ftlab_kit.diagnostics.evidence import Evidence, as_arguments, set_settings
from ftlab_kit.records import Finding, percent
from ftlab_kit.trainers.run_state import RunState

WAITING = 0.3  # of the time between two steps: writing metrics may take less
WAITING_S = 0.05  # a step: nobody would notice less
MIN_INTERVALS = 5  # between steps, before their median says anything
BUSY = 0.5  # of a GPU's time; a well-fitted job keeps it above 0.8 busy


@dataclass(frozen=True, slots=True)
class _StepTime:
    """Seconds from one step to the next, and the seconds spent within a step."""

    wall_s: float
    within_s: float


def slow_input(evidence: Evidence) -> Finding | None:
    """Look for time between steps that nothing accounts for."""
    times = [*_step_times(evidence)]
    if len(times) < MIN_INTERVALS:
        return None
    wall = statistics.median(time.wall_s for time in times)
    wait = statistics.median(max(0.0, time.wall_s - time.within_s) for time in times)
    if wait < WAITING_S or wait < WAITING * wall:
        return None
    is_streaming = evidence.config.streaming
    changes: dict[str, Any] | None = {"streaming": False} if is_streaming else None
    return Finding(
        problem="slow input",
        importance=3,
        side="machine",
        evidence=(
            f"A step takes {wall:.3g} s until the next one begins, but only {wall - wait:.3g} s of "
            f"computing: {percent(wait / wall)} is waiting (metrics every "
            f"{evidence.config.log_every_steps} steps)."
        ),
        cause=(
            "streaming tokenises rows while the device waits"
            if is_streaming
            else "the workspace's disk is slow, or the machine is busy with something else"
        ),
        fix=set_settings(changes)
        if changes
        else "Put the workspace on a local disk, and run nothing else beside the job.",
        changes=changes,
    )


def _step_times(evidence: Evidence) -> Iterator[_StepTime]:
    """Yield the times of steps between two metrics with nothing else between them.

    Time for a checkpoint, a held-out loss or a command is not waiting, so such steps are skipped.
    """
    config = evidence.config
    schedule = RunState(config.but(max_steps=evidence.job.total_steps or 1), 1, 1)
    commanded = {event.step for event in evidence.events if event.step is not None}

    def is_quiet(step: int) -> bool:
        evaluated = evidence.job.held_out_version_id and schedule.is_due(
            config.eval_every_steps or config.save_every_steps, step
        )
        is_saved = schedule.is_due(config.save_every_steps, step)
        return not (evaluated or is_saved or step in commanded)

    timed: list[tuple[int, datetime, float]] = [
        (item.step, item.at, item.samples_per_s)
        for item in evidence.metrics
        if item.at and item.samples_per_s
    ]
    for (before, began_at, _), (after, ended_at, speed) in zip(timed, timed[1:], strict=False):
        # the first steps fill caches
        if before < 2 or not all(map(is_quiet, range(before, after + 1))):
            continue
        wall_s = (ended_at - began_at).total_seconds() / (after - before)
        yield _StepTime(wall_s, config.prompts_a_step / speed)


def low_utilisation(evidence: Evidence) -> Finding | None:
    """Look for a GPU that is idle half of the time, or for unused processor cores."""
    shares = [item.gpu_utilisation for item in evidence.metrics if item.gpu_utilisation is not None]
    if shares:
        is_enough = len(shares) >= MIN_INTERVALS
        return _idle_gpu(evidence, statistics.median(shares)) if is_enough else None
    on_gpu = any(item.gpu_memory_gib is not None for item in evidence.metrics)
    config, cores = evidence.config, device.threads()
    used = config.threads_per_process() * config.processes
    if on_gpu or not evidence.metrics or used * evidence.slots >= cores:
        return None
    changes = {"threads": None}
    return Finding(
        problem="low utilisation",
        importance=3,
        side="machine",
        evidence=(
            f"The job computes with {used} of {cores} cores; {evidence.slots} such jobs may run "
            "at once."
        ),
        cause=f"threads is {config.threads} for each of {config.processes} processes",
        fix=f"Set {as_arguments(changes)}: one thread for each core.",
        changes=changes,
    )


def _idle_gpu(evidence: Evidence, share: float) -> Finding | None:
    if share >= BUSY:
        return None
    config = evidence.config
    is_small = config.rows_at_once < config.share
    changes: dict[str, Any] | None = {"micro_batch": "auto"} if is_small else None
    if changes is None and config.method == "sft" and not (config.packing or config.streaming):
        changes = {"packing": True}
    by_hand = "Raise effective_batch, or use a smaller GPU."
    return Finding(
        problem="low utilisation",
        importance=3,
        side="machine",
        evidence=(
            f"The GPU was busy {percent(share)} of the time, with {config.rows_at_once} of "
            f"{config.effective_batch} rows at once."
        ),
        cause="the GPU gets too little work at a time",
        fix=set_settings(changes) if changes else by_hand,
        changes=changes,
    )


def out_of_memory(evidence: Evidence) -> Finding | None:
    """Look for steps repeated with fewer rows at once, and for a job that ran out of memory."""
    halved = [event for event in evidence.events if event.command == "micro_batch"]
    error = evidence.job.error or ""
    is_ended = re.search(r"memory does not hold|ran out of memory", error) is not None
    if not halved and not is_ended:
        return None
    n_fitted = int((halved[-1].arguments or {})["rows"]) if halved else None
    changes = _less_memory(evidence, None if is_ended else n_fitted)
    text = f"{halved[-1].note} at step {halved[-1].step}" if halved else error
    fitted = f", and {n_fitted} rows fitted" if halved else ""
    by_hand = "Use a smaller model, or shorter rows."
    return Finding(
        problem="out of memory",
        importance=1 if is_ended else 3,
        side="machine",
        evidence=(
            f"{text[0].upper()}{text[1:].rstrip('.')}{fitted}; the job computes "
            f"{evidence.config.rows_at_once} rows of up to {evidence.config.max_length} tokens at "
            "once."
        ),
        cause="the memory does not hold this many rows at once",
        fix=set_settings(changes) if changes else by_hand,
        changes=changes,
    )


def _less_memory(evidence: Evidence, n_fitted: int | None) -> dict[str, Any] | None:
    """Return settings that need less memory: fewer rows at once, or fewer stored activations.

    Args:
        n_fitted: The rows at once that fitted; half of the setting if None.
    """
    config = evidence.config
    if config.rows_at_once > 1:
        limit = n_fitted or config.rows_at_once // 2
        return {"micro_batch": max(n for n in range(1, limit + 1) if config.share % n == 0)}
    return None if config.gradient_checkpointing else {"gradient_checkpointing": True}


MACHINE_CHECKS = {
    "slow input": slow_input,
    "low utilisation": low_utilisation,
    "out of memory": out_of_memory,
}
