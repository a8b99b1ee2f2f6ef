import time

import pytest
from ipywidgets import HTML, Button

from ftlab_kit import Workspace, metrics, trainers, widgets
from ftlab_kit.records import Job, Metric
from ftlab_kit.widgets import front
from ftlab_kit.widgets.progress import Progress
from ftlab_kit.widgets.trainer import TrainerView, duration, sentence
from tests.conftest import TINY


@pytest.fixture
def seated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sits in front."""
    monkeypatch.setenv("FTLAB_INTERACTIVE", "1")


def text_of(view: TrainerView) -> str:
    return "".join(child.value for child in _all(view) if isinstance(child, HTML))


def _all(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def test_outside_a_notebook_no_one_sits_in_front(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FTLAB_INTERACTIVE", raising=False)
    assert not front.is_interactive()


@pytest.mark.parametrize(("said", "is_there"), [("1", True), ("0", False)])
def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch, said: str, is_there: bool):
    monkeypatch.setenv("FTLAB_INTERACTIVE", said)
    assert front.is_interactive() is is_there


def test_headless_leaves_a_picture_and_no_widget(lab: Workspace, job: Job):
    shown = widgets.trainer(lab, job)
    assert isinstance(shown, front.Html)
    assert shown._repr_html_().count("<img alt=") == 4
    assert "completed" in repr(shown)


def test_a_report_stays_small(lab: Workspace, job: Job):
    assert len(widgets.report(lab, job)._repr_html_()) < 40_000


def test_a_fresh_view_has_the_whole_history(seated: None, lab: Workspace, job: Job):
    view = widgets.trainer(lab, job)
    assert isinstance(view, TrainerView)
    shown = text_of(view)
    assert "step 4 of 4" in shown
    assert 'role="status"' in shown
    assert "over 4 steps" in shown
    assert "checkpoint at step 4" in shown
    view.close()


def test_a_view_follows_what_is_new(seated: None, lab: Workspace, job: Job):
    view = widgets.trainer(lab, job)
    assert isinstance(view, TrainerView)
    metrics.write(lab, job.id, 5, loss=9.0)
    try:
        view.refresh()
        assert "over 5 steps" in text_of(view)
    finally:
        lab.store.delete("metrics", job_id=job.id, step=5)
        view.close()


def test_the_cancel_button_calls_the_verb(seated: None, lab: Workspace):
    job = trainers.start(lab, TINY.but(max_steps=2000), "hues")
    view = widgets.trainer(lab, job)
    assert isinstance(view, TrainerView)
    trainers.wait(lab, job, until_step=1, timeout_s=120)
    view.cancel.click()
    job = trainers.wait(lab, job, timeout_s=20)
    assert job.state == "cancelled"
    deadline = time.monotonic() + 5
    while not view.cancel.disabled and time.monotonic() < deadline:
        time.sleep(0.1)
    assert view.cancel.disabled
    assert "cancelled" in text_of(view)
    view.close()


def test_every_button_says_what_it_does(seated: None, lab: Workspace, job: Job):
    view = widgets.trainer(lab, job)
    buttons = [child for child in _all(view) if isinstance(child, Button)]
    assert buttons
    assert all(button.tooltip and button.description for button in buttons)
    view.close()


def test_a_failed_job_is_an_alert(seated: None, lab: Workspace, job: Job):
    lab.store.update("jobs", {"id": job.id}, state="failed", error="<out> of memory")
    view = widgets.trainer(lab, job)
    try:
        shown = text_of(view)
        assert 'role="alert"' in shown
        assert "&lt;out&gt; of memory" in shown
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed", error=None)
        view.close()


def test_progress_is_one_line_that_changes_in_place(seated: None, capsys):
    line = widgets.progress()
    line("perplexity", 3, 20)
    line("<answers>", 4, 20)
    assert line.value == '<span role="status">&lt;answers&gt;  4  20</span>'


def test_progress_with_a_share_has_a_bar(seated: None):
    shown = Progress()
    shown("43%", "12 rows")
    assert '<progress value="43" max="100">' in shown.value and "12 rows" in shown.value
    shown("looking")
    assert "<progress" not in shown.value


def test_progress_is_silent_when_headless(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    widgets.progress()("perplexity", 3, 20)


def test_what_is_not_known_is_a_dash(job: Job):
    assert "loss –" in sentence(job, Metric(step=1))


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (80.4, "1 min 20 s"), (7300, "2 h 1 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str):
    assert duration(seconds) == words
