"""Records of datasets: versions, problems, quality, masks, cards."""

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ftlab_kit.records.shown import (
    CELL,
    LINES,
    LONG,
    SHOWN,
    Record,
    Rows,
    marked,
    percent,
    show,
)


@dataclass(frozen=True, slots=True)
class Dataset(Record):
    """A named dataset, whose rows are in its versions."""

    name: str
    n_versions: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DatasetVersion(Record):
    """The content of a dataset at one time, identified by `content_sha256`.

    `side` is "all" for a version that was added, "train" or "held_out" for a side of a split, and
    "sample" for a random part. `kind` is that of its rows: chat, preference, label or text.
    `parent_id` is the version that it was made from, or the previous one of the dataset;
    `derivation` holds the verb that made it, and its arguments.
    """

    id: int
    dataset: str
    side: str
    kind: str
    n_rows: int
    n_refused: int
    content_sha256: str = field(metadata=LONG)
    path: Path = field(metadata=LONG)
    parent_id: int | None
    derivation: Mapping[str, Any] = field(hash=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """A line that was refused: where, what it holds, what was expected, and how to fix it.

    Where a source has no lines, `line` is the row's number; both count from 1. `file` is set for a
    source that is a folder; `text` is the line itself, or its beginning.
    """

    line: int
    field: str
    got: str
    expected: str
    fix: str
    file: str | None = dataclasses.field(default=None, metadata=LONG)
    text: str | None = dataclasses.field(default=None, metadata=LONG)

    def __str__(self) -> str:
        return f"{self.field} is {self.got}; expected {self.expected}. {self.fix}"


@dataclass(frozen=True, slots=True)
class Report(Record):
    """The result of validating a source: its format, its rows, and the first thousand problems.

    `format` is that of most of the first rows, None if no row has a format that the kit reads;
    `skipped` names the files of a folder that hold no rows.
    """

    source: str
    format: str | None
    n_rows: int
    n_refused: int
    problems: Rows[Problem]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DuplicatePair(Record):
    """Two rows with the same text or nearly so, counted from 0.

    `share` is the Jaccard similarity of their runs of three words, 1 for equal rows. In a leak,
    `of` is a row of the held-out version.
    """

    row: int
    of: int
    share: float


@dataclass(frozen=True, slots=True)
class PersonalData(Record):
    """What looks like personal data or a key: its place, its kind, and a masked excerpt."""

    row: int
    field: str
    kind: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Outlier(Record):
    """A row whose answer is far more or far less likely under the base model than the others.

    `loss` is the mean over its trained tokens, `distance` its distance from the median in robust
    deviations.
    """

    row: int
    loss: float
    distance: float


@dataclass(frozen=True, slots=True)
class Part(Record):
    """One part of a quality score: its points, out of how many, and why; None if not known."""

    name: str
    points: float | None
    out_of: float
    detail: str


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """The quality of a version: its score from 0 to 100 with all parts, and what they come from.

    `lengths` are those of whole rows in tokens of `model`; `n_cut` counts the rows whose answers
    are cut at `max_length`, `n_untrained` those without any trained token. `repeated` lists the
    rows that repeat an earlier one, to leave them out. What is not known is None.
    """

    version: DatasetVersion = field(metadata=LONG)
    score: float
    parts: Rows[Part]
    advice: tuple[str, ...]
    model: str | None
    max_length: int | None
    n_tokens: int | None
    trained_share: float | None
    n_cut: int | None
    n_untrained: int | None
    percentiles: Mapping[str, float] | None
    lengths: tuple[int, ...] | None = field(metadata=LONG)
    duplicates: Rows[DuplicatePair]
    leaks: Rows[DuplicatePair] | None
    languages: Mapping[str, float]
    personal: Rows[PersonalData]
    outliers: Rows[Outlier] | None
    losses: tuple[float, ...] | None = field(metadata=LONG)

    @property
    def repeated(self) -> tuple[int, ...]:
        """The rows that repeat an earlier one, exactly or nearly."""
        return tuple(sorted({pair.row for pair in self.duplicates}))

    def _repr_html_(self) -> str:
        names = ("parts", "duplicates", "leaks", "personal", "outliers")
        facts = {
            "score": f"{self.score:.0f} of 100",
            "tokens": f"{show(self.n_tokens)}, {percent(self.trained_share)} of them trained",
            "tokens per row": self.percentiles,
            "rows cut": self.n_cut,
            "rows without a trained token": self.n_untrained,
            "languages": {name: percent(share) for name, share in self.languages.items()},
            "advice": "; ".join(self.advice),
        }
        head = "".join(
            f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(show(value))}</td></tr>"
            for name, value in facts.items()
        )
        tables = ""
        for name in names:
            rows = getattr(self, name)
            if rows is None:
                tables += f"<h3>{name}</h3><p>not known</p>"
            else:
                more = f"<p>… and {len(rows) - SHOWN} more</p>" if len(rows) > SHOWN else ""
                tables += f"<h3>{name}</h3>{Rows(rows[:SHOWN])._repr_html_()}{more}"
        return f"<table>{head}</table>{tables}"


@dataclass(frozen=True, slots=True)
class Change(Record):
    """A row that two versions do not share, with its text; counted from 0 in each version.

    `change` is added, removed or changed. A changed row has the same `id` in both versions, or else
    the same question or answer; its earlier text is `text_before`.
    """

    change: str
    before: int | None
    after: int | None
    text: str
    text_before: str | None = None


@dataclass(frozen=True, slots=True)
class Diff(Record):
    """The difference between two versions; `changes` holds the first thousand rows."""

    before: DatasetVersion = field(metadata=LONG)
    after: DatasetVersion = field(metadata=LONG)
    n_same: int
    n_added: int
    n_removed: int
    n_changed: int
    changes: Rows[Change]

    def _repr_html_(self) -> str:
        counts = f"{self.n_same} rows the same, {self.n_added} added, {self.n_removed} removed, "
        names = ("change", "before", "after", "text")
        head = "".join(f"<th {CELL}>{name}</th>" for name in names)
        body = ""
        for item in self.changes[:SHOWN]:
            cells = [html.escape(show(getattr(item, name))) for name in names]
            if item.text_before is not None:
                cells[-1] = marked(item.text_before, item.text)
            body += "<tr>" + "".join(f"<td {LINES}>{cell}</td>" for cell in cells) + "</tr>"
        n_more = self.n_added + self.n_removed + self.n_changed - SHOWN
        more = f"<p>… and {n_more} more</p>" if n_more > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{counts}{self.n_changed} changed</p>{table if body else ''}{more}"


@dataclass(frozen=True, slots=True)
class Token(Record):
    """A token of a row; its role is trained, context, end (trained too), or cut."""

    id: int
    text: str
    role: str


@dataclass(frozen=True, slots=True)
class Mask(Record):
    """A row as a trainer sees it: every token with its role."""

    version: DatasetVersion = field(metadata=LONG)
    model: str
    row: int
    side: str | None
    max_length: int
    n_trained: int
    n_cut: int
    tokens: Rows[Token]


@dataclass(frozen=True, slots=True)
class Card(Record):
    """A dataset version described in Markdown: its content, where it comes from, its quality."""

    markdown: str

    def _repr_html_(self) -> None:
        return None  # a front end would prefer HTML to Markdown

    def _repr_markdown_(self) -> str:
        return self.markdown

    def __str__(self) -> str:
        return self.markdown


@dataclass(frozen=True, slots=True)
class Turn(Record):
    """One turn of a row, counted from 0."""

    row: int
    role: str
    content: str
