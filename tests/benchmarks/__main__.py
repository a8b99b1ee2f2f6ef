"""Benchmarks. Machines are noisy: trust ratios and medians.

python -m tests.benchmarks quickstart    the first command, phase by phase
python -m tests.benchmarks view          what the live view costs the training
python -m tests.benchmarks browser       what two thousand updates of it leave in the browser
python -m tests.benchmarks train         fine-tuning beside TRL and LLaMA-Factory, by turns
python -m tests.benchmarks perplexity    perplexity beside lm-eval's, where that is installed
python -m tests.benchmarks order         shuffled batches against batches of similar length
python -m tests.benchmarks startup       from trainers.start to the first optimizer step
python -m tests.benchmarks rows          a million rows validated, beside `datasets`
python -m tests.benchmarks duplicates    near duplicates among a hundred thousand rows
python -m tests.benchmarks graph         ten thousand facts, in a file and beside Graphiti on Neo4j
python -m tests.benchmarks document      a document from file to searchable graph
"""

import inspect
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import click

from ftlab_kit import Workspace, datasets, models
from ftlab_kit import graphs as knowledge
from ftlab_kit.configs import Config
from tests.benchmarks import graphs, race, rows, watching

app = click.Group(help=(__doc__ or "").split("\n")[0], no_args_is_help=True)


def benchmark(run: Callable[..., None], title: str = "") -> Callable[..., None]:
    """Add a benchmark as a command, with an option for each of its parameters."""
    options = [
        click.Option([name, "--" + name.replace("_", "-")], default=item.default, show_default=True)
        for name, item in inspect.signature(run).parameters.items()
    ]
    app.add_command(
        click.Command(title or run.__name__, params=[*options], callback=run, help=run.__doc__)
    )
    return run


@benchmark
def quickstart(runs: int = 1) -> None:
    """Run `ftlab quickstart` in a fresh workspace; it prints the time of each phase."""
    minutes = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "ftlab_kit.cli", "-w", f"{folder}/lab", "quickstart"]
            began = time.perf_counter()
            subprocess.run(command, check=True)
            minutes.append((time.perf_counter() - began) / 60)
    print(f"quickstart: median {median(minutes):.2f} min of {runs} (limit 6)")


@benchmark
def view(steps: int = 50_000, updates: int = 1_000) -> None:
    """Follow a job with a long history: the view's processor time, and how it grows."""
    with tempfile.TemporaryDirectory() as folder:
        watching.view(Path(folder), steps, updates)


@benchmark
def browser(updates: int = 2_000) -> None:
    """Redraw a live view in a real JupyterLab, and print the memory that the browser keeps."""
    with tempfile.TemporaryDirectory() as folder:
        watching.browser_memory(Path(folder), updates)


@benchmark
def graph(facts: int = 10_000, neo4j: str = "") -> None:
    """Store and search facts; beside Graphiti's own driver if a Neo4j is given.

    That server, such as bolt://127.0.0.1:7687, must be empty and without a password: it is wiped.
    """
    graphs.many(facts, neo4j or None)


@benchmark
def document(path: Path = knowledge.SAMPLES / "models.md", embedder: str = "hash") -> None:
    """Load a document into a fresh graph, load it again, and search it."""
    graphs.document(path, embedder)


@benchmark
def train(
    model: str = "smollm2-135m-instruct",
    data: Path = datasets.PUDDLE_AND_PINE,
    steps: int = 6,
    rounds: int = 3,
) -> None:
    """Fine-tune under the kit and its rivals: same rows, adapter and batch, a process each.

    The rivals are TRL, and LLaMA-Factory if FTLAB_RIVAL_PYTHON names the Python of an environment
    with it; tuned by hand for the processor, and once with their defaults.
    """
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        datasets.add(ws, data)
        path = models.get(ws, model).path or Path()
        race.train(ws, path, model, steps=steps, rounds=rounds)
        ws.close()


@benchmark
def order(model: str = "smollm2-135m-instruct", steps: int = 35, rounds: int = 2) -> None:
    """Train with shuffled batches and with ones of similar length; print the held-out losses."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        datasets.split(ws, datasets.add(ws, datasets.PUDDLE_AND_PINE), held_out=0.08)
        race.order(ws, model, steps=steps, rounds=rounds)
        ws.close()


@benchmark
def perplexity(
    model: str = "smollm2-135m-instruct", data: Path = datasets.PUDDLE_AND_PINE, rounds: int = 3
) -> None:
    """Score answers under the kit and under lm-eval: the same model, rows and tokens."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        path = models.pull(ws, model).path or Path()
        race.perplexity(ws, path, datasets.add(ws, data), rounds=rounds)
        ws.close()


@benchmark
def startup(model: str = "smollm2-135m-instruct", rounds: int = 5) -> None:
    """Start jobs and print the seconds to their first optimizer step."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        models.pull(ws, model)
        race.startup(
            ws, Config(model=model, max_steps=1), datasets.add(ws, datasets.PUDDLE_AND_PINE), rounds
        )
        ws.close()


@partial(benchmark, title="rows")
def validation(n_rows: int = 1_000_000, rounds: int = 3) -> None:
    """Validate a file of a million rows, beside `datasets` and a plain checker."""
    rows.validation(n_rows, rounds)


@benchmark
def duplicates(n_rows: int = 100_000) -> None:
    """Find near duplicates among a hundred thousand rows, and measure their quality twice."""
    rows.duplicates(n_rows)


if __name__ == "__main__":
    app()
