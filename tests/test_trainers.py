import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file

from ftlab_kit import Workspace, datasets, device, evaluators, models, trainers
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import Conflict, InputError, JobFailed, OutOfRoom
from ftlab_kit.jobs import processes, states, supervisor, worker
from ftlab_kit.records import Job
from ftlab_kit.workspace import now
from tests.conftest import TINY, chats_file, fill

LONG = TINY.but(max_steps=2000, save_every_steps=5)


def train_here(ws: Workspace, config: Config, dataset: str = "hues") -> Job:
    """Train in this process: the worker's own main, without a process around it."""
    job = trainers._enqueue(ws, config, dataset)
    supervisor.conclude(ws, job.id, worker.main(str(ws.root), job.id))
    return trainers.status(ws, job)


def losses(ws: Workspace, job: Job) -> list[float | None]:
    return [metric.loss for metric in trainers.metrics(ws, job)]


def until_running(ws: Workspace, job: Job) -> Job:
    current = trainers.wait(ws, job, until_step=2, timeout_s=120)
    assert current.state == "running"
    return current


def worker_of(ws: Workspace, job: Job) -> psutil.Process:
    (child,) = psutil.Process(states.row(ws, job)["pid"]).children()
    return child


def test_a_job_runs_to_its_end(job: Job):
    assert (job.state, job.step, job.total_steps) == ("completed", 4, 4)
    assert job.progress == 1.0
    assert job.error is None


def test_every_step_has_its_metrics(lab: Workspace, job: Job):
    rows = trainers.metrics(lab, job)
    assert [metric.step for metric in rows] == [1, 2, 3, 4]
    for metric in rows:
        assert metric.loss is not None and 5 < metric.loss < 15
        assert metric.grad_norm is not None and metric.grad_norm > 0
        assert metric.tokens_per_s is not None and metric.tokens_per_s > 0
        assert metric.samples_per_s is not None and metric.samples_per_s > 0
        assert metric.memory_gib is not None and metric.memory_gib > 0.1
        assert metric.learning_rate is not None
    assert [metric.step for metric in rows if metric.eval_loss is not None] == [2, 4]


def test_an_epoch_counts_the_tokens_of_its_rows_without_padding(lab: Workspace):
    from ftlab_kit.lm import loading, tokens

    tokenizer = loading.tokenizer(models.get(lab, "tiny").path or Path())
    rows = [tokens.encode(tokenizer, row["messages"]) for row in datasets.rows(lab, "hues")]
    job = train_here(lab, TINY.but(max_steps=None, epochs=1))
    assert trainers.metrics(lab, job)[-1].n_tokens == sum(len(row.input_ids) for row in rows)


def test_the_loss_falls(lab: Workspace, job: Job):
    first, *_, last = losses(lab, job)
    assert first is not None and last is not None
    assert last < first


def test_checkpoints_verify_and_have_their_held_out_loss(lab: Workspace, job: Job):
    saved = trainers.checkpoints(lab, job)
    assert saved[-1].step == 4
    assert saved[-1].eval_loss is not None
    assert [integrity.verify(item) for item in saved] == [None] * len(saved)
    names = {path.name for path in saved[-1].path.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "MANIFEST.json"} <= names


def test_a_checkpoint_has_only_the_losses_of_its_own_step(lab: Workspace, job: Job):
    measured = {metric.step: metric for metric in trainers.metrics(lab, job)}
    for checkpoint in trainers.checkpoints(lab, job):
        assert checkpoint.eval_loss == measured[checkpoint.step].eval_loss
        assert checkpoint.loss == measured[checkpoint.step].loss
    assert None in {checkpoint.eval_loss for checkpoint in trainers.checkpoints(lab, job)}


def test_no_half_written_checkpoint_is_left(lab: Workspace, job: Job):
    writing = lab.job_folder(job.id) / "writing"
    assert not writing.exists() or [*writing.iterdir()] == []


def test_the_log_says_what_happened(lab: Workspace, job: Job):
    log = trainers.logs(lab, job)
    assert "checkpoint at step 4" in log
    assert len(trainers.logs(lab, job, last=2).splitlines()) == 2


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(lab: Workspace):
    first, again, other = (
        losses(lab, train_here(lab, TINY.but(seed=seed, adapter_dropout=0.1))) for seed in (3, 3, 4)
    )
    assert len(first) == 4
    assert first == again
    assert first != other


