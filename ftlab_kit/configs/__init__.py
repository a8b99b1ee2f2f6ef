"""The settings of a job, each defined once: default, bounds, unit and help are in its field.

Forms, command-line flags and help are derived from the fields. A Config is frozen;
`config.but(learning_rate=1e-4)` returns a changed copy, checked like the original.

Named configs are stored in the workspace: `save`, `get`, `list`, `update`, `delete`.

For other rooms: `Settings` is the base of every settings class, `describe` returns its fields as
data, and `takes_settings` names them in the signature of a verb.
"""

import builtins
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from ftlab_kit import device
from ftlab_kit.configs.evaluation import EvaluationConfig
from ftlab_kit.configs.settings import (
    Integer,
    Number,
    Settings,
    describe,
    setting,
    takes_settings,
)
from ftlab_kit.errors import ConfigError, Conflict, NotFound, nearest
from ftlab_kit.workspace import Workspace, now

__all__ = [
    "GROUPS", "PRESETS", "Config", "EvaluationConfig", "Settings", "delete", "describe", "get",
    "list", "preset", "save", "settings", "takes_settings", "update",
]  # fmt: skip


class Config(Settings):
    """Everything that decides a job besides its data.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    model: str = setting("smollm2-135m-instruct", "Base model, by its name in the catalogue")
    method: Literal["sft", "dpo", "grpo"] = setting(
        "sft", "sft trains on answers, dpo on preferences, grpo on a reward"
    )
    adapter: Literal["lora", "none"] = setting(
        "lora", "lora trains a small adapter; none trains all weights"
    )
    adapter_rank: Integer = setting(16, "Rank r of the LoRA matrices", ge=1, le=512)
    adapter_alpha: Integer = setting(
        32, "LoRA alpha; the adapter is scaled by alpha / r", ge=1, le=2048
    )
    adapter_dropout: Number = setting(0.0, "Dropout on the adapter's input", ge=0, lt=1)
    adapter_targets: str = setting(
        "all-linear", "Layers that get an adapter: all-linear, or module names, comma-separated"
    )

    learning_rate: Number = setting(2e-4, "Peak learning rate", live=True, gt=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "Learning rate schedule after warm-up", live=True
    )
    warmup_fraction: Number = setting(
        0.05, "Share of the steps spent on warm-up", unit="of all steps", ge=0, le=1
    )
    weight_decay: Number = setting(0.0, "Weight decay of AdamW", live=True, ge=0, le=1)
    max_grad_norm: Number = setting(1.0, "Clip gradients to this norm", live=True, gt=0)
    epochs: Number = setting(
        3.0, "Passes over the training rows", unit="epochs", live=True, gt=0, le=1000
    )
    max_steps: Integer | None = setting(
        None,
        "Stop after this many optimizer steps, whatever epochs is; empty: no limit",
        unit="steps",
        live=True,
        ge=1,
    )
    effective_batch: Integer = setting(
        8, "Rows per optimizer step, over all micro-batches and processes", unit="rows", ge=1
    )
    micro_batch: Annotated[Integer, Field(ge=1)] | Literal["auto"] | None = setting(
        None, "Rows per forward pass; empty: at most 8; auto: as many as fit in memory", unit="rows"
    )
    max_length: Integer = setting(
        1024, "Truncate rows to this length", unit="tokens", ge=8, le=1_048_576
    )
    packing: bool = setting(
        False, "Pack short rows into one sequence; they don't attend to each other (sft)"
    )
    streaming: bool = setting(False, "Tokenise rows during training, not before it (sft)")
    neftune_alpha: Number | None = setting(
        None, "NEFTune: scale of the noise on input embeddings; empty: off (sft)", gt=0
    )

    beta: Number | None = setting(
        None, "KL penalty towards the base model; empty: 0.1 for dpo, 0 for grpo", ge=0
    )
    reward: Literal["chrf", "exact"] = setting(
        "chrf", "Reward of a grpo answer: chrF against the reference, or exact match"
    )
    answers_per_prompt: Integer = setting(
        4, "Group size of grpo: answers sampled for each prompt", unit="answers", ge=2
    )
    max_new_tokens: Integer = setting(64, "Maximum length of a grpo answer", unit="tokens", ge=1)
    temperature: Number = setting(1.0, "Sampling temperature of grpo answers", gt=0, le=10)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Precision of training; auto: bf16 where the device is fast at it, else fp32"
    )
    deterministic: bool = setting(True, "On a GPU, use only deterministic kernels")
    gradient_checkpointing: bool = setting(
        False, "Recompute activations: much less memory for a third more time"
    )
    threads: Integer | None = setting(
        None, "Processor threads; empty: one per physical core", unit="threads", ge=1
    )
    processes: Integer = setting(
        1, "Data-parallel processes, started by torchrun", unit="processes", ge=1, le=1024
    )
    seed: Integer = setting(
        0, "Seed of the adapter's weights, the order of rows, and dropout", ge=0, lt=2**32
    )

    log_every_steps: Integer = setting(1, "Interval of metrics", unit="steps", live=True, ge=1)
    save_every_steps: Integer | None = setting(
        None, "Interval of checkpoints; empty: five per job", unit="steps", live=True, ge=1
    )
    eval_every_steps: Integer | None = setting(
        None,
        "Interval of evaluations on held-out rows; empty: with each checkpoint",
        unit="steps",
        live=True,
        ge=1,
    )
    eval_rows: Integer | None = setting(
        512,
        "Held-out rows to evaluate during training, always the same ones; empty: all",
        unit="rows",
        ge=1,
    )
    sample_every_steps: Integer | None = setting(
        None,
        "Interval of sample answers, with more after the first and the last step; empty: never",
        unit="steps",
        live=True,
        ge=1,
    )
    sample_rows: Integer = setting(
        4,
        "Prompts of sample answers: the first held-out rows, or training rows if there are none",
        unit="rows",
        live=True,
        ge=1,
        le=32,
    )
    sample_tokens: Integer = setting(
        48, "Maximum length of a sample answer", unit="tokens", live=True, ge=1, le=1024
    )
    keep_checkpoints: Integer = setting(3, "Newest checkpoints to keep", unit="checkpoints", ge=1)
    early_stopping: Integer | None = setting(
        None,
        "Stop after this many evaluations without a better held-out loss; empty: never",
        unit="evaluations",
        live=True,
        ge=1,
    )

    guard: Literal["stop", "skip", "rollback"] = setting(
        "stop",
        "On a loss or gradient that is not finite, or a spike: stop fails the job, skip drops the "
        "batch, rollback returns to the last checkpoint with half the learning rate",
        live=True,
    )
    spike_factor: Number | None = setting(
        None,
        "A spike is this many times the median of the last 20 steps; empty: no check",
        live=True,
        gt=1,
    )
    guard_tries: Integer = setting(
        3, "Skipped batches, or rollbacks, before the job fails", live=True, ge=1
    )
    max_restarts: Integer = setting(0, "Restarts after the worker has crashed", ge=0)

    wandb: Literal["off", "offline", "online"] = setting(
        "off", "Also log metrics to Weights & Biases"
    )
    wandb_project: str = setting("ftlab", "Weights & Biases project", min_length=1)

    @property
    def share(self) -> int:
        """The rows of an optimizer step that one process trains on."""
        return self.effective_batch // self.processes

    @property
    def rows_at_once(self) -> int:
        """The micro-batch: as set, or the largest divisor of a process's share up to 8."""
        if isinstance(self.micro_batch, int):
            return self.micro_batch
        return max(size for size in range(1, 9) if self.share % size == 0)

    @property
    def prompts_a_step(self) -> int:
        """The dataset rows per optimizer step; grpo samples several answers for each."""
        group = self.answers_per_prompt if self.method == "grpo" else 1
        return self.effective_batch // group

    def threads_per_process(self) -> int:
        """Return the number of threads of each of a job's processes on this machine."""
        return device.threads_per_process(self.threads, self.processes)

    def training_precision(self) -> str:
        """Return the precision of training on this machine: 'fp32', 'bf16' or 'fp16'.

        Raises:
            InputError: This device can't train in the precision that is set.
        """
        return device.training_precision(self.precision, method=self.method, adapter=self.adapter)

    def conflicts(self) -> Iterator[str]:
        """Yield a message for each conflict between settings that are valid on their own."""
        batch, rows = self.effective_batch, self.micro_batch
        if batch % self.processes:
            yield (
                f"effective_batch is {batch}, processes {self.processes}; expected an "
                "effective_batch that is a multiple of processes. Change one of the two."
            )
        elif isinstance(rows, int) and self.share % rows:
            yield (
                f"effective_batch is {batch}, micro_batch {rows}"
                f"{f', processes {self.processes}' if self.processes > 1 else ''}; "
                "expected a micro_batch that divides effective_batch (a process's share of it). "
                "Change one of the two."
            )
        if self.method == "grpo" and batch % self.answers_per_prompt:
            yield (
                f"effective_batch is {batch}, answers_per_prompt {self.answers_per_prompt}; "
                "expected an effective_batch that is a multiple of answers_per_prompt. "
                "Change one of the two."
            )
        for name in ("packing", "streaming", "neftune_alpha"):
            if getattr(self, name) and self.method != "sft":
                method = repr(self.method)
                yield f"{name} is set and method is {method}; expected 'sft'. Change one of them."
        if self.packing and self.streaming:
            yield "packing and streaming are both set; packing needs all rows first. Unset one."


