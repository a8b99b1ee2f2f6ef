"""The processes of jobs: which may run now, how one starts, whether it lives, how it is ended.

A workspace has slots. A job takes one from the moment it is launched until it ends or is paused;
whoever ends a job fills the free slot with the next waiting job, so the queue needs no server.

A process is identified by its pid, its start time and the boot of its machine. If the boot differs
(after a restart, or on another machine that shares the disk) only the worker's heartbeat can tell.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from ftlab_kit import device
from ftlab_kit.errors import KitError, room_on_disk
from ftlab_kit.jobs import states
from ftlab_kit.workspace import Workspace, now

CRASHED = 70  # exit code of a worker that met an error which is not the kit's (EX_SOFTWARE)
START_S = 60.0  # a supervisor that has not reported this long after its launch never will
HEARTBEAT_S = 5.0
SILENT_S = 6 * HEARTBEAT_S
TERMINATE_S = 2.0
POLL_S = 0.2
# large tensors come and go by the thousand: the allocator keeps their memory, in huge pages. Given
# back to the system, every page would be cleared before it is used again
ALLOCATION = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=8589934592",
        "glibc.malloc.trim_threshold=8589934592",
    )
)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def slots(ws: Workspace) -> int:
    """Return how many jobs of a workspace may run at once; by default one for each GPU, or one."""
    setting = ws.store.get("settings", name="slots")
    return int(setting["value"]) if setting else max(1, len(device.gpus()))


def launch_waiting(ws: Workspace) -> None:
    """Launch waiting jobs into the free slots, the longest waiting first."""
    for row in ws.store.rows("jobs", state=[*states.WORKING]):
        mark_dead(ws, row)
    while (claimed := _claim(ws)) is not None:
        try:
            _launch(ws, claimed)
        except (OSError, subprocess.SubprocessError, KitError) as error:
            message = f"The worker could not be started: {error}"
            states.move(ws, claimed["id"], "failed", error=message)


def requeue(ws: Workspace, job_id: int, **values: Any) -> None:
    """Put a paused or failed job into the queue again, without starting its worker.

    Args:
        ws: The workspace.
        job_id: The job.
        values: More columns of the resume's event, such as its arguments.

    Raises:
        Conflict: The job is in another state by now.
    """
    with ws.store.transaction():
        states.require(ws, job_id, "resume")
        fresh = {"launched_at": None, "slot": None, "pid": None, "heartbeat_at": None}
        states.move(ws, job_id, "queued", error=None, note=None, queued_at=now(), **fresh)
        states.write(ws, job_id, "resume", state="applied", **values)


def _claim(ws: Workspace) -> dict[str, Any] | None:
    """Give the first waiting job a free slot, if there are both, and return its row."""
    with ws.store.transaction():
        working = ws.store.rows("jobs", order="queued_at", state=[*states.WORKING])
        has_slot = [row for row in working if row["launched_at"] or row["state"] == "running"]
        waiting = [row for row in working if row not in has_slot]
        if not waiting:
            return None
        taken = {
            (row["slot"] or 0) + number for row in has_slot for number in range(_n_slots(ws, row))
        }
        n_needed = _n_slots(ws, waiting[0])
        free = [
            first
            for first in range(slots(ws) - n_needed + 1)
            # after the number of slots was lowered, jobs may still hold higher ones
            if not taken & {*range(first, first + n_needed)} and len(taken) + n_needed <= slots(ws)
        ]
        if not free:
            return None
        claim = {"slot": free[0], "launched_at": now(), "pid": None, "heartbeat_at": None}
        ws.store.update("jobs", {"id": waiting[0]["id"]}, **claim)
    return {**waiting[0], **claim}


def n_processes(row: dict[str, Any]) -> int:
    """Return how many processes share a job."""
    return int(row["config"].get("processes", 1))


def _n_slots(ws: Workspace, row: dict[str, Any]) -> int:
    """Return the slots that a job takes: one for each of its processes, at most all there are."""
    return min(n_processes(row), slots(ws))


def _launch(ws: Workspace, row: dict[str, Any]) -> None:
    folder = ws.job_folder(row["id"])
    with room_on_disk(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ftlab_kit.jobs.supervisor", str(ws.root), str(row["id"])]
    # a job's models are on this disk, so its worker never contacts the hub
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env.setdefault("GLIBC_TUNABLES", ALLOCATION)
    env.setdefault("GOMP_SPINCOUNT", device.SPIN)
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, check=True
        )


def gpus_of(slot: int, n_processes: int) -> str:
    """Return CUDA_VISIBLE_DEVICES for a job's workers: a GPU for each, from its slot on."""
    names = device.gpus()
    count = min(n_processes, len(names))
    return ",".join(names[(slot + number) % len(names)] for number in range(count))


