"""Widgets: stock ipywidgets in front of the rooms; each button calls one verb.

Where no one looks on, as under papermill, the same function returns a report: the same pictures as
`<img>` with alt text and a table, and no widget at all.

A widget's file is loaded when the widget is first used: importing this room loads no ipywidgets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlab_kit.widgets.checkpoints_view import checkpoints
    from ftlab_kit.widgets.display import is_interactive
    from ftlab_kit.widgets.documents_view import documents
    from ftlab_kit.widgets.evaluations import answers, comparison, verdict
    from ftlab_kit.widgets.finder_view import finder
    from ftlab_kit.widgets.graph_explorer import explorer
    from ftlab_kit.widgets.inspector_view import inspector, problems
    from ftlab_kit.widgets.job_curves import curves
    from ftlab_kit.widgets.job_view import report, trainer
    from ftlab_kit.widgets.jobs_view import jobs
    from ftlab_kit.widgets.mask_view import mask
    from ftlab_kit.widgets.playground_view import playground
    from ftlab_kit.widgets.progress_line import progress
    from ftlab_kit.widgets.sample_answers import samples
    from ftlab_kit.widgets.waiting import finished

__all__ = [
    "answers",
    "checkpoints",
    "comparison",
    "curves",
    "documents",
    "explorer",
    "finder",
    "finished",
    "inspector",
    "is_interactive",
    "jobs",
    "mask",
    "playground",
    "problems",
    "progress",
    "report",
    "samples",
    "trainer",
    "verdict",
]

# the file of each function; no file is named like a function, or it would take its place here
FILES = {
    "answers": "evaluations",
    "checkpoints": "checkpoints_view",
    "comparison": "evaluations",
    "curves": "job_curves",
    "documents": "documents_view",
    "explorer": "graph_explorer",
    "finder": "finder_view",
    "finished": "waiting",
    "inspector": "inspector_view",
    "is_interactive": "display",
    "jobs": "jobs_view",
    "mask": "mask_view",
    "playground": "playground_view",
    "problems": "inspector_view",
    "progress": "progress_line",
    "report": "job_view",
    "samples": "sample_answers",
    "trainer": "job_view",
    "verdict": "evaluations",
}


def __getattr__(name: str) -> Any:
    """Load a function's file when the function is first used."""
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
