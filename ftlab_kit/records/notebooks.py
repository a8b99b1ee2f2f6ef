"""Records of notebooks: parameters and exercises."""

import html
from dataclasses import dataclass
from typing import Any

from ftlab_kit.records.shown import Record


@dataclass(frozen=True, slots=True)
class Parameter(Record):
    """One line of a notebook's parameters cell."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class Checked(Record):
    """What an exercise says to an answer; `is_right` is None while there is none."""

    is_right: bool | None
    message: str

    def _repr_html_(self) -> str:
        sign = {True: "✔", False: "✘", None: "…"}[self.is_right]
        return f'<p role="status">{sign} {html.escape(self.message)}</p>'
