import statistics
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import Workspace, analytics, checkpoints, datasets, device, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.jobs import processes, states
from ftlab_kit.lm import flops
from ftlab_kit.records import Job, LossSummary, RateSummary
from ftlab_kit.widgets.jobs_view import jobs as side_by_side
from tests.conftest import TINY, chats_file

BEGAN = datetime(2026, 1, 2, 12, tzinfo=UTC)
Maker = Callable[..., Job]
without_gpu = pytest.mark.skipif(bool(device.gpus()), reason="the peak of a GPU is not measured")


def at(minutes: float) -> datetime:
    return BEGAN + timedelta(minutes=minutes)


@pytest.fixture
def made(ws: Workspace, tmp_path: Path) -> Maker:
    """A job written down as if it had run: from minute 1 to minute 61 of a day, in this state."""
    train, held_out = datasets.split(ws, datasets.add(ws, chats_file(tmp_path / "hues.jsonl")))

    def make(config: Config = TINY, *, losses: tuple[float, ...] = (), **values: Any) -> Job:
        row = {"state": "completed", "started_at": at(1), "finished_at": at(61), "step": 0}
        row |= {"dataset_version_id": train.id, "held_out_version_id": held_out.id, **values}
        job_id = ws.store.insert(
            "jobs", model=config.model, config=config.model_dump(), created_at=at(0), **row
        )
        for step, loss in enumerate(losses, 1):
            metric(ws, job_id, step, at(1 + step), loss=loss, eval_loss=loss + 1)
        return states.read(ws, job_id)

    return make


def metric(ws: Workspace, job_id: int, step: int, when: datetime, **values: Any) -> None:
    ws.store.insert("metrics", job_id=job_id, step=step, at=when, **values)


def event(ws: Workspace, job: Job, command: str, when: datetime, **values: Any) -> None:
    values = {"state": "applied", **values}
    ws.store.insert("events", job_id=job.id, command=command, created_at=when, **values)


@pytest.fixture(scope="module")
def other(lab: Workspace, job: Job) -> Job:
    """A job that differs from the shared one in its learning rate alone."""
    config = Config(**job.config).but(learning_rate=1e-3)
    held_out = job.held_out_version_id
    started = trainers.start(lab, config, job.dataset_version_id, held_out=held_out)
    return trainers.wait(lab, started, timeout_s=180)


def test_time_in_steps_is_what_the_metrics_say(lab: Workspace, job: Job):
    rows = trainers.metrics(lab, job)
    found = analytics.job(lab, job)
    assert found.trained_s == pytest.approx(sum(4 / (row.samples_per_s or 0) for row in rows))
    assert found.running_s == found.duration_s
    assert 0 < (found.trained_s or 0) < (found.duration_s or 0)


def test_throughput_is_tokens_by_time_in_steps(lab: Workspace, job: Job):
    rows = trainers.metrics(lab, job)
    found, speeds = analytics.job(lab, job), [row.tokens_per_s or 0 for row in rows]
    assert found.n_tokens == rows[-1].n_tokens
    mean = (found.n_tokens or 0) / (found.trained_s or 1)
    assert found.tokens_per_s == RateSummary(mean, statistics.median(speeds), max(speeds))
    assert found.samples_per_s.mean == pytest.approx(16 / (found.trained_s or 1))


def test_losses_are_those_of_their_steps(lab: Workspace, job: Job):
    found, rows = analytics.job(lab, job), trainers.metrics(lab, job)
    losses = [row.loss or 0 for row in rows]
    least = losses.index(min(losses)) + 1
    assert found.loss == LossSummary(losses[0], 1, min(losses), least, losses[-1], 4)
    assert found.eval_loss.first == rows[1].eval_loss
    assert (found.eval_loss.first_step, found.eval_loss.last_step) == (2, 4)


def test_checkpoints_and_memory_are_added_up(lab: Workspace, job: Job):
    found, kept = analytics.job(lab, job), checkpoints.list(lab, job)
    assert (found.n_checkpoints, found.checkpoints_bytes) == (
        len(kept),
        sum(item.size_bytes for item in kept),
    )
    assert found.best_checkpoint_step == checkpoints.best(lab, job).step
    assert found.peak_memory_gib == max(row.memory_gib or 0 for row in trainers.metrics(lab, job))


