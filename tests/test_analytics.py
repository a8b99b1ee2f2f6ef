import statistics
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import Workspace, analytics, checkpoints, datasets, device, models, trainers
from ftlab_kit.analytics import comparison, forecast
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
def make_job(ws: Workspace, tmp_path: Path) -> Maker:
    """Writes a job as if it had run from minute 1 to minute 61 of a day."""
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
    numbers = analytics.job(lab, job)
    assert numbers.trained_s == pytest.approx(sum(4 / (row.samples_per_s or 0) for row in rows))
    assert numbers.running_s == numbers.duration_s
    assert 0 < (numbers.trained_s or 0) < (numbers.duration_s or 0)


def test_throughput_is_tokens_by_time_in_steps(lab: Workspace, job: Job):
    rows = trainers.metrics(lab, job)
    numbers, speeds = analytics.job(lab, job), [row.tokens_per_s or 0 for row in rows]
    assert numbers.n_tokens == rows[-1].n_tokens
    mean = (numbers.n_tokens or 0) / (numbers.trained_s or 1)
    assert numbers.tokens_per_s == RateSummary(mean, statistics.median(speeds), max(speeds))
    assert numbers.samples_per_s.mean == pytest.approx(16 / (numbers.trained_s or 1))


def test_losses_are_those_of_their_steps(lab: Workspace, job: Job):
    numbers, rows = analytics.job(lab, job), trainers.metrics(lab, job)
    losses = [row.loss or 0 for row in rows]
    least = losses.index(min(losses)) + 1
    assert numbers.loss == LossSummary(losses[0], 1, min(losses), least, losses[-1], 4)
    assert numbers.eval_loss.first == rows[1].eval_loss
    assert (numbers.eval_loss.first_step, numbers.eval_loss.last_step) == (2, 4)


def test_checkpoints_and_memory_are_added_up(lab: Workspace, job: Job):
    numbers, saved = analytics.job(lab, job), checkpoints.list(lab, job)
    assert (numbers.n_checkpoints, numbers.checkpoints_bytes) == (
        len(saved),
        sum(item.size_bytes for item in saved),
    )
    assert numbers.best_checkpoint_step == checkpoints.best(lab, job).step
    assert numbers.peak_memory_gib == max(row.memory_gib or 0 for row in trainers.metrics(lab, job))


def test_a_number_that_is_not_known_is_none(ws: Workspace, make_job: Maker):
    numbers = analytics.job(
        ws, make_job(started_at=None, state="cancelled"), usd_per_hour=1, watts=1
    )
    for name in ("duration_s", "running_s", "trained_s", "n_tokens", "peak_memory_gib"):
        assert getattr(numbers, name) is None
    assert (numbers.loss, numbers.tokens_per_s) == (LossSummary(), RateSummary())
    assert (numbers.cost_usd, numbers.energy_kwh, numbers.mfu) == (None, None, None)
    assert numbers.mfu_note == "no speed was measured"
    assert numbers.as_dict()["loss"]["first"] is None and "–" in (numbers._repr_html_() or "")


def test_a_job_waits_from_its_creation_to_its_start(ws: Workspace, make_job: Maker):
    numbers = analytics.job(ws, make_job())
    assert (numbers.waited_s, numbers.duration_s, numbers.running_s) == (60, 3600, 3600)


def test_paused_time_is_not_counted(ws: Workspace, make_job: Maker):
    job = make_job()
    event(ws, job, "pause", at(10))
    metric(ws, job.id, 5, at(11), loss=1.0)
    event(ws, job, "resume", at(31))
    numbers = analytics.job(ws, job)
    assert (numbers.duration_s, numbers.running_s) == (60 * 60, 40 * 60)
    assert (numbers.n_pauses, numbers.n_resumes) == (1, 1)


def test_time_in_the_queue_after_a_pause_is_not_counted(ws: Workspace, make_job: Maker):
    job = make_job(launched_at=at(41))
    event(ws, job, "pause", at(11))
    event(ws, job, "resume", at(31))
    assert analytics.job(ws, job).running_s == 30 * 60


def test_a_job_that_was_resumed_twice_was_idle_twice(ws: Workspace, make_job: Maker):
    job = make_job()
    for step, minutes in ((5, 11), (9, 41)):
        metric(ws, job.id, step, at(minutes), loss=1.0)
        event(ws, job, "resume", at(minutes + 10))
    assert analytics.job(ws, job).running_s == 40 * 60