# titles of the groups in which a form shows the settings, with the first setting of each
GROUPS = {
    "model and adapter": "model",
    "training": "learning_rate",
    "dpo and grpo": "beta",
    "hardware and reproducibility": "precision",
    "logging, checkpoints, samples": "log_every_steps",
    "failures": "guard",
    "tracking": "wandb",
}

# fewer rows need more passes and smaller batches; everything else is the default
PRESETS: dict[str, dict[str, Any]] = {
    "dozens": {"epochs": 5.0, "effective_batch": 4, "learning_rate": 5e-4},
    "hundreds": {"epochs": 3.0, "effective_batch": 8, "learning_rate": 5e-4},
    "thousands": {"epochs": 2.0, "effective_batch": 32, "learning_rate": 3e-4},
}


@takes_settings(Config)
def preset(name: str | int, **changes: Any) -> Config:
    """Return a config for a dataset of a certain size.

    Args:
        name: 'dozens' (50 to 200 rows), 'hundreds' (200 to 1,000), 'thousands' (1,000 to 5,000), or
            the number of rows itself.
        changes: Settings that differ from the preset.

    Raises:
        NotFound: There is no such preset.
        ConfigError: An unknown setting, or a value out of bounds.
    """
    if isinstance(name, int):
        name = "dozens" if name < 200 else "hundreds" if name < 1000 else "thousands"
    if name not in PRESETS:
        raise NotFound(
            f"There is no preset {name!r}; there are {', '.join(PRESETS)}."
            f"{nearest(name, PRESETS)} Or give the number of rows."
        )
    return Config(**{**PRESETS[name], **changes})


