"""The same job twice: under the engine, and under TRL's SFTTrainer as it comes."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftlab_kit import Workspace, datasets, device, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.models import tokens, weights
from ftlab_kit.records import DatasetVersion
from ftlab_kit.trainers import build, worker
from ftlab_kit.trainers.order import RowStream
from ftlab_kit.trainers.steered import Steered
from ftlab_kit.trainers.steering import Steering

ROWS = 4


class Clock(TrainerCallback):
    """The wall time from the beginning of each step to the beginning of the next."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began.append(time.perf_counter())

    def steps(self) -> list[float]:
        """Return the seconds of each step but the first, which also warms the caches."""
        return [after - at for at, after in zip(self.began[1:], self.began[2:], strict=False)]


def config(model: str, steps: int, seed: int) -> Config:
    return Config(
        model=model,
        max_steps=steps + 2,
        effective_batch=ROWS,
        micro_batch=ROWS,
        max_length=256,
        save_every_steps=10_000,
        seed=seed,
    )


def engine(
    ws: Workspace, model: str, chats: DatasetVersion, steps: int, seed: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each step, and how many of them were the engine's own."""
    clock, own = Clock(), [0.0]
    timed = {
        Steering: ("on_step_begin", "on_step_end", "on_log"),
        Steered: ("begin_step", "_guard"),
    }
    before = {(kind, name): getattr(kind, name) for kind in timed for name in timed[kind]}
    for (kind, name), plain in before.items():
        setattr(kind, name, _timed(plain, own))
    try:
        job = trainers._enqueue(ws, config(model, steps, seed), chats)
        assert worker.main(str(ws.root), job.id, [clock]) == 0
    finally:
        for (kind, name), plain in before.items():
            setattr(kind, name, plain)
    return clock.steps(), [own[0] / len(clock.began)]


def _timed(plain: Callable[..., Any], total: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            total[0] += time.perf_counter() - began

    return timed


class InOrder(SFTTrainer):
    """TRL's trainer, given its rows in the order in which the engine takes them."""

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)


def trl(ws: Workspace, model: str, chats: DatasetVersion, steps: int, seed: int) -> list[float]:
    """Return the seconds of each step of TRL's own trainer."""
    from datasets import Dataset

    wanted = config(model, steps, seed)
    torch.set_num_threads(device.threads())
    folder = models.get(ws, model).path or Path()
    tokenizer = weights.tokenizer(folder)
    rows = [tokens.encode(tokenizer, row["messages"], 256) for row in datasets.rows(ws, chats)]
    stream = RowStream([len(row.input_ids) for row in rows], ROWS, seed)
    taken = [rows[number] for number in islice(stream, ROWS * (steps + 2))]
    clock = Clock()
    trainer = InOrder(
        model=weights.load(folder),
        args=SFTConfig(
            output_dir=str(ws.root / "bare"),
            per_device_train_batch_size=ROWS,
            max_steps=steps + 2,
            learning_rate=wanted.learning_rate,
            optim="adamw_torch_fused",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [row.input_ids for row in taken],
                "labels": [row.labels for row in taken],
            }
        ),
        processing_class=tokenizer,
        peft_config=build.adapter(wanted),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.steps()