def test_a_paused_job_is_not_running(ws: Workspace, make_job: Maker):
    job = make_job(state="paused", finished_at=None)
    event(ws, job, "pause", at(11))
    numbers = analytics.job(ws, job)
    assert numbers.running_s == pytest.approx(10 * 60)
    assert (numbers.duration_s or 0) > 60 * 60


def test_a_later_run_does_not_hide_when_the_first_began(ws: Workspace, make_job: Maker):
    job = make_job(started_at=at(31))
    metric(ws, job.id, 1, at(2), loss=1.0)
    event(ws, job, "pause", at(11))
    event(ws, job, "resume", at(30))
    numbers = analytics.job(ws, job)
    assert (numbers.waited_s, numbers.duration_s, numbers.running_s) == (120, 59 * 60, 40 * 60)


def test_steps_between_two_metrics_went_at_the_speed_of_the_next(ws: Workspace, make_job: Maker):
    job = make_job(TINY.but(log_every_steps=5))
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    metric(ws, job.id, 3, at(3), eval_loss=1.0)
    metric(ws, job.id, 5, at(4), samples_per_s=4.0, tokens_per_s=40.0, n_tokens=200)
    numbers = analytics.job(ws, job)
    assert numbers.trained_s == 1 * 4 / 2 + 4 * 4 / 4
    assert numbers.tokens_per_s == RateSummary(200 / 6, 30, 40)


def test_restarts_and_batches_left_out_are_counted(ws: Workspace, make_job: Maker):
    job = make_job()
    for number, command in enumerate(("restart", "skip", "skip", "rollback")):
        event(ws, job, command, at(2 + number))
    event(ws, job, "pause", at(7), state="refused")
    numbers = analytics.job(ws, job)
    assert (numbers.n_restarts, numbers.n_skipped, numbers.n_rollbacks, numbers.n_pauses) == (
        1,
        2,
        1,
        0,
    )


def test_utilisation_is_that_of_the_metrics_that_have_one(ws: Workspace, make_job: Maker):
    job = make_job()
    for step, share in enumerate((0.5, None, 0.9), 1):
        metric(ws, job.id, step, at(step), gpu_utilisation=share, gpu_memory_gib=share)
    numbers = analytics.job(ws, job)
    assert (numbers.gpu_utilisation, numbers.peak_gpu_memory_gib) == (
        RateSummary(0.7, 0.7, 0.9),
        0.9,
    )


def test_energy_and_money_are_those_of_the_time_it_ran(ws: Workspace, make_job: Maker):
    job = make_job()
    event(ws, job, "pause", at(21))
    event(ws, job, "resume", at(51))
    numbers = analytics.job(ws, job, usd_per_hour=3, watts=500)
    assert (numbers.cost_usd, numbers.energy_kwh) == (1.5, 0.25)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_an_invalid_price_is_refused(ws: Workspace, make_job: Maker, price: float):
    with pytest.raises(InputError, match=r"usd_per_hour is .*; expected 0 or more"):
        analytics.job(ws, make_job(), usd_per_hour=price)


def test_an_unknown_job_is_not_found(ws: Workspace):
    with pytest.raises(NotFound, match="There is no job 7"):
        analytics.job(ws, 7)


@without_gpu
def test_mfu_is_the_flop_of_its_tokens_over_the_machines(lab: Workspace, job: Job):
    numbers = analytics.job(lab, job)
    folder, version = models.get(lab, "tiny").path, datasets.get(lab, job.dataset_version_id)
    assert folder is not None
    rows, needed = tokenized.read(lab, version, folder), flops.training_flop(folder, rank=16)
    assert needed is not None
    flop = needed.every + needed.trained * float(rows.n_trained.sum() / rows.lengths.sum())
    assert numbers.gflop_per_s == pytest.approx((numbers.tokens_per_s.mean or 0) * flop / 1e9)
    assert numbers.mfu == (numbers.gflop_per_s or 0) / (numbers.peak_gflop_per_s or 1)


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
    ("config", "facts", "reason"),
    [
        (TINY, {}, "the processor that it ran on was not recorded"),
        (TINY, {**HERE, "on_gpu": True}, "the peak of a GPU is not measured"),
        (TINY, {**HERE, "processor": "abacus"}, "it ran on another processor: abacus"),
        (TINY.but(method="dpo"), HERE, "are known for sft, not for dpo"),
        (TINY.but(streaming=True), HERE, "its rows were streamed"),
        (TINY, HERE, "the FLOP of this model's layers are not known"),
    ],
)
def test_without_what_it_needs_there_is_no_mfu(
    ws: Workspace, make_job: Maker, config: Config, facts: dict[str, Any], reason: str
):
    job = make_job(config, facts=facts)
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    numbers = analytics.job(ws, job)
    assert (numbers.mfu, numbers.peak_gflop_per_s) == (None, None)
    assert reason in (numbers.mfu_note or "")


