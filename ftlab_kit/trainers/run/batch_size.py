"""How many rows fit in memory at once: found by trying the longest, remembered for the next job."""

from typing import Any

from ftlab_kit import device, models
from ftlab_kit.configs import Config
from ftlab_kit.lm import adapters
from ftlab_kit.workspace import Workspace


def rows_at_once(ws: Workspace, row: dict[str, Any], trainer: Any) -> int:
    """Return the micro-batch that a job begins with, and keep it with the job.

    What the config says, or, where it leaves the choice, no more than what fitted the last time;
    for 'auto' the most that fits, tried with the longest rows first.
    """
    known = (row["facts"] or {}).get("rows_at_once")
    if known is not None:  # this job has begun before, and began with this
        return int(known)
    config = trainer.live.config
    found = config.rows_at_once
    if isinstance(config.micro_batch, int) or not trainer.can_split:
        pass
    elif (fitted := ws.store.get("batch_sizes", **_key(config))) is not None:
        most = config.share if config.micro_batch == "auto" else found
        found = min(most, fitted["rows"])
    elif config.micro_batch == "auto" and trainer.args.world_size == 1:
        found = _probe(ws, trainer, config)
        remember(ws, row, found)
    if trainer.args.process_index == 0:
        facts = ws.store.get("jobs", id=row["id"]) or {}
        ws.store.update(
            "jobs", {"id": row["id"]}, facts={**(facts["facts"] or {}), "rows_at_once": found}
        )
    return int(trainer.together(found))


def remember(ws: Workspace, row: dict[str, Any], rows: int) -> None:
    """Keep the number of rows that fits for the next job on this model, length and device."""
    ws.store.upsert("batch_sizes", _key(Config(**row["config"])), rows=rows)


def _key(config: Config) -> dict[str, Any]:
    return {
        "model": config.model,
        "length_tokens": config.max_length,
        "device": device.name(),
    }


def _probe(ws: Workspace, trainer: Any, config: Config) -> int:
    """Return the most rows that can be learnt from at once, the longest ones."""
    dtype = adapters.weight_dtype(config.training_precision(), adapter=config.adapter)
    lengths = trainer.lengths
    longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for rows in (size for size in range(config.share, 0, -1) if config.share % size == 0):
        asked = config.but(micro_batch=rows)
        need = models.memory(ws, asked, bytes_per_weight=4 if dtype == "float32" else 2)
        # a processor's memory can't be tried out: the system gives what it has not, and then kills
        is_too_much = device.kind() == "cpu" and need.total_gib > device.free_memory_gib()
        numbers = (longest * (rows // len(longest) + 1))[:rows]
        if not is_too_much and trainer.try_out(numbers):
            return rows
    return 1
