"""Eight processes that read, change and write the same rows of one store, as fast as they can.

python -m pytest tests/chaos/test_transactions.py -m slow -s    100,000 transactions, with latencies
"""

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa

from ftlab_kit import Workspace
from ftlab_kit.store import Store
from ftlab_kit.workspace import now

N_PROCESSES = 8


def a_job(store: Store) -> int:
    """Write a job and the rows that it needs; its step is what everyone counts up."""
    version = {"key": "k", "dataset": "hues", "side": "all", "n_rows": 1, "n_refused": 0}
    files = {"content_sha256": "", "path": "", "created_at": now(), "added_at": now()}
    version_id = store.insert("dataset_versions", **version, **files)
    job = {"state": "running", "model": "tiny", "config": {}, "created_at": now()}
    return store.insert("jobs", **job, step=0, dataset_version_id=version_id)


def count_up(root: Path, job_id: int, count: int, start: Barrier) -> list[float]:
    """Do `count` transactions, each with one more step and one more event; return their seconds."""
    ws, took_s = Workspace(root), []
    start.wait(timeout=120)
    for _ in range(count):
        began = time.perf_counter()
        with ws.store.transaction():
            step = ws.store.get("jobs", id=job_id)["step"]
            ws.store.update("jobs", {"id": job_id}, step=step + 1)
            values = {"job_id": job_id, "command": "count", "state": "applied"}
            ws.store.insert("events", **values, step=step + 1, created_at=now())
        took_s.append(time.perf_counter() - began)
    ws.close()
    return took_s


def count_together(root: Path, job_id: int, each: int) -> list[float]:
    """Let eight processes count at the same time; what one raises is raised here."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(N_PROCESSES, context) as pool:
        # none begins before all are there, so that each has a process of its own
        start = manager.Barrier(N_PROCESSES)
        futures = [pool.submit(count_up, root, job_id, each, start) for _ in range(N_PROCESSES)]
        return [second for future in futures for second in future.result()]


@pytest.mark.parametrize("each", [150, pytest.param(12_500, marks=pytest.mark.slow)])
def test_eight_processes_see_no_lock_and_lose_no_transaction(ws: Workspace, each: int):
    job_id, began = a_job(ws.store), time.perf_counter()
    took_s = count_together(ws.root, job_id, each)
    total_s = time.perf_counter() - began
    n = N_PROCESSES * each
    assert ws.store.get("jobs", id=job_id)["step"] == len(took_s) == n
    assert [row["step"] for row in ws.store.rows("events")] == [*range(1, n + 1)]
    with ws.store.transaction() as connection:
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    cuts = statistics.quantiles(took_s, n=100)
    print(
        f"{n} transactions in {total_s:.1f} s: p50 {cuts[49] * 1e3:.2f} ms, "
        f"p99 {cuts[98] * 1e3:.2f} ms, longest {max(took_s):.2f} s"
    )
