"""The widgets' face, progress lines, and waiting for a job; the views have their own test files."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ftlab_kit import Workspace, trainers, widgets
from ftlab_kit.errors import JobFailed, NotFound
from ftlab_kit.records import Job, Metric, Progress
from ftlab_kit.widgets import display
from ftlab_kit.widgets.job_state import duration, sentence
from tests.conftest import TINY


def test_outside_a_notebook_nothing_is_interactive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FTLAB_INTERACTIVE", raising=False)
    assert not display.is_interactive()


@pytest.mark.parametrize(("value", "is_interactive"), [("1", True), ("0", False)])
def test_the_environment_overrides(
    monkeypatch: pytest.MonkeyPatch, value: str, is_interactive: bool
):
    monkeypatch.setenv("FTLAB_INTERACTIVE", value)
    assert display.is_interactive() is is_interactive


def test_without_a_person_the_trainer_is_a_report(lab: Workspace, job: Job):
    shown = widgets.trainer(lab, job)
    assert isinstance(shown, display.Html)
    assert shown._repr_html_().count("<img alt=") == 6
    assert "completed" in repr(shown)


def test_a_report_stays_small(lab: Workspace, job: Job):
    assert len(widgets.report(lab, job)._repr_html_()) < 40_000


def test_progress_is_one_line_that_changes_in_place(seated: None, capsys):
    line = widgets.progress()
    line(Progress("perplexity", 3, 20))
    line(Progress("<answers>", 4, 20, "bleu"))
    assert '<span role="status">&lt;answers&gt;: 4 of 20, 20%, bleu</span>' in line.value
    assert '<progress value="4" max="20">' in line.value and "perplexity" not in line.value


def test_progress_without_a_total_has_no_bar(seated: None):
    line = widgets.progress()
    line(Progress("rows read", 12_000))
    assert line.value == '<span role="status">rows read: 12,000</span>'


def test_progress_shows_nothing_without_a_person(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    assert widgets.progress()(Progress("perplexity", 3, 20)) is None


def test_an_unknown_number_is_a_dash(job: Job):
    assert "loss –" in sentence(job, Metric(step=1))


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (80.4, "1 min 20 s"), (7300, "2 h 1 min")]
)
def test_a_duration_has_two_units(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.fixture(scope="module")
def long(lab: Workspace) -> Iterator[Job]:
    """A job that runs until the tests of this file are done."""
    config = TINY.but(max_steps=50_000, save_every_steps=50_000)
    job = trainers.start(lab, config, "hues")
    yield job
    trainers.cancel(lab, job)


def test_finished_returns_the_finished_job_in_plain_asyncio(lab: Workspace, job: Job):
    assert asyncio.run(widgets.finished(lab, job.id)) == trainers.status(lab, job)


def test_finished_waits_and_leaves_the_event_loop_free(lab: Workspace):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.05)

    async def wait() -> Job:
        ticking = asyncio.create_task(tick())
        job = await widgets.finished(lab, trainers.start(lab, TINY, "hues"))
        ticking.cancel()
        return job

    job = asyncio.run(wait())
    assert (job.state, job.step) == ("completed", 4)
    assert ticks > 5


def test_finished_returns_at_a_step_and_after_a_time(lab: Workspace, long: Job):
    early = asyncio.run(widgets.finished(lab, long, until_step=2))
    assert early.step >= 2 and not early.is_over
    assert not asyncio.run(widgets.finished(lab, long, timeout_s=0.1)).is_over
    assert not asyncio.run(widgets.finished(lab, long, timeout_s=1.2)).is_over


def test_finished_stops_waiting_when_it_is_cancelled(lab: Workspace, long: Job):
    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(widgets.finished(lab, long), 0.5)

    asyncio.run(give_up())  # returns once the thread that waits has ended
    assert not trainers.status(lab, long).is_over


def test_finished_returns_a_paused_job(lab: Workspace, long: Job):
    trainers.wait(lab, long, until_step=2, timeout_s=180)
    trainers.pause(lab, long)
    assert asyncio.run(widgets.finished(lab, long)).state == "paused"


def test_finished_raises_what_wait_raises(lab: Workspace, job: Job):
    with pytest.raises(NotFound):
        asyncio.run(widgets.finished(lab, 10_000))
    lab.store.update("jobs", {"id": job.id}, state="failed", error="out of memory")
    try:
        with pytest.raises(JobFailed, match="out of memory"):
            asyncio.run(widgets.finished(lab, job))
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed", error=None)


def test_finished_shows_progress_in_front_of_a_person(
    lab: Workspace, job: Job, seated: None, monkeypatch: pytest.MonkeyPatch
):
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    asyncio.run(widgets.finished(lab, job))
    (line,) = shown
    assert f"steps of job {job.id}: 4 of 4, 100%, completed" in line.value


def loaded(code: str) -> tuple[float, set[str]]:
    """The seconds that some code takes in a new process, and the modules that it loads."""
    code = (
        f"import sys, time; began = time.perf_counter(); {code}; "
        "print(time.perf_counter() - began, *sys.modules)"
    )
    seconds, *modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    return float(seconds), {*modules}


def test_importing_the_widgets_is_quick_and_loads_no_ipywidgets():
    seconds, modules = loaded("import ftlab_kit.widgets")
    assert seconds < 0.5
    assert not {"ipywidgets", "torch", "anywidget", "IPython", "numpy"} & modules


def test_a_widget_is_loaded_when_it_is_used():
    _, modules = loaded("from ftlab_kit import widgets; widgets.jobs")
    assert "ftlab_kit.widgets.jobs_view" in modules
    assert "ftlab_kit.widgets.playground_view" not in modules


def test_every_name_stays_a_function_after_every_file_was_imported():
    code = (
        "import pkgutil, importlib; from ftlab_kit import widgets; "
        "files = [item.name for item in pkgutil.iter_modules(widgets.__path__)]; "
        "[importlib.import_module(f'ftlab_kit.widgets.{name}') for name in files]; "
        "print(*(name for name in widgets.__all__ if not callable(getattr(widgets, name))), '.')"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "."
    assert {*widgets.__all__} == {*widgets.FILES}
    assert {*widgets.__all__} <= {*dir(widgets)}


def test_an_unknown_widget_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'ftlab_kit.widgets' has no attribute 'charts'"):
        widgets.charts  # noqa: B018


def test_loading_every_widget_makes_none():
    code = (
        "from ftlab_kit.widgets import *; from ipywidgets.widgets.widget import _instances; "
        "print(len(_instances))"
    )
    # a widget created at import would be saved with every executed notebook
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "0"
