"""Datasets: rows that are checked before anything trains on them.

`add` reads rows of many formats from files, folders, data frames and the hub, refuses line by line
what can't be trained on, and stores the rest as a version named by the hash of its content.
`append`, `split`, `filter`, `sample`, `redact` and `merge` make new versions of existing ones;
`quality`, `mask`, `overlap`, `diff` and `card` describe them. A version never changes.

For other rooms: `schema` reads a row (messages, answers, texts), `tokenized` a version as tokens.
"""

import builtins
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ftlab_kit import models
from ftlab_kit.configs import Config
from ftlab_kit.datasets import (
    files,
    pii,
    quality_report,
    schema,
    selection,
    splits,
    token_mask,
    tokenized,
    version_card,
    version_diff,
    version_store,
)
from ftlab_kit.datasets.files import Frame
from ftlab_kit.datasets.json_strict import ENCODE
from ftlab_kit.datasets.reader import SHOWN, RowReader, refusal
from ftlab_kit.errors import InputError, NotFound, nearest, room_on_disk
from ftlab_kit.records import (
    Card,
    Dataset,
    DatasetVersion,
    Diff,
    DuplicatePair,
    Mask,
    Model,
    OnProgress,
    Problem,
    Quality,
    Report,
    Rows,
    Turn,
)
from ftlab_kit.workspace import Workspace

__all__ = [
    "BRINDLE_CODE", "LEASE_CLAUSES", "PUDDLE_AND_PINE", "QUILLOW_COPY", "SALTMERE_TICKETS",
    "SAMPLES", "TWELVE_FAULTS", "Frame", "add", "append", "card", "delete", "diff", "filter", "get",
    "list", "mask", "merge", "overlap", "preview", "problems", "quality", "redact", "rows",
    "sample", "schema", "split", "tokenized", "validate", "versions",
]  # fmt: skip

# sample datasets, all invented for this kit; each has its card beside it
SAMPLES = Path(__file__).parent / "samples"
PUDDLE_AND_PINE = SAMPLES / "puddle_and_pine.jsonl"  # 300 customer-support chats of a shop
# 63 of these chats, and twelve lines that can't be trained on, each for another reason
TWELVE_FAULTS = SAMPLES / "twelve_faults.jsonl"
SALTMERE_TICKETS = (
    SAMPLES / "saltmere_tickets.csv"
)  # tickets exported from a ferry line's help desk
BRINDLE_CODE = SAMPLES / "brindle_code.jsonl"  # tasks, and code that uses an in-house library
LEASE_CLAUSES = SAMPLES / "lease_clauses.jsonl"  # clauses of leases, and their content as JSON
QUILLOW_COPY = SAMPLES / "quillow_copy.jsonl"  # briefs, and copy in the voice of a brand

MAX_PROBLEMS = 1000  # in a report; an export has all of them


def validate(
    path: str | Path | Frame,
    *,
    columns: Mapping[str, str] | None = None,
    export: Path | None = None,
    progress: OnProgress | None = None,
) -> Report:
    """Return what is wrong with the rows of a source, line by line, in bounded memory.

    Args:
        path: A file of JSON lines, JSON, CSV or Parquet, alone or packed with gzip or zstd; a
            folder of them; a pandas data frame; or a name on the hub, owner/name:config:split.
        columns: The source's names for a format's fields, such as {"prompt": "question"}.
        export: A file to write every problem to, one JSON object a line.
        progress: Called with the percentage that was read.

    Raises:
        InputError: There is nothing to read, or it can't be read at all.
    """
    reader = RowReader(files.source(path), columns)
    problems: builtins.list[Problem] = []
    with room_on_disk(str(export)), Path(export or os.devnull).open("wb") as file:
        for _, _, problem in reader.blocks(progress):
            if problem is None:
                continue
            file.write(ENCODE(problem.as_dict()) + b"\n")
            if len(problems) < MAX_PROBLEMS:
                problems.append(problem)
    return Report(
        source=reader.source.label,
        format=reader.format,
        n_rows=reader.n_rows,
        n_refused=reader.n_refused,
        problems=Rows(problems),
        skipped=reader.source.skipped,
    )


