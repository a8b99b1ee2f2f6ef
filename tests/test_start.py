"""The form that starts a job: fields from the settings, an estimate, and the live view."""

from pathlib import Path

import pytest

from ftlab_kit import Workspace, analytics, configs, datasets, models, trainers, widgets
from ftlab_kit.configs import Config
from ftlab_kit.errors import InputError
from ftlab_kit.records import Job
from ftlab_kit.widgets.display import Html
from ftlab_kit.widgets.live_view import TrainerView
from ftlab_kit.widgets.start_form import StartForm
from tests.conftest import TINY, chats_file, every, text_of, until

pytestmark = pytest.mark.usefixtures("seated")


def test_every_setting_has_a_field_with_help_and_bounds(lab: Workspace):
    form = widgets.trainer(lab)
    assert isinstance(form, StartForm)
    assert {*form.fields.field} | {"model"} == {*Config.model_fields}
    shown = text_of(form)
    assert "<b>above 0, at most 1</b> Peak learning rate" in shown
    assert "<b>rows, at least 1</b> Rows per optimizer step, over all micro-batches" in shown


def test_every_field_has_a_label(lab: Workspace):
    form = StartForm(lab)
    fields = [item for item in every(form) if hasattr(item, "description_allow_html")]
    assert len(fields) > len(Config.model_fields)
    assert all(item.description for item in fields if type(item).__name__ != "HTML")


def test_the_other_side_of_a_split_is_held_out_and_the_preset_fits(ws: Workspace):
    train, held_out = datasets.split(ws, datasets.add(ws, datasets.PUDDLE_AND_PINE), held_out=0.1)
    form = StartForm(ws)
    form.dataset.value = train.id
    assert form.held_out.value == held_out.id
    assert form.preset.value == "hundreds"
    assert form.config() == configs.preset("hundreds")


def test_a_saved_config_fills_the_fields(ws: Workspace):
    configs.save(ws, "mine", TINY.but(adapter_rank=3, micro_batch="auto"))
    datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    form = StartForm(ws)
    form.preset.value, form.model.value = "mine", "tiny"
    assert form.fields.field["adapter_rank"].value == "3"
    assert form.config() == TINY.but(adapter_rank=3, micro_batch="auto")


def test_a_given_config_is_what_the_form_begins_with(lab: Workspace):
    assert StartForm(lab, TINY).config() == TINY


def test_without_rows_nothing_can_be_started(ws: Workspace):
    form = StartForm(ws)
    assert form.start.disabled
    assert "datasets.add" in form._status.value and 'role="alert"' in form._status.value


def test_start_starts_a_job_and_shows_it(lab: Workspace):
    form = StartForm(lab, TINY.but(max_steps=2))
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    form.dataset.value, form.held_out.value = train.id, held_out.id
    form.start.click()
    until(lambda: form.job is not None, 120)
    until(lambda: isinstance(form.children[0], TrainerView), 20)
    job = trainers.wait(lab, form.job, timeout_s=120)
    assert (job.state, job.held_out_version_id) == ("completed", held_out.id)
    form.children[0].close()


def test_a_job_refused_by_preflight_is_an_alert(lab: Workspace):
    form = StartForm(lab, TINY.but(max_length=8))
    form.start.click()
    until(lambda: "Preflight refuses the job" in form._status.value, 60)
    assert 'role="alert"' in form._status.value and form.job is None


def test_an_estimate_is_shown_before_the_start(lab: Workspace, job: Job):
    form = StartForm(lab, TINY.but(eval_every_steps=2))
    form.price.value = "2"
    form.estimate.click()
    until(lambda: "what it will take" in form._estimate.value, 60)
    assert "GiB free" in form._estimate.value and "US dollars" in form._estimate.value
    form.fields.field["epochs"].value = "7"
    assert form._estimate.value == ""


def test_a_price_that_is_not_a_number_is_an_alert(lab: Workspace):
    form = StartForm(lab, TINY)
    form.price.value = "cheap"
    form.estimate.click()
    until(lambda: "price is" in form._status.value)


def test_a_report_has_the_settings_in_place_of_the_form(
    lab: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    shown = widgets.trainer(lab, config=TINY)
    assert isinstance(shown, Html)
    assert "learning_rate" in shown.markup


def test_an_estimate_takes_the_speed_of_a_similar_job(lab: Workspace, job: Job):
    config = Config(**job.config)
    estimate = analytics.estimate(lab, config, job.dataset_version_id, usd_per_hour=3.6, watts=100)
    speed = analytics.job(lab, job).tokens_per_s.mean
    assert estimate.basis.startswith("the speed of job ")
    assert (estimate.n_steps, estimate.tokens_per_s) == (4, pytest.approx(speed, rel=0.9))
    assert estimate.n_tokens / estimate.tokens_per_s == pytest.approx(estimate.seconds)
    assert estimate.cost_usd == pytest.approx(estimate.seconds / 1000)
    assert estimate.energy_kwh == pytest.approx(estimate.seconds / 36000)


def test_an_estimate_counts_the_tokens_that_the_job_trains_on(lab: Workspace):
    version = datasets.get(lab, "hues")
    config = TINY.but(max_steps=None, epochs=2)
    job = trainers.wait(lab, trainers.start(lab, config, version), timeout_s=120)
    estimate = analytics.estimate(lab, config, version)
    assert estimate.n_steps == job.total_steps
    assert estimate.n_tokens == trainers.metrics(lab, job)[-1].n_tokens


def test_without_a_similar_job_the_machines_speed_is_taken(ws: Workspace, tmp_path: Path):
    models.pull(ws, "tiny")
    version = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    estimate = analytics.estimate(ws, TINY.but(threads=2, adapter="none"), version)
    assert "GFLOP/s" in estimate.basis and (estimate.seconds or 0) > 0
    other = analytics.estimate(ws, TINY.but(adapter="none", method="grpo"), version)
    assert (other.seconds, other.tokens_per_s) == (None, None)


def test_an_estimate_includes_the_time_of_held_out_losses(lab: Workspace, job: Job):
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    config = Config(**job.config)
    alone = analytics.estimate(lab, config, train).seconds
    assert analytics.estimate(lab, config, train, held_out=held_out).seconds > alone


def test_an_estimate_without_the_model_has_no_time(ws: Workspace):
    chats = datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    estimate = analytics.estimate(ws, Config(), chats)
    assert (estimate.n_tokens, estimate.seconds) == (None, None)
    assert "has not been pulled yet" in estimate.basis and estimate.memory_gib > 0


def test_a_negative_price_is_refused(lab: Workspace):
    with pytest.raises(InputError, match="usd_per_hour is -1"):
        analytics.estimate(lab, TINY, "hues", usd_per_hour=-1)
