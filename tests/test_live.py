"""The live view of a job: what it shows, what its buttons do, and what it reads."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from ipywidgets import Button

from ftlab_kit import Workspace, metrics, trainers, widgets
from ftlab_kit.errors import InputError
from ftlab_kit.pictures import job_panels
from ftlab_kit.records import Event, Job, show
from ftlab_kit.widgets.live_view import TrainerView
from tests.conftest import TINY, every, text_of, until

pytestmark = pytest.mark.usefixtures("seated")


@pytest.fixture(scope="module")
def started(lab: Workspace) -> Iterator[list[Job]]:
    """The long jobs that tests of this file have started; the last one may still run."""
    jobs: list[Job] = []
    yield jobs
    for job in jobs:
        if not trainers.status(lab, job).is_over:
            trainers.cancel(lab, job)


@pytest.fixture
def long(lab: Workspace, started: list[Job]) -> Job:
    """A running job that tests share, and that runs until one of them cancels it."""
    if not started or trainers.status(lab, started[-1]).state != "running":
        config = TINY.but(max_steps=200_000, save_every_steps=200_000)
        started.append(trainers.start(lab, config, "hues"))
    # one step further than now: a job that was just resumed is running before its worker steps
    step = trainers.status(lab, started[-1]).step + 1
    return trainers.wait(lab, started[-1], until_step=max(2, step), timeout_s=180)


def of_command(lab: Workspace, job: Job, command: str) -> list[Event]:
    return [event for event in trainers.events(lab, job) if event.command == command]


def test_a_fresh_view_has_the_whole_history(lab: Workspace, job: Job):
    view = widgets.trainer(lab, job)
    assert isinstance(view, TrainerView)
    shown = text_of(view)
    for text in ("step 4 of 4", 'role="status"', "over 4 steps", "checkpoint at step 4"):
        assert text in shown
    for title in ("gradient norm", "throughput", "memory", "learning rate"):
        assert f'aria-label="{title}: ' in shown
    view.close()


def test_a_view_follows_what_is_new(lab: Workspace, job: Job):
    view = TrainerView(lab, job)
    metrics.write(lab, job.id, 5, loss=9.0)
    try:
        view.refresh()
        assert "over 5 steps" in text_of(view)
    finally:
        lab.store.delete("metrics", job_id=job.id, step=5)
        view.close()


def test_pause_adjust_and_resume_are_requested_and_confirmed(lab: Workspace, long: Job):
    view, rate = TrainerView(lab, long), trainers.settings(lab, long).learning_rate
    view.fields.field["learning_rate"].value = str(rate / 2)
    view.adjust.click()
    until(lambda: "confirmed: adjust at step" in text_of(view))
    event = of_command(lab, long, "adjust")[-1]
    assert event.result == {"learning_rate": [rate, rate / 2]}
    view.refresh(whole=True)
    assert "<title>adjust at step" in text_of(view)
    view.pause.click()
    until(lambda: "confirmed: paused" in text_of(view))
    view.refresh()
    assert (view.pause.disabled, view.resume.disabled) == (True, False)
    view.resume.click()
    until(lambda: trainers.status(lab, long).state == "running", 120)
    view.close()


def test_checkpoint_now_writes_one(lab: Workspace, long: Job):
    view, n_before = TrainerView(lab, long), len(trainers.checkpoints(lab, long))
    view.checkpoint.click()
    until(lambda: "confirmed: checkpoint at step" in text_of(view))
    assert len(trainers.checkpoints(lab, long)) == n_before + 1
    view.close()


def test_a_click_reaches_the_mailbox_within_half_a_second(lab: Workspace, long: Job):
    view = TrainerView(lab, long)
    began = time.monotonic()
    view.cancel.click()
    until(lambda: bool(of_command(lab, long, "cancel")), 0.5)
    assert time.monotonic() - began < 0.5
    assert "requested: cancel" in text_of(view) or "confirmed" in text_of(view)
    until(lambda: trainers.status(lab, long).state == "cancelled")
    view.refresh()
    assert view.cancel.disabled
    view.close()


def test_nothing_to_adjust_is_an_alert(lab: Workspace, long: Job):
    view = TrainerView(lab, long)
    view.adjust.click()
    until(lambda: "adjust was given nothing to change" in text_of(view))
    assert 'role="alert"' in view._status.value
    view.close()


def test_a_wrong_value_is_an_alert_below_the_fields(lab: Workspace, job: Job):
    view = TrainerView(lab, job)
    view.fields.field["learning_rate"].value = "fast"
    assert "learning_rate is &#x27;fast&#x27;; expected a number" in view.fields.status.value
    view.fields.field["learning_rate"].value = "1e-4"
    assert view.fields.status.value == ""
    view.close()


def test_every_button_says_what_it_does(lab: Workspace, job: Job):
    view = TrainerView(lab, job)
    buttons = [child for child in every(view) if isinstance(child, Button)]
    assert len(buttons) == 5
    assert all(button.tooltip and button.description for button in buttons)
    view.close()


def test_a_failed_job_is_an_alert(lab: Workspace, job: Job):
    lab.store.update("jobs", {"id": job.id}, state="failed", error="<out> of memory")
    view = TrainerView(lab, job)
    try:
        shown = text_of(view)
        assert 'role="alert"' in shown
        assert "&lt;out&gt; of memory" in shown
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed", error=None)
        view.close()


def write_metrics(ws: Workspace, job: Job, steps: int) -> None:
    """Write metrics of a number of steps, with one spike."""
    with ws.store.transaction():
        for step in range(1, steps + 1):
            loss = 99.0 if step == 700 else 3 + step % 7 / 10
            metrics.write(ws, job.id, step, loss=loss, grad_norm=1.0)


@pytest.fixture
def history(lab: Workspace) -> Job:
    """A job that never runs, with two thousand steps behind it."""
    version = lab.store.get("dataset_versions", dataset="hues") or {}
    job = trainers._enqueue(lab, TINY.but(max_steps=4000), version["id"])
    lab.store.update("jobs", {"id": job.id}, state="cancelled", step=2000, total_steps=4000)
    write_metrics(lab, job, 2000)
    return trainers.status(lab, job)


def test_a_smoothed_line_is_drawn_over_the_raw_one(lab: Workspace, history: Job):
    view = TrainerView(lab, history)
    assert "loss: smoothed from" in text_of(view)
    view.smoothing.value = 0
    assert "loss: training from 3.1 to 3.5 over 2000 steps" in text_of(view)
    view.close()


def test_the_slider_shows_a_range_of_steps_in_more_detail(lab: Workspace, history: Job):
    view = TrainerView(lab, history)
    view.smoothing.value = 0
    view.steps.value = (650, 720)
    shown = view._panels["loss"].value
    assert "over 720 steps" in shown
    points = view._history.series("loss")[0].points
    assert [x for x, _ in points] == list(range(650, 721))
    assert (700, 99.0) in points
    view.close()


def test_curves_are_downsampled_in_the_store(lab: Workspace, history: Job):
    loss, norm, held_out = trainers.curves(
        lab, history, "loss", "grad_norm", "eval_loss", at_most=64
    )
    assert len(loss.buckets) <= 64
    assert (loss.start, loss.end) == (3.1, 3.5)
    assert max(item.high for item in loss.buckets) == 99.0
    assert sum(item.n for item in loss.buckets) == 2000
    assert {item.mean for item in norm.buckets} == {1.0}
    assert (held_out.buckets, held_out.start) == ((), None)


def test_a_short_curve_is_not_downsampled(lab: Workspace, job: Job):
    (loss,) = trainers.curves(lab, job, "loss")
    rows = trainers.metrics(lab, job)
    assert [(item.first, item.mean) for item in loss.buckets] == [
        (row.step, row.loss) for row in rows if row.loss is not None
    ]


def test_a_metric_of_one_method_has_a_curve(lab: Workspace, history: Job):
    metrics.write(lab, history.id, 2001, more={"reward": 0.5})
    (reward,) = trainers.curves(lab, history, "more.reward")
    assert (reward.start, reward.end, len(reward.buckets)) == (0.5, 0.5, 1)


def test_an_unknown_curve_names_the_nearest(lab: Workspace, job: Job):
    with pytest.raises(InputError, match="Unknown metric 'los'.*'loss'"):
        trainers.curves(lab, job, "los")


def test_events_have_the_numbers_of_their_marks(lab: Workspace, long: Job):
    trainers.adjust(lab, long, weight_decay=0.1)
    events = trainers.events(lab, long)
    mark = [item for item in job_panels.marks(events) if item.label.startswith("adjust")][-1]
    listed = job_panels.events_list(events)
    assert f"mark {mark.sign}" in listed and "weight_decay 0 to 0.1" in listed
    assert "weight_decay 0 to 0.1" in mark.label


def test_a_report_has_the_marks_the_events_and_the_checkpoints(lab: Workspace, long: Job):
    rate = trainers.settings(lab, long).learning_rate
    trainers.adjust(lab, long, learning_rate=rate / 5)
    trainers.checkpoint(lab, long)
    text = widgets.report(lab, long)._repr_html_()
    change = f"learning_rate {show(rate)} to {show(rate / 5)}"
    assert change in text and "<h3>checkpoints</h3>" in text


def test_only_adjustments_have_old_and_new_values():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event = Event(1, 1, "sample", "applied", 3, None, "ann", {}, {"answers": ["a", "b"]}, None, at)
    assert job_panels.describe(event) == "sample at step 3"
    assert job_panels.marks([event]) == []