def save(ws: Workspace, name: str, config: Config) -> Config:
    """Save a config under a name and return it.

    Raises:
        ConfigError: The name is empty.
        Conflict: The name is taken.
    """
    if not name.strip():
        raise ConfigError("The config's name is empty; expected some text. Give it a name.")
    settings = config.model_dump()
    if not ws.store.insert_new("configs", name=name, settings=settings, created_at=now()):
        raise Conflict(
            f"There is already a config {name!r}. "
            "Change it with configs.update, or choose another name."
        )
    return config


def get(ws: Workspace, name: str) -> Config:
    """Return the config that was saved under a name.

    Raises:
        NotFound: There is no such config.
    """
    row = ws.store.get("configs", name=name)
    if row is None:
        names = [saved["name"] for saved in ws.store.rows("configs")]
        raise NotFound(
            f"There is no config {name!r}.{nearest(name, names)} "
            "See them with configs.list(ws), or save one with configs.save(ws, name, config)."
        )
    return Config(**row["settings"])


def list(ws: Workspace) -> dict[str, Config]:
    """Return all saved configs by name."""
    return {row["name"]: Config(**row["settings"]) for row in ws.store.rows("configs")}


@takes_settings(Config)
def update(ws: Workspace, name: str, **changes: Any) -> Config:
    """Change settings of a saved config and return it.

    Args:
        name: The name that the config was saved under.
        changes: The settings to change.

    Raises:
        NotFound: There is no such config.
        ConfigError: An unknown setting, or a value out of bounds.
    """
    config = get(ws, name).but(**changes)
    ws.store.update("configs", {"name": name}, settings=config.model_dump())
    return config


def delete(ws: Workspace, name: str) -> None:
    """Remove a saved config; jobs that ran with it keep their copy.

    Raises:
        NotFound: There is no such config.
    """
    get(ws, name)
    ws.store.delete("configs", name=name)


def settings() -> builtins.list[dict[str, Any]]:
    """Return every setting of a job: name, default, unit, choices, bounds, help, and live.

    A live setting can be changed while a job runs.
    """
    return describe(Config)
