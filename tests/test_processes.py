"""Real processes: slots, restarts, silence, reboots, two at once, and what a person sees."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from ftlab_kit import Workspace, datasets, models, trainers
from ftlab_kit.errors import Conflict, InputError, JobFailed, OutOfRoom, Unavailable
from ftlab_kit.jobs import processes, states, supervisor
from ftlab_kit.records import Job
from ftlab_kit.workspace import now
from tests.chaos.killing import differences, run
from tests.conftest import TINY, chats_file, fill

LONG = TINY.but(max_steps=3000, save_every_steps=5)
SHORT = TINY.but(max_steps=12, save_every_steps=3, adapter_dropout=0.1)


def until_step(ws: Workspace, job: Job, step: int = 2) -> Job:
    current = trainers.wait(ws, job, until_step=step, timeout_s=120)
    assert current.state == "running"
    return current


def test_a_real_worker_is_paused_sampled_resumed_and_adjusted(lab: Workspace):
    job = until_step(lab, trainers.start(lab, LONG, "hues"))
    saved = trainers.checkpoint(lab, job)
    assert saved.step in {item.step for item in trainers.checkpoints(lab, job)}
    event = trainers.adjust(lab, job, max_steps=2900)
    assert (event.state, event.result) == ("applied", {"max_steps": [3000, 2900]})
    (sample,) = trainers.sample(lab, job, ["What colour is coal?"], max_new_tokens=3)
    assert sample.answer
    with pytest.raises(Conflict, match="refused the command 'evaluate': the job has no held-out"):
        trainers.evaluate(lab, job)
    worker_pid = trainers.status(lab, job).worker_pid or 0
    paused = trainers.pause(lab, job)
    assert paused.state == "paused" and paused.worker_pid is None
    assert processes._started(worker_pid) is None  # gone, and its device free
    again = until_step(lab, trainers.resume(lab, job), paused.step + 2)
    assert again.step > paused.step
    shorter = trainers.adjust(lab, job, max_steps=1)
    assert trainers.wait(lab, job, timeout_s=60).state == "completed"
    assert states.event(lab, shorter.id).state == "applied"


def test_a_job_resumed_at_once_is_not_ended_by_its_old_supervisor(lab: Workspace):
    job = until_step(lab, trainers.start(lab, LONG, "hues"))
    event = states.send(lab, job.id, "pause")
    while states.event(lab, event.id).state == "pending":
        time.sleep(0.001)
    resumed = until_step(lab, trainers.resume(lab, job), states.read(lab, job).step + 2)
    assert resumed.state == "running"
    trainers.cancel(lab, job)


def test_jobs_wait_for_a_slot_and_follow_one_another_without_a_kernel(lab: Workspace):
    assert trainers.slots(lab) == 1
    jobs = [trainers.start(lab, SHORT, "hues") for _ in range(3)]
    at_start = [trainers.status(lab, job) for job in jobs]
    assert [job.state for job in at_start].count("running") <= 1
    assert (at_start[2].state, at_start[2].note) == (
        "queued",
        "waits for a free slot, 1 ahead of it",
    )
    deadline = time.monotonic() + 120
    while states.read(lab, jobs[2]).state != "completed" and time.monotonic() < deadline:
        time.sleep(0.2)  # nothing here launches: each worker's supervisor starts the next
    done = [states.read(lab, job) for job in jobs]
    assert [job.state for job in done] == ["completed"] * 3
    assert done[0].finished_at < done[1].started_at < done[1].finished_at < done[2].started_at


def test_more_slots_let_jobs_run_side_by_side(lab: Workspace):
    with pytest.raises(InputError, match="jobs is 0; expected at least 1"):
        trainers.slots(lab, jobs=0)
    assert trainers.slots(lab, jobs=2) == 2
    try:
        jobs = [trainers.start(lab, LONG, "hues") for _ in range(2)]
        both = [until_step(lab, job) for job in jobs]
        assert len({states.row(lab, job)["slot"] for job in both}) == 2
    finally:
        for job in jobs:
            trainers.cancel(lab, job)
        trainers.slots(lab, jobs=1)


def test_a_job_of_two_processes_takes_two_slots(lab: Workspace):
    trainers.slots(lab, jobs=2)
    try:
        wide = trainers._enqueue(lab, LONG.but(processes=2), "hues")
        narrow = trainers._enqueue(lab, LONG, "hues")
        assert (processes._claim(lab) or {})["id"] == wide.id
        assert processes._claim(lab) is None
        states.move(lab, wide.id, "cancelled")
        assert (processes._claim(lab) or {})["id"] == narrow.id
        states.move(lab, narrow.id, "cancelled")
    finally:
        trainers.slots(lab, jobs=1)


def test_two_processes_share_a_job_by_torchrun(lab: Workspace):
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    config = SHORT.but(processes=2, max_steps=6)
    real = trainers.wait(lab, trainers.start(lab, config, train, held_out=held_out), timeout_s=180)
    assert real.state == "completed"
    one = trainers._enqueue(lab, config.but(processes=1), train, held_out=held_out)
    run(lab, one)
    pairs = [
        (left, right)
        for left, right in zip(trainers.metrics(lab, real), trainers.metrics(lab, one), strict=True)
    ]
    for left, right in pairs:  # dropout draws differ; the rows and their count do not
        assert left.n_tokens == right.n_tokens
        assert left.loss == pytest.approx(right.loss, rel=0.02)


def test_a_crashed_worker_is_started_again_as_often_as_allowed(lab: Workspace):
    config = SHORT.but(max_steps=200, save_every_steps=30)
    quiet = run(lab, trainers._enqueue(lab, config, "hues"))
    job = trainers.start(lab, config.but(max_restarts=1), "hues")
    os.kill(until_step(lab, job, 20).worker_pid or 0, signal.SIGKILL)
    done = trainers.wait(lab, job, timeout_s=120)
    assert done.state == "completed"
    (event,) = trainers.events(lab, job)
    assert (event.command, event.author) == ("restart", "supervisor")
    assert "killed by SIGKILL" in (event.arguments or {})["because"]
    losses = [[row.loss for row in trainers.metrics(lab, item)] for item in (quiet.job, done)]
    assert losses[0] == losses[1]


def test_a_killed_job_is_resumed_to_the_same_bits(lab: Workspace):
    config = SHORT.but(max_steps=200, save_every_steps=30)
    quiet = run(lab, trainers._enqueue(lab, config, "hues"))
    job = trainers.start(lab, config, "hues")
    os.kill(until_step(lab, job, 20).worker_pid or 0, signal.SIGKILL)
    with pytest.raises(JobFailed, match=r"killed by SIGKILL.*trainers\.resume"):
        trainers.wait(lab, job, timeout_s=20)
    done = trainers.wait(lab, trainers.resume(lab, job), timeout_s=120)
    losses = [[row.loss for row in trainers.metrics(lab, item)] for item in (quiet.job, done)]
    assert losses[0] == losses[1] and len(losses[0]) == 200


def fake(ws: Workspace, **columns: object) -> int:
    """A job that a process of another boot, or this one, seems to run."""
    job = trainers._enqueue(ws, TINY, "hues")
    values = {"state": "running", "launched_at": now(), "heartbeat_at": now(), **columns}
    ws.store.update("jobs", {"id": job.id}, **values)
    return job.id


def test_a_job_of_another_boot_is_judged_by_its_heartbeat(lab: Workspace):
    job_id = fake(lab, pid=1, pid_started_at=1.0, boot_id="another")
    assert trainers.status(lab, job_id).state == "running"
    lab.store.update("jobs", {"id": job_id}, heartbeat_at=now() - timedelta(minutes=2))
    gone = trainers.status(lab, job_id)
    assert gone.state == "failed"
    assert "its machine was restarted" in (gone.error or "")
    assert f"trainers.resume(ws, {job_id})" in (gone.error or "")


def test_a_pid_that_another_process_has_now_is_not_the_worker(lab: Workspace):
    mine = processes.process_columns()
    job_id = fake(lab, **{**mine, "pid_started_at": mine["pid_started_at"] - 100})
    assert trainers.status(lab, job_id).state == "failed"


def test_a_zombie_counts_as_dead(lab: Workspace):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    job_id = fake(lab, pid=pid, pid_started_at=0.0, boot_id=processes.boot_id())
    assert trainers.status(lab, job_id).state == "failed"
    os.waitpid(pid, 0)


def test_a_silent_worker_is_reported_and_keeps_its_commands(lab: Workspace):
    job_id = fake(lab, **processes.process_columns())
    lab.store.update("jobs", {"id": job_id}, heartbeat_at=now() - timedelta(seconds=90))
    assert "no sign of life for 9" in (trainers.status(lab, job_id).note or "")
    with pytest.raises(Unavailable, match="It stays in the mailbox"):
        trainers.pause(lab, job_id)
    (event,) = trainers.events(lab, job_id)
    assert event.state == "pending"
    states.move(lab, job_id, "cancelled")


HOLD = """
import os, signal, sys
from ftlab_kit import Workspace
with Workspace(sys.argv[2]).store.transaction():
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_worker_suspended_while_it_locks_the_store_is_cancelled_in_time(lab: Workspace):
    command = [sys.executable, "-c", HOLD, "ftlab_kit.jobs.worker", str(lab.root)]
    job_id = fake(lab, **processes.process_columns())
    holder = subprocess.Popen([*command, str(job_id)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(Unavailable, match="holds the lock on .*trainers.cancel"):
        with lab.store.lock_timeout(0.1):
            trainers.adjust(lab, job_id, learning_rate=1e-3)
    began = time.monotonic()
    assert trainers.cancel(lab, job_id).state == "cancelled"
    assert time.monotonic() - began < 15
    assert holder.wait(timeout=5) == -signal.SIGKILL
    holder.stdout.close()


def test_a_replaced_worker_can_write_nothing(lab: Workspace):
    job_id = fake(lab, pid=os.getpid(), worker_pid=1)
    supervisor.conclude(lab, job_id, -9, held_by={"pid": 1})
    assert states.read(lab, job_id).state == "running"
    assert not lab.store.update("jobs", processes.owned_by_me(job_id), step=7)
    states.move(lab, job_id, "cancelled")


def test_a_full_disk_pauses_a_job_which_goes_on_when_there_is_room(small_disk: Path):
    ws = Workspace(small_disk / "lab")
    datasets.add(ws, chats_file(small_disk / "hues.jsonl"))
    models.pull(ws, "tiny")
    config = TINY.but(keep_checkpoints=1, max_steps=400, save_every_steps=40)
    job = trainers.start(ws, config, "hues")
    until_step(ws, job, 60)
    fill(small_disk, but_bytes=1_500_000)
    paused = trainers.wait(ws, job, timeout_s=60)
    assert paused.state == "paused"
    assert "The disk is full while writing" in (paused.note or "")
    assert trainers.checkpoints(ws, job)[-1].step >= 40
    with pytest.raises(OutOfRoom, match="MiB for its next checkpoints.*Free some space"):
        trainers.resume(ws, job)
    (small_disk / "ballast").unlink()
    deadline = time.monotonic() + 60
    while states.read(ws, job).state == "paused" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert trainers.wait(ws, job, timeout_s=120).state == "completed"
    assert trainers.events(ws, job)[-1].author == "supervisor"
    steps = [row.step for row in trainers.metrics(ws, job)]
    assert steps == [*range(1, 401)]
    ws.close()


def test_the_comparison_notices_another_seed(lab: Workspace):
    """The measure of all exactness tests: another seed, another thread count, is seen by it."""
    one, other = (
        run(lab, trainers._enqueue(lab, SHORT.but(max_steps=3, seed=seed), "hues"))
        for seed in (1, 2)
    )
    assert differences(one, other) == (3, 3)
