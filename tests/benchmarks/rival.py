"""LLaMA-Factory's leg of a race, run by the Python of an environment of its own.

    PYTHON rival.py MODEL ROWS STEPS SEED SETTINGS

MODEL is a folder, ROWS a folder with a `rows.json` of chats in training order, SETTINGS those that
are not LLaMA-Factory's defaults, as JSON. Prints one line of JSON, as every leg does.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Records when each step starts, and its loss."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, flow: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def main(model: str, rows: str, steps: int, seed: int, settings: dict[str, Any]) -> None:
    """Train and print time, losses and memory."""
    form = {"formatting": "sharegpt", "columns": {"messages": "messages"}}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system"}
    dataset_info = {"rows": {"file_name": "rows.json", **form, "tags": tags}}
    (Path(rows) / "dataset_info.json").write_text(json.dumps(dataset_info))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "model_name_or_path": model,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_target": "all",
            "dataset": "rows",
            "dataset_dir": rows,
            "template": "smollm2",
            "overwrite_cache": True,
            "disable_shuffling": True,
            "output_dir": folder,
            "max_steps": steps + 2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "seed": seed,
            **settings,
        }
        run_exp(arguments, callbacks=[clock])
    seconds = [after - at for at, after in zip(clock.began[1:], clock.began[2:], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("\n" + json.dumps({"seconds": seconds, "losses": clock.losses, "peak_gib": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
