"""The settings of a job, stated once: default, bounds, unit and help stand in the field.

Forms, command-line flags and help are derived from `Config.model_fields`. A Config is frozen;
`config.but(learning_rate=1e-4)` returns a changed one, checked like the first.

Named configs live in the workspace: `save`, `get`, `list`, `update`, `delete`.
"""

import builtins
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from ftlab_kit import device
from ftlab_kit.configs.evaluation import EvaluationConfig
from ftlab_kit.configs.settings import Real, Settings, Whole, described, setting, takes_settings
from ftlab_kit.errors import ConfigError, Conflict, NotFound, nearest
from ftlab_kit.workspace import Workspace, now

__all__ = [
    "Config", "EvaluationConfig", "delete", "get", "list", "preset", "save", "settings",
    "takes_settings", "update",
]  # fmt: skip


class Config(Settings):
    """Everything that decides a job besides its data.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    model: str = setting("smollm2-135m-instruct", "Base model: a name of the catalogue")
    method: Literal["sft", "dpo", "grpo"] = setting(
        "sft", "sft learns answers, dpo which of two is better, grpo what a reward prefers"
    )
    adapter: Literal["lora", "none"] = setting(
        "lora", "lora trains a small adapter, none trains every weight"
    )
    adapter_rank: Whole = setting(16, "Rank r of the adapter matrices", ge=1, le=512)
    adapter_alpha: Whole = setting(32, "Adapter scale is alpha / r", ge=1, le=2048)
    adapter_dropout: Real = setting(0.0, "Dropout before the adapter", ge=0, lt=1)
    adapter_targets: str = setting(
        "all-linear", "Layers that get an adapter: all-linear, or module names with commas"
    )

    learning_rate: Real = setting(2e-4, "Peak learning rate", live=True, gt=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "How the learning rate falls after warm-up", live=True
    )
    warmup_fraction: Real = setting(
        0.05, "Share of the steps in which the learning rate rises", unit="of all steps", ge=0, le=1
    )
    weight_decay: Real = setting(0.0, "AdamW's weight decay", live=True, ge=0, le=1)
    max_grad_norm: Real = setting(1.0, "Gradients are clipped to this norm", live=True, gt=0)
    epochs: Real = setting(3.0, "Passes over the rows", unit="epochs", live=True, gt=0, le=1000)
    max_steps: Whole | None = setting(
        None, "Stop after so many steps, whatever the epochs", unit="steps", live=True, ge=1
    )
    effective_batch: Whole = setting(8, "Rows an optimizer step learns from", unit="rows", ge=1)
    micro_batch: Annotated[Whole, Field(ge=1)] | Literal["auto"] | None = setting(
        None, "Rows in memory at once; empty: up to 8; auto: as many as fit", unit="rows"
    )
    max_length: Whole = setting(1024, "A longer row is cut", unit="tokens", ge=8, le=1_048_576)
    packing: bool = setting(
        False, "Join short rows up to max_length; they don't see each other (sft)"
    )
    streaming: bool = setting(
        False, "Turn rows into tokens when they are needed, not all at the start (sft)"
    )
    neftune_alpha: Real | None = setting(
        None, "Noise on the embeddings, as in NEFTune; empty: none (sft)", gt=0
    )

    beta: Real | None = setting(
        None, "Pull towards the base model; empty: 0.1 for dpo, none for grpo", ge=0
    )
    reward: Literal["chrf", "exact"] = setting(
        "chrf", "What grpo rewards: likeness to the reference answer, or equality with it"
    )
    answers_per_prompt: Whole = setting(4, "Answers that grpo compares", unit="answers", ge=2)
    max_new_tokens: Whole = setting(64, "A grpo answer is cut there", unit="tokens", ge=1)
    temperature: Real = setting(1.0, "How freely grpo samples answers", gt=0, le=10)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "auto takes what this device does best; on a processor that is bf16 where it can"
    )
    deterministic: bool = setting(
        True, "On a GPU, take only kernels that give the same bits each time"
    )
    gradient_checkpointing: bool = setting(False, "Trade a third more time for much less memory")
    threads: Whole | None = setting(
        None, "Processor threads; empty: one for each physical core", unit="threads", ge=1
    )
    processes: Whole = setting(
        1, "Processes that share a job (torchrun)", unit="processes", ge=1, le=1024
    )
    seed: Whole = setting(0, "Seeds the adapter, the order of the rows and dropout", ge=0, lt=2**32)

    log_every_steps: Whole = setting(
        1, "Metrics every so many steps", unit="steps", live=True, ge=1
    )
    save_every_steps: Whole | None = setting(
        None, "Checkpoint cadence; empty: five in a job", unit="steps", live=True, ge=1
    )
    eval_every_steps: Whole | None = setting(
        None, "Held-out loss cadence; empty: with each checkpoint", unit="steps", live=True, ge=1
    )
    eval_rows: Whole | None = setting(
        512,
        "Held-out rows whose loss is measured while it trains, the same ones each time, so that "
        "their number bounds the time it takes; empty: all",
        unit="rows",
        ge=1,
    )
    sample_every_steps: Whole | None = setting(
        None,
        "Answers to the same few prompts every so many steps, after the first step and at the end; "
        "empty: never",
        unit="steps",
        live=True,
        ge=1,
    )
    sample_rows: Whole = setting(
        4,
        "Prompts of these answers: the first held-out rows, or of the rows where none are held out",
        unit="rows",
        live=True,
        ge=1,
        le=32,
    )
    sample_tokens: Whole = setting(
        48, "Such an answer is cut there", unit="tokens", live=True, ge=1, le=1024
    )
    keep_checkpoints: Whole = setting(3, "Newest checkpoints that are kept", ge=1)
    early_stopping: Whole | None = setting(
        None,
        "End after so many held-out losses in a row that are no better; empty: never",
        unit="measurements",
        live=True,
        ge=1,
    )

    guard: Literal["stop", "skip", "rollback"] = setting(
        "stop",
        "When the loss or the gradient is no number, or a spike: fail, leave the batch out, or go "
        "back to the last checkpoint with half the learning rate",
        live=True,
    )
    spike_factor: Real | None = setting(
        None,
        "A spike is so many times the median of the last 20 steps; empty: no look",
        live=True,
        gt=1,
    )
    guard_tries: Whole = setting(
        3, "Batches left out, or ways back, before a job fails", live=True, ge=1
    )
    max_restarts: Whole = setting(0, "Restarts after a crash of the worker", ge=0)

    wandb: Literal["off", "offline", "online"] = setting(
        "off", "Send the same metrics to Weights & Biases"
    )
    wandb_project: str = setting("ftlab", "Project at Weights & Biases", min_length=1)

    @property
    def share(self) -> int:
        """The rows of an optimizer step that one process learns from."""
        return self.effective_batch // self.processes

    @property
    def rows_at_once(self) -> int:
        """The micro-batch: what is set, or the largest divisor of a process's share up to 8."""
        if isinstance(self.micro_batch, int):
            return self.micro_batch
        return max(size for size in range(1, 9) if self.share % size == 0)

    @property
    def prompts_a_step(self) -> int:
        """The rows of the dataset that an optimizer step takes; grpo answers each several times."""
        group = self.answers_per_prompt if self.method == "grpo" else 1
        return self.effective_batch // group

    def threads_per_process(self) -> int:
        """Return how many threads each of a job's processes computes with on this machine."""
        return device.threads_per_process(self.threads, self.processes)

    def training_precision(self) -> str:
        """Return what a job computes in on this machine: 'fp32', 'bf16' or 'fp16'.

        Raises:
            InputError: This device can't compute in the precision that is set.
        """
        return device.training_precision(self.precision, method=self.method, adapter=self.adapter)

    def conflicts(self) -> Iterator[str]:
        """Yield, for settings that are fine alone but not together, what is and what to do."""
        batch, rows = self.effective_batch, self.micro_batch
        if batch % self.processes:
            yield (
                f"effective_batch is {batch}, processes {self.processes}; expected an "
                "effective_batch that the processes can share evenly. Choose another of the two."
            )
        elif isinstance(rows, int) and self.share % rows:
            yield (
                f"effective_batch is {batch}, micro_batch {rows}"
                f"{f', processes {self.processes}' if self.processes > 1 else ''}; "
                "expected a micro_batch that divides effective_batch (a process's share of it). "
                "Choose another of the two."
            )
        if self.method == "grpo" and batch % self.answers_per_prompt:
            yield (
                f"effective_batch is {batch}, answers_per_prompt {self.answers_per_prompt}; "
                "expected an effective_batch of whole groups of answers. Choose another of the two."
            )
        for name in ("packing", "streaming", "neftune_alpha"):
            if getattr(self, name) and self.method != "sft":
                method = repr(self.method)
                yield f"{name} is set, method is {method}; expected 'sft' with it. Unset one."
        if self.packing and self.streaming:
            yield "packing and streaming are both set; packing must see all rows first. Unset one."


