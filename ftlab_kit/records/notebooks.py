"""Records of notebooks: parameters, exercises, and what the quick start leaves behind."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab_kit.records.shown import Record, Rows


@dataclass(frozen=True, slots=True)
class Parameter(Record):
    """One line of a notebook's parameters cell."""

    name: str
    type: str
    default: Any
    help: str


@dataclass(frozen=True, slots=True)
class Checked(Record):
    """The verdict on an exercise's answer; `is_right` is None while there is no answer."""

    is_right: bool | None
    message: str

    def _repr_html_(self) -> str:
        sign = {True: "✔", False: "✘", None: "…"}[self.is_right]
        return f'<p role="status">{sign} {html.escape(self.message)}</p>'


@dataclass(frozen=True, slots=True)
class ScoreChange(Record):
    """One measure on the held-out rows, before and after training."""

    held_out: str
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class QuickStart(Record):
    """What a headless quick start came to: scores, one answer before and after, and the files.

    `tokens_per_s` is the median of the steps; `longest_s` has the steps of the notebook that took
    longest, in seconds.
    """

    job_id: int
    minutes: float
    tokens_per_s: float | None
    longest_s: Mapping[str, float]
    prompt: str
    answer_before: str | None
    answer_after: str | None
    adapter: Path
    log: Path
    notebook: Path
    scores: "Rows[ScoreChange]"