def test_accumulated_micro_batches_train_like_one_batch(lab: Workspace):
    whole, halves, singles = (
        losses(lab, train_here(lab, TINY.but(micro_batch=size))) for size in (4, 2, 1)
    )
    assert len(whole) == 4
    assert halves == pytest.approx(whole, rel=1e-4)
    assert singles == pytest.approx(whole, rel=1e-4)


def test_gradient_checkpointing_does_not_change_the_loss(lab: Workspace):
    plain, saving = (
        losses(lab, train_here(lab, TINY.but(gradient_checkpointing=on))) for on in (False, True)
    )
    assert len(plain) == 4
    assert saving == pytest.approx(plain, rel=1e-5)


def test_every_weight_can_be_trained_without_an_adapter(lab: Workspace):
    job = train_here(lab, TINY.but(adapter="none"))
    assert job.state == "completed"
    assert (trainers.checkpoints(lab, job)[-1].path / "model.safetensors").exists()


def test_adapter_targets_can_be_named(lab: Workspace):
    job = train_here(lab, TINY.but(adapter_targets="q_proj, v_proj"))
    folder = trainers.checkpoints(lab, job)[-1].path
    targets = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert sorted(targets) == ["q_proj", "v_proj"]


def test_unknown_adapter_targets_fail_the_job_with_a_message(lab: Workspace):
    job = train_here(lab, TINY.but(adapter_targets="nothing"))
    assert job.state == "failed"
    assert "nothing" in (job.error or "")


