"""From a config to what TRL's trainers want: arguments, adapter, model and rows."""

import importlib
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from ftlab_kit import datasets
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import Conflict
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

    Cadence and the last step are Steering's, the schedule is Steered's: here they are off.

    Args:
        folder: Where checkpoints are written before they are sealed.
    """
    method = importlib.import_module(METHODS[config.method])
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
    """Return PEFT's adapter for a config; its layers are found in the model, not in a table."""
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
    ws: Workspace, version: DatasetVersion, config: Config, found: Model, tokenizer: Any
) -> Any:
    """Return the rows of a version as the config's method learns from them.

    Args:
        found: The model, whose tokenizer this is.
    """
    assert found.path is not None
    length = min(config.max_length, found.context_tokens)
    if config.streaming:
        return row_forms.when_needed(
            version.path, lambda row: tokenized.encode(tokenizer, row, length)[0]
        )
    method = importlib.import_module(METHODS[config.method])
    if method.READS_TOKENS:
        return method.rows(tokenized.read(ws, version, found.path, length), config)
    return method.rows(datasets.rows(ws, version), config)


def count(found: Any) -> int:
    """Return how many rows of a version went into what a method learns from."""
    if isinstance(found, row_forms.Rows):
        return sum(len(lines) for lines in found.lines)
    return len(found)


def model(ws: Workspace, row: dict[str, Any], folder: Path) -> Any:
    """Return the model that a job starts from; a fork's has what its parent learnt in every weight.

    What a parent learnt in an adapter is taken over by `warm_start` into the new adapter.
    """
    config = Config(**row["config"])
    precision = config.training_precision()
    dtype = adapters.weight_dtype(precision, adapter=config.adapter)
    parent = _parent(ws, row)
    if parent is None:
        return loading.load(folder, dtype=dtype)
    damage = integrity.verify(parent)
    if damage:
        raise Conflict(f"What job {row['id']} begins with is damaged: {damage}. Fork it anew.")
    if not (parent / "adapter_config.json").exists():
        return loading.load(parent, dtype=dtype)
    if config.adapter == "none":
        merged = loading.load(folder, dtype=dtype, adapter=parent).merge_and_unload()
        return merged.requires_grad_(True)  # the adapter had frozen them
    return loading.load(folder, dtype=dtype)


def warm_start(ws: Workspace, row: dict[str, Any], found: Any) -> None:
    """Give a fork's new adapter what its parent's had learnt.

    A larger rank keeps the function: the parent's matrices, scaled to the new alpha / r, beside
    new rows of A and zero columns of B.
    """
    parent = _parent(ws, row)
    if parent is None or not (parent / "adapter_config.json").exists():
        return
    if Config(**row["config"]).adapter == "none":
        return
    from safetensors.torch import load_file

    learnt = load_file(parent / "adapter_model.safetensors")
    old = LoraConfig.from_pretrained(str(parent))
    new = found.peft_config["default"]
    scale = (old.lora_alpha / old.r) / (new.lora_alpha / new.r)
    have = {name.replace(".default.", "."): weight for name, weight in found.named_parameters()}
    with torch.no_grad():
        for name, value in learnt.items():
            if name not in have or any(
                a < b for a, b in zip(have[name].shape, value.shape, strict=True)
            ):
                raise Conflict(
                    f"The adapter of job {row['parent_id']} has rank {old.r} on {name}; the fork's "
                    "adapter has no room for it. Keep adapter_targets, and a rank that is as large."
                )
            target = have[name]
            if ".lora_B." in name:
                target.zero_()
            target[tuple(slice(size) for size in value.shape)] = value.to(target) * (
                scale if ".lora_B." in name else 1.0
            )
    if Config(**row["config"]).method != "sft":
        _keep_as_reference(found, new)


def reference(ws: Workspace, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the model that preferences are measured against, where TRL would take the wrong one.

    A fork without an adapter begins with its parent's weights, which TRL does not find by name.
    """
    config = Config(**row["config"])
    is_wanted = config.method == "dpo" and config.adapter == "none" and row["parent_id"]
    return {"ref_model": model(ws, row, folder)} if is_wanted else {}


def _keep_as_reference(found: Any, new: Any) -> None:
    """Give a model a second, frozen adapter with what the first one begins with.

    TRL measures preferences against an adapter of this name, else against the bare base model.
    """
    found.add_adapter("ref", new)
    by_name = dict(found.named_parameters())
    for name, weight in by_name.items():
        if ".ref." in name:
            weight.data.copy_(by_name[name.replace(".ref.", ".default.")].data)
            weight.requires_grad_(False)


def _parent(ws: Workspace, row: dict[str, Any]) -> Path | None:
    if row["parent_id"] is None or row["parent_step"] is None:
        return None
    return ws.job_folder(row["id"]) / PARENT
