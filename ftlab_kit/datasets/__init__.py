"""Datasets: rows that were looked at before anything learns from them.

`add` reads rows of many forms from files, folders, data frames and the hub, refuses line by line
what can't be trained on, and keeps the rest as a version named by the hash of its content. `split`,
`append`, `filter`, `sample`, `merge` and `redact` make versions of versions; `quality`, `mask`,
`diff` and `card` show what they are like. No version ever changes.
"""

import builtins
import os
import random
import re
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
    splits,
    token_mask,
    version_diff,
    version_store,
)
from ftlab_kit.datasets.files import Frame
from ftlab_kit.datasets.json_strict import ENCODE
from ftlab_kit.datasets.reader import SHOWN, RowReader, refusal
from ftlab_kit.errors import DataError, InputError, NotFound, nearest, room_on_disk
from ftlab_kit.records import (
    Card,
    Dataset,
    DatasetVersion,
    Diff,
    DuplicatePair,
    Mask,
    Model,
    Problem,
    Quality,
    Report,
    Rows,
    Turn,
)
from ftlab_kit.workspace import Workspace

# all of it invented for this kit; each file has its card beside it
SAMPLES = Path(__file__).parent / "samples"
PUDDLE_AND_PINE = SAMPLES / "puddle_and_pine.jsonl"  # 300 customer-support chats of a shop
# 63 of them, and twelve lines that can't be trained on, each for another reason
TWELVE_FAULTS = SAMPLES / "twelve_faults.jsonl"
SALTMERE_TICKETS = SAMPLES / "saltmere_tickets.csv"  # a help desk's export of a ferry line
BRINDLE_CODE = SAMPLES / "brindle_code.jsonl"  # tasks and code in the manner of an own library
LEASE_CLAUSES = SAMPLES / "lease_clauses.jsonl"  # clauses of contracts, and what they say as JSON
QUILLOW_COPY = SAMPLES / "quillow_copy.jsonl"  # briefs and copy in the voice of a brand

KEPT = 1000  # problems of a report; all of them stand in what is exported


