"""Benchmarks; timings are no tests, and machines are noisy: trust ratios and medians.

python -m tests.benchmarks quickstart    the first command, phase by phase
python -m tests.benchmarks view          what the live view takes from the training
python -m tests.benchmarks train         fine-tuning beside TRL, by turns in one run
python -m tests.benchmarks perplexity    perplexity beside lm-eval's, where that is installed
python -m tests.benchmarks order         what is learnt from shuffled batches, and from like lengths
python -m tests.benchmarks startup       from trainers.start to the first optimizer step
python -m tests.benchmarks rows          a million rows validated, beside `datasets`
python -m tests.benchmarks likeness      near duplicates among a hundred thousand rows
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import typer

from ftlab_kit import Workspace, datasets, metrics, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.store import TABLES
from ftlab_kit.widgets.live import POLL_S, TrainerView
from ftlab_kit.workspace import now
from tests.benchmarks import race, rows

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def quickstart(runs: int = 1) -> None:
    """Run `ftlab quickstart` in a fresh workspace; it says itself where the time went."""
    minutes = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "ftlab_kit.cli", "-w", f"{folder}/lab", "quickstart"]
            began = time.perf_counter()
            subprocess.run(command, check=True)
            minutes.append((time.perf_counter() - began) / 60)
    print(f"quickstart: median {median(minutes):.2f} min of {runs} (limit 6)")


@app.command()
def view(steps: int = 50_000, refreshes: int = 50) -> None:
    """Follow a job with a long history and print the view's share of the machine's processor time.

    The history is written, not trained: what the view reads and draws is the same.
    """
    os.environ["FTLAB_INTERACTIVE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        chats = datasets.add(ws, datasets.PUDDLE_AND_PINE)
        job = trainers._enqueue(ws, Config(model="tiny", max_steps=steps * 2), chats)
        began = time.perf_counter()
        with ws.store.transaction() as connection:
            rows = [
                {"job_id": job.id, "step": step, "loss": 3 + step % 7 / 10, "at": now()}
                for step in range(1, steps + 1)
            ]
            connection.execute(TABLES.tables["metrics"].insert(), rows)
        print(f"{steps} steps written in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        watched = TrainerView(ws, job)
        print(f"whole history shown in {time.perf_counter() - began:.2f} s (limit 1)")
        watched.close()
        took, sizes = [], []
        for step in range(steps + 1, steps + refreshes + 1):
            metrics.write(ws, job.id, step, loss=3 + step % 7 / 10)
            began = time.process_time()
            watched.refresh()
            took.append(time.process_time() - began)
            sizes.append(sum(len(panel.value) for panel in watched._panels.values()))
        share = median(took) / POLL_S / (os.cpu_count() or 1)
        print(f"a refresh: median {median(took) * 1e3:.1f} ms of processor time (limit 10)")
        print(f"a refresh: {median(sizes) / 1e3:.1f} kB of pictures")
        print(
            f"share of {os.cpu_count()} cores, one refresh in {POLL_S:g} s: {share:.2%} (limit 1%)"
        )
        ws.close()


@app.command()
def train(
    model: str = "smollm2-135m-instruct",
    data: Path = datasets.PUDDLE_AND_PINE,
    steps: int = 6,
    rounds: int = 3,
) -> None:
    """Fine-tune under the kit and under TRL: the same rows, adapter, batch, and a process each.

    TRL is tuned by hand for the processor, and taken once as it comes.
    """
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        datasets.add(ws, data)
        path = models.get(ws, model).path or Path()
        race.train(ws, path, model, steps=steps, rounds=rounds)
        ws.close()


@app.command()
def order(model: str = "smollm2-135m-instruct", steps: int = 35, rounds: int = 2) -> None:
    """Train by shuffled batches and by ones of like length; print the held-out losses."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        datasets.split(ws, datasets.add(ws, datasets.PUDDLE_AND_PINE), held_out=0.08)
        race.order(ws, model, steps=steps, rounds=rounds)
        ws.close()


@app.command()
def perplexity(
    model: str = "smollm2-135m-instruct", data: Path = datasets.PUDDLE_AND_PINE, rounds: int = 3
) -> None:
    """Score answers under the kit and under lm-eval: the same model, rows and tokens."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        path = models.pull(ws, model).path or Path()
        race.perplexity(ws, path, datasets.add(ws, data), rounds=rounds)
        ws.close()


@app.command()
def startup(model: str = "smollm2-135m-instruct", rounds: int = 5) -> None:
    """Start jobs and print the seconds to their first optimizer step, by where they went."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        race.startup(
            ws, Config(model=model, max_steps=1), datasets.add(ws, datasets.PUDDLE_AND_PINE), rounds
        )
        ws.close()


@app.command("rows")
def validation(n_rows: int = 1_000_000, rounds: int = 3) -> None:
    """Validate a file of a million rows, beside `datasets` and a plain checker."""
    rows.validation(n_rows, rounds)


@app.command()
def likeness(n_rows: int = 100_000) -> None:
    """Find near duplicates among a hundred thousand rows, and look at their quality twice."""
    rows.likeness(n_rows)


if __name__ == "__main__":
    app()