# the settings in groups, each by the name of its first one
GROUPS = {
    "what is trained": "model",
    "learning": "learning_rate",
    "preferences and rewards": "beta",
    "machine": "precision",
    "cadence": "log_every_steps",
    "when something goes wrong": "guard",
    "tracking": "wandb",
}

# Fewer rows want more passes and smaller steps; the rest is the defaults'.
PRESETS: dict[str, dict[str, Any]] = {
    "dozens": {"epochs": 5.0, "effective_batch": 4, "learning_rate": 5e-4},
    "hundreds": {"epochs": 3.0, "effective_batch": 8, "learning_rate": 5e-4},
    "thousands": {"epochs": 2.0, "effective_batch": 32, "learning_rate": 3e-4},
}


@takes_settings(Config)
def preset(name: str | int, **changes: Any) -> Config:
    """Return a config that fits a number of rows.

    Args:
        name: 'dozens' (50 to 200 rows), 'hundreds' (200 to 1,000), 'thousands' (1,000 to 5,000), or
            the number of rows itself.
        changes: Settings that differ from the preset.

    Raises:
        NotFound: No such preset.
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
    """Keep a config under a name and return it.

    Raises:
        Conflict: The name is taken.
    """
    if not name.strip():
        raise ConfigError("The config's name is empty; expected a word. Give it a name.")
    settings = config.model_dump()
    if not ws.store.insert_new("configs", name=name, settings=settings, created_at=now()):
        raise Conflict(
            f"There is a config {name!r} already. "
            "Change it with configs.update, or take another name."
        )
    return config


def get(ws: Workspace, name: str) -> Config:
    """Return the config that was saved under a name.

    Raises:
        NotFound: Nothing was saved under it.
    """
    row = ws.store.get("configs", name=name)
    if row is None:
        names = [item["name"] for item in ws.store.rows("configs")]
        raise NotFound(
            f"There is no config {name!r}.{nearest(name, names)} "
            "See them with configs.list(ws), save one with configs.save(ws, name, config)."
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
    """
    config = get(ws, name).but(**changes)
    ws.store.update("configs", {"name": name}, settings=config.model_dump())
    return config


def delete(ws: Workspace, name: str) -> None:
    """Remove a saved config; jobs that ran with it keep their copy."""
    get(ws, name)
    ws.store.delete("configs", name=name)


def settings() -> builtins.list[dict[str, Any]]:
    """Return every setting of a job with default, unit, whether it is live, bounds and help."""
    return described(Config)
