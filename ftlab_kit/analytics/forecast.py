"""What a job will take: its steps and tokens by counting, its speed by what was measured here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlab_kit import device, models, trainers
from ftlab_kit.analytics import efficiency, history
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.jobs import states
from ftlab_kit.lm import adapters
from ftlab_kit.records import DatasetVersion, Memory
from ftlab_kit.trainers import run_state
from ftlab_kit.workspace import Workspace

# the MFU that jobs of 135 million parameters reached
USUAL_MFU = 0.45
# the held-out loss of a token takes about a third of training on it: forward only
FORWARD = 1 / 3
# settings that decide a job's speed on one machine, besides its rows
SAME_SPEED = ("model", "method", "adapter", "precision", "threads", "processes", "packing")


def steps(config: Config, version: DatasetVersion) -> int:
    """Return the optimizer steps of a job."""
    return run_state.total_steps(config, version.n_rows)


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The tokens that a job trains on, those of its held-out losses, and those of its longest row.

    A token of a held-out loss counts as the share of a trained token that it costs.
    """

    trained: int
    held_out: float
    longest: int


def count_tokens(
    ws: Workspace, config: Config, version: DatasetVersion, held_out: DatasetVersion | None
) -> TokenCount | None:
    """Return the tokens of a job, None where the model, and so its tokenizer, is not here."""
    model = models.get(ws, config.model)
    if model.path is None:
        return None
    length = min(config.max_length, model.context_tokens)
    lengths = tokenized.read(ws, version, model.path, length).lengths
    n_steps = steps(config, version)
    held_out_tokens = 0.0
    if held_out:
        every = config.eval_every_steps or config.save_every_steps or max(1, -(-n_steps // 5))
        n_rows = min(config.eval_rows or held_out.n_rows, held_out.n_rows)
        mean = float(tokenized.read(ws, held_out, model.path, length).lengths.mean())
        held_out_tokens = FORWARD * n_rows * mean * -(-n_steps // every)
    trained = round(n_steps * config.prompts_a_step * float(lengths.mean()))
    return TokenCount(trained, held_out_tokens, int(lengths.max()))


def memory(ws: Workspace, config: Config, longest: int | None) -> Memory:
    """Return the memory that a job takes, in the dtype that its weights will have.

    Args:
        longest: Tokens of the longest row; max_length if None.
    """
    dtype = adapters.weight_dtype(config.training_precision(), adapter=config.adapter)
    actual = config if longest is None else config.but(max_length=max(8, longest))
    return models.memory(ws, actual, bytes_per_weight=4 if dtype == "float32" else 2)


def speed(ws: Workspace, config: Config, version: DatasetVersion) -> tuple[float | None, str]:
    """Return the tokens per second that a job will reach, and where the number comes from."""
    for job in trainers.list(ws):
        facts = states.row(ws, job)["facts"] or {}
        is_alike = all(job.config.get(name) == getattr(config, name) for name in SAME_SPEED)
        if is_alike and facts.get("processor") == device.processor():
            tokens_per_s = history.of(ws, job).tokens_per_s.mean
            if tokens_per_s is not None:
                return tokens_per_s, f"the speed of job {job.id} on this machine"
    if device.kind() != "cpu":
        return None, "no similar job has run on this GPU yet"
    return _speed_by_peak(ws, config, version)


def _speed_by_peak(
    ws: Workspace, config: Config, version: DatasetVersion
) -> tuple[float | None, str]:
    """Return the tokens per second at the usual MFU of this machine."""
    if config.method != "sft":
        return None, f"no similar {config.method} job has run here yet"
    flop = efficiency.flop_per_token(ws, config, version)
    peak = efficiency.peak_gflop_per_s(ws, config, _machine_facts(config))
    if flop is None or peak is None:
        return None, "no similar job has run here yet, and this machine's peak is not known"
    basis = f"no similar job has run here yet: {USUAL_MFU:.0%} of {peak:.0f} GFLOP/s"
    return USUAL_MFU * peak * 1e9 / flop, basis


def _machine_facts(config: Config) -> Mapping[str, Any]:
    threads = config.threads_per_process()
    return {"threads": threads, "processes": config.processes, "processor": device.processor()}
