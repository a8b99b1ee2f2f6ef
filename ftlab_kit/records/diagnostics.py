"""Records of diagnostics: what is wrong with a job, and what a test on a few rows shows."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftlab_kit.records.shown import CELL, LONG, Record, Rows, fields_of, show


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """What is wrong with a job: the problem, the evidence, its cause and its fix.

    `changes` are the settings that fix it, None where the rows or the machine must change. `side`
    says where the trouble is: settings, data or machine. `importance` is 1 for what ruins a run, 2
    for what makes it worse, 3 for what makes it slow.
    """

    problem: str
    importance: int
    side: str
    evidence: str
    cause: str
    fix: str
    changes: Mapping[str, Any] | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class Diagnosis(Record):
    """Whether a model memorises a few rows, and on which side the trouble therefore is.

    `min_loss` is the lowest loss that any model can reach on these rows; `last_loss` is the mean of
    the last losses. The rows are memorised where it is at most `loss_margin` above `min_loss` and
    no rows contradict each other. `contradicting` numbers the rows of the whole version, from 0,
    that have the prompt of an earlier row and another answer. Without a job, preflight refused the
    rows.
    """

    side: str
    message: str
    is_memorised: bool | None
    job_id: int | None
    n_rows: int
    n_steps: int | None
    first_loss: float | None
    last_loss: float | None
    loss_margin: float
    min_loss: float
    findings: "Rows[Finding]"
    contradicting: tuple[int, ...] = field(metadata=LONG)

    def _repr_html_(self) -> str:
        names = [name for name in fields_of(self) if name not in ("message", "findings")]
        rows = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(getattr(self, name)))}</td>"
            "</tr>"
            for name in names
        )
        findings = f"<h3>findings</h3>{self.findings._repr_html_()}"
        return f"<p>{html.escape(self.message)}</p><table>{rows}</table>{findings}"
