"""How near a job comes to what its machine could do: the FLOP it needs by the FLOP there are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ftlab_kit import datasets, device, models
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.jobs import processes, states
from ftlab_kit.lm import flops
from ftlab_kit.records import DatasetVersion, Job, JobAnalytics
from ftlab_kit.workspace import Workspace

NEWEST = 8  # jobs that may have ended a moment ago
LEAVING_S = 10.0


def efficiency(ws: Workspace, job: Job, found: JobAnalytics) -> JobAnalytics:
    """Return a job's numbers with the share of the machine's bound, or with why there is none."""
    speed, facts = found.tokens_per_s.mean, states.row(ws, job)["facts"] or {}
    words = "no speed was measured" if speed is None else _unknown(Config(**job.config), facts)
    if words or speed is None:
        return replace(found, efficiency_note=words)
    version = datasets.get(ws, job.dataset_version_id)
    flop = flop_of_a_token(ws, Config(**job.config), version)
    if flop is None:
        return replace(found, efficiency_note="the work of this model's layers is not known")
    done = speed * flop / 1e9
    peak = peak_gflop_per_s(ws, Config(**job.config), facts)
    if peak is None:
        words = "the machine is busy with a job; its peak is measured when none runs"
        return replace(found, gflop_per_s=done, efficiency_note=words)
    return replace(found, gflop_per_s=done, peak_gflop_per_s=peak, efficiency=done / peak)


def _unknown(config: Config, facts: Mapping[str, Any]) -> str | None:
    """Return why a job's efficiency can't be told here; None if it can."""
    if "processor" not in facts:
        return "on which processor it ran was not recorded"
    if facts["on_gpu"]:
        return "the peak of a GPU is not measured"
    if facts["processor"] != device.processor():
        return f"it ran on another processor: {facts['processor']}"
    if config.method != "sft":
        return f"the work of a token is known for sft, not for {config.method}"
    if config.streaming:
        return "its rows were streamed: what share of the tokens is trained was not counted"
    if _precision(config, facts) not in flops.DTYPES:
        return f"the peak in {config.precision} is not measured"
    return None


def _precision(config: Config, facts: Mapping[str, Any]) -> str:
    """Return what a job computed in; an older kit did not write it down."""
    return str(facts.get("precision") or config.training_precision())


def flop_of_a_token(ws: Workspace, config: Config, version: DatasetVersion) -> float | None:
    """Return the FLOP of a token of a job, None where model or rows do not tell."""
    model = models.get(ws, config.model)
    if model.path is None or not version.path.exists():
        return None
    rank = config.adapter_rank if config.adapter == "lora" else None
    needed = flops.training_flop(model.path, rank=rank, targets=config.adapter_targets)
    length = min(config.max_length, model.context_tokens)
    rows = tokenized.read(ws, version, model.path, length)
    learnt = rows.n_trained > 0  # the others are left out of training
    share = float(rows.n_trained[learnt].sum() / rows.lengths[learnt].sum())
    return needed.mean(share) if needed else None


def peak_gflop_per_s(ws: Workspace, config: Config, facts: Mapping[str, Any]) -> float | None:
    """Return the most GFLOP/s that this machine was ever seen to do for such a job, now included.

    While a job runs here, or one that has ended does not leave, nothing is measured; None if
    nothing was before.
    """
    precision = _precision(config, facts)
    threads = int(facts["threads"]) * int(facts["processes"])
    key = {"name": f"GFLOP/s, {precision}, {threads} threads, {facts['processor']}"}
    kept = ws.store.get("settings", **key)
    known = [float(kept["value"])] if kept else []
    if not _is_busy(ws) and _have_left(ws):
        # whatever else ran at the time has made the one before too low, or makes this one
        known.append(flops.peak_gflop_per_s(precision, threads))
        ws.store.upsert("settings", key, value=max(known))
    return max(known, default=None)


def _is_busy(ws: Workspace) -> bool:
    """Return whether a worker of this workspace computes; one that was killed does not."""
    return any(map(processes.is_alive, ws.store.rows("jobs", state="running")))


def _have_left(ws: Workspace) -> bool:
    """Wait for the processes of jobs that have just ended: tidying up they keep a core busy."""
    over = ws.store.rows("jobs", descending=True, limit=NEWEST, state=[*states.OVER])
    started = [row for row in over if row["pid_started_at"] is not None]
    for row in filter(processes.is_alive, started):
        processes.wait_until_gone(row["pid"], timeout_s=LEAVING_S)
    return not any(map(processes.is_alive, started))
