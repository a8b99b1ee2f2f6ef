"""Races between the kit and its rivals: every leg in a fresh process, by turns, in one run."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ftlab_kit import Workspace, datasets, device, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.jobs import processes
from ftlab_kit.lm import flops, likelihood, loading
from ftlab_kit.records import DatasetVersion
from tests.benchmarks import legs


def train(ws: Workspace, folder: Path, model: str, *, steps: int, rounds: int) -> None:
    """Run every leg of the training race by turns, and print medians, ratios and limits.

    LLaMA-Factory takes part where the environment names the Python that has it.
    """
    rivals = ["trl", *(["llama-factory"] if os.environ.get(legs.RIVAL_PYTHON) else [])]
    names = ["kit", *rivals]
    if device.has_bf16():
        names += ["kit fp32", *(f"{name} bf16" for name in rivals)]
    slow = [f"{name} defaults" for name in rivals]
    runs: dict[str, list[dict[str, Any]]] = {}
    peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for number in range(rounds):
        for name in [*names, *(slow if number == 0 else [])]:
            few = 2 if name in slow else steps
            for kind, measured in peaks.items():
                measured.append(flops.peak_gflop_per_s(kind, device.threads()))
            runs.setdefault(name, []).append(_leg(ws, name, model, few, number))
            print(f"round {number + 1}, {name}: {_speed(runs[name][-1]):.0f} tokens/s", flush=True)
    needed = flops.training_flop(folder, rank=Config().adapter_rank)
    assert needed is not None, "the race needs a model of linear layers"
    _show(runs, {kind: median(measured) for kind, measured in peaks.items()}, needed)


def _leg(ws: Workspace, name: str, model: str, steps: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.legs", name, str(ws.root), model]
    # the kit starts its workers with these; a rival keeps the defaults
    env = dict(os.environ) | (
        {}
        if not name.startswith("kit")
        else {"GLIBC_TUNABLES": processes.ALLOCATION, "GOMP_SPINCOUNT": device.SPIN}
    )
    done = subprocess.run(
        [*command, str(steps), str(seed)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _speed(run: dict[str, Any]) -> float:
    return float(run["tokens"] / sum(run["seconds"]))


def _show(
    runs: dict[str, list[dict[str, Any]]], peaks: dict[str, float], needed: flops.TokenFlop
) -> None:
    """Print a line for each leg: speed, how much faster the kit is, memory, share of the peak."""
    speeds = {name: median(_speed(run) for run in leg) for name, leg in runs.items()}
    table = Table(
        "leg",
        "tokens/s",
        "kit is",
        "kit fp32 is",
        "peak GiB",
        "of fp32 peak",
        "of bf16 peak",
        "loss",
    )
    for name, leg in runs.items():
        first = leg[0]
        done = speeds[name] * needed.mean(first["trained"]) / 1e9
        table.add_row(
            name,
            f"{speeds[name]:.0f}",
            _ratio(runs, "kit", name),
            _ratio(runs, "kit fp32", name),
            f"{median(run['peak_gib'] for run in leg):.2f}",
            *(f"{done / peak:.0%}" for peak in peaks.values()),
            " ".join(
                f"{loss:.4f}" for loss in first["losses"][:: max(1, len(first["losses"]) - 1)]
            ),
        )
    Console(width=120).print(table)
    for kind, peak in peaks.items():
        print(
            f"matrix product of 2048 by 2048, {kind}: {peak:.0f} GFLOP/s, the faster of torch's two"
        )
    for name in ("kit", "kit fp32"):
        if name in runs:
            print(
                f"losses of {name} and of trl in fp32: {_apart(runs[name], runs['trl']):.1e} apart"
            )
    own = [run["own_s"] / median(run["seconds"]) for run in runs["kit"]]
    print(f"commands, metrics and guard take {median(own):.2%} of the kit's step (limit 2%)")
    print("tokens are counted without padding; losses are of the first and the last step")
    print("LLaMA-Factory also trains the line break after an answer: its losses can't be compared")


def _ratio(runs: dict[str, list[dict[str, Any]]], one: str, other: str) -> str:
    """Return how much faster one leg is than another: the median of the rounds' own ratios."""
    if one not in runs:
        return "–"
    pairs = zip(runs[one], runs[other], strict=False)
    return f"{median(_speed(left) / _speed(right) for left, right in pairs):.2f} x"


