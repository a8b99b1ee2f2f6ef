"""The lists: all jobs with small curves, and the checkpoints of one."""

import inspect

import pytest

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, models, trainers, widgets
from ftlab_kit.errors import InputError
from ftlab_kit.records import Job
from ftlab_kit.widgets.checkpoints_view import CheckpointsView
from ftlab_kit.widgets.display import Html
from ftlab_kit.widgets.jobs_view import JobsView
from ftlab_kit.widgets.live_view import TrainerView
from tests.conftest import TINY, every, text_of, until

pytestmark = pytest.mark.usefixtures("seated")


@pytest.fixture(scope="module")
def two(lab: Workspace) -> tuple[Job, Job]:
    """Two completed jobs."""
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    first = trainers.start(lab, TINY, train, held_out=held_out)
    other = trainers.start(lab, TINY.but(max_steps=3, learning_rate=1e-3), "hues")
    first, other = (trainers.wait(lab, job, timeout_s=180) for job in (first, other))
    return first, other


def test_every_job_is_a_line_with_a_small_curve(lab: Workspace, two: tuple[Job, Job]):
    view = widgets.jobs(lab)
    assert isinstance(view, JobsView)
    for job in two:
        assert job.id in view.ticks
        assert f'aria-label="loss of job {job.id} from ' in text_of(view)
    view.close()


def test_jobs_are_filtered_by_state_and_text(lab: Workspace, two: tuple[Job, Job]):
    view = JobsView(lab)
    view.state.value = "paused"
    assert view.ticks == {}
    view.state.value = "completed"
    view.search.value = "hues, train"
    assert {two[0].id} <= {*view.ticks} and two[1].id not in view.ticks
    view.close()


def test_ticked_jobs_are_compared(lab: Workspace, two: tuple[Job, Job]):
    view = JobsView(lab)
    for job in two:
        view.ticks[job.id].value = True
    view.compare.click()
    until(lambda: "learning_rate" in text_of(view))
    assert "<img alt=" in text_of(view)
    view.close()


def test_one_ticked_job_is_opened(lab: Workspace, two: tuple[Job, Job]):
    view = JobsView(lab)
    view.show_one.click()
    until(lambda: "0 jobs are ticked; expected one" in text_of(view))
    view.ticks[two[0].id].value = True
    view.show_one.click()
    until(lambda: any(isinstance(item, TrainerView) for item in every(view)))
    next(item for item in every(view) if isinstance(item, TrainerView)).close()
    view.close()


def test_a_tick_stays_when_the_list_is_read_again(lab: Workspace, two: tuple[Job, Job]):
    view = JobsView(lab)
    view.ticks[two[1].id].value = True
    view.refresh()
    assert view.ticks[two[1].id].value
    view.close()


def test_a_report_of_jobs_has_pictures_with_alt_text(
    lab: Workspace, two: tuple[Job, Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    shown = widgets.jobs(lab)
    assert isinstance(shown, Html)
    assert f'<img alt="loss of job {two[0].id} from' in shown.markup


def test_comparing_a_single_job_is_refused(lab: Workspace, job: Job):
    with pytest.raises(InputError, match="only job"):
        widgets.jobs(lab, job)


def test_an_empty_workspace_has_no_jobs(ws: Workspace, monkeypatch: pytest.MonkeyPatch):
    assert JobsView(ws).ticks == {}
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    assert widgets.jobs(ws).alt_text == "0 jobs"


def test_the_best_checkpoint_is_marked_by_a_measure(lab: Workspace, job: Job):
    view = widgets.checkpoints(lab, job)
    assert isinstance(view, CheckpointsView)
    best = checkpoints.best(lab, job).step
    assert f"step {best} is best by eval_loss" in text_of(view)
    view.close()


def test_checkpoints_show_the_scores_of_evaluations(lab: Workspace, job: Job):
    evaluators.run(lab, job, "hues", metrics=["perplexity"], max_rows=4)
    view = CheckpointsView(lab, job, "eval_loss")
    view.by.value = "perplexity"
    assert "best by perplexity" in text_of(view)
    view.close()


def test_a_job_is_trained_on_from_a_checkpoint(lab: Workspace, job: Job):
    view = CheckpointsView(lab, job, "eval_loss")
    view.fork.click()
    until(lambda: "watch it with widgets.trainer(ws, " in text_of(view), 60)
    fork = trainers.list(lab)[0]
    assert (fork.parent_id, fork.parent_step) == (job.id, view.step.value)
    trainers.wait(lab, fork, timeout_s=120)
    view.close()


def test_a_checkpoint_is_merged_with_a_certificate(lab: Workspace, job: Job):
    view = CheckpointsView(lab, job, "eval_loss")
    view.name.value = "merged-by-a-click"
    view.merge.click()
    until(lambda: "answers are the same" in text_of(view), 120)
    assert models.get(lab, "merged-by-a-click").is_here
    view.close()


def test_a_job_without_checkpoints_says_so(lab: Workspace, monkeypatch: pytest.MonkeyPatch):
    job = trainers._enqueue(lab, TINY, "hues")
    view = CheckpointsView(lab, job, "eval_loss")
    assert view.fork.disabled and "no checkpoint yet" in text_of(view)
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    assert widgets.checkpoints(lab, job).alt_text == f"job {job.id} has no checkpoint yet"
    trainers.cancel(lab, job)
    view.close()


def test_no_widget_overrides_a_method_of_ipywidgets():
    import ipywidgets

    views = [kind for kind in _subclasses(ipywidgets.Widget) if kind.__module__.startswith("ftlab")]
    assert len(views) > 6
    for kind in views:
        base = next(item for item in kind.__mro__ if not item.__module__.startswith("ftlab"))
        own = {name for name, item in vars(kind).items() if inspect.isfunction(item)}
        assert not own & {*dir(base)} - {"close", "__init__", "__call__"}, kind


def _subclasses(kind: type):
    for item in kind.__subclasses__():
        yield item
        yield from _subclasses(item)
