"""One leg of a race in a process of its own: the same job under the kit, or under a rival.

    python -m tests.benchmarks.legs NAME FOLDER STEPS SEED

FOLDER is a workspace with the model, and with the rows as its first dataset version. Prints one
line of JSON: the seconds of every step but the first, their tokens and the share that is trained,
the losses, and the peak memory.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from ftlab_kit import Workspace, datasets, device, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.jobs import worker
from ftlab_kit.lm import loading
from ftlab_kit.trainers.run import job as training
from ftlab_kit.trainers.run import setup, trainer
from ftlab_kit.trainers.run.callback import CommandCallback
from ftlab_kit.trainers.run.sampler import ShuffledSampler
from ftlab_kit.trainers.run.trainer import ExactTrainerMixin

ROWS = 8  # the effective batch of every leg
LENGTH = 1024


class Clock(TrainerCallback):
    """Records when each step starts, its loss and its tokens."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[int] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, flow: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.tokens.append(int(logs.get("num_tokens", 0)))

    def steps(self) -> list[float]:
        """Return the seconds of each step but the first, which also warms the caches."""
        return [after - at for at, after in zip(self.began[1:], self.began[2:], strict=False)]


def config(model: str, steps: int, seed: int, **changes: Any) -> Config:
    """Return the job that every leg runs; it has two steps more than are timed."""
    return Config(
        model=model,
        max_steps=steps + 2,
        effective_batch=ROWS,
        max_length=LENGTH,
        save_every_steps=10_000,
        seed=seed,
        schedule="constant",
        warmup_fraction=0.0,
        **changes,
    )


def kit(ws: Workspace, model: str, steps: int, seed: int, **changes: Any) -> dict[str, Any]:
    """Run the job under the kit, and time what the kit adds to the training itself."""
    clock, own = Clock(), [0.0]
    timed = {
        CommandCallback: ("on_step_begin", "on_step_end", "on_log"),
        ExactTrainerMixin: ("begin_step", "_check_step"),
    }
    for kind, names in timed.items():
        for name in names:
            setattr(kind, name, _timed(getattr(kind, name), own))
    job = trainers._enqueue(ws, config(model, steps, seed, **changes), 1)
    assert worker.main(str(ws.root), job.id, run=partial(training.run, callbacks=[clock])) == 0, (
        trainers.logs(ws, job)
    )
    losses = [row.loss for row in trainers.metrics(ws, job)]
    return {"seconds": clock.steps(), "losses": losses, "own_s": own[0] / len(clock.began)}


class SimilarLength(ShuffledSampler):
    """The alternative order: the rows of every eight batches are grouped by length."""

    def __iter__(self) -> Iterator[int]:
        for window in count(self.start // 8):
            rows = self._stream(window * 8 * self.batch, 8 * self.batch)
            rows.sort(key=self.lengths.__getitem__)
            generator = torch.Generator().manual_seed(self.seed + window)
            for number in torch.randperm(8, generator=generator).tolist():
                yield from rows[number * self.batch : (number + 1) * self.batch]


def train_and_evaluate(
    ws: Workspace, model: str, steps: int, seed: int, *, sampler: Any
) -> dict[str, Any]:
    """Train on the sample's train side and measure the loss on its held-out side.

    Args:
        sampler: The sampler class that orders the rows.
    """
    trainer.ShuffledSampler = sampler
    clock = Clock()
    job_config = config(model, steps, seed, learning_rate=1e-3)
    job = trainers._enqueue(ws, job_config, 2, held_out=3)
    assert worker.main(str(ws.root), job.id, run=partial(training.run, callbacks=[clock])) == 0, (
        trainers.logs(ws, job)
    )
    rows = trainers.metrics(ws, job)
    tokens = (rows[-2].n_tokens or 0) - (rows[0].n_tokens or 0)
    return {"seconds": clock.steps(), "eval_loss": rows[-1].eval_loss, "tokens": tokens}


def _timed(plain: Callable[..., Any], total: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            total[0] += time.perf_counter() - began

    return timed


class InOrder(SFTTrainer):
    """TRL's trainer, with the rows in the kit's order."""

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)


# tuned by hand for a processor: no gradient checkpointing, fp32
TUNED = {"gradient_checkpointing": False, "optim": "adamw_torch_fused", "bf16": False}


def trl(ws: Workspace, model: str, steps: int, seed: int, **settings: Any) -> dict[str, Any]:
    """Run the job under TRL's own trainer, on the rows of the kit's steps.

    Args:
        settings: SFTConfig's, where they differ from its defaults.
    """
    from datasets import Dataset

    job_config, clock = config(model, steps, seed), Clock()
    torch.set_num_threads(device.threads())
    folder = models.get(ws, model).path or Path()
    rows = _rows_of_steps(ws, folder, steps, seed)
    set_seed(seed)
    racer = InOrder(
        model=_plain(folder),
        args=SFTConfig(
            output_dir=str(ws.root / "rival"),
            per_device_train_batch_size=ROWS,
            max_steps=steps + 2,
            learning_rate=job_config.learning_rate,
            lr_scheduler_type="constant",
            use_cpu=not torch.cuda.is_available(),
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=seed,
            **settings,
        ),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [row.input_ids for row in rows],
                "labels": [row.labels for row in rows],
            }
        ),
        processing_class=loading.tokenizer(folder),
        peft_config=setup.adapter(job_config),
        callbacks=[clock],
    )
    racer.remove_callback(PrinterCallback)
    racer.train()
    tokens = clock.tokens[steps] - clock.tokens[0]
    return {"seconds": clock.steps(), "losses": clock.losses, "tokens": tokens}