def _apart(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    """Return the largest relative difference between the losses of two legs, over all steps."""
    pairs = [
        (left, right)
        for mine, theirs in zip(one, other, strict=True)
        for left, right in zip(mine["losses"], theirs["losses"], strict=True)
    ]
    return max(abs(left / right - 1) for left, right in pairs)


def order(ws: Workspace, model: str, *, steps: int, rounds: int) -> None:
    """Print held-out loss and speed with shuffled batches and with ones of similar length."""
    runs: dict[str, list[dict[str, Any]]] = {"shuffled": [], "similar length": []}
    for seed in range(rounds):
        for name, leg in runs.items():
            leg.append(_leg(ws, name, model, steps, seed))
            last = leg[-1]
            print(f"seed {seed}, {name}: held-out loss {last['eval_loss']:.4f}", flush=True)
    for name, leg in runs.items():
        losses = [run["eval_loss"] for run in leg]
        speed = median(_speed(run) for run in leg)
        print(f"{name}: held-out loss {median(losses):.4f}, {speed:.0f} tokens/s")


def perplexity(ws: Workspace, folder: Path, version: DatasetVersion, *, rounds: int) -> None:
    """Score the answers of single-turn rows by the kit and by lm-eval, by turns."""
    if importlib.util.find_spec("lm_eval") is None:
        print("lm-eval is not installed: pip install lm-eval")
        return
    chats = [*datasets.rows(ws, version)]
    alone = [index for index, row in enumerate(chats) if len(row["messages"]) <= 3]
    encoded = tokenized.read(ws, version, folder)
    rows = [encoded[index] for index in alone]
    tokenizer = loading.tokenizer(folder)
    ours, theirs, values = [], [], []
    fast, rival = loading.load(folder).eval(), _lm_eval(folder, tokenizer)
    requests = [_request(row) for row in rows]
    for _ in range(rounds):
        began = time.perf_counter()
        kit = likelihood.nll(fast, rows, pad_token_id=tokenizer.pad_token_id)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        scored = rival._loglikelihood_tokens(requests, disable_tqdm=True)
        theirs.append(time.perf_counter() - began)
        values.append((sum(kit), -sum(score for score, _ in scored)))
    n_trained, n_tokens = (
        sum(row.n_trained for row in rows),
        sum(len(row.input_ids) for row in rows),
    )
    each = [torch.tensor(value / n_trained).exp().item() for value in values[0]]
    ratios = [right / left for left, right in zip(ours, theirs, strict=True)]
    print(f"{len(rows)} rows, {n_tokens} tokens, {n_trained} of them scored")
    apart = abs(each[0] / each[1] - 1)
    print(f"perplexity: kit {each[0]:.5f}, lm-eval {each[1]:.5f}, apart {apart:.1e}")
    print(f"seconds: kit {median(ours):.2f}, lm-eval {median(theirs):.2f}")
    print(f"the kit is {median(ratios):.2f} times as fast (limit 4)")


def _lm_eval(folder: Path, tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return HFLM(pretrained=plain, tokenizer=tokenizer, batch_size=8, max_length=2048)


def _request(row: Any) -> Any:
    """Return a row in lm-eval's form: context and continuation as tokens."""
    start = next(at for at, label in enumerate(row.labels) if label == row.input_ids[at])
    end = max(at for at, label in enumerate(row.labels) if label == row.input_ids[at]) + 1
    return ("", ""), row.input_ids[:start], row.input_ids[start:end]


def startup(ws: Workspace, config: Config, rows: DatasetVersion, rounds: int) -> None:
    """Print the seconds from `trainers.start` to the first step, the first start and the next."""
    took = []
    for number in range(rounds):
        began = time.perf_counter()
        job = trainers.start(ws, config, rows)
        queued = time.perf_counter() - began
        trainers.wait(ws, job, until_step=1)
        took.append(time.perf_counter() - began)
        print(f"start {number + 1}: queued after {queued:.1f} s, first step after {took[-1]:.1f} s")
        trainers.wait(ws, job)
    print(f"median {median(took):.1f} s (limit 12)")
