"""Benchmarks of datasets: validation beside Hugging Face `datasets`, and near duplicates.

Each leg of the race is a process of its own, on one core: python -m tests.benchmarks.rows LEG PATH
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

BAD_EVERY = 10_000  # a row without its answer
ORDER = ("user", "assistant")


def validation(n_rows: int, rounds: int) -> None:
    """Validate a file of about a kilobyte a row by each leg in turn; print medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        _write(path, n_rows)
        megabytes = path.stat().st_size / 1e6
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in LEGS}
        for _ in range(rounds):
            for name, measured in runs.items():
                measured.append(_leg(name, path))
        counts = {(run["good"], run["bad"]) for measured in runs.values() for run in measured}
        assert counts == {(n_rows - n_rows // BAD_EVERY, n_rows // BAD_EVERY)}, counts
        table = Table("leg", "MB/s", "the kit is", "peak memory, MB", "grown by, MB")
        seconds = {name: median(run["seconds"] for run in legs) for name, legs in runs.items()}
        for name, measured in runs.items():
            table.add_row(
                name,
                f"{megabytes / seconds[name]:.0f}",
                f"{seconds[name] / seconds['kit']:.1f} times as fast",
                f"{median(run['peak_mb'] for run in measured):.0f}",
                f"{median(run['grown_mb'] for run in measured):.0f}",
            )
        Console().print(f"{n_rows:,} rows, {megabytes:.0f} MB, one core, {rounds} rounds")
        Console().print(table)


def duplicates(n_rows: int) -> None:
    """Measure quality twice on rows of which one in ten is a near duplicate."""
    from ftlab_kit import Workspace, datasets

    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(folder)
        path = ws.root / "texts.jsonl"
        path.write_text("\n".join(json.dumps({"text": text}) for text in _near_texts(n_rows)))
        version = datasets.add(ws, path)
        for name in ("first", "second"):
            began, parts = time.perf_counter(), list[tuple[float, str]]()
            quality = datasets.quality(
                ws,
                version,
                progress=lambda item, parts=parts: parts.append((time.perf_counter(), item.what)),
            )
            seconds = time.perf_counter() - began
            print(f"{name} call on {n_rows:,} rows: {seconds:.2f} s", end="")
            ends = [*[at for at, _ in parts][1:], began + seconds][: len(parts)]
            times = [
                f"{what} {end - at:.1f} s" for (at, what), end in zip(parts, ends, strict=True)
            ]
            print(f" ({', '.join(times)})" if times else "")
        print(f"{len(quality.duplicates):,} near duplicates found of {n_rows // 10:,} planted")
        ws.close()


def _near_texts(n_rows: int) -> list[str]:
    """Return random texts; the last tenth are earlier ones with one word changed."""
    rng = random.Random(0)
    vocabulary = [f"{rng.getrandbits(30):x}" for _ in range(5000)]
    texts = [rng.choices(vocabulary, k=rng.randint(30, 200)) for _ in range(n_rows * 9 // 10)]
    for text in rng.sample(texts, n_rows // 10):
        changed = [*text]
        changed[rng.randrange(len(changed))] = "else"
        texts.append(changed)
    return [" ".join(text) for text in texts]


def _write(path: Path, n_rows: int) -> None:
    rng = random.Random(0)
    vocabulary = [f"{rng.getrandbits(28):x}" for _ in range(3000)]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(10, 90))) for _ in range(5000)]
    with path.open("w") as file:
        for number in range(n_rows):
            turns = [
                {"role": role, "content": f"{number} {texts[rng.randrange(5000)]}"}
                for _ in range(rng.choice((1, 1, 2)))
                for role in ORDER
            ]
            if number % BAD_EVERY == BAD_EVERY - 1:
                turns.pop()
            file.write(json.dumps({"messages": turns}) + "\n")


def _leg(name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.rows", name, str(path)]
    env = os.environ | {"HF_DATASETS_CACHE": str(path.parent / f"cache-{time.time_ns()}")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    run: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {path.stat().st_size / 1e6 / run['seconds']:.0f} MB/s", flush=True)
    return run


def _kit() -> Callable[[Path], tuple[int, int]]:
    from ftlab_kit import datasets

    def run(path: Path) -> tuple[int, int]:
        report = datasets.validate(path)
        return report.n_rows, report.n_refused

    return run


def _rival() -> Callable[[Path], tuple[int, int]]:
    """Return `datasets` with what a careful person would write after it."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()

    def is_good(row: dict[str, Any]) -> bool:
        turns = row["messages"]
        if not isinstance(turns, list) or not turns or turns[-1]["role"] != "assistant":
            return False
        start = turns[0]["role"] == "system"
        for place, turn in enumerate(turns[start:]):
            if turn["role"] != ORDER[place % 2]:
                return False
        return all(isinstance(t["content"], str) and t["content"].strip() for t in turns)

    def run(path: Path) -> tuple[int, int]:
        rows = load_dataset("json", data_files=str(path), split="train")
        good = sum(is_good(row) for row in rows)
        return good, len(rows) - good

    return run


LEGS: dict[str, Callable[[], Callable[[Path], tuple[int, int]]]] = {"kit": _kit, "datasets": _rival}


def _peak_mb() -> float:
    """Return the most memory of this program so far; ru_maxrss would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def main(name: str, path: Path) -> None:
    """Run one leg and print what it took, without its imports."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    run = LEGS[name]()
    before = _peak_mb()
    began = time.perf_counter()
    good, bad = run(path)
    seconds = time.perf_counter() - began
    peak = _peak_mb()
    facts = {"seconds": seconds, "good": good, "bad": bad, "peak_mb": peak}
    print(json.dumps(facts | {"grown_mb": peak - before}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
