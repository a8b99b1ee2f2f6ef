"""How far any long work has come, in one shape for every verb, widget and live feed."""

from collections.abc import Callable
from dataclasses import dataclass

from ftlab_kit.records.shown import Record


@dataclass(frozen=True)
class Progress(Record):
    """How far a piece of work has come.

    Args:
        what: The work under way, as a short noun phrase: "rows read", "perplexity".
        done: Units that are done.
        total: Units in all; None where that is not known.
        note: What else there is to say, such as the name of the file being read.
    """

    what: str
    done: int
    total: int | None = None
    note: str | None = None

    def __str__(self) -> str:
        total = f" of {self.total:,}" if self.total is not None else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.what}: {self.done:,}{total}{note}"


OnProgress = Callable[[Progress], None]