def add(
    ws: Workspace,
    path: str | Path | Frame,
    *,
    name: str | None = None,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> DatasetVersion:
    """Read rows into the workspace and return their version.

    The same content under the same name is the same version; other content is a new one. A
    dataset's name alone stands for the version that was added last.

    Args:
        path: A source of rows, as for `validate`.
        name: The dataset's name; the file's name if None.
        strict: Refuse a source with any bad line. False sets bad lines aside in a file beside the
            rows (`<id>.refused.jsonl`, with the reasons in `<id>.problems.jsonl`) and counts them
            in the version's `n_refused`.
        columns: The source's names for a format's fields, such as {"prompt": "question"}.
        progress: Called with the percentage that was read.

    Raises:
        InputError: There is nothing to read, or it can't be read at all.
        DataError: Bad lines (strict), or no good one; the message says where, what and the fix.
        DiskFull: Nothing is left behind.
    """
    reader = RowReader(files.source(path), columns)
    with version_store.writer(ws, name or _default_name(reader), reader.kind) as new:
        _copy(reader, new, strict, progress)
        return new.commit("all", reader.derivation("add"))


def append(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    path: str | Path | Frame,
    *,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> DatasetVersion:
    """Return a new version: the rows of an existing one, then those of a source.

    Args:
        dataset: The version to add to, its id, or the dataset's name.
        path: A source of rows, as for `validate`.
        strict: Refuse a source with any bad line, as for `add`.
        columns: The source's names for a format's fields, such as {"prompt": "question"}.
        progress: Called with the percentage that was read.

    Raises:
        InputError: The new rows are of another kind.
        DataError: Bad lines (strict), or no good one.
    """
    parent = get(ws, dataset)
    reader = RowReader(files.source(path), columns)
    if reader.kind != parent.kind:
        raise InputError(
            f"{reader.source.label} holds rows of kind {reader.kind}, version {parent.id} of kind "
            f"{parent.kind}; expected the same. Add them as another dataset."
        )
    with version_store.writer(ws, parent.dataset, parent.kind) as new:
        for row in version_store.rows(parent):
            new.write([row])
        _copy(reader, new, strict, progress)
        return new.commit(parent.side, reader.derivation("append"), parent_id=parent.id)


def _default_name(reader: RowReader) -> str:
    """Return the name of a dataset that was not given one: the file's, without suffixes."""
    path = Path(reader.source.label.split(":")[0])
    path = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    return path.stem if path.suffix[1:] in files.SUFFIXES else path.name


def _copy(
    reader: RowReader,
    new: version_store.VersionWriter,
    strict: bool,
    progress: OnProgress | None,
) -> None:
    """Write the good rows of a source, and set the bad ones aside.

    Raises:
        DataError: There are bad ones (strict), or no good one.
    """
    problems: builtins.list[Problem] = []
    for raw, block_rows, problem in reader.blocks(progress):
        if problem is None:
            new.write(block_rows)
            continue
        if len(problems) < SHOWN:
            problems.append(problem)
        if not strict:
            new.refuse(raw, problem)
    if (problems and strict) or not reader.n_rows:
        raise refusal(reader, problems)


def split(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    held_out: float = 0.1,
    seed: int = 0,
    groups: str | None = None,
    strata: str | None = None,
) -> tuple[DatasetVersion, DatasetVersion]:
    """Split a version into train and held-out rows, and return both sides.

    A row's side depends only on the seed and its own content: it stays the same when other rows are
    added. Rows with equal answers, near duplicates, and rows of one group share a side. The
    held-out share is therefore met on average, not exactly.

    Args:
        dataset: A version, its id, or the dataset's name.
        held_out: Share of the rows to hold out, between 0 and 1.
        seed: Seeds the draw.
        groups: A field of the rows; those with the same value share a side.
        strata: A field of the rows; the held-out share is met for each of its values, as nearly as
            rows that belong together allow. Rows that an earlier split with these arguments drew
            keep their side.

    Raises:
        InputError: The share is not between 0 and 1.
        DataError: One side would be empty, or a row lacks the field.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}; expected a share between 0 and 1, such as 0.1.")
    version = get(ws, dataset)
    return splits.split(ws, version, held_out=held_out, seed=seed, groups=groups, strata=strata)


def filter(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    keep: Callable[[dict[str, Any]], bool] | None = None,
    *,
    only: Sequence[int] = (),
    without: Sequence[int] = (),
    matching: str = "",
) -> DatasetVersion:
    """Return a new version with the rows that meet every condition given.

    Args:
        dataset: A version, its id, or the dataset's name.
        keep: Called with a row; returns whether it stays.
        only: Rows to keep, counted from 0.
        without: Rows to leave out, such as `quality.repeated`.
        matching: A regular expression to search for in what user and assistant say.

    Raises:
        InputError: No row is left, a number is out of range, or the expression is invalid.
    """
    version = get(ws, dataset)
    return selection.matching_rows(
        ws, version, keep=keep, only=only, without=without, matching=matching
    )


def sample(
    ws: Workspace, dataset: DatasetVersion | str | int, n_rows: int, *, seed: int = 0
) -> DatasetVersion:
    """Return a new version with rows drawn at random, in their order.

    The dataset's name still stands for the whole version that was added last.

    Args:
        dataset: A version, its id, or the dataset's name.
        n_rows: How many rows to draw.
        seed: Seeds the draw.

    Raises:
        InputError: There are not that many rows.
    """
    return selection.random_rows(ws, get(ws, dataset), n_rows, seed=seed)


def redact(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    kinds: Sequence[str] = tuple(pii.KINDS),
) -> DatasetVersion:
    """Return a new version with [E-MAIL] and the like in place of personal data and keys.

    Args:
        dataset: A version, its id, or the dataset's name.
        kinds: What to replace, out of key, e-mail, iban, card, phone.

    Raises:
        InputError: A kind is unknown.
    """
    return selection.redacted_rows(ws, get(ws, dataset), kinds=kinds)


def merge(
    ws: Workspace, parts: Sequence[DatasetVersion | str | int], *, name: str
) -> DatasetVersion:
    """Return a version of a new dataset with the rows of several, one after the other.

    Args:
        parts: Versions, their ids, or datasets' names.
        name: The new dataset's name.

    Raises:
        InputError: They are of different kinds, or the name can't be used.
    """
    return selection.joined_rows(ws, [get(ws, part) for part in parts], name=name)


def list(ws: Workspace) -> Rows[Dataset]:
    """Return all datasets of the workspace, the oldest first."""
    versions_of: dict[str, builtins.list[dict[str, Any]]] = {}
    for row in ws.store.rows("dataset_versions"):
        versions_of.setdefault(row["dataset"], []).append(row)
    return Rows(
        Dataset(name=name, n_versions=len(rows), created_at=rows[0]["created_at"])
        for name, rows in versions_of.items()
    )


def versions(ws: Workspace, name: str) -> Rows[DatasetVersion]:
    """Return all versions of a dataset, the oldest first.

    Raises:
        NotFound: There is no dataset of this name.
    """
    rows = ws.store.rows("dataset_versions", dataset=name)
    if not rows:
        names = [dataset.name for dataset in list(ws)]
        raise NotFound(
            f"There is no dataset {name!r}.{nearest(name, names)} "
            "See them with datasets.list(ws), or add one with datasets.add(ws, path)."
        )
    return Rows(map(version_store.record, rows))


def get(ws: Workspace, dataset: DatasetVersion | str | int) -> DatasetVersion:
    """Return a version: itself, by its id, or the one of a dataset that was added last.

    Raises:
        NotFound: There is no such version or dataset.
    """
    if isinstance(dataset, DatasetVersion):
        return dataset
    if isinstance(dataset, int):
        row = ws.store.get("dataset_versions", id=dataset)
        if row is None:
            raise NotFound(
                f"There is no dataset version {dataset}. See them with datasets.versions(ws, name)."
            )
        return version_store.record(row)
    versions(ws, dataset)
    whole = {"dataset": dataset, "side": "all"}
    (row,) = ws.store.rows("dataset_versions", order="added_at", descending=True, limit=1, **whole)
    return version_store.record(row)


def rows(ws: Workspace, dataset: DatasetVersion | str | int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a version in their order."""
    return version_store.rows(get(ws, dataset))


def preview(
    ws: Workspace, dataset: DatasetVersion | str | int, *, n_rows: int = 3, start: int = 0
) -> Rows[Turn]:
    """Return the turns of some rows, to read them.

    Args:
        dataset: A version, its id, or the dataset's name.
        n_rows: How many rows.
        start: The first of them, counted from 0.
    """
    return Rows(
        Turn(row=index, role=role, content=content)
        for index, row in islice(enumerate(rows(ws, dataset)), start, start + n_rows)
        for role, content in schema.transcript(row)
    )


def problems(ws: Workspace, dataset: DatasetVersion | str | int) -> Rows[Problem]:
    """Return why lines were set aside when a version was added, the first thousand.

    Raises:
        NotFound: An older kit overwrote them, or someone removed the file.
    """
    return Rows(islice(version_store.problems(ws, get(ws, dataset)), MAX_PROBLEMS))


def mask(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    model: Model | str,
    *,
    row: int = 0,
    side: str = "chosen",
    max_length: int | None = None,
) -> Mask:
    """Return a row as a trainer will see it: every token, and whether it is trained.

    Args:
        dataset: A version, its id, or the dataset's name.
        model: The model whose tokenizer and chat template apply.
        row: The row, counted from 0.
        side: Which answer of a preference, chosen or rejected.
        max_length: Where rows are cut, in tokens; a config's default if None.

    Raises:
        InputError: There is no such row or side.
        DataError: The model's chat template refuses a row.
    """
    version, pulled = get(ws, dataset), _pulled(ws, model)
    max_length = _max_length(pulled, max_length)
    return token_mask.mask(ws, version, pulled, row=row, side=side, max_length=max_length)


def _pulled(ws: Workspace, model: Model | str) -> Model:
    return models.pull(ws, model.id if isinstance(model, Model) else model)


def _max_length(model: Model, max_length: int | None) -> int:
    """Return where a trainer would cut rows."""
    return min(max_length or Config().max_length, model.context_tokens)


def quality(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    model: Model | str | None = None,
    max_length: int | None = None,
    losses: bool = False,
    progress: OnProgress | None = None,
) -> Quality:
    """Return a version's quality: a score with all its parts, and advice; measured once.

    A train side is compared with its held-out side; for other pairs there is `overlap`.

    Args:
        dataset: A version, its id, or the dataset's name.
        model: The model to be trained, for lengths in its tokens; None leaves them unknown.
        max_length: Where rows will be cut, in tokens; a config's default if None.
        losses: Also compute each row's loss under the model, and name the outliers.
        progress: Called with what is measured.

    Raises:
        InputError: Losses without a model.
        DataError: The model's chat template refuses a row.
    """
    if losses and model is None:
        raise InputError("losses is True without a model; expected one to compute them. Name it.")
    version = get(ws, dataset)
    pulled = None if model is None else _pulled(ws, model)
    scope = quality_report.Scope(
        model=pulled,
        max_length=_max_length(pulled, max_length) if pulled else None,
        held_out=splits.held_out_of(ws, version),
        with_losses=losses,
    )
    facts = quality_report.measure(ws, version, scope, progress)
    return quality_report.report(version, scope, facts)


def overlap(
    ws: Workspace, dataset: DatasetVersion | str | int, other: DatasetVersion | str | int
) -> Rows[DuplicatePair]:
    """Return the rows of a version that another one repeats: whole, nearly, or in their question.

    Args:
        dataset: A version, its id, or the dataset's name.
        other: The version to compare with.
    """
    pairs = quality_report.repeated_in(get(ws, dataset), get(ws, other))
    return Rows(DuplicatePair(*pair) for pair in pairs)


def diff(
    ws: Workspace, before: DatasetVersion | str | int, after: DatasetVersion | str | int
) -> Diff:
    """Return which rows two versions share, and which were added, removed or changed."""
    return version_diff.diff(get(ws, before), get(ws, after))


def card(ws: Workspace, dataset: DatasetVersion | str | int) -> Card:
    """Return a version's card in Markdown: its content, where it comes from, its quality."""
    version = get(ws, dataset)
    lineage = [version]
    while lineage[-1].parent_id is not None:
        lineage.append(get(ws, lineage[-1].parent_id))
    return Card(version_card.markdown(lineage, quality(ws, version)))


def delete(ws: Workspace, name: str) -> None:
    """Remove a dataset with all its versions, and the evaluations that were made on them.

    Raises:
        NotFound: There is no dataset of this name.
        Conflict: A job uses it; the message names the jobs.
    """
    version_store.delete(ws, name, versions(ws, name))