def validate(
    path: str | Path | Frame,
    *,
    columns: Mapping[str, str] | None = None,
    export: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> Report:
    """Return what is wrong with rows, line by line; they stream by in bounded memory.

    Args:
        path: A file of JSON lines, JSON, CSV or Parquet, alone or packed with gzip or zstd; a
            folder of them; a pandas data frame; or a name on the hub, owner/name:config:split.
        columns: What a form's fields are called here, such as {"prompt": "question"}.
        export: A file for every problem, one JSON object a line.
        progress: Called with the share that is done, rows, and refused lines.

    Raises:
        InputError: There is nothing to read, or it can't be read at all.
    """
    sieve = RowReader(files.source(path), columns)
    problems: builtins.list[Problem] = []
    with room_on_disk(str(export)), Path(export or os.devnull).open("wb") as out:
        for _, _, problem in sieve.parts(progress):
            if problem is None:
                continue
            out.write(ENCODE(problem.as_dict()) + b"\n")
            if len(problems) < KEPT:
                problems.append(problem)
    return Report(
        source=sieve.source.label,
        form=sieve.form,
        n_rows=sieve.n_rows,
        n_refused=sieve.n_refused,
        problems=Rows(problems),
        skipped=sieve.source.skipped,
    )


def add(
    ws: Workspace,
    path: str | Path | Frame,
    *,
    name: str | None = None,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    progress: Callable[..., None] | None = None,
) -> DatasetVersion:
    """Read rows into the workspace and return their version.

    The same content again is the same version; other content under the same name is a new one. The
    name alone stands for the version that was added last.

    Args:
        path: As for validate.
        name: What to call the dataset; the file's name if None.
        strict: Refuse a source with any bad line. False sets the bad lines aside in a file beside
            the rows (`<id>.refused.jsonl`, with the reasons in `<id>.problems.jsonl`) and
            counts them in the version's `n_refused`.
        columns: What a form's fields are called here, such as {"prompt": "question"}.
        progress: Called with the share that is done, rows, and refused lines.

    Raises:
        InputError: There is nothing to read, or it can't be read at all.
        DataError: Bad lines (strict), or no good one; names path, line, field and cure.
        DiskFull: Nothing of it is kept.
    """
    sieve = RowReader(files.source(path), columns)
    name = name or _name(sieve.source.label)
    with version_store.writer(ws, name, sieve.kind) as new:
        _sift(sieve, new, strict, progress)
        return new.commit("all", _made("add", sieve))


def _sift(
    sieve: RowReader,
    draft: version_store.VersionWriter,
    strict: bool,
    progress: Callable[..., None] | None,
) -> None:
    """Write the good rows of a source, and set the bad ones aside.

    Raises:
        DataError: There are bad ones (strict), or no good one.
    """
    problems: builtins.list[Problem] = []
    for raw, found, problem in sieve.parts(progress):
        if problem is None:
            draft.write(found)
            continue
        if len(problems) < SHOWN:
            problems.append(problem)
        if not strict:
            draft.refuse(raw, problem)
    if (problems and strict) or not sieve.n_rows:
        raise refusal(sieve, problems)


def _made(verb: str, sieve: RowReader) -> dict[str, Any]:
    facts: dict[str, Any] = {"verb": verb, "source": sieve.source.label, "form": sieve.form}
    facts |= {"columns": sieve.columns} if sieve.columns else {}
    return facts | ({"skipped": [*sieve.source.skipped]} if sieve.source.skipped else {})


def _name(label: str) -> str:
    """Return what a dataset is called that was given no name."""
    bare = Path(label.split(":")[0])
    bare = bare.with_suffix("") if bare.suffix in (".gz", ".zst") else bare
    return bare.stem if bare.suffix[1:] in files.SUFFIXES else bare.name


def append(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    path: str | Path | Frame,
    *,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    progress: Callable[..., None] | None = None,
) -> DatasetVersion:
    """Return a new version: the rows of one, then those of a source, read as `add` reads them.

    Raises:
        InputError: The new rows are of another kind.
        DataError: As for add.
    """
    parent = get(ws, dataset)
    sieve = RowReader(files.source(path), columns)
    kind = sieve.kind
    if kind != parent.kind:
        raise InputError(
            f"{sieve.source.label} holds rows of kind {kind}, version {parent.id} of kind "
            f"{parent.kind}; expected the same. Add them as a dataset of their own."
        )
    with version_store.writer(ws, parent.dataset, parent.kind) as new:
        for row in version_store.rows(parent):
            new.write([row])
        _sift(sieve, new, strict, progress)
        return new.commit(parent.side, _made("append", sieve), parent_id=parent.id)


def split(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    held_out: float = 0.1,
    seed: int = 0,
    groups: str | None = None,
    strata: str | None = None,
) -> tuple[DatasetVersion, DatasetVersion]:
    """Part a version into train and held-out rows and return both.

    A row's side follows from the seed and what it says alone: it is the same whatever other rows
    are added. Rows with equal answers, near duplicates, and rows of one group share a side, which
    is that of the first of them. The held-out share is therefore met on average, not exactly.

    Args:
        held_out: Share of the rows to hold out, between 0 and 1.
        groups: A field of the rows; those with the same value share a side.
        strata: A field of the rows; each of its values gets the held-out share, as nearly as rows
            that belong together allow. What an earlier split drew with these arguments stays.

    Raises:
        DataError: One side would be empty, or a row lacks the field.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}; expected a share between 0 and 1, such as 0.1.")
    version = get(ws, dataset)
    made = {"verb": "split", "held_out": held_out, "seed": seed}
    made |= {"groups": groups} if groups else {}
    made |= {"strata": strata} if strata else {}
    draws = splits.drawn(lambda: version_store.rows(version), seed, groups, strata)
    known = _drawn_before(ws, version, made, seed) if strata else None
    is_out = splits.held_out(draws, held_out, known)
    if len({*is_out}) < 2:
        raise DataError(
            f"A split of {version.n_rows} rows with held_out={held_out} and seed={seed} leaves one "
            "side empty; expected rows on both. Use another share or seed, or more rows."
        )
    found = []
    for side in (False, True):
        with version_store.writer(ws, version.dataset, version.kind) as new:
            for row, is_held in zip(version_store.rows(version), is_out, strict=True):
                if is_held is side:
                    new.write([row])
            name = "held_out" if side else "train"
            found.append(new.commit(name, made, parent_id=version.id))
    return found[0], found[1]


def _drawn_before(
    ws: Workspace, version: DatasetVersion, made: Mapping[str, Any], seed: int
) -> dict[float, bool]:
    """Return the draws that the last split by the same arguments knew, and which were held out."""
    known: dict[float, bool] = {}
    for side in ("train", "held_out"):
        rows = ws.store.rows("dataset_versions", dataset=version.dataset, side=side)
        same = [version_store.record(row) for row in rows if row["derivation"] == made]
        for last in same[-1:]:
            draws = splits.drawn(
                lambda last=last: version_store.rows(last),  # type: ignore[misc]
                seed,
                made.get("groups"),
                made["strata"],
            )
            known |= {item.draw: side == "held_out" for item in draws}
    return known


def filter(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    keep: Callable[[dict[str, Any]], bool] | None = None,
    *,
    only: Sequence[int] = (),
    without: Sequence[int] = (),
    matching: str = "",
) -> DatasetVersion:
    """Return a new version with some rows of another; what is asked for several times all holds.

    Args:
        keep: Told a row, says whether it stays.
        only: Rows to keep, counted from 0.
        without: Rows to leave out, such as quality's `repeated`.
        matching: A regular expression that a row's text must match somewhere.

    Raises:
        InputError: No row is left, a number is no row's, or the expression is none.
    """
    version = get(ws, dataset)
    for index in (*only, *without):
        if not 0 <= index < version.n_rows:
            raise InputError(f"There is no row {index}; expected 0 to {version.n_rows - 1}.")
    try:
        pattern = re.compile(matching)
    except re.error as error:
        raise InputError(f"matching is no regular expression ({error}): {matching!r}.") from None
    wanted, unwanted = {*only}, {*without}
    made = {
        "verb": "filter",
        "keep": getattr(keep, "__name__", "") or None,
        "only": sorted(wanted),
        "without": sorted(unwanted),
        "matching": matching,
    }
    chosen = (
        row
        for index, row in enumerate(version_store.rows(version))
        if (not wanted or index in wanted)
        and index not in unwanted
        and (not matching or pattern.search(splits.said(row)))
        and (keep is None or keep(row))
    )
    return version_store.derive(ws, version, chosen, {key: made[key] for key in made if made[key]})


def sample(
    ws: Workspace, dataset: DatasetVersion | str | int, n_rows: int, *, seed: int = 0
) -> DatasetVersion:
    """Return a new version with so many rows of another, drawn by the seed, in their order.

    It is a part: the dataset's name goes on meaning the whole that was added last.

    Raises:
        InputError: There are not so many.
    """
    version = get(ws, dataset)
    if not 1 <= n_rows <= version.n_rows:
        raise InputError(f"n_rows is {n_rows}; expected 1 to {version.n_rows}.")
    drawn = {*random.Random(seed).sample(range(version.n_rows), n_rows)}
    chosen = (row for index, row in enumerate(version_store.rows(version)) if index in drawn)
    made = {"verb": "sample", "n_rows": n_rows, "seed": seed}
    side = "sample" if version.side == "all" else version.side
    return version_store.derive(ws, version, chosen, made, side=side)


def redact(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    kinds: Sequence[str] = tuple(pii.KINDS),
) -> DatasetVersion:
    """Return a new version with [E-MAIL] and so on in place of personal data and keys.

    Args:
        kinds: Of key, e-mail, iban, card, phone.

    Raises:
        InputError: A kind is unknown.
    """
    version = get(ws, dataset)
    for kind in kinds:
        if kind not in pii.KINDS:
            known = ", ".join(pii.KINDS)
            raise InputError(f"There is no kind {kind!r}; there are {known}.")
    wanted = frozenset(kinds)
    rows = (
        schema.with_texts(row, lambda text: pii.redact(text, wanted))
        for row in version_store.rows(version)
    )
    return version_store.derive(ws, version, rows, {"verb": "redact", "kinds": sorted(wanted)})


def merge(
    ws: Workspace, parts: Sequence[DatasetVersion | str | int], *, name: str
) -> DatasetVersion:
    """Return a new version, under a name, with the rows of several one after the other.

    Raises:
        InputError: They are of different kinds.
    """
    found = [get(ws, part) for part in parts]
    kinds = {version.kind for version in found}
    if len(kinds) != 1:
        raise InputError(
            f"The parts hold rows of the kinds {', '.join(sorted(kinds)) or 'none'}; expected "
            "versions of one kind. Merge those that go together."
        )
    of = [
        {"id": item.id, "dataset": item.dataset, "content_sha256": item.content_sha256}
        for item in found
    ]
    with version_store.writer(ws, name, *kinds) as new:
        for version in found:
            for row in version_store.rows(version):
                new.write([row])
        return new.commit("all", {"verb": "merge", "of": of})


def list(ws: Workspace) -> Rows[Dataset]:
    """Return all datasets of the workspace, the oldest first."""
    found: dict[str, builtins.list[dict[str, Any]]] = {}
    for row in ws.store.rows("dataset_versions"):
        found.setdefault(row["dataset"], []).append(row)
    return Rows(
        Dataset(name=name, n_versions=len(rows), created_at=rows[0]["created_at"])
        for name, rows in found.items()
    )


def versions(ws: Workspace, name: str) -> Rows[DatasetVersion]:
    """Return all versions of a dataset, the oldest first.

    Raises:
        NotFound: There is no dataset of this name.
    """
    found = ws.store.rows("dataset_versions", dataset=name)
    if not found:
        names = [item.name for item in list(ws)]
        raise NotFound(
            f"There is no dataset {name!r}.{nearest(name, names)} "
            "See them with datasets.list(ws), or add one with datasets.add(ws, path)."
        )
    return Rows(version_store.record(row) for row in found)


def get(ws: Workspace, dataset: DatasetVersion | str | int) -> DatasetVersion:
    """Return a version: by itself, by its id, or the one of a dataset that was added last.

    Raises:
        NotFound: There is none.
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
    """Return the turns of some rows, to be looked at; answers under the names that they have."""
    return Rows(
        Turn(row=index, role=role, content=content)
        for index, row in enumerate(rows(ws, dataset))
        if start <= index < start + n_rows
        for role, content in schema.shown(row)
    )


def problems(ws: Workspace, dataset: DatasetVersion | str | int) -> Rows[Problem]:
    """Return why lines were set aside when a version was added, the first thousand."""
    return Rows(islice(version_store.problems(ws, get(ws, dataset)), KEPT))


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
        row: Counted from 0.
        side: Of a preference, chosen or rejected.
        max_length: Where rows are cut, in tokens; as a config has it if None.

    Raises:
        InputError: There is no such row or side.
        DataError: The model's chat template refuses a row.
    """
    found = models.pull(ws, model.id if isinstance(model, Model) else model)
    length = _length(found, max_length)
    return token_mask.mask(ws, get(ws, dataset), found, row=row, side=side, length=length)


def _length(model: Model, max_length: int | None) -> int:
    """Return where a trainer would cut rows."""
    return min(max_length or Config().max_length, model.context_tokens)


def quality(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    *,
    model: Model | str | None = None,
    max_length: int | None = None,
    losses: bool = False,
    progress: Callable[..., None] | None = None,
) -> Quality:
    """Return what a version is like: its score with every part, and advice; measured once.

    A train side is compared with its held-out side; for other pairs there is `overlap`.

    Args:
        model: The one to be trained, for lengths in its tokens; without, they are not known.
        max_length: Where rows will be cut, in tokens; as a config has it if None.
        losses: Let the model read every row, and name those that lie far from the others.
        progress: Called with what is looked at.

    Raises:
        InputError: Losses are asked for without a model.
        DataError: The model's chat template refuses a row.
    """
    if losses and model is None:
        raise InputError("losses are asked for, and no model; name the one that is to read.")
    version = get(ws, dataset)
    found = None
    if model is not None:
        found = models.pull(ws, model.id if isinstance(model, Model) else model)
    length = _length(found, max_length) if found else None
    asked = quality_report.Asked(found, length, _held_out(ws, version), losses)
    return quality_report.judge(version, asked, quality_report.look(ws, version, asked, progress))


def _held_out(ws: Workspace, version: DatasetVersion) -> DatasetVersion | None:
    """Return the other side of the split that a train side comes from, however much it changed."""
    if version.side != "train":
        return None
    while version.derivation.get("verb") != "split" and version.parent_id is not None:
        version = get(ws, version.parent_id)
    rows = ws.store.rows("dataset_versions", parent_id=version.parent_id, side="held_out")
    same = [row for row in rows if row["derivation"] == version.derivation]
    return version_store.record(same[-1]) if same else None


def overlap(
    ws: Workspace, dataset: DatasetVersion | str | int, other: DatasetVersion | str | int
) -> Rows[DuplicatePair]:
    """Return rows of a version that another repeats: whole or nearly, or in their question."""
    return Rows(
        DuplicatePair(*item)
        for item in quality_report.repeated_in(get(ws, dataset), get(ws, other))
    )


def diff(
    ws: Workspace, before: DatasetVersion | str | int, after: DatasetVersion | str | int
) -> Diff:
    """Return which rows two versions share, and which were added, removed or changed."""
    return version_diff.diff(get(ws, before), get(ws, after))


def card(ws: Workspace, dataset: DatasetVersion | str | int) -> Card:
    """Return a version's card in Markdown: what it holds, where it comes from, what it is like."""
    version = get(ws, dataset)
    line = [version]
    while line[-1].parent_id is not None:
        line.append(get(ws, line[-1].parent_id))
    return Card(quality_report.card(line, quality(ws, version)))


def delete(ws: Workspace, name: str) -> None:
    """Remove a dataset with all its versions, and the evaluations that were made on them.

    Raises:
        NotFound: There is no dataset of this name.
        Conflict: A job uses it; the message names the jobs.
    """
    version_store.delete(ws, name, versions(ws, name))
