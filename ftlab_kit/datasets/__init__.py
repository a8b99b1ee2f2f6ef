"""Datasets: rows that were looked at before anything learns from them.

`add` reads a JSONL file of chats or preferences, refuses line by line what can't be trained on, and
keeps the rest as a version named by the hash of its content. `split` parts a version into train and
held-out rows; a row keeps its side when rows are added, and rows with the same answers share one.
"""

import builtins
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from ftlab_kit.datasets import chats
from ftlab_kit.errors import Conflict, DataError, InputError, NotFound, nearest, room_on_disk
from ftlab_kit.records import Dataset, DatasetVersion, Problem, Report, Rows, Turn
from ftlab_kit.workspace import Workspace, now

# 300 customer-support chats of an invented shop, written for this kit; see the card beside it
PUDDLE_AND_PINE = Path(__file__).parent / "samples" / "puddle_and_pine.jsonl"

SHOWN = 5  # problems named in an error; a report holds all up to KEPT
KEPT = 1000


def validate(path: str | Path) -> Report:
    """Return what is wrong with a JSONL file of chats, line by line.

    Raises:
        InputError: The file does not exist or is no text.
    """
    path = _file(path)
    n_rows, n_refused = 0, 0
    problems: builtins.list[Problem] = []
    for _, row, problem in _read(path):
        n_rows += row is not None
        n_refused += problem is not None
        if problem and len(problems) < KEPT:
            problems.append(problem)
    return Report(path=path, n_rows=n_rows, n_refused=n_refused, problems=Rows(problems))


def add(
    ws: Workspace, path: str | Path, *, name: str | None = None, strict: bool = True
) -> DatasetVersion:
    """Read a JSONL file of chats into the workspace and return its version.

    The same content again is the same version; other content under the same name is a new one. The
    name alone stands for the version that was added last.

    Args:
        name: What to call the dataset; the file's name if None.
        strict: Refuse a file with any bad line. False sets the bad lines aside in a file beside
            the rows (`<sha256>.refused.jsonl`) and says in the version how many they are.

    Raises:
        DataError: Bad lines (strict), or no good one; names path, line, field and cure.
        OutOfRoom: The disk is full.
    """
    path = _file(path)
    name = name or path.stem
    partial = _partial(ws)
    try:
        with room_on_disk(f"the dataset {name}"), partial.open("wb") as kept:
            n_rows, refused, problems = _sift(path, kept)
        if problems and (strict or not n_rows):
            raise DataError(_sentence(path, n_rows, len(refused), problems))
        if not n_rows:
            raise DataError(f"{path} is empty; expected one chat a line: {chats.FORM}")
        version = _keep(ws, name, "all", partial, n_rows=n_rows, n_refused=len(refused))
        if refused:
            aside = version.path.with_suffix(".refused.jsonl")
            with room_on_disk(str(aside)):
                aside.write_bytes(b"\n".join(refused) + b"\n")
    finally:
        partial.unlink(missing_ok=True)
    return version


