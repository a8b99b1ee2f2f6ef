"""How many rows fit in memory at once: probed with the longest, remembered for the next job."""

from typing import Any

from ftlab_kit import device, models
from ftlab_kit.configs import Config
from ftlab_kit.lm import adapters
from ftlab_kit.workspace import Workspace


def starting_micro_batch(ws: Workspace, row: dict[str, Any], trainer: Any) -> int:
    """Return the micro-batch that a job starts with, and record it with the job.

    It is the config's. If the config leaves it open, it is no more than what fitted the last time;
    for 'auto' it is the largest that fits, probed with the longest rows.
    """
    recorded = (row["facts"] or {}).get("rows_at_once")
    if recorded is not None:  # a resumed job starts as it did the first time
        return int(recorded)
    config = trainer.run_state.config
    size = config.rows_at_once
    if isinstance(config.micro_batch, int) or not trainer.can_split:
        pass
    elif (fitted := ws.store.get("batch_sizes", **_key(config))) is not None:
        limit = config.share if config.micro_batch == "auto" else size
        size = min(limit, fitted["rows"])
    elif config.micro_batch == "auto" and trainer.args.world_size == 1:
        size = _probe(ws, trainer, config)
        remember(ws, row, size)
    if trainer.args.process_index == 0:
        facts = ws.store.get("jobs", id=row["id"]) or {}
        ws.store.update(
            "jobs", {"id": row["id"]}, facts={**(facts["facts"] or {}), "rows_at_once": size}
        )
    return int(trainer.broadcast(size))


def remember(ws: Workspace, row: dict[str, Any], rows: int) -> None:
    """Store the micro-batch that fits, for the next job on this model, length and device."""
    ws.store.upsert("batch_sizes", _key(Config(**row["config"])), rows=rows)


def _key(config: Config) -> dict[str, Any]:
    return {
        "model": config.model,
        "length_tokens": config.max_length,
        "device": device.name(),
    }


def _probe(ws: Workspace, trainer: Any, config: Config) -> int:
    """Return the largest micro-batch of the longest rows that fits in memory."""
    dtype = adapters.weight_dtype(config.training_precision(), adapter=config.adapter)
    lengths = trainer.lengths
    longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for rows in (size for size in range(config.share, 0, -1) if config.share % size == 0):
        candidate = config.but(micro_batch=rows)
        need = models.memory(ws, candidate, bytes_per_weight=4 if dtype == "float32" else 2)
        # main memory can't be probed: the system overcommits, and then kills the process
        is_too_much = device.kind() == "cpu" and need.total_gib > device.free_memory_gib()
        numbers = (longest * (rows // len(longest) + 1))[:rows]
        if not is_too_much and trainer.fits(numbers):
            return rows
    return 1