def test_what_is_not_known_is_none(ws: Workspace, made: Maker):
    found = analytics.job(ws, made(started_at=None, state="cancelled"), usd_per_hour=1, watts=1)
    for name in ("duration_s", "running_s", "trained_s", "n_tokens", "peak_memory_gib"):
        assert getattr(found, name) is None
    assert (found.loss, found.tokens_per_s) == (LossSummary(), RateSummary())
    assert (found.cost_usd, found.energy_kwh, found.efficiency) == (None, None, None)
    assert found.efficiency_note == "no speed was measured"
    assert found.as_dict()["loss"]["first"] is None and "–" in (found._repr_html_() or "")


def test_a_job_waits_from_its_creation_to_its_start(ws: Workspace, made: Maker):
    found = analytics.job(ws, made())
    assert (found.waited_s, found.duration_s, found.running_s) == (60, 3600, 3600)


def test_paused_time_is_not_counted(ws: Workspace, made: Maker):
    job = made()
    event(ws, job, "pause", at(10))
    metric(ws, job.id, 5, at(11), loss=1.0)
    event(ws, job, "resume", at(31))
    found = analytics.job(ws, job)
    assert (found.duration_s, found.running_s) == (60 * 60, 40 * 60)
    assert (found.n_pauses, found.n_resumes) == (1, 1)


def test_time_in_the_queue_after_a_pause_is_not_counted(ws: Workspace, made: Maker):
    job = made(launched_at=at(41))
    event(ws, job, "pause", at(11))
    event(ws, job, "resume", at(31))
    assert analytics.job(ws, job).running_s == 30 * 60


def test_a_job_that_was_resumed_twice_lay_still_twice(ws: Workspace, made: Maker):
    job = made()
    for step, minutes in ((5, 11), (9, 41)):
        metric(ws, job.id, step, at(minutes), loss=1.0)
        event(ws, job, "resume", at(minutes + 10))
    assert analytics.job(ws, job).running_s == 40 * 60


def test_a_paused_job_runs_no_more(ws: Workspace, made: Maker):
    job = made(state="paused", finished_at=None)
    event(ws, job, "pause", at(11))
    found = analytics.job(ws, job)
    assert found.running_s == pytest.approx(10 * 60)
    assert (found.duration_s or 0) > 60 * 60


def test_a_later_run_does_not_hide_when_the_first_began(ws: Workspace, made: Maker):
    job = made(started_at=at(31))
    metric(ws, job.id, 1, at(2), loss=1.0)
    event(ws, job, "pause", at(11))
    event(ws, job, "resume", at(30))
    found = analytics.job(ws, job)
    assert (found.waited_s, found.duration_s, found.running_s) == (120, 59 * 60, 40 * 60)


def test_steps_between_two_metrics_went_at_the_speed_of_the_next(ws: Workspace, made: Maker):
    job = made(TINY.but(log_every_steps=5))
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    metric(ws, job.id, 3, at(3), eval_loss=1.0)
    metric(ws, job.id, 5, at(4), samples_per_s=4.0, tokens_per_s=40.0, n_tokens=200)
    found = analytics.job(ws, job)
    assert found.trained_s == 1 * 4 / 2 + 4 * 4 / 4
    assert found.tokens_per_s == RateSummary(200 / 6, 30, 40)


def test_restarts_and_batches_left_out_are_counted(ws: Workspace, made: Maker):
    job = made()
    for number, command in enumerate(("restart", "skip", "skip", "rollback")):
        event(ws, job, command, at(2 + number))
    event(ws, job, "pause", at(7), state="refused")
    found = analytics.job(ws, job)
    assert (found.n_restarts, found.n_skipped, found.n_rollbacks, found.n_pauses) == (1, 2, 1, 0)


def test_utilisation_is_that_of_the_metrics_that_have_one(ws: Workspace, made: Maker):
    job = made()
    for step, share in enumerate((0.5, None, 0.9), 1):
        metric(ws, job.id, step, at(step), gpu_utilisation=share, gpu_memory_gib=share)
    found = analytics.job(ws, job)
    assert (found.gpu_utilisation, found.peak_gpu_memory_gib) == (RateSummary(0.7, 0.7, 0.9), 0.9)


