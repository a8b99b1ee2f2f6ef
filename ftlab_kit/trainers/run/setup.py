"""From a config to the arguments, adapter, model and rows of TRL's trainers."""

import importlib
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from ftlab_kit import datasets
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import Conflict, NotFound
from ftlab_kit.lm import adapters, loading
from ftlab_kit.records import DatasetVersion, Model
from ftlab_kit.trainers.forks import PARENT
from ftlab_kit.trainers.run import rows as row_forms
from ftlab_kit.workspace import Workspace

METHODS = {
    "sft": "ftlab_kit.trainers.run.sft",
    "dpo": "ftlab_kit.trainers.run.dpo",
    "grpo": "ftlab_kit.trainers.run.grpo",
}


def arguments(config: Config, folder: Path, tokenizer: Any) -> Any:
    """Return TRL's arguments for a config.

    What CommandCallback decides (when to log, evaluate and save, the last step) and what
    ExactTrainerMixin does (the schedule) is switched off here.

    Args:
        config: The job's settings.
        folder: Where checkpoints are written before they are committed.
        tokenizer: The model's.
    """
    method = importlib.import_module(METHODS[config.method])
    # a trainer that can split gets all rows of a step at once, and makes its own micro-batches
    loaded = config.share if method.TRAINER.can_split else config.rows_at_once
    precision = config.training_precision()
    return method.ARGUMENTS(
        output_dir=str(folder),
        per_device_train_batch_size=loaded,
        gradient_accumulation_steps=config.share // loaded,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=1,
        ignore_data_skip=True,
        optim="adamw_torch_fused",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        gradient_checkpointing=config.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **method.settings(config, tokenizer),
    )


def adapter(config: Config) -> LoraConfig | None:
    """Return PEFT's adapter config; PEFT finds the layers in the model itself."""
    if config.adapter == "none":
        return None
    targets: Any = config.adapter_targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
    return LoraConfig(
        r=config.adapter_rank,
        lora_alpha=config.adapter_alpha,
        lora_dropout=config.adapter_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def rows(
    ws: Workspace, version: DatasetVersion, config: Config, base: Model, tokenizer: Any
) -> Any:
    """Return the rows of a version in the form that the config's method trains on.

    Args:
        ws: The workspace.
        version: The dataset version.
        config: The job's settings.
        base: The base model; its files are here.
        tokenizer: The base model's.
    """
    folder = base.path
    if folder is None:
        raise NotFound(f"The files of model {base.id} are gone. Pull the model again.")
    length = min(config.max_length, base.context_tokens)
    if config.streaming:
        return row_forms.lazy(version.path, lambda row: tokenized.encode(tokenizer, row, length)[0])
    method = importlib.import_module(METHODS[config.method])
    if method.READS_TOKENS:
        return method.rows(tokenized.read(ws, version, folder, length), config)
    return method.rows(datasets.rows(ws, version), config)


def count_rows(training_rows: Any) -> int:
    """Return how many rows of a version are in what `rows` has returned."""
    if isinstance(training_rows, row_forms.Rows):
        return sum(len(lines) for lines in training_rows.lines)
    return len(training_rows)


def model(ws: Workspace, row: dict[str, Any], folder: Path) -> Any:
    """Return the model that a job starts from; a fork starts from its parent's full weights.

    If the parent has an adapter, `warm_start` copies it into the fork's new adapter instead.

    Raises:
        Conflict: The copy of the parent's checkpoint is damaged.
    """
    config = Config(**row["config"])
    precision = config.training_precision()
    dtype = adapters.weight_dtype(precision, adapter=config.adapter)
    parent = _parent(ws, row)
    if parent is None:
        return loading.load(folder, dtype=dtype)
    damage = integrity.verify(parent)
    if damage:
        raise Conflict(
            f"The checkpoint that job {row['id']} starts from is damaged: {damage}. Fork it again."
        )
    if not (parent / "adapter_config.json").exists():
        return loading.load(parent, dtype=dtype)
    if config.adapter == "none":
        merged = loading.load(folder, dtype=dtype, adapter=parent).merge_and_unload()
        return merged.requires_grad_(True)  # the adapter had frozen them
    return loading.load(folder, dtype=dtype)


def warm_start(ws: Workspace, row: dict[str, Any], peft_model: Any) -> None:
    """Copy the parent's adapter into a fork's new one.

    A larger rank keeps the function: the parent's matrices, scaled to the new alpha / r, beside
    new rows of A and zero columns of B.

    Raises:
        Conflict: The new adapter is too small for the parent's.
    """
    parent = _parent(ws, row)
    if parent is None or not (parent / "adapter_config.json").exists():
        return
    if Config(**row["config"]).adapter == "none":
        return
    from safetensors.torch import load_file

    parent_weights = load_file(parent / "adapter_model.safetensors")
    old = LoraConfig.from_pretrained(str(parent))
    new = peft_model.peft_config["default"]
    scale = (old.lora_alpha / old.r) / (new.lora_alpha / new.r)
    weights = {name.replace(".default.", "."): w for name, w in peft_model.named_parameters()}
    with torch.no_grad():
        for name, value in parent_weights.items():
            if name not in weights or any(
                a < b for a, b in zip(weights[name].shape, value.shape, strict=True)
            ):
                raise Conflict(
                    f"The adapter of job {row['parent_id']} has rank {old.r} on {name}; the fork's "
                    "adapter has no room for it. Keep adapter_targets, and a rank as large."
                )
            target = weights[name]
            if ".lora_B." in name:
                target.zero_()
            target[tuple(slice(size) for size in value.shape)] = value.to(target) * (
                scale if ".lora_B." in name else 1.0
            )
    if Config(**row["config"]).method != "sft":
        _add_reference_adapter(peft_model, new)


def reference(ws: Workspace, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the reference model of a preference job as an argument, where TRL's is the wrong one.

    A fork without an adapter starts from its parent's weights, while TRL would load the base model.
    """
    config = Config(**row["config"])
    is_needed = config.method == "dpo" and config.adapter == "none" and row["parent_id"]
    return {"ref_model": model(ws, row, folder)} if is_needed else {}


def _add_reference_adapter(peft_model: Any, config: LoraConfig) -> None:
    """Add a second, frozen adapter with the weights that the first one starts from.

    TRL uses an adapter named "ref" as the reference, and the bare base model if there is none.
    """
    peft_model.add_adapter("ref", config)
    by_name = dict(peft_model.named_parameters())
    for name, weight in by_name.items():
        if ".ref." in name:
            weight.data.copy_(by_name[name.replace(".ref.", ".default.")].data)
            weight.requires_grad_(False)


def _parent(ws: Workspace, row: dict[str, Any]) -> Path | None:
    if row["parent_id"] is None or row["parent_step"] is None:
        return None
    return ws.job_folder(row["id"]) / PARENT
