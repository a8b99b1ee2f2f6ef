"""A second kind of job, run by real processes: jobs/ needs nothing of training."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets, jobs
from ftlab_kit.errors import Conflict, JobFailed, NotFound
from ftlab_kit.jobs import kinds, processes, states
from ftlab_kit.records import Job
from tests import counting_kind
from tests.conftest import chats_file

ROOT = Path(__file__).parent.parent


@pytest.fixture
def counter(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose jobs can count, in this process and in every process of a job."""
    monkeypatch.setitem(kinds.KINDS, counting_kind.NAME, "tests.counting_kind")
    (tmp_path / "sitecustomize.py").write_text(counting_kind.SITECUSTOMIZE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    datasets.add(ws, chats_file(tmp_path / "hues.jsonl", copies=1))
    return ws


def queue(ws: Workspace, **config: Any) -> Job:
    return jobs.create(
        ws, kind=counting_kind.NAME, model="", config={"count": 3, **config}, dataset_version_id=1
    )


def test_a_job_of_another_kind_runs_to_its_end(counter: Workspace):
    job = jobs.wait(counter, jobs.launch(counter, queue(counter)), timeout_s=60)
    assert (job.kind, job.state, job.step, job.progress) == ("count", "completed", 3, 1.0)
    assert "counted to 3" in jobs.logs(counter, job)


def test_jobs_of_one_kind_are_listed(counter: Workspace):
    job = queue(counter)
    assert [item.id for item in jobs.list(counter, kind="count")] == [job.id]
    assert jobs.list(counter, kind="train") == ()


def test_a_job_of_another_kind_waits_for_its_slot(counter: Workspace):
    first, second = queue(counter, count=500, sleep_s=0.1), queue(counter)
    assert jobs.launch(counter, second).note == "waits for a free slot, 0 ahead of it"
    jobs.cancel(counter, first)
    assert jobs.wait(counter, second, timeout_s=60).state == "completed"


def test_a_job_of_another_kind_is_paused_resumed_and_cancelled(counter: Workspace):
    job = jobs.launch(counter, queue(counter, count=5000, sleep_s=0.01))
    jobs.wait(counter, job, until_step=2, timeout_s=60)
    paused = jobs.pause(counter, job)
    assert paused.state == "paused"
    jobs.resume(counter, job)
    assert jobs.wait(counter, job, until_step=paused.step + 2, timeout_s=60).state == "running"
    assert jobs.cancel(counter, job).state == "cancelled"
    with pytest.raises(Conflict, match="is cancelled; only"):
        jobs.cancel(counter, job)


def test_a_crashed_worker_of_another_kind_starts_again(counter: Workspace):
    job = jobs.launch(counter, queue(counter, crash_at=2, max_restarts=1))
    assert jobs.wait(counter, job, timeout_s=60).state == "completed"
    (event,) = jobs.events(counter, job)
    assert (event.command, event.author) == ("restart", "supervisor")


def test_a_crash_without_restarts_fails_the_job(counter: Workspace):
    job = jobs.launch(counter, queue(counter, crash_at=2))
    with pytest.raises(JobFailed, match="killed by SIGKILL"):
        jobs.wait(counter, job, timeout_s=60)


def test_a_worker_that_ends_before_it_takes_the_job_is_not_started_for_ever(
    counter: Workspace, tmp_path: Path
):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'ftlab_kit.jobs.worker' in sys.orig_argv:\n    os._exit(7)\n"
    )
    job = jobs.launch(counter, queue(counter, max_restarts=3))
    with pytest.raises(JobFailed, match="ended with exit code 7 before the job was done"):
        jobs.wait(counter, job, timeout_s=60)


def test_an_error_of_another_kind_fails_the_job_with_its_message(counter: Workspace):
    job = jobs.launch(counter, queue(counter, fail_at=2))
    with pytest.raises(JobFailed, match="at step 2: The number 2 can't be counted"):
        jobs.wait(counter, job, timeout_s=60)


def test_two_processes_take_two_slots(counter: Workspace):
    jobs.slots(counter, jobs=2)
    wide, narrow = queue(counter, processes=2), queue(counter)
    assert (processes._claim(counter) or {})["id"] == wide.id
    assert processes._claim(counter) is None
    states.move(counter, wide.id, "cancelled")
    assert (processes._claim(counter) or {})["id"] == narrow.id


def test_an_unknown_kind_fails_the_job_with_the_kinds_there_are(ws: Workspace, tmp_path: Path):
    datasets.add(ws, chats_file(tmp_path / "hues.jsonl", copies=1))
    job = jobs.create(ws, kind="bake", model="", config={}, dataset_version_id=1)
    with pytest.raises(JobFailed, match="There is no kind of job 'bake'; there are train"):
        jobs.wait(ws, jobs.launch(ws, job), timeout_s=60)
    with pytest.raises(NotFound):
        kinds.load("bake")


def test_every_kind_has_what_the_protocol_asks_for():
    for name in kinds.KINDS:
        kind = kinds.load(name)
        assert callable(kind.run) and callable(kind.room_bytes)


def test_loading_the_kind_of_training_loads_no_torch():
    code = (
        "import sys; from ftlab_kit.jobs import kinds, supervisor; kinds.load('train'); "
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
