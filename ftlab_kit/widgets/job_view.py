"""The trainer: a form that starts a job, the live view of one, and its report.

Which of them depends on what is asked, and on whether a person sits in front.
"""

import html

from ftlab_kit import checkpoints, trainers
from ftlab_kit.configs import Config
from ftlab_kit.records import Job
from ftlab_kit.widgets import panels
from ftlab_kit.widgets.display import Html, is_interactive
from ftlab_kit.widgets.live_view import TrainerView, sentence
from ftlab_kit.widgets.start_form import StartForm
from ftlab_kit.workspace import Workspace


def trainer(
    ws: Workspace, job: Job | int | None = None, *, config: Config | None = None
) -> TrainerView | StartForm | Html:
    """Return the live view of a job, or, without one, a form to start one that becomes its view.

    The view shows the whole history at once, in whatever kernel it is made. Where no one is there
    to watch it is the job's report, and in place of the form stand the settings.

    Args:
        config: What the form begins with; a preset for the rows if None.
    """
    if job is None:
        return StartForm(ws, config) if is_interactive() else _settings(config or Config())
    return TrainerView(ws, job) if is_interactive() else report(ws, job)


def report(ws: Workspace, job: Job | int) -> Html:
    """Return the pictures and tables of a job as they stay in a saved notebook."""
    found = trainers.status(ws, job)
    history, events = panels.History(ws, found), trainers.events(ws, found)
    words = sentence(found, history.last)
    parts = [f"<p>{html.escape(words)}</p>", panels.figures(history, events)]
    if events:
        parts += ["<h3>events</h3>", panels.events_list(events)]
    if kept := checkpoints.list(ws, found.id):
        parts += ["<h3>checkpoints</h3>", kept._repr_html_()]
    return Html("".join(parts), words)


def _settings(config: Config) -> Html:
    words = f"A form to start a job stands here for who can click; it begins with {config.model}."
    return Html(f"<p>{html.escape(words)}</p>{config._repr_html_()}", words)
