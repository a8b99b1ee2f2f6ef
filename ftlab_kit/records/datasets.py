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
    """A named dataset; its rows stand in versions."""

    name: str
    n_versions: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DatasetVersion(Record):
    """The content of a dataset at one time. `content_sha256` is its identity.

    `side` is "all" for a version that was added, "train" or "held_out" for one side of a split,
    "sample" for a part;
    `parent_id` names the version that it was made from, or the one that came before. `made` says
    by which verb, of what and how. `kind` is that of its rows: chat, preference, label or text.
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
    """A line that was refused: where, what was found, what was expected, and the cure.

    Where a source has no lines, `line` is the row's number; both count from 1. `file` is the file
    of a folder, `text` what the line says, its beginning at least.
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
    """What validation saw in a source: its form, its rows, and the first thousand problems.

    `form` is what most of the first rows have, None if none has a known one; `skipped` names the
    files of a folder that hold no rows.
    """

    source: str
    form: str | None
    n_rows: int
    n_refused: int
    problems: Rows[Problem]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DuplicatePair(Record):
    """Two rows that say the same or nearly so, counted from 0.

    `share` is that of the runs of three words which they have in common, 1 for equal rows. In a
    leak, `of` is a row of the held-out version.
    """

    row: int
    of: int
    share: float


@dataclass(frozen=True, slots=True)
class Personal(Record):
    """What looks like personal data or a key: where it stands, and enough to know it by."""

    row: int
    field: str
    kind: str
    got: str


@dataclass(frozen=True, slots=True)
class Outlier(Record):
    """A row whose answer the base model finds far more or far less likely than the others.

    `loss` is the mean of its trained tokens, `distance` how many robust deviations it lies from
    the median.
    """

    row: int
    loss: float
    distance: float


@dataclass(frozen=True, slots=True)
class Part(Record):
    """One part of a quality score: what it got of what it could get; None if it is not known."""

    name: str
    points: float | None
    out_of: float
    got: str


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """What a version is like: its score from 0 to 100 with every part, and what it is made from.

    Lengths are in tokens of `model`, whole rows; `n_cut` counts rows whose answers are cut at
    `max_length`; `n_untrained` those without any trained token. `repeated` names the rows that
    repeat an earlier one, to be left out. What is not known is None.
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
    personal: Rows[Personal]
    outliers: Rows[Outlier] | None
    losses: tuple[float, ...] | None = field(metadata=LONG)

    @property
    def repeated(self) -> tuple[int, ...]:
        """The rows that repeat an earlier one, exactly or nearly."""
        return tuple(sorted({item.row for item in self.duplicates}))

    def _repr_html_(self) -> str:
        names = ("parts", "duplicates", "leaks", "personal", "outliers")
        facts = {
            "score": f"{self.score:.0f} of 100",
            "tokens": f"{show(self.n_tokens)}, {percent(self.trained_share)} of them trained",
            "tokens of a row": self.percentiles,
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
            found = getattr(self, name)
            if found is None:
                tables += f"<h3>{name}</h3><p>not known</p>"
            else:
                more = f"<p>… and {len(found) - SHOWN} more</p>" if len(found) > SHOWN else ""
                tables += f"<h3>{name}</h3>{Rows(found[:SHOWN])._repr_html_()}{more}"
        return f"<table>{head}</table>{tables}"


@dataclass(frozen=True, slots=True)
class Change(Record):
    """One row that two versions do not share, counted from 0 in each; `what` is its text.

    A changed row has the same `id`, or else the same question, in both.
    """

    change: str
    before: int | None
    after: int | None
    what: str
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Diff(Record):
    """What became of the rows of one version in another; `changes` holds the first thousand."""

    before: DatasetVersion = field(metadata=LONG)
    after: DatasetVersion = field(metadata=LONG)
    n_same: int
    n_added: int
    n_removed: int
    n_changed: int
    changes: Rows[Change]

    def _repr_html_(self) -> str:
        counts = f"{self.n_same} rows the same, {self.n_added} added, {self.n_removed} removed, "
        names = ("change", "before", "after", "what")
        head = "".join(f"<th {CELL}>{name}</th>" for name in names)
        body = ""
        for item in self.changes[:SHOWN]:
            cells = [html.escape(show(getattr(item, name))) for name in names]
            if item.was is not None:
                cells[-1] = marked(item.was, item.what)
            body += "<tr>" + "".join(f"<td {LINES}>{cell}</td>" for cell in cells) + "</tr>"
        n_more = self.n_added + self.n_removed + self.n_changed - SHOWN
        more = f"<p>… and {n_more} more</p>" if n_more > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{counts}{self.n_changed} changed</p>{table if body else ''}{more}"


@dataclass(frozen=True, slots=True)
class Token(Record):
    """A token of a row, and whether it is trained, context, an end that is trained, or cut."""

    id: int
    text: str
    role: str


@dataclass(frozen=True, slots=True)
class Mask(Record):
    """A row as a trainer sees it: every token, and what becomes of it."""

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
    """A dataset version in words: what it holds, where it comes from, what it is like."""

    markdown: str

    def _repr_html_(self) -> None:
        return None  # a front end would prefer it

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
