"""How far a long verb is: a line that changes in place, and nothing at all where no one looks."""

import html
import re
from collections.abc import Callable
from typing import Any

import ipywidgets

from ftlab_kit.widgets.display import is_interactive


class Progress(ipywidgets.HTML):  # type: ignore[misc]
    """A line that says the latest news; call it with whatever a verb tells."""

    def __call__(self, *news: Any) -> None:
        """Show the news in place of what was shown before."""
        words = html.escape("  ".join(str(item) for item in news))
        done = re.match(r"(\d+)%", str(news[0])) if news else None
        bar = f'<progress value="{done[1]}" max="100"></progress> ' if done else ""
        self.value = f'{bar}<span role="status">{words}</span>'


def progress() -> Callable[..., None]:
    """Return what a verb's `progress` argument takes, and show its line; silent when headless."""
    if not is_interactive():
        return lambda *news: None
    from IPython.display import display

    line = Progress()
    display(line)  # type: ignore[no-untyped-call]
    return line