def process_columns() -> dict[str, Any]:
    """Return what identifies this process, as columns of a job."""
    return {"pid": os.getpid(), "pid_started_at": _started(os.getpid()), "boot_id": boot_id()}


def owned_by_me(job_id: int) -> dict[str, Any]:
    """Return the columns that a job's row has as long as this process is its worker."""
    return {"id": job_id, "state": "running", "worker_pid": os.getpid()}


def boot_id() -> str:
    """Return what tells one start of this machine from another."""
    if not BOOT_ID.exists():
        return f"{psutil.boot_time():.0f}"
    # containers on one machine share its boot, but each counts its own processes
    return f"{BOOT_ID.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> float | None:
    """Return when a process started, in seconds; None for one that is gone or a zombie.

    On Linux the time counts from boot, so that setting the clock does not change it.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists():
            return float(process.create_time())
        after_name = stat.read_text().rpartition(")")[2].split()
        return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    except (psutil.Error, OSError):
        return None


def is_alive(row: dict[str, Any]) -> bool:
    """Return whether a working job's supervisor still runs; a zombie does not."""
    if row["state"] == "queued" and row["launched_at"] is None:
        return True  # it waits for a slot, so it has no process yet
    if row["pid"] is None:
        return bool(now() - (row["launched_at"] or row["created_at"]) < timedelta(seconds=START_S))
    if row["boot_id"] not in (None, boot_id()):
        return not is_silent(row)
    started = _started(row["pid"])
    return started is not None and abs(started - row["pid_started_at"]) < 1.0


def is_silent(row: dict[str, Any]) -> bool:
    """Return whether a job's worker has given no sign of life for a while."""
    last = row["heartbeat_at"] or row["launched_at"] or row["created_at"]
    return bool(now() - last > timedelta(seconds=SILENT_S))


def mark_dead(ws: Workspace, row: dict[str, Any]) -> bool:
    """Mark a working job as failed if its processes have vanished; return whether they have."""
    if row["state"] not in states.WORKING or is_alive(row):
        return False
    seen_at = time.time()
    if row["boot_id"] not in (None, boot_id()):
        cause = "its machine was restarted"
    elif row["pid"] is None:
        cause = f"it did not start within {START_S:.0f} s"
    else:
        cause = "killed together with its supervisor"
    is_marked = states.move(
        ws,
        row["id"],
        "failed",
        only_from=row["state"],
        held_by={"pid": row["pid"]},
        error=f"The worker has vanished: {cause}. Its checkpoints are kept; go on from the last "
        f"one with trainers.resume(ws, {row['id']}).",
    )
    if is_marked:  # a worker whose supervisor was killed would work on, unseen
        end(ws, row["id"], before=seen_at)
    return is_marked


def end(ws: Workspace, job_id: int, *, before: float | None = None) -> None:
    """End the processes of a job that still run: its supervisor and its workers.

    Args:
        ws: The workspace.
        job_id: The job.
        before: Spare processes that started after this time (seconds since 1970): they belong to a
            later resume.
    """
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in _processes(ws, job_id, before):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal_number)
        deadline = time.monotonic() + TERMINATE_S
        while _processes(ws, job_id, before) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def wait_until_gone(pid: int | None, *, timeout_s: float) -> None:
    """Wait until a process has ended, so that its device is free, or the time is up."""
    deadline = time.monotonic() + timeout_s
    while pid is not None and _started(pid) is not None and time.monotonic() < deadline:
        time.sleep(POLL_S / 4)


def _processes(ws: Workspace, job_id: int, before: float | None) -> list[psutil.Process]:
    """Return the living processes of a job: a command line with our module, workspace and job.

    Not by process group: torchrun gives each of its workers a session of its own.
    """
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            line = process.cmdline()
            is_ours = any(part.startswith("ftlab_kit.jobs.") for part in line)
            if (
                is_ours
                and line[-1] == str(job_id)
                and Path(line[-2]).samefile(ws.root)
                and process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
                and (before is None or process.create_time() <= before)
            ):
                processes.append(process)
    return processes
