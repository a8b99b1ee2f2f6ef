"""The settings of a job, stated once: default, bounds, unit and help stand in the field.

Forms, command-line flags and help are derived from `Config.model_fields`. A Config is frozen;
`config.but(learning_rate=1e-4)` returns a changed one, checked like the first.

Named configs live in the workspace: `save`, `get`, `list`, `update`, `delete`.
"""

import builtins
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ftlab_kit.errors import ConfigError, Conflict, NotFound, nearest
from ftlab_kit.workspace import Workspace, now


def _number(value: Any) -> Any:
    # papermill and shells hand 3e-5 on as text, and pydantic would take " 3e-5" but also True
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    return value


Real = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number)]


def _field(default: Any, text: str, *, unit: str = "", live: bool = False, **bounds: Any) -> Any:
    """Return a settings field; `live` marks what may change while a job runs."""
    extra: dict[str, Any] = {"unit": unit, "live": live}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


class Config(BaseModel):
    """Everything that decides a job besides its data.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = _field("smollm2-135m-instruct", "Base model: a name of the catalogue")
    method: Literal["sft", "dpo", "grpo"] = _field(
        "sft", "sft learns answers, dpo which of two is better, grpo what a reward prefers"
    )
    adapter: Literal["lora", "none"] = _field(
        "lora", "lora trains a small adapter, none trains every weight"
    )
    adapter_rank: Whole = _field(16, "Rank r of the adapter matrices", ge=1, le=512)
    adapter_alpha: Whole = _field(32, "Adapter scale is alpha / r", ge=1, le=2048)
    adapter_dropout: Real = _field(0.0, "Dropout before the adapter", ge=0, lt=1)
    adapter_targets: str = _field(
        "all-linear", "Layers that get an adapter: all-linear, or module names with commas"
    )

    learning_rate: Real = _field(2e-4, "Peak learning rate", live=True, gt=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = _field(
        "cosine", "How the learning rate falls after warm-up", live=True
    )
    warmup_fraction: Real = _field(
        0.05, "Share of the steps in which the learning rate rises", unit="of all steps", ge=0, le=1
    )
    weight_decay: Real = _field(0.0, "AdamW's weight decay", live=True, ge=0, le=1)
    max_grad_norm: Real = _field(1.0, "Gradients are clipped to this norm", live=True, gt=0)
    epochs: Real = _field(3.0, "Passes over the rows", unit="epochs", live=True, gt=0, le=1000)
    max_steps: Whole | None = _field(
        None, "Stop after so many steps, whatever the epochs", unit="steps", live=True, ge=1
    )
    effective_batch: Whole = _field(8, "Rows an optimizer step learns from", unit="rows", ge=1)
    micro_batch: Annotated[Whole, Field(ge=1)] | Literal["auto"] | None = _field(
        None, "Rows in memory at once; empty: up to 8; auto: as many as fit", unit="rows"
    )
    max_length: Whole = _field(1024, "A longer row is cut", unit="tokens", ge=8, le=1_048_576)
    packing: bool = _field(
        False, "Join short rows up to max_length; they don't see each other (sft)"
    )
    streaming: bool = _field(
        False, "Turn rows into tokens when they are needed, not all at the start (sft)"
    )
    neftune_alpha: Real | None = _field(
        None, "Noise on the embeddings, as in NEFTune; empty: none (sft)", gt=0
    )

    beta: Real | None = _field(
        None, "Pull towards the base model; empty: 0.1 for dpo, none for grpo", ge=0
    )
    reward: Literal["chrf", "exact"] = _field(
        "chrf", "What grpo rewards: likeness to the reference answer, or equality with it"
    )
    answers_per_prompt: Whole = _field(4, "Answers that grpo compares", unit="answers", ge=2)
    max_new_tokens: Whole = _field(64, "A grpo answer is cut there", unit="tokens", ge=1)
    temperature: Real = _field(1.0, "How freely grpo samples answers", gt=0, le=10)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = _field(
        "auto", "auto takes what this processor does best"
    )
    deterministic: bool = _field(
        True, "On a GPU, take only kernels that give the same bits each time"
    )
    gradient_checkpointing: bool = _field(False, "Trade a third more time for much less memory")
    threads: Whole | None = _field(
        None, "Processor threads; empty: one for each physical core", unit="threads", ge=1
    )
    processes: Whole = _field(
        1, "Processes that share a job (torchrun)", unit="processes", ge=1, le=1024
    )
    seed: Whole = _field(0, "Seeds the adapter, the order of the rows and dropout", ge=0, lt=2**32)

    log_every_steps: Whole = _field(1, "Metrics every so many steps", unit="steps", live=True, ge=1)
    save_every_steps: Whole | None = _field(
        None, "Checkpoint cadence; empty: five in a job", unit="steps", live=True, ge=1
    )
    eval_every_steps: Whole | None = _field(
        None, "Held-out loss cadence; empty: with each checkpoint", unit="steps", live=True, ge=1
    )
    keep_checkpoints: Whole = _field(3, "Newest checkpoints that are kept", ge=1)
    early_stopping: Whole | None = _field(
        None,
        "End after so many held-out losses in a row that are no better; empty: never",
        unit="measurements",
        live=True,
        ge=1,
    )

    guard: Literal["stop", "skip", "rollback"] = _field(
        "stop",
        "When the loss or the gradient is no number, or a spike: fail, leave the batch out, or go "
        "back to the last checkpoint with half the learning rate",
        live=True,
    )
    spike_factor: Real | None = _field(
        None,
        "A spike is so many times the median of the last 20 steps; empty: no look",
        live=True,
        gt=1,
    )
    guard_tries: Whole = _field(
        3, "Batches left out, or ways back, before a job fails", live=True, ge=1
    )
    max_restarts: Whole = _field(0, "Restarts after a crash of the worker", ge=0)

    wandb: Literal["off", "offline", "online"] = _field(
        "off", "Send the same metrics to Weights & Biases"
    )
    wandb_project: str = _field("ftlab", "Project at Weights & Biases", min_length=1)

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: Any, handler: Any) -> Self:
        try:
            config: Self = handler(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, cls)) from None
        for problem in _misfits(config):
            raise ConfigError(problem)
        return config

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

    def but(self, **changes: Any) -> Self:
        """Return this config with some settings changed, checked again."""
        return type(self)(**{**self.model_dump(), **changes})

    def _repr_html_(self) -> str:
        from ftlab_kit.records import CELL, show

        rows = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{show(getattr(self, name))}</td>"
            f"<td {CELL}>{_unit(name)}</td><td {CELL}>{field.description}</td></tr>"
            for name, field in type(self).model_fields.items()
        )
        return f"<table><caption>Config</caption>{rows}</table>"


def _misfits(config: Config) -> Iterator[str]:
    """Yield, for settings that are fine alone but not together, what is and what to do."""
    batch, rows = config.effective_batch, config.micro_batch
    if batch % config.processes:
        yield (
            f"effective_batch is {batch}, processes {config.processes}; expected an "
            "effective_batch that the processes can share evenly. Choose another of the two."
        )
    elif isinstance(rows, int) and config.share % rows:
        yield (
            f"effective_batch is {batch}, micro_batch {rows}"
            f"{f', processes {config.processes}' if config.processes > 1 else ''}; "
            "expected a micro_batch that divides effective_batch (a process's share of it). "
            "Choose another of the two."
        )
    if config.method == "grpo" and batch % config.answers_per_prompt:
        yield (
            f"effective_batch is {batch}, answers_per_prompt {config.answers_per_prompt}; expected "
            "an effective_batch of whole groups of answers. Choose another of the two."
        )
    for name in ("packing", "streaming", "neftune_alpha"):
        if getattr(config, name) and config.method != "sft":
            yield f"{name} is set, method is {config.method!r}; expected 'sft' with it. Unset one."
    if config.packing and config.streaming:
        yield "packing and streaming are both set; packing must see all rows first. Unset one."


def _unit(name: str) -> str:
    """Return the unit of a setting, '' where it has none."""
    extra = Config.model_fields[name].json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def _explain(error: ValidationError, settings: type[BaseModel] = Config) -> str:
    """Return a validation error as one sentence a setting: what is, what was expected, the cure."""
    found: dict[str, tuple[Any, builtins.list[str]]] = {}
    sentences = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else "config"
        if item["type"] == "extra_forbidden":
            sentences.append(
                f"{name!r} is no setting.{nearest(name, settings.model_fields)} "
                "All settings: ftlab config settings."
            )
        else:
            expected = item["msg"].removeprefix("Value error, ")
            expected = expected.removeprefix("Input should be ").replace("a valid ", "a ")
            # a setting that may be of two kinds has an error for each
            _, expectations = found.setdefault(name, (item["input"], []))
            expectations.append(expected.partition(", unable to parse")[0])
    for name, (value, expectations) in found.items():
        field = settings.model_fields.get(name)
        default = f" The default is {field.default!r}." if field else ""
        sentences.append(f"{name} is {value!r}; expected {' or '.join(expectations)}.{default}")
    return " ".join(sentences)


# Fewer rows want more passes and smaller steps; the rest is the defaults'.
PRESETS: dict[str, dict[str, Any]] = {
    "dozens": {"epochs": 5.0, "effective_batch": 4, "learning_rate": 5e-4},
    "hundreds": {"epochs": 3.0, "effective_batch": 8, "learning_rate": 5e-4},
    "thousands": {"epochs": 2.0, "effective_batch": 32, "learning_rate": 3e-4},
}


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


def update(ws: Workspace, name: str, **changes: Any) -> Config:
    """Change settings of a saved config and return it."""
    config = get(ws, name).but(**changes)
    ws.store.update("configs", {"name": name}, settings=config.model_dump())
    return config


def delete(ws: Workspace, name: str) -> None:
    """Remove a saved config; jobs that ran with it keep their copy."""
    get(ws, name)
    ws.store.delete("configs", name=name)


def settings() -> builtins.list[dict[str, Any]]:
    """Return every setting with default, unit, whether it is live, bounds and help."""
    schema = Config.model_json_schema()["properties"]
    skip = ("title", "description", "type", "anyOf", "default", "unit", "live")
    return [
        {
            "name": name,
            "default": field.default,
            "unit": _unit(name),
            "live": schema[name]["live"],
            "bounds": {key: value for key, value in schema[name].items() if key not in skip},
            "help": field.description,
        }
        for name, field in Config.model_fields.items()
    ]