def split(
    ws: Workspace,
    dataset: "DatasetVersion | str | int",
    *,
    held_out: float = 0.1,
    seed: int = 0,
) -> tuple[DatasetVersion, DatasetVersion]:
    """Part a version into train and held-out rows and return both.

    A row's side follows from the hash of seed and answers alone: it is the same whatever other
    rows there are, and rows with equal answers share a side. The held-out share is therefore
    met on average, not exactly.

    Args:
        held_out: Share of the rows to hold out, between 0 and 1.

    Raises:
        DataError: One side would be empty.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}; expected a share between 0 and 1, such as 0.1.")
    version = get(ws, dataset)
    sides: dict[str, builtins.list[bytes]] = {"train": [], "held_out": []}
    for row in rows(ws, version):
        side = "held_out" if _draw(seed, row) < held_out else "train"
        sides[side].append(msgspec.json.encode(row))
    if not sides["train"] or not sides["held_out"]:
        raise DataError(
            f"A split of {version.n_rows} rows with held_out={held_out} and seed={seed} leaves one "
            "side empty; expected rows on both. Use another share or seed, or more rows."
        )
    made = []
    for side, lines in sides.items():
        partial = _partial(ws)
        try:
            with room_on_disk(f"the {side} rows"):
                partial.write_bytes(b"\n".join(lines) + b"\n")
            parent = {"n_rows": len(lines), "n_refused": 0, "parent_id": version.id}
            made.append(_keep(ws, version.dataset, side, partial, **parent))
        finally:
            partial.unlink(missing_ok=True)
    return made[0], made[1]


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
    return Rows(_version(row) for row in found)


def get(ws: Workspace, dataset: "DatasetVersion | str | int") -> DatasetVersion:
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
        return _version(row)
    versions(ws, dataset)
    whole = {"dataset": dataset, "side": "all"}
    (row,) = ws.store.rows("dataset_versions", order="added_at", descending=True, limit=1, **whole)
    return _version(row)


def rows(ws: Workspace, dataset: "DatasetVersion | str | int") -> Iterator[dict[str, Any]]:
    """Yield the rows of a version in their order."""
    with get(ws, dataset).path.open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line)


def preview(
    ws: Workspace, dataset: "DatasetVersion | str | int", *, n_rows: int = 3, start: int = 0
) -> Rows[Turn]:
    """Return the turns of some rows, to be looked at."""
    return Rows(
        Turn(row=index, role=turn["role"], content=turn["content"])
        for index, row in enumerate(rows(ws, dataset))
        if start <= index < start + n_rows
        for turn in _shown(row)
    )


def _shown(row: dict[str, Any]) -> chats.Chat:
    """Return the turns of a row; two answers under the names that they have in it."""
    if chats.kind(row) == "chat":
        return chats.messages(row)
    answers = [{**row[side][-1], "role": side} for side in ("chosen", "rejected")]
    return [*row["prompt"], *answers]


def delete(ws: Workspace, name: str) -> None:
    """Remove a dataset with all its versions, and the evaluations that were made on them.

    Raises:
        Conflict: A job was trained on it; the message names the jobs.
    """
    found = versions(ws, name)
    ids = [version.id for version in found]
    jobs = ws.store.rows("jobs", dataset_version_id=ids)
    jobs += ws.store.rows("jobs", held_out_version_id=ids)
    if jobs:
        numbers = ", ".join(str(job) for job in sorted({job["id"] for job in jobs}))
        raise Conflict(
            f"Dataset {name!r} is used by job {numbers}; deleting it would leave the job without "
            "its rows. Keep it, or add the next rows under another name."
        )
    ws.store.delete("evaluations", dataset_version_id=ids)
    for version in sorted(found, key=lambda item: item.id, reverse=True):
        ws.store.delete("dataset_versions", id=version.id)
        if not ws.store.get("dataset_versions", path=str(version.path)):
            version.path.unlink(missing_ok=True)
            version.path.with_suffix(".refused.jsonl").unlink(missing_ok=True)
            for encoded in ws.tokens.glob(f"{version.content_sha256}-*"):
                shutil.rmtree(encoded, ignore_errors=True)


def _file(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; expected a JSONL file. Check the path.")
    return path


def _partial(ws: Workspace) -> Path:
    """Return a path that no one else writes to, for rows whose hash is not known yet."""
    return ws.datasets / f".{uuid.uuid4().hex}.partial"


def _read(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None, Problem | None]]:
    """Yield every line that is not blank: its bytes, and its row or its problem."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if line:
                yield line, *chats.parse(number, line)


def _sift(path: Path, kept: IO[bytes]) -> tuple[int, builtins.list[bytes], builtins.list[Problem]]:
    n_rows, refused, problems = 0, [], []
    for line, row, problem in _read(path):
        if problem:
            refused.append(line)
            problems.append(problem)
        else:
            n_rows += 1
            kept.write(msgspec.json.encode(row) + b"\n")
    return n_rows, refused, problems


def _sentence(path: Path, n_rows: int, n_refused: int, problems: builtins.list[Problem]) -> str:
    if not n_rows and all(problem.field == "line" for problem in problems):
        return (
            f"{path}:{problems[0].line}: {path.name} is no JSONL: none of its {n_refused} lines is "
            f"a JSON object. Expected one chat a line: {chats.FORM}"
        )
    lines = [f"{path}:{problem.line}: {problem}" for problem in problems[:SHOWN]]
    more = f"\n… and {n_refused - SHOWN} more lines." if n_refused > SHOWN else ""
    total = f"{n_refused} of {n_rows + n_refused} lines are refused.\n"
    cure = (
        "\nMend the lines, or set them aside with strict=False."
        if n_rows
        else "\nMend the lines; none can be used as it stands."
    )
    return total + "\n".join(lines) + more + cure


def _draw(seed: int, row: dict[str, Any]) -> float:
    """Return a number in [0, 1) that follows from the seed and the row's answers alone."""
    digest = hashlib.sha256(f"{seed}\n{chats.answers(row)}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _keep(ws: Workspace, name: str, side: str, partial: Path, **facts: Any) -> DatasetVersion:
    """Give the rows in a file their name by content and their record, unless they have them.

    Args:
        facts: n_rows, n_refused, and for a side of a split its parent_id.
    """
    with partial.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    path = ws.datasets / f"{sha256}.jsonl"
    partial.replace(path)
    key = f"{name}/{side}/{sha256}/{facts.get('parent_id', '')}"
    last = ws.store.get("dataset_versions", dataset=name, side="all")
    values = {"parent_id": last["id"] if last else None, **facts, "path": str(path)}
    values |= {"dataset": name, "side": side, "content_sha256": sha256}
    at = now()
    if not ws.store.insert_new("dataset_versions", key=key, created_at=at, added_at=at, **values):
        ws.store.update("dataset_versions", {"key": key}, added_at=at)
    row = ws.store.get("dataset_versions", key=key)
    assert row is not None
    return _version(row)


def _version(row: dict[str, Any]) -> DatasetVersion:
    fields = {name: row[name] for name in row if name not in ("key", "path", "added_at")}
    return DatasetVersion(**fields, path=Path(row["path"]))