def test_energy_and_money_are_those_of_the_time_it_ran(ws: Workspace, made: Maker):
    job = made()
    event(ws, job, "pause", at(21))
    event(ws, job, "resume", at(51))
    found = analytics.job(ws, job, usd_per_hour=3, watts=500)
    assert (found.cost_usd, found.energy_kwh) == (1.5, 0.25)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(ws: Workspace, made: Maker, price: float):
    with pytest.raises(InputError, match=r"usd_per_hour is .*; expected 0 or more"):
        analytics.job(ws, made(), usd_per_hour=price)


def test_an_unknown_job_is_not_found(ws: Workspace):
    with pytest.raises(NotFound, match="There is no job 7"):
        analytics.job(ws, 7)


@without_gpu
def test_efficiency_is_the_flop_of_its_tokens_by_the_machines(lab: Workspace, job: Job):
    found = analytics.job(lab, job)
    folder, version = models.get(lab, "tiny").path, datasets.get(lab, job.dataset_version_id)
    assert folder is not None
    rows, needed = tokenized.read(lab, version, folder), flops.training_flop(folder, rank=16)
    assert needed is not None
    flop = needed.token + needed.trained * float(rows.n_trained.sum() / rows.lengths.sum())
    assert found.gflop_per_s == pytest.approx((found.tokens_per_s.mean or 0) * flop / 1e9)
    assert found.efficiency == (found.gflop_per_s or 0) / (found.peak_gflop_per_s or 1)


@without_gpu
def test_the_greatest_peak_of_the_machine_is_kept(lab: Workspace, job: Job):
    precision = TINY.training_precision()
    key = {"name": f"GFLOP/s, {precision}, 1 threads, {device.processor()}"}
    lab.store.upsert("settings", key, value=1.0)
    assert (analytics.job(lab, job).peak_gflop_per_s or 0) > 1
    lab.store.upsert("settings", key, value=1e9)
    assert analytics.job(lab, job).peak_gflop_per_s == 1e9
    lab.store.delete("settings", **key)


HERE = {"processor": device.processor(), "on_gpu": False, "threads": 1, "processes": 1}


@pytest.mark.parametrize(
    ("config", "facts", "words"),
    [
        (TINY, {}, "on which processor it ran was not recorded"),
        (TINY, {**HERE, "on_gpu": True}, "the peak of a GPU is not measured"),
        (TINY, {**HERE, "processor": "abacus"}, "it ran on another processor: abacus"),
        (TINY.but(method="dpo"), HERE, "is known for sft, not for dpo"),
        (TINY.but(streaming=True), HERE, "its rows were streamed"),
        (TINY, HERE, "the work of this model's layers is not known"),
    ],
)
def test_without_what_it_takes_there_is_no_efficiency(
    ws: Workspace, made: Maker, config: Config, facts: dict[str, Any], words: str
):
    job = made(config, facts=facts)
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    found = analytics.job(ws, job)
    assert (found.efficiency, found.peak_gflop_per_s) == (None, None)
    assert words in (found.efficiency_note or "")


@without_gpu
def test_a_busy_machine_is_not_measured(ws: Workspace, made: Maker):
    models.pull(ws, "tiny")
    job = made(facts=HERE)
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    made(state="running", finished_at=None, **processes.process_columns())
    found = analytics.job(ws, job)
    assert found.peak_gflop_per_s is None and found.gflop_per_s is not None
    assert "is busy with a job" in (found.efficiency_note or "")


@without_gpu
def test_the_peak_is_measured_when_a_job_that_has_ended_is_gone(lab: Workspace, job: Job):
    leaving = subprocess.Popen(["sleep", "1"])
    seen = {"pid": leaving.pid, "pid_started_at": processes._started(leaving.pid)}
    before = states.row(lab, job)
    lab.store.update("jobs", {"id": job.id}, **seen)
    try:
        assert analytics.job(lab, job).efficiency is not None
    finally:
        lab.store.update("jobs", {"id": job.id}, **{name: before[name] for name in seen})
    assert leaving.poll() is not None