@without_gpu
def test_a_busy_machine_is_not_measured(ws: Workspace, make_job: Maker):
    models.pull(ws, "tiny")
    job = make_job(facts=HERE)
    metric(ws, job.id, 1, at(2), samples_per_s=2.0, tokens_per_s=20.0, n_tokens=40)
    make_job(state="running", finished_at=None, **processes.process_columns())
    numbers = analytics.job(ws, job)
    assert numbers.peak_gflop_per_s is None and numbers.gflop_per_s is not None
    assert "is busy with a job" in (numbers.mfu_note or "")


@without_gpu
def test_the_peak_is_measured_when_a_job_that_has_ended_is_gone(lab: Workspace, job: Job):
    leaving = subprocess.Popen(["sleep", "1"])
    seen = {"pid": leaving.pid, "pid_started_at": processes._started(leaving.pid)}
    before = states.row(lab, job)
    lab.store.update("jobs", {"id": job.id}, **seen)
    try:
        assert analytics.job(lab, job).mfu is not None
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
    numbers = analytics.summary(ws)
    assert (numbers.n_jobs, numbers.states, numbers.hours_trained, numbers.n_tokens) == (
        0,
        {},
        None,
        None,
    )
    assert (numbers.median_duration_s, numbers.failures, numbers.best) == (None, (), ())


def test_a_summary_adds_up_what_jobs_took(ws: Workspace, make_job: Maker):
    for minutes, speed in ((21, 2.0), (41, 4.0), (61, 8.0)):
        job = make_job(finished_at=at(minutes))
        metric(ws, job.id, 1, at(2), samples_per_s=speed, tokens_per_s=speed, n_tokens=4)
    make_job(state="cancelled", started_at=None)
    numbers = analytics.summary(ws)
    assert numbers.states == {"completed": 3, "cancelled": 1}
    assert (numbers.n_jobs, numbers.median_duration_s, numbers.n_tokens) == (4, 40 * 60, 12)
    assert numbers.hours_trained == (4 / 2 + 4 / 4 + 4 / 8) / 3600
    assert numbers.tokens_per_s == {"tiny": 4.0}


def test_failures_are_grouped_by_their_reason(ws: Workspace, make_job: Maker):
    for error in ("Loss is nan at step 3. Lower it.", "Loss is nan at step 12. Lower it.", "Gone."):
        make_job(state="failed", error=error)
    first, second = analytics.summary(ws).failures
    assert (first.message, first.n_jobs, first.job_ids) == ("Loss is nan at step 12", 2, (1, 2))
    assert (second.message, second.n_jobs) == ("Gone", 1)


def test_the_best_job_is_that_of_each_held_out_version(ws: Workspace, make_job: Maker):
    make_job(losses=(3.0, 2.0))
    make_job(losses=(3.0, 1.0, 1.5))
    alone = make_job(losses=(0.5,), held_out_version_id=1)
    best, other = analytics.summary(ws).best
    assert (best.job_id, best.step, best.eval_loss, best.n_jobs) == (2, 2, 2.0, 2)
    assert (other.job_id, other.held_out_version_id) == (alone.id, 1)


def test_a_summary_shows_itself(lab: Workspace, job: Job):
    shown = analytics.summary(lab)._repr_html_()
    assert "median_duration_s" in shown
    assert "<h3>failures</h3>" in shown and "<h3>best</h3>" in shown


def test_only_settings_that_differ_are_shown(lab: Workspace, job: Job, other: Job):
    (difference,) = analytics.compare(lab, job, other).differences
    assert (difference.name, difference.values) == ("learning_rate", (0.01, 0.001))


def test_the_lower_loss_wins(lab: Workspace, job: Job, other: Job):
    result = analytics.compare(lab, job, other.id)
    measures = {item.name: item for item in result.measures}
    losses = [trainers.metrics(lab, item)[-1].loss for item in (job, other)]
    assert measures["last_loss"].values == tuple(losses)
    assert measures["last_loss"].winner == measures["best_eval_loss"].winner == job.id
    assert f"job {job.id} is best by last_loss, best_eval_loss" in result.message