def test_a_nan_loss_fails_the_job_and_names_the_step(lab: Workspace, ws: Workspace, tmp_path: Path):
    broken = shutil.copytree(models.get(lab, "tiny").path or Path(), tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    models.add(ws, "broken", broken)
    datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    job = train_here(ws, TINY.but(model="broken"))
    assert job.state == "failed"
    assert "The loss became nan at step 1, lines " in (job.error or "")
    assert "lower learning_rate" in (job.error or "")


def test_texts_are_trained_whole_and_scored_by_perplexity(ws: Workspace):
    path = ws.root / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Once, {n} geese flew."}) for n in range(8)))
    texts = datasets.add(ws, path)
    for streaming in (False, True):
        job = train_here(ws, TINY.but(max_steps=6, streaming=streaming), "texts")
        curve = losses(ws, job)
        assert job.state == "completed" and curve[-1] < curve[0]  # type: ignore[operator]
    scored = evaluators.run(ws, job, texts, metrics=["perplexity"])
    assert scored.details["perplexity"]["n_tokens"] == sum(
        len(datasets.mask(ws, texts, "tiny", row=row).tokens) for row in range(8)
    )
    with pytest.raises(
        InputError, match="is plain text without prompts, so bleu can.t be computed"
    ):
        evaluators.run(ws, job, texts)


def test_a_turn_marked_as_untrained_has_no_trained_tokens(ws: Workspace):
    path = ws.root / "turns.jsonl"
    turns = [("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "So.")]
    chat = [{"role": role, "content": content} for role, content in turns]
    untrained = [chat[0], {**chat[1], "train": False}, *chat[2:]]
    counts = []
    for messages in (chat, untrained):
        path.write_text(json.dumps({"messages": messages}))
        version = datasets.add(ws, path)
        counts.append(datasets.mask(ws, version, "tiny").n_trained)
        job = train_here(ws, TINY.but(max_steps=1), "turns")
        (metric,) = trainers.metrics(ws, job)
        assert metric.loss is not None
    assert counts == [5, 3]


def test_preflight_reports_every_check(lab: Workspace):
    checks = {check.name: check for check in trainers.preflight(lab, TINY, "hues")}
    assert all(check.is_ok for check in checks.values())
    assert set(checks) == {
        "trained tokens",
        "whole answers",
        "length",
        "end token",
        "precision",
        "memory",
        "disk",
    }


def test_rows_without_trained_tokens_refuse_the_job_and_leave_none(lab: Workspace):
    before = len(trainers.list(lab))
    with pytest.raises(InputError, match="trained tokens: 20 of 20 rows have none"):
        trainers.start(lab, TINY.but(max_length=8), "hues")
    assert len(trainers.list(lab)) == before


def test_cut_answers_refuse_the_job(lab: Workspace):
    longest = next(
        check.got for check in trainers.preflight(lab, TINY, "hues") if check.name == "length"
    )
    length = int(longest.split("the longest row has ")[1].split()[0]) - 4
    with pytest.raises(InputError, match=f"rows are cut at {length} tokens"):
        trainers.start(lab, TINY.but(max_length=length), "hues")


def test_a_precision_that_this_processor_lacks_is_refused(lab: Workspace):
    if device.kind() == "cuda":
        pytest.skip("a GPU can do fp16")
    with pytest.raises(InputError, match="precision='fp16' needs a GPU"):
        trainers.start(lab, TINY.but(precision="fp16"), "hues")


@pytest.mark.parametrize(
    ("changes", "has_bf16", "expected"),
    [
        ({}, True, "bf16"),
        ({}, False, "fp32"),
        ({"precision": "fp32"}, True, "fp32"),
        ({"adapter": "none"}, True, "fp32"),
        ({"method": "dpo"}, True, "fp32"),
    ],
)
def test_auto_precision_is_bf16_only_for_an_adapter_on_a_processor_with_bf16(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], has_bf16: bool, expected: str
):
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    monkeypatch.setattr(device, "has_bf16", lambda: has_bf16)
    assert TINY.but(**changes).training_precision() == expected


def test_bf16_in_software_is_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    monkeypatch.setattr(device, "has_bf16", lambda: False)
    with pytest.raises(InputError, match="no bf16 arithmetic"):
        TINY.but(precision="bf16").training_precision()


def test_a_job_that_does_not_fit_in_memory_is_refused(lab: Workspace):
    config = TINY.but(effective_batch=100_000, micro_batch=100_000)
    with pytest.raises(OutOfRoom, match="memory: about .* GiB of .* GiB free"):
        trainers.start(lab, config, "hues")


def test_a_running_job_is_cancelled_and_stays_so(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    began = time.monotonic()
    cancelled = trainers.cancel(lab, job)
    assert cancelled.state == "cancelled"
    assert time.monotonic() - began < 15
    (event,) = trainers.events(lab, job)
    assert (event.command, event.state) == ("cancel", "applied")
    assert trainers.checkpoints(lab, job)[-1].step == event.step
    with pytest.raises(Conflict, match="is cancelled; only"):
        trainers.cancel(lab, job)


def test_a_queued_job_is_cancelled_at_once_and_never_runs(lab: Workspace):
    job = trainers._enqueue(lab, TINY, "hues")
    assert trainers.cancel(lab, job).state == "cancelled"
    worker.main(str(lab.root), job.id)
    assert trainers.status(lab, job).step == 0


def test_a_worker_that_does_not_respond_is_ended(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    process = worker_of(lab, job)
    process.suspend()
    began = time.monotonic()
    assert trainers.cancel(lab, job).state == "cancelled"
    assert time.monotonic() - began < 15
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_disk_without_room_for_checkpoints_refuses_the_job(small_disk: Path):
    ws = Workspace(small_disk / "lab")
    datasets.add(ws, chats_file(small_disk / "hues.jsonl"))
    models.pull(ws, "tiny")
    fill(small_disk, but_bytes=20_000_000)
    with pytest.raises(OutOfRoom, match="disk: about .* GiB free. Free some space"):
        trainers.start(ws, TINY, "hues")
    assert trainers.list(ws) == ()


def test_a_disk_that_fills_up_pauses_the_job_and_leaves_no_half_checkpoint(small_disk: Path):
    ws = Workspace(small_disk / "lab")
    datasets.add(ws, chats_file(small_disk / "hues.jsonl"))
    models.pull(ws, "tiny")
    config = TINY.but(keep_checkpoints=1, max_steps=2, save_every_steps=2)
    values = {"model": "tiny", "step": 0, "config": config.model_dump(), "created_at": now()}
    job = ws.store.insert("jobs", state="queued", dataset_version_id=1, **values)
    fill(small_disk, but_bytes=2_000_000)
    worker.main(str(ws.root), job)
    (small_disk / "ballast").unlink()
    paused = trainers.status(ws, job)
    assert paused.state == "paused"
    assert "The disk is full while writing the checkpoint of step 2" in (paused.note or "")
    assert trainers.checkpoints(ws, job) == ()
    assert [*(ws.job_folder(job) / "writing").iterdir()] == []
    processes.requeue(ws, job)
    worker.main(str(ws.root), job)
    assert trainers.status(ws, job).state == "completed"


def test_a_full_disk_leaves_no_half_dataset_and_no_half_model(small_disk: Path):
    ws = Workspace(small_disk / "lab")
    rows = chats_file(small_disk / "hues.jsonl", copies=4000)
    fill(small_disk, but_bytes=300_000)
    with pytest.raises(OutOfRoom, match="disk is full while writing the dataset hues"):
        datasets.add(ws, rows)
    with pytest.raises(OutOfRoom, match="disk is full while writing the model tiny"):
        models.pull(ws, "tiny")
    assert datasets.list(ws) == ()
    assert [*ws.datasets.iterdir()] == []
    assert [path for path in ws.models.iterdir() if path.is_dir()] == []


def test_a_worker_gets_its_allocator_and_spin_settings(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    assert job.worker_pid is not None
    environ = psutil.Process(job.worker_pid).environ()
    # glibc parts the text where it stands, as it reads it
    assert processes.ALLOCATION.startswith(environ["GLIBC_TUNABLES"])
    assert environ["GOMP_SPINCOUNT"] == device.SPIN
    trainers.cancel(lab, job)


def test_a_killed_worker_is_noticed_and_named(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    worker_of(lab, job).kill()
    with pytest.raises(JobFailed, match="killed by SIGKILL"):
        trainers.wait(lab, job, timeout_s=20)


def test_a_worker_ends_when_its_supervisor_is_killed(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    process = worker_of(lab, job)
    os.kill(states.row(lab, job)["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while trainers.status(lab, job).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert trainers.status(lab, job).state == "failed"
    processes.wait_until_gone(process.pid, timeout_s=10)  # another job's supervisor may end it
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_job_whose_processes_all_vanish_is_noticed(lab: Workspace):
    job = until_running(lab, trainers.start(lab, LONG, "hues"))
    os.killpg(states.row(lab, job)["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while trainers.status(lab, job).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "The worker has vanished" in (trainers.status(lab, job).error or "")


def test_a_job_outlives_the_process_that_started_it(lab: Workspace):
    script = (
        "from ftlab_kit import Workspace, trainers\n"
        "from ftlab_kit.configs import Config\n"
        f"ws = Workspace({str(lab.root)!r})\n"
        f"print(trainers.start(ws, Config(**{TINY.model_dump()!r}), 'hues').id)\n"
    )
    number = subprocess.check_output([sys.executable, "-c", script], text=True)
    job = trainers.wait(lab, int(number), timeout_s=120)
    assert job.state == "completed"


def test_the_same_metrics_go_to_wandb_offline(lab: Workspace):
    job = trainers.start(lab, TINY.but(max_steps=2, wandb="offline"), "hues")
    job = trainers.wait(lab, job, timeout_s=180)
    (path,) = (lab.job_folder(job.id) / "wandb").glob("offline-run-*/*.wandb")
    sent = _history(path)
    assert [row["loss"] for row in sent] == losses(lab, job)
    assert [row["_step"] for row in sent] == [1, 2]


def _history(path: Path) -> list[dict[str, float]]:
    """The metrics in an offline run: protocol buffers in LevelDB's log format.

    A seven-byte head, then blocks of 32 KiB with parts of (checksum 4, length 2, type 1, data);
    types 1 to 4 are whole, first, middle and last.
    """
    from wandb.proto import wandb_internal_pb2

    content, at, whole, rows = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole, at = whole + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record.FromString(whole)
            items = record.history.item
            if items:
                rows.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in items})
            whole = b""
    return rows
