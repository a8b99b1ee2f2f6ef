"""Whether a person sits in front of this kernel, and what both kinds of display need."""

import html
import os
import threading
from collections.abc import Callable
from typing import Any

from ftlab_kit.errors import KitError


def is_interactive() -> bool:
    """Return whether a person can see and use a widget here.

    Jupyter front ends let the kernel ask for input; papermill, nbclient and nbconvert do not.
    FTLAB_INTERACTIVE=0 or 1 overrides.
    """
    said = os.environ.get("FTLAB_INTERACTIVE", "")
    if said:
        return said not in ("0", "false", "no")
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin", False))


def work_around_ipykernel_7_4(*widgets: Any) -> None:
    """Let a click through after the page was reloaded under ipykernel 7.4.

    It answers a click on the subshell that last published on the widget's comm; after a reload that
    subshell is gone, and the click with it. Without the note it takes the main shell.
    """
    for widget in widgets:
        comm = getattr(widget, "comm", None)
        if comm is not None:
            comm.__dict__.pop("_reply_subshell_id", None)


def say(line: Any, role: str, words: str) -> None:
    """Show words in a line of HTML, as a status or an alert that a screen reader speaks."""
    line.value = f'<span role="{role}">{html.escape(words)}</span>' if words else ""
    work_around_ipykernel_7_4(line)


def button(name: str, tooltip: str, act: Callable[[], str | None], line: Any) -> Any:
    """Return a button that does something in a thread of its own, one click after the other.

    Args:
        act: Returns what to say when it is done, None for nothing; a KitError is an alert.
        line: The HTML in which it is said.
    """
    import ipywidgets

    made = ipywidgets.Button(description=name, tooltip=tooltip)
    at_work = threading.Lock()

    def work() -> None:
        with at_work:
            try:
                if words := act():
                    say(line, "status", words)
            except KitError as error:
                say(line, "alert", str(error))
            work_around_ipykernel_7_4(made)

    made.on_click(lambda _: threading.Thread(target=work, daemon=True).start())
    return made


class Html:
    """A piece of HTML that a notebook shows, with words for where there is no HTML."""

    def __init__(self, text: str, words: str) -> None:
        """Take the HTML and its words."""
        self.text, self.message = text, words

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.message