def test_the_work_of_a_token_is_that_of_its_layers(lab: Workspace):
    folder = models.get(lab, "tiny").path
    assert folder is not None
    from transformers import AutoConfig

    c = AutoConfig.from_pretrained(folder)
    h, f, kv = c.hidden_size, c.intermediate_size, c.num_key_value_heads * c.head_dim
    q = c.num_attention_heads * c.head_dim
    shapes = [(h, q), (h, kv), (h, kv), (q, h), (h, f), (h, f), (f, h)]
    base, around = (sum(map(of, shapes)) * c.num_hidden_layers for of in (_area, sum))
    head = h * c.vocab_size
    assert flops.training_flop(folder, rank=4) == flops.TokenFlop(
        4.0 * base + 6.0 * 4 * around, 4.0 * head
    )
    assert flops.training_flop(folder, rank=None) == flops.TokenFlop(6.0 * base, 6.0 * head)
    one = flops.training_flop(folder, rank=4, targets="q_proj")
    assert one == flops.TokenFlop(4.0 * base + 6.0 * 4 * (h + q) * c.num_hidden_layers, 4.0 * head)


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def test_the_work_of_other_layers_is_not_known(tmp_path: Path):
    from transformers import GPT2Config

    GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=100).save_pretrained(tmp_path)
    assert flops.training_flop(tmp_path, rank=4) is None


def test_measuring_the_peak_leaves_threads_and_chance_alone():
    import torch

    before = torch.get_num_threads(), torch.get_rng_state()
    assert flops.peak_gflop_per_s("fp32", 1) > 0
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_an_empty_workspace_has_a_summary(ws: Workspace):
    found = analytics.summary(ws)
    assert (found.n_jobs, found.states, found.hours_trained, found.n_tokens) == (0, {}, None, None)
    assert (found.median_duration_s, found.failures, found.best) == (None, (), ())


def test_a_summary_adds_up_what_jobs_took(ws: Workspace, made: Maker):
    for minutes, speed in ((21, 2.0), (41, 4.0), (61, 8.0)):
        job = made(finished_at=at(minutes))
        metric(ws, job.id, 1, at(2), samples_per_s=speed, tokens_per_s=speed, n_tokens=4)
    made(state="cancelled", started_at=None)
    found = analytics.summary(ws)
    assert found.states == {"completed": 3, "cancelled": 1}
    assert (found.n_jobs, found.median_duration_s, found.n_tokens) == (4, 40 * 60, 12)
    assert found.hours_trained == (4 / 2 + 4 / 4 + 4 / 8) / 3600
    assert found.tokens_per_s == {"tiny": 4.0}


def test_failures_are_told_by_their_words(ws: Workspace, made: Maker):
    for error in ("Loss is nan at step 3. Lower it.", "Loss is nan at step 12. Lower it.", "Gone."):
        made(state="failed", error=error)
    first, second = analytics.summary(ws).failures
    assert (first.message, first.n_jobs, first.job_ids) == ("Loss is nan at step 12", 2, (1, 2))
    assert (second.message, second.n_jobs) == ("Gone", 1)


def test_the_best_job_is_that_of_each_held_out_version(ws: Workspace, made: Maker):
    made(losses=(3.0, 2.0))
    made(losses=(3.0, 1.0, 1.5))
    alone = made(losses=(0.5,), held_out_version_id=1)
    best, other = analytics.summary(ws).best
    assert (best.job_id, best.step, best.eval_loss, best.n_jobs) == (2, 2, 2.0, 2)
    assert (other.job_id, other.held_out_version_id) == (alone.id, 1)


def test_a_summary_shows_itself(lab: Workspace, job: Job):
    shown = analytics.summary(lab)._repr_html_()
    assert "median_duration_s" in shown
    assert "<h3>failures</h3>" in shown and "<h3>best</h3>" in shown


def test_only_what_differs_is_compared(lab: Workspace, job: Job, other: Job):
    (difference,) = analytics.compare(lab, job, other).differences
    assert (difference.name, difference.values) == ("learning_rate", (0.01, 0.001))


