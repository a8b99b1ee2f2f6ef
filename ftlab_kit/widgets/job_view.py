"""A job's view: a form that starts one, the live view of one, or its report."""

import html
from typing import TYPE_CHECKING

from ftlab_kit import checkpoints, trainers
from ftlab_kit.configs import Config
from ftlab_kit.pictures import job_panels
from ftlab_kit.records import Job
from ftlab_kit.trainers import generations
from ftlab_kit.widgets.display import Html, is_interactive
from ftlab_kit.widgets.history import History
from ftlab_kit.widgets.job_state import sentence
from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from ftlab_kit.widgets.live_view import TrainerView
    from ftlab_kit.widgets.start_form import StartForm


def trainer(
    ws: Workspace, job: Job | int | None = None, *, config: Config | None = None
) -> "TrainerView | StartForm | Html":
    """Return the live view of a job; without a job, a form that starts one and becomes its view.

    The view shows the whole history at once, in whichever kernel it is opened. Where no one looks
    on, the job's report stands in its place, and the settings in place of the form.

    Args:
        job: None for the form.
        config: The form's first settings; None takes a preset that suits the rows.

    Raises:
        NotFound: There is no such job.
    """
    if not is_interactive():
        return _settings(config or Config()) if job is None else report(ws, job)
    if job is None:
        from ftlab_kit.widgets.start_form import StartForm

        return StartForm(ws, config)
    from ftlab_kit.widgets.live_view import TrainerView

    return TrainerView(ws, job)


def report(ws: Workspace, job: Job | int) -> Html:
    """Return a job's pictures and tables for a saved notebook.

    Raises:
        NotFound: There is no such job.
    """
    job = trainers.status(ws, job)
    history, events = History(ws, job), trainers.events(ws, job)
    summary = sentence(job, history.last)
    parts = [f"<p>{html.escape(summary)}</p>", job_panels.figures(history.traces, events)]
    if events:
        listed = job_panels.events_list(events, without_author=generations.AUTHOR)
        parts += ["<h3>events</h3>", listed]
    if rows := checkpoints.list(ws, job.id):
        parts += ["<h3>checkpoints</h3>", rows._repr_html_()]
    return Html("".join(parts), summary)


def _settings(config: Config) -> Html:
    text = f"Here a person gets a form that starts a job; it begins with {config.model}."
    return Html(f"<p>{html.escape(text)}</p>{config._repr_html_()}", text)