RIVAL_PYTHON = "FTLAB_RIVAL_PYTHON"  # the Python of an environment that has LLaMA-Factory


def llama_factory(
    ws: Workspace, model: str, steps: int, seed: int, **settings: Any
) -> dict[str, Any]:
    """Run the job under LLaMA-Factory, on the rows of the kit's steps.

    Args:
        settings: LLaMA-Factory's, where they differ from its defaults.
    """
    job_config, folder = config(model, steps, seed), models.get(ws, model).path or Path()
    every = [*datasets.rows(ws, 1)]
    chats = [every[number]["messages"] for number in _order(ws, folder, steps, seed)]
    base_settings = {
        "lora_rank": job_config.adapter_rank,
        "lora_alpha": job_config.adapter_alpha,
        "learning_rate": job_config.learning_rate,
        "per_device_train_batch_size": ROWS,
        "cutoff_len": LENGTH,
        "use_cpu": not torch.cuda.is_available(),
    }
    with tempfile.TemporaryDirectory() as rows:
        rows_json = [{"messages": [*_system(messages), *messages]} for messages in chats]
        (Path(rows) / "rows.json").write_text(json.dumps(rows_json))
        command = [os.environ[RIVAL_PYTHON], str(Path(__file__).with_name("rival.py"))]
        command += [str(folder), rows, str(steps), str(seed), json.dumps(base_settings | settings)]
        env = dict(os.environ) | {"OMP_NUM_THREADS": str(device.threads())}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the system prompt of SmolLM2's own template; LLaMA-Factory's differs by a dot."""
    prompt = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    return [] if messages[0]["role"] == "system" else [{"role": "system", "content": prompt}]


def _plain(folder: Path) -> Any:
    """Return a model as transformers loads it, without the kit's layers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _rows_of_steps(ws: Workspace, folder: Path, steps: int, seed: int) -> list[Any]:
    """Return the rows of all steps in the kit's order."""
    rows = tokenized.read(ws, datasets.get(ws, 1), folder, LENGTH)
    return [rows[number] for number in _order(ws, folder, steps, seed)]


def _order(ws: Workspace, folder: Path, steps: int, seed: int) -> list[int]:
    """Return the numbers of the rows of all steps."""
    rows = tokenized.read(ws, datasets.get(ws, 1), folder, LENGTH)
    stream = ShuffledSampler(rows.lengths.tolist(), ROWS, seed)
    return [*islice(stream, ROWS * (steps + 2))]


LEGS: dict[str, Callable[..., dict[str, Any]]] = {
    "shuffled": lambda *race: train_and_evaluate(*race, sampler=ShuffledSampler),
    "similar length": lambda *race: train_and_evaluate(*race, sampler=SimilarLength),
    "kit": kit,
    "kit fp32": lambda *race: kit(*race, precision="fp32"),
    "trl": lambda *race: trl(*race, **TUNED),
    "trl bf16": lambda *race: trl(*race, **{**TUNED, "bf16": True}),
    "trl defaults": trl,
    "llama-factory": lambda *race: llama_factory(
        *race, disable_gradient_checkpointing=True, optim="adamw_torch_fused"
    ),
    "llama-factory bf16": lambda *race: llama_factory(
        *race, disable_gradient_checkpointing=True, optim="adamw_torch_fused", bf16=True
    ),
    "llama-factory defaults": llama_factory,
}


def main(name: str, folder: str, model: str, steps: int, seed: int) -> None:
    """Run one leg and print its result."""
    ws = Workspace(folder)
    result = LEGS[name](ws, model, steps, seed)
    path = models.get(ws, model).path or Path()
    rows = _rows_of_steps(ws, path, steps, seed)
    tokens = [len(row.input_ids) for row in rows]
    trained = [row.n_trained for row in rows]
    timed = slice(ROWS, ROWS * (steps + 1))
    result = {
        "tokens": sum(tokens[timed]),
        "trained": sum(trained[timed]) / sum(tokens[timed]),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        **result,
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