def test_the_lower_loss_wins(lab: Workspace, job: Job, other: Job):
    found = analytics.compare(lab, job, other.id)
    measures = {item.name: item for item in found.measures}
    losses = [trainers.metrics(lab, item)[-1].loss for item in (job, other)]
    assert measures["last_loss"].values == tuple(losses)
    assert measures["last_loss"].winner == measures["best_eval_loss"].winner == job.id
    assert f"job {job.id} is best by last_loss, best_eval_loss" in found.message


def test_rows_and_adjustments_are_differences_too(ws: Workspace, made: Maker):
    first, second = made(), made(dataset_version_id=1)
    event(ws, second, "adjust", at(5), step=7, arguments={"learning_rate": 1e-4})
    found = {item.name: item.values for item in analytics.compare(ws, first, second).differences}
    assert found == {
        "dataset": ("hues train, version 2", "hues all, version 1"),
        "learning_rate": (0.01, "0.01, 0.0001 from step 7"),
    }


def winner(ws: Workspace, name: str, *jobs: Job) -> tuple[int | None, str | None]:
    (found,) = [item for item in analytics.compare(ws, *jobs).measures if item.name == name]
    return found.winner, found.note


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"held_out_version_id": 1}, "not the same held_out"),
        ({"config": TINY.but(max_length=64)}, "not the same max_length"),
        ({"config": TINY.but(eval_rows=8)}, "not the same eval_rows"),
    ],
)
def test_losses_of_other_rows_have_no_winner(
    ws: Workspace, made: Maker, change: dict[str, Any], words: str
):
    found = winner(ws, "best_eval_loss", made(losses=(2.0,)), made(losses=(1.0,), **change))
    assert found == (None, f"not comparable: {words}")


def test_a_duration_wins_only_among_completed_jobs(ws: Workspace, made: Maker):
    first, second = made(), made(finished_at=at(41))
    assert winner(ws, "running_s", first, second) == (second.id, None)
    third = made(finished_at=at(2), state="cancelled")
    assert winner(ws, "running_s", first, third)[1] == "not comparable: not all are completed"


def test_noise_wins_nothing(ws: Workspace, made: Maker):
    jobs = [made(finished_at=at(61 + number / 2)) for number in range(2)]
    assert winner(ws, "running_s", *jobs) == (None, "no lead of more than 2%")


def test_equal_losses_are_a_tie(ws: Workspace, made: Maker):
    assert winner(ws, "last_loss", made(losses=(2.0,)), made(losses=(2.0,))) == (None, "a tie")


def test_what_one_job_alone_has_wins_nothing(ws: Workspace, made: Maker):
    found = winner(ws, "last_loss", made(losses=(2.0,)), made())
    assert found == (None, "measured of fewer than two")


def test_more_tokens_are_neither_better_nor_worse(lab: Workspace, job: Job, other: Job):
    assert winner(lab, "n_tokens", job, other) == (None, "neither more nor less is better")


def test_one_job_is_no_comparison(lab: Workspace, job: Job):
    with pytest.raises(InputError, match=f"given only job {job.id}; expected two or more"):
        analytics.compare(lab, job)
    with pytest.raises(InputError, match="given no job"):
        analytics.compare(lab)
    with pytest.raises(InputError, match="each once"):
        analytics.compare(lab, job, job.id)


def test_jobs_are_shown_with_curves_differences_and_winners(lab: Workspace, job: Job, other: Job):
    shown = side_by_side(lab, job, other)
    text = shown._repr_html_()
    assert text.count("<img alt=") == 2
    assert 'alt="loss: job ' in text and 'alt="held-out loss: job ' in text
    assert "learning_rate" in text and "adapter_rank" not in text
    assert f">job {job.id}</td>" in text
    assert "differ in learning_rate" in repr(shown)


def test_jobs_without_a_held_out_side_have_one_picture(ws: Workspace, made: Maker):
    jobs = [made() for _ in range(2)]
    for item in jobs:
        metric(ws, item.id, 1, at(2), loss=1.0)
    assert side_by_side(ws, *jobs)._repr_html_().count("<img alt=") == 1