def test_rows_and_adjustments_are_differences_too(ws: Workspace, make_job: Maker):
    first, second = make_job(), make_job(dataset_version_id=1)
    event(ws, second, "adjust", at(5), step=7, arguments={"learning_rate": 1e-4})
    differences = analytics.compare(ws, first, second).differences
    assert {item.name: item.values for item in differences} == {
        "dataset": ("hues train, version 2", "hues all, version 1"),
        "learning_rate": (0.01, "0.01, 0.0001 from step 7"),
    }


def winner(ws: Workspace, name: str, *jobs: Job) -> tuple[int | None, str | None]:
    (measure,) = [item for item in analytics.compare(ws, *jobs).measures if item.name == name]
    return measure.winner, measure.note


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"held_out_version_id": 1}, "different held_out"),
        ({"config": TINY.but(max_length=64)}, "different max_length"),
        ({"config": TINY.but(eval_rows=8)}, "different eval_rows"),
    ],
)
def test_losses_of_other_rows_have_no_winner(
    ws: Workspace, make_job: Maker, change: dict[str, Any], reason: str
):
    result = winner(
        ws, "best_eval_loss", make_job(losses=(2.0,)), make_job(losses=(1.0,), **change)
    )
    assert result == (None, f"not comparable: {reason}")


def test_a_duration_wins_only_among_completed_jobs(ws: Workspace, make_job: Maker):
    first, second = make_job(), make_job(finished_at=at(41))
    assert winner(ws, "running_s", first, second) == (second.id, None)
    third = make_job(finished_at=at(2), state="cancelled")
    assert winner(ws, "running_s", first, third)[1] == "not comparable: not all are completed"


def test_a_lead_within_the_noise_has_no_winner(ws: Workspace, make_job: Maker):
    jobs = [make_job(finished_at=at(61 + number / 2)) for number in range(2)]
    assert winner(ws, "running_s", *jobs) == (None, "no lead of more than 2%")


def test_equal_losses_are_a_tie(ws: Workspace, make_job: Maker):
    assert winner(ws, "last_loss", make_job(losses=(2.0,)), make_job(losses=(2.0,))) == (
        None,
        "a tie",
    )


def test_a_measure_that_one_job_alone_has_has_no_winner(ws: Workspace, make_job: Maker):
    result = winner(ws, "last_loss", make_job(losses=(2.0,)), make_job())
    assert result == (None, "measured for fewer than two jobs")


def test_more_tokens_are_neither_better_nor_worse(lab: Workspace, job: Job, other: Job):
    assert winner(lab, "n_tokens", job, other) == (None, "neither more nor less is better")


def test_one_job_is_not_a_comparison(lab: Workspace, job: Job):
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


def test_jobs_without_a_held_out_side_have_one_picture(ws: Workspace, make_job: Maker):
    jobs = [make_job() for _ in range(2)]
    for item in jobs:
        metric(ws, item.id, 1, at(2), loss=1.0)
    assert side_by_side(ws, *jobs)._repr_html_().count("<img alt=") == 1


def test_the_constants_of_comparison_and_forecast_are_these():
    assert comparison.NOISE == 0.02
    assert (forecast.USUAL_MFU, forecast.FORWARD) == (0.45, 1 / 3)
    assert forecast.SAME_SPEED == (
        "model", "method", "adapter", "precision", "threads", "processes", "packing",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "greater_is_better", "must_match", "min_lead", "needs_completion"),
    [
        ("last_loss", False, "method model max_length dataset", 0, False),
        ("best_eval_loss", False, "method model max_length held_out eval_rows", 0, False),
        ("tokens_per_s", True, "processor", 0.02, False),
        ("running_s", False, "processor", 0.02, True),
        ("peak_memory_gib", False, "", 0.02, False),
        ("peak_gpu_memory_gib", False, "", 0.02, False),
        ("n_tokens", None, "", 0.02, False),
        ("checkpoints_bytes", False, "", 0.02, False),
    ],
)
def test_jobs_are_compared_by_these_measures(
    measure: str,
    greater_is_better: bool | None,
    must_match: str,
    min_lead: float,
    needs_completion: bool,
):
    (row,) = [item for item in comparison.COMPARED_MEASURES if item.name == measure]
    assert row.greater_is_better is greater_is_better
    assert " ".join(row.must_match) == must_match
    assert (row.min_lead, row.needs_completion) == (min_lead, needs_completion)
