"""How far a long verb has come: a line that changes in place, and nothing where no one looks on."""

import html

import ipywidgets

from ftlab_kit.records import OnProgress, Progress
from ftlab_kit.widgets.display import is_interactive


class ProgressLine(ipywidgets.HTML):  # type: ignore[misc]
    """A line that shows the latest progress; call it with each `Progress` of a verb."""

    def __call__(self, progress: Progress) -> None:
        """Show this progress in place of the one before it."""
        bar = share = ""
        if progress.total:
            bar = f'<progress value="{progress.done}" max="{progress.total}"></progress> '
            share = f", {progress.done / progress.total:.0%}"
        total = "" if progress.total is None else f" of {progress.total:,}"
        note = f", {progress.note}" if progress.note else ""
        text = f"{progress.what}: {progress.done:,}{total}{share}{note}"
        self.value = f'{bar}<span role="status">{html.escape(text)}</span>'


def progress() -> OnProgress:
    """Return what a verb's `progress` argument takes: it shows a line that changes in place.

    Where no one looks on, as under papermill, it shows nothing.
    """
    if not is_interactive():
        return _ignore
    from IPython.display import display

    line = ProgressLine()
    display(line)  # type: ignore[no-untyped-call]
    return line


def _ignore(_: Progress) -> None:
    pass
