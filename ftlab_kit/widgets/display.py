"""Whether a person is at this kernel's front end, and what live and still displays both need."""

import html
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ftlab_kit.errors import KitError
from ftlab_kit.records import CELL


def is_interactive() -> bool:
    """Return whether a person can see and use a widget here.

    Jupyter front ends let the kernel ask for input; papermill, nbclient and nbconvert do not.
    FTLAB_INTERACTIVE=0 or 1 overrides.
    """
    override = os.environ.get("FTLAB_INTERACTIVE", "")
    if override:
        return override not in ("0", "false", "no")
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin", False))


def work_around_ipykernel_7_4(*widgets: Any) -> None:
    """Let clicks through after the page was reloaded under ipykernel 7.4.

    That release answers a click on the subshell that last published on the widget's comm. A reload
    ends that subshell, and the click is lost with it. Without the note of the subshell, which this
    removes, ipykernel takes the main shell.
    """
    for widget in widgets:
        comm = getattr(widget, "comm", None)
        if comm is not None:
            comm.__dict__.pop("_reply_subshell_id", None)


def show_status(line: Any, text: str) -> None:
    """Show a text in an HTML widget; a screen reader reads it out when it has time."""
    line.value = f'<span role="status">{html.escape(text)}</span>' if text else ""


def show_alert(line: Any, text: str) -> None:
    """Show an error in an HTML widget; a screen reader reads it out at once."""
    line.value = alert(text)


def alert(text: str) -> str:
    """Return an error as HTML that a screen reader reads out at once."""
    return f'<span role="alert">{html.escape(text)}</span>'


def button(name: str, tooltip: str, act: Callable[[], str | None], line: Any) -> Any:
    """Return a button that acts in a thread of its own, one click after the other.

    Args:
        act: Returns a text to show when it is done, None for nothing; a KitError is an alert.
        line: The HTML widget that shows the text.
    """
    import ipywidgets

    widget = ipywidgets.Button(description=name, tooltip=tooltip)
    one_at_a_time = threading.Lock()

    def work() -> None:
        with one_at_a_time:
            try:
                if text := act():
                    show_status(line, text)
            except KitError as error:
                show_alert(line, str(error))
            work_around_ipykernel_7_4(widget)

    widget.on_click(lambda _: threading.Thread(target=work, daemon=True).start())
    return widget


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; its cells are HTML already, its head is text."""
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


class Html:
    """A piece of HTML that a notebook shows, and the text that stands for it where none is shown.

    Args:
        markup: The HTML.
        alt_text: What it says, as plain text.
    """

    def __init__(self, markup: str, alt_text: str) -> None:
        """Take the HTML and its text."""
        self.markup, self.alt_text = markup, alt_text

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.alt_text
