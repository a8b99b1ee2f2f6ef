"""The cost of watching a job: processor time and memory of the kernel, memory of the browser."""

import os
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

from ftlab_kit import Workspace, datasets, metrics, trainers
from ftlab_kit.configs import Config
from ftlab_kit.records import Job
from ftlab_kit.store import TABLES
from ftlab_kit.widgets.live_view import POLL_S, TrainerView
from ftlab_kit.workspace import now
from tests import front_end

NOISE = random.Random(0)


def measured(step: int) -> dict[str, Any]:
    """Very noisy metrics of a step, which can't be drawn with few points."""
    return {
        "loss": 3 * 0.9999**step + NOISE.gauss(0, 0.1),
        "eval_loss": 3 * 0.9999**step if step % 100 == 0 else None,
        "learning_rate": 1e-3 * (1 - step / 200_000),
        "grad_norm": NOISE.gauss(1, 0.2),
        "tokens_per_s": NOISE.gauss(450, 30),
        "memory_gib": 2 + NOISE.random() / 10,
        "cpu_utilisation": NOISE.random(),
    }


def written(ws: Workspace, steps: int) -> Job:
    """A job with a history of steps, written to the store without training."""
    chats = datasets.add(ws, datasets.PUDDLE_AND_PINE)
    job = trainers._enqueue(ws, Config(model="tiny", max_steps=steps * 2), chats)
    rows = [
        {"job_id": job.id, "step": step, "at": now(), **measured(step)}
        for step in range(1, steps + 1)
    ]
    with ws.store.transaction() as connection:
        connection.execute(TABLES.tables["metrics"].insert(), rows)
    ws.store.update("jobs", {"id": job.id}, step=steps, total_steps=2 * steps)
    return job


def view(folder: Path, steps: int, updates: int) -> None:
    """Print the cost of a view of a long history: when first shown, per update, in memory."""
    os.environ["FTLAB_INTERACTIVE"] = "1"
    ws = Workspace(folder / "lab")
    job = written(ws, steps)
    began = time.perf_counter()
    watched = TrainerView(ws, job)
    watched._closed.set()  # from here on this sets the pace
    print(f"{steps} steps shown in {time.perf_counter() - began:.2f} s (limit 1)")
    parts = [*watched._panels.values(), *watched._pages.values(), watched._state]
    sent = {item: item.value for item in parts}
    took, sizes = [], []
    for first in range(steps + 1, 2 * steps, steps // updates):
        _go_on(ws, job, range(first, first + steps // updates))
        began = time.process_time()
        watched.refresh()
        took.append(time.process_time() - began)
        sizes.append(sum(len(item.value) for item in parts if sent[item] != item.value))
        sent = {item: item.value for item in parts}
    cores = os.cpu_count() or 1
    print(f"an update: median {median(took) * 1e3:.1f} ms of processor time (limit 10)")
    print(f"an update: median {median(sizes) / 1e3:.1f} kB, most {max(sizes) / 1e3:.1f} (limit 15)")
    share = median(took) / POLL_S / cores
    print(f"share of {cores} cores, one update in {POLL_S:g} s: {share:.2%} (limit 1%)")
    traces = watched._history.traces.values()
    points = sum(len(trace._parts) for trace in traces)
    print(f"after {steps} more steps: {points} buckets of {len(traces)} curves in memory")
    ws.close()


def _go_on(ws: Workspace, job: Job, steps: range) -> None:
    with ws.store.transaction():
        for step in steps:
            metrics.write(ws, job.id, step, **measured(step))
        ws.store.update("jobs", {"id": job.id}, step=steps[-1])


def browser_memory(folder: Path, updates: int) -> None:
    """Print what a view's updates leave in a browser after garbage collection."""
    ws = Workspace(folder / "lab")
    job = written(ws, 2_000)
    cell = f"""
import os
os.environ["FTLAB_INTERACTIVE"] = "1"
from ftlab_kit import metrics
from ftlab_kit.widgets.live_view import TrainerView
view = TrainerView(ws, {job.id})
view._closed.set()  # here the cell below sets the pace
view"""
    pace = f"""
import asyncio
from tests.benchmarks.watching import measured
for step in range(2001, 2001 + {updates}):
    metrics.write(ws, {job.id}, step, **measured(step))
    view.refresh()
    await asyncio.sleep(0.02)
print("updates done")"""
    front_end.write_notebook(folder / "memory.ipynb", ws, cell, pace)
    root = Path(__file__).parents[2]
    with front_end.served(folder, path=root) as address, front_end.browser(folder) as context:
        page = context.new_page()
        front_end.open_notebook(page, address, "memory.ipynb")
        front_end.run(page)
        page.wait_for_selector('svg[aria-label^="loss: smoothed"]', timeout=60_000)
        session = context.new_cdp_session(page)
        before = _heap_mb(session)
        page.wait_for_selector("pre:has-text('updates done')", timeout=600_000)
        page.wait_for_timeout(3_000)
        after = _heap_mb(session)
    grew = after - before
    print(
        f"the browser holds {before:.1f} MB, after {updates} updates {after:.1f}: {grew:+.1f} (5)"
    )
    ws.close()


def _heap_mb(session: Any) -> float:
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6
