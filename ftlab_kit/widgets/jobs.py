"""Jobs side by side: their curves in one picture, what differs in their settings, and who won."""

from ftlab_kit import analytics
from ftlab_kit.records import Job
from ftlab_kit.widgets.curves import measured, picture
from ftlab_kit.widgets.front import Html
from ftlab_kit.workspace import Workspace

PICTURES = {"loss": "loss", "held-out loss": "eval_loss"}


def jobs(ws: Workspace, *jobs: Job | int) -> Html:
    """Return two or more jobs in pictures and tables: losses, settings that differ, and winners.

    Raises:
        InputError: Fewer than two jobs, or one of them twice.
    """
    found = analytics.compare(ws, *jobs)
    pictures = ""
    for title, metric in PICTURES.items():
        values = [measured(ws, job, metric) for job in found.jobs]
        if any(values):
            pictures += picture(title, found.jobs, values)
    return Html(pictures + (found._repr_html_() or ""), found.words)
