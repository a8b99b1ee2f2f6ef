"""Supervised fine-tuning: TRL's SFTTrainer with our row order, answer loss and checkpoints."""

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from ftlab_kit.configs import Config
from ftlab_kit.errors import OutOfRoom, room_on_disk
from ftlab_kit.models import likelihood
from ftlab_kit.models.tokens import IGNORED, Encoded
from ftlab_kit.trainers.order import LengthOrder

FULL_BYTES = 2**20  # torch does not say why it could not write; a disk with less is full


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, but the loss is computed at trained positions only.

    `seal` is called with the folder of every checkpoint once it is written.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Encoded],
        held_out: Sequence[Encoded],
        seal: Callable[[Path], None],
        **kwargs: Any,
    ) -> None:
        """Take rows and held-out rows as tokens; the rest is TRL's."""
        from datasets import Dataset

        self.lengths = [len(row.input_ids) for row in rows]
        self.held_out = held_out
        self.seal = seal
        self.n_tokens = self.n_rows = 0
        columns = {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
        }
        super().__init__(train_dataset=Dataset.from_dict(columns), **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthOrder:
        args = self.args
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return LengthOrder(self.lengths, batch, args.seed)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Count the rows and real tokens of a micro-batch, then learn from it."""
        self.n_tokens += int(inputs["attention_mask"].sum())
        self.n_rows += len(inputs["input_ids"])
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of a trained token, over all micro-batches of the step together."""
        # the model's own forward, which accelerate wraps, is not called as a whole
        with self.accelerator.autocast():
            total, _ = likelihood.answer_loss(
                model, inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
            )
        count = (
            (inputs["labels"][:, 1:] != IGNORED).sum()
            if num_items_in_batch is None
            else num_items_in_batch
        )
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the mean loss of a trained token over the held-out rows."""
        with self.accelerator.autocast():
            sums = likelihood.nll(
                self.model, self.held_out, pad_token_id=self.processing_class.pad_token_id
            )
        n_trained = sum(row.n_trained for row in self.held_out)
        values = {"eval_loss": math.fsum(sums) / max(1, n_trained)}
        self.log(values)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                with room_on_disk(f"the checkpoint of step {self.state.global_step}"):
                    # past TRL's own, which writes a model card into every checkpoint
                    transformers.Trainer._save_checkpoint(self, model, trial)
            except RuntimeError as error:
                if shutil.disk_usage(self.args.output_dir).free > FULL_BYTES:
                    raise
                raise OutOfRoom(
                    f"The disk is full while writing the checkpoint of step "
                    f"{self.state.global_step}; nothing was kept of it. Free some space."
                ) from error
            undo.pop_all()
        self.seal(folder)


def arguments(config: Config, folder: Path, *, n_rows: int, precision: str) -> SFTConfig:
    """Return TRL's arguments for a config.

    Args:
        folder: Where checkpoints are written before they are sealed.
        precision: fp32, bf16 or fp16, as the device can do.
    """
    micro_batch = config.rows_at_once
    steps = total_steps(config, n_rows)
    save = config.save_every_steps or max(1, math.ceil(steps / 5))
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=config.effective_batch // micro_batch,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=round(config.warmup_fraction * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        max_steps=steps,
        optim="adamw_torch_fused",
        logging_steps=config.log_every_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save,
        eval_strategy="no",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        gradient_checkpointing=config.gradient_checkpointing,
        max_length=None,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def total_steps(config: Config, n_rows: int) -> int:
    """Return the number of optimizer steps of a job on so many rows."""
    an_epoch = math.ceil(n_rows / config.effective_batch)
    return config.max_steps or max(1, round(config.epochs * an_epoch))


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
