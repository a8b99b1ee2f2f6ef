"""What a job will take: its steps and tokens by counting, its speed by what was measured here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ftlab_kit import device, models, trainers
from ftlab_kit.analytics import efficiency, history
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.jobs import states
from ftlab_kit.lm import adapters
from ftlab_kit.records import DatasetVersion, Memory
from ftlab_kit.trainers import run_state
from ftlab_kit.workspace import Workspace

# the share of a large matrix product's speed that jobs of 135 million parameters reached
USUAL = 0.45
# measuring the held-out loss of a token takes about a third of learning from it: forward only
FORWARD = 1 / 3
# what decides the speed of a job on one machine, besides its rows
ALIKE = ("model", "method", "adapter", "precision", "threads", "processes", "packing")


def steps(config: Config, version: DatasetVersion) -> int:
    """Return the optimizer steps of a job."""
    return run_state.total_steps(config, version.n_rows)


class Count(NamedTuple):
    """Tokens: those learnt from, what held-out losses cost in such, and of the longest row."""

    learnt: int
    measured: float
    longest: int


def count(
    ws: Workspace, config: Config, version: DatasetVersion, held_out: DatasetVersion | None
) -> Count | None:
    """Return the tokens of a job, None where the model is not here: its tokenizer counts them."""
    model = models.get(ws, config.model)
    if model.path is None:
        return None
    length = min(config.max_length, model.context_tokens)
    lengths = tokenized.read(ws, version, model.path, length).lengths
    n_steps = steps(config, version)
    measured = 0.0
    if held_out:
        every = config.eval_every_steps or config.save_every_steps or max(1, -(-n_steps // 5))
        rows = min(config.eval_rows or held_out.n_rows, held_out.n_rows)
        mean = float(tokenized.read(ws, held_out, model.path, length).lengths.mean())
        measured = FORWARD * rows * mean * -(-n_steps // every)
    learnt = round(n_steps * config.prompts_a_step * float(lengths.mean()))
    return Count(learnt, measured, int(lengths.max()))


def memory(ws: Workspace, config: Config, longest: int | None) -> Memory:
    """Return the memory that a job takes, in the type that its weights will have.

    Args:
        longest: Tokens of the longest row; as long as rows may be if None.
    """
    dtype = adapters.weight_dtype(config.training_precision(), adapter=config.adapter)
    asked = config if longest is None else config.but(max_length=max(8, longest))
    return models.memory(ws, asked, bytes_per_weight=4 if dtype == "float32" else 2)


def speed(ws: Workspace, config: Config, version: DatasetVersion) -> tuple[float | None, str]:
    """Return the tokens a second that a job will do, and where that is known from."""
    for job in trainers.list(ws):
        facts = states.row(ws, job)["facts"] or {}
        is_alike = all(job.config.get(name) == getattr(config, name) for name in ALIKE)
        if is_alike and facts.get("processor") == device.processor():
            found = history.of(ws, job).tokens_per_s.mean
            if found is not None:
                return found, f"the speed of job {job.id} on this machine"
    if device.kind() != "cpu":
        return None, "no job like it has run on this GPU yet"
    return _reckoned(ws, config, version)


def _reckoned(ws: Workspace, config: Config, version: DatasetVersion) -> tuple[float | None, str]:
    if config.method != "sft":
        return None, f"no {config.method} job like it has run here yet"
    flop = efficiency.flop_of_a_token(ws, config, version)
    peak = efficiency.peak_gflop_per_s(ws, config, _facts(config))
    if flop is None or peak is None:
        return None, "no job like it has run here yet, and the machine's own speed is not known"
    words = f"no job like it has run here yet: {USUAL:.0%} of {peak:.0f} GFLOP/s"
    return USUAL * peak * 1e9 / flop, words


def _facts(config: Config) -> Mapping[str, Any]:
    threads = config.threads_per_process()
    return {"threads": threads, "processes": config.processes, "processor": device.processor()}
