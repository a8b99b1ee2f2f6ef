"""Widgets: stock ipywidgets in front of the rooms; each button calls one verb.

What is live here is static in a report: the same pictures, as `<img>` with alt text and a table.
Under papermill no widget is displayed at all.
"""

from ftlab_kit.widgets.checkpoints import checkpoints
from ftlab_kit.widgets.curves import curves
from ftlab_kit.widgets.display import is_interactive
from ftlab_kit.widgets.documents import documents
from ftlab_kit.widgets.evaluations import answers, comparison, verdict
from ftlab_kit.widgets.explorer import explorer
from ftlab_kit.widgets.finder import finder
from ftlab_kit.widgets.inspector import inspector, problems
from ftlab_kit.widgets.jobs import jobs
from ftlab_kit.widgets.masks import mask
from ftlab_kit.widgets.playground import playground
from ftlab_kit.widgets.progress import progress
from ftlab_kit.widgets.samples import samples
from ftlab_kit.widgets.trainer import report, trainer

__all__ = [
    "answers",
    "checkpoints",
    "comparison",
    "curves",
    "documents",
    "explorer",
    "finder",
    "inspector",
    "is_interactive",
    "jobs",
    "mask",
    "playground",
    "problems",
    "progress",
    "report",
    "trainer",
    "verdict",
    "samples",
]
