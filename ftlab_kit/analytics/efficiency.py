"""Model FLOPs utilisation (MFU): the FLOP that a job needs, as a share of what its machine can do.

The idea and the name are PaLM's (Chowdhery et al. 2022, arXiv 2204.02311). The peak is not the data
sheet's: it is measured with a large matrix product on this machine.
"""

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

MAX_RECENT = 8  # jobs that may have ended a moment ago
EXIT_S = 10.0  # a process that has ended its job has this long to exit


def with_mfu(ws: Workspace, job: Job, numbers: JobAnalytics) -> JobAnalytics:
    """Return a job's numbers with its MFU, or with the reason why it has none."""
    speed, facts = numbers.tokens_per_s.mean, states.row(ws, job)["facts"] or {}
    config = Config(**job.config)
    if speed is None:
        return replace(numbers, mfu_note="no speed was measured")
    reason = _why_unknown(config, facts)
    if reason:
        return replace(numbers, mfu_note=reason)
    flop = flop_per_token(ws, config, datasets.get(ws, job.dataset_version_id))
    if flop is None:
        return replace(numbers, mfu_note="the FLOP of this model's layers are not known")
    achieved = speed * flop / 1e9
    peak = peak_gflop_per_s(ws, config, facts)
    if peak is None:
        note = "the machine is busy with a job; its peak is measured when none runs"
        return replace(numbers, gflop_per_s=achieved, mfu_note=note)
    return replace(numbers, gflop_per_s=achieved, peak_gflop_per_s=peak, mfu=achieved / peak)


def _why_unknown(config: Config, facts: Mapping[str, Any]) -> str | None:
    """Return why a job's MFU can't be computed here; None if it can."""
    if "processor" not in facts:
        return "the processor that it ran on was not recorded"
    if facts["on_gpu"]:
        return "the peak of a GPU is not measured"
    if facts["processor"] != device.processor():
        return f"it ran on another processor: {facts['processor']}"
    if config.method != "sft":
        return f"the FLOP of a token are known for sft, not for {config.method}"
    if config.streaming:
        return "its rows were streamed, so the share of trained tokens was not counted"
    if _precision(config, facts) not in flops.DTYPES:
        return f"the peak in {config.precision} is not measured"
    return None


def _precision(config: Config, facts: Mapping[str, Any]) -> str:
    """Return the precision that a job computed in; jobs of older versions did not record it."""
    return str(facts.get("precision") or config.training_precision())


def flop_per_token(ws: Workspace, config: Config, version: DatasetVersion) -> float | None:
    """Return the mean FLOP of training on a token, None where model or rows are not here."""
    model = models.get(ws, config.model)
    if model.path is None or not version.path.exists():
        return None
    rank = config.adapter_rank if config.adapter == "lora" else None
    flop = flops.training_flop(model.path, rank=rank, targets=config.adapter_targets)
    length = min(config.max_length, model.context_tokens)
    rows = tokenized.read(ws, version, model.path, length)
    has_trained = rows.n_trained > 0  # training skips the other rows
    share = float(rows.n_trained[has_trained].sum() / rows.lengths[has_trained].sum())
    return flop.mean(share) if flop else None


def peak_gflop_per_s(ws: Workspace, config: Config, facts: Mapping[str, Any]) -> float | None:
    """Return the highest GFLOP/s ever measured on this machine for such a job, measured anew now.

    Nothing is measured while a job runs here, or one that has ended still exits; None if nothing
    was measured before either.
    """
    precision = _precision(config, facts)
    threads = int(facts["threads"]) * int(facts["processes"])
    key = {"name": f"GFLOP/s, {precision}, {threads} threads, {facts['processor']}"}
    stored = ws.store.get("settings", **key)
    peaks = [float(stored["value"])] if stored else []
    if not _is_busy(ws) and _have_exited(ws):
        # whatever else runs during a measurement can only lower it, so the highest is kept
        peaks.append(flops.peak_gflop_per_s(precision, threads))
        ws.store.upsert("settings", key, value=max(peaks))
    return max(peaks, default=None)


def _is_busy(ws: Workspace) -> bool:
    """Return whether a worker of this workspace computes; one that was killed does not."""
    return any(map(processes.is_alive, ws.store.rows("jobs", state="running")))


def _have_exited(ws: Workspace) -> bool:
    """Wait for the processes of jobs that have just ended: their clean-up keeps a core busy."""
    over = ws.store.rows("jobs", descending=True, limit=MAX_RECENT, state=[*states.OVER])
    started = [row for row in over if row["pid_started_at"] is not None]
    for row in filter(processes.is_alive, started):
        processes.wait_until_gone(row["pid"], timeout_s=EXIT_S)
    return not any(map(processes.is_alive, started))
