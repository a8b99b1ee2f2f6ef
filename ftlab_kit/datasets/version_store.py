"""Versions on disk and in the store: rows under the hash of their content, and a record each.

    <sha256>.jsonl       the rows, one a line, normalised; versions with equal rows share this file
    <id>.refused.jsonl   the lines that were set aside when version <id> was added, unchanged
    <id>.problems.jsonl  why each of them was refused

Refused lines belong to one version, not to the content of its good rows: two sources can agree in
every good row and differ in the bad ones.
"""

import hashlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from ftlab_kit.datasets.json_strict import ENCODE
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import Conflict, InputError, NotFound, room_on_disk
from ftlab_kit.records import DatasetVersion, Problem
from ftlab_kit.workspace import Workspace, now

REFUSED, PROBLEMS = ".refused.jsonl", ".problems.jsonl"
ENCODE_LINES = msgspec.json.Encoder().encode_lines
FLUSH_BYTES = 2**20
NAME = re.compile(r"[\w][\w .:@()+-]{0,199}")


class VersionWriter:
    """Writes the rows of a new version to a private file and hashes them on the way."""

    def __init__(self, ws: Workspace, dataset: str, kind: str) -> None:
        """Start an empty version of a dataset, for rows of one kind."""
        self.n_rows = self.n_refused = 0
        self._ws, self._dataset, self._kind = ws, dataset, kind
        self._digest = hashlib.sha256()
        self._files: dict[str, IO[bytes]] = {}
        self._path = ws.datasets / f".{uuid.uuid4().hex}.partial"
        self._buffer = bytearray()

    def write(self, rows: Sequence[Any]) -> None:
        """Add normalised rows."""
        self.n_rows += len(rows)
        self._buffer += ENCODE_LINES(rows)
        if len(self._buffer) > FLUSH_BYTES:
            self._flush()

    def refuse(self, raw: bytes, problem: Problem) -> None:
        """Set a line aside, with its problem."""
        self.n_refused += 1
        self._open(REFUSED).write(raw + b"\n")
        self._open(PROBLEMS).write(ENCODE(problem.as_dict()) + b"\n")

    def _open(self, suffix: str) -> IO[bytes]:
        if suffix not in self._files:
            self._files[suffix] = self._path.with_suffix(f".partial{suffix}").open("wb")
        return self._files[suffix]

    def _flush(self) -> None:
        self._digest.update(self._buffer)
        self._open("").write(self._buffer)
        self._buffer.clear()

    def commit(
        self, side: str, derivation: Mapping[str, Any], *, parent_id: int | None = None
    ) -> DatasetVersion:
        """Move the files into place and return the version's record.

        The same rows under the same name, side and parent are the same version: its record then
        takes the new derivation, and its refused lines are those of the last source.

        Args:
            side: Which part of the dataset this is: all, train, held_out or sample.
            derivation: The verb that made the version, and its arguments.
            parent_id: The version that it was made from; the dataset's newest one if None.
        """
        self._flush()
        for file in self._files.values():
            file.close()
        sha256 = self._digest.hexdigest()
        path = self._ws.datasets / f"{sha256}.jsonl"
        with self._ws.store.transaction():  # `delete` removes files in one, so they can't race
            Path(self._files.pop("").name).replace(path)
            version = self._record(side, derivation, parent_id, path)
            for suffix in (REFUSED, PROBLEMS):
                destination = _beside(version, suffix)
                if suffix in self._files:
                    Path(self._files.pop(suffix).name).replace(destination)
                else:
                    destination.unlink(missing_ok=True)
        return version

    def _record(
        self, side: str, derivation: Mapping[str, Any], parent_id: int | None, path: Path
    ) -> DatasetVersion:
        """Insert the version's row, or update the one that has its key."""
        store = self._ws.store
        key = f"{self._dataset}/{side}/{path.stem}/{'' if parent_id is None else parent_id}"
        if parent_id is None:
            newest = store.get("dataset_versions", dataset=self._dataset, side="all")
            parent_id = newest["id"] if newest else None
        added_at = now()
        changing = {
            "n_refused": self.n_refused,
            "derivation": {**derivation},
            "added_at": added_at,
        }
        is_new = store.insert_new(
            "dataset_versions",
            key=key,
            dataset=self._dataset,
            side=side,
            kind=self._kind,
            n_rows=self.n_rows,
            content_sha256=path.stem,
            path=str(path),
            parent_id=parent_id,
            created_at=added_at,
            **changing,
        )
        if not is_new:
            store.update("dataset_versions", {"key": key}, **changing)
        (row,) = store.rows("dataset_versions", key=key)
        return record(row)

    def discard(self) -> None:
        """Remove the files that were not committed."""
        for file in self._files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)


@contextmanager
def writer(ws: Workspace, dataset: str, kind: str) -> Iterator[VersionWriter]:
    """Yield a writer for a new version; files that it does not commit are removed.

    Raises:
        InputError: The dataset's name can't be used.
        DiskFull: While writing.
    """
    new = VersionWriter(ws, check_name(dataset), kind)
    try:
        with room_on_disk(f"the dataset {dataset}"):
            yield new
    finally:
        new.discard()


def derive(
    ws: Workspace,
    parent: DatasetVersion,
    rows: Iterable[Row],
    derivation: Mapping[str, Any],
    *,
    side: str | None = None,
) -> DatasetVersion:
    """Return a new version of the same dataset, made from the rows of another one.

    Args:
        side: Which part of the dataset it is; the parent's if None.

    Raises:
        InputError: There are no rows.
    """
    with writer(ws, parent.dataset, parent.kind) as new:
        for row in rows:
            new.write([row])
        if not new.n_rows:
            raise InputError(
                f"{derivation['verb']} leaves none of the {parent.n_rows} rows of version "
                f"{parent.id}; expected at least one. Loosen the conditions."
            )
        return new.commit(side or parent.side, derivation, parent_id=parent.id)


def check_name(name: str) -> str:
    """Return a name that a dataset can have.

    Raises:
        InputError: It could be taken for a path, or can't be typed.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be the name of a dataset; expected letters, digits and . - _ : @ + ( )"
            " beginning with a letter or digit, without a slash. Give another name."
        )
    return name


def rows(version: DatasetVersion) -> Iterator[Row]:
    """Yield the rows of a version in their order."""
    decode = msgspec.json.Decoder().decode
    with version.path.open("rb") as file:
        for line in file:
            yield decode(line)


def problems(ws: Workspace, version: DatasetVersion) -> Iterator[Problem]:
    """Yield why lines were set aside when a version was added.

    Raises:
        NotFound: An older kit overwrote the file, or someone removed it.
    """
    if not version.n_refused:
        return
    path = _beside(version, PROBLEMS)
    if not path.exists():
        path = _older_problems(ws, version)
    with path.open("rb") as file:
        for line in file:
            fields = msgspec.json.decode(line)
            if "cure" in fields:  # the names that fields had before 0.3
                fields["got"], fields["fix"] = fields.pop("found"), fields.pop("cure")
            yield Problem(**fields)


def _older_problems(ws: Workspace, version: DatasetVersion) -> Path:
    """Return the file in which a kit before 0.3 put a version's problems.

    It was named by the content, so that of several versions with the same good rows only the one
    that was added last still has its lines.
    """
    path = version.path.with_suffix(PROBLEMS)
    same = [
        record(row)
        for row in ws.store.rows("dataset_versions", order="added_at", path=str(version.path))
        if row["n_refused"]
    ]
    older = [item for item in same if not _beside(item, PROBLEMS).exists()]
    if path.exists() and older[-1].id == version.id:
        return path
    raise NotFound(
        f"The {version.n_refused} refused lines of version {version.id} of {version.dataset!r} are "
        "gone: an older kit overwrote them, or the file was removed. "
        "Add the source again with strict=False."
    )


def _beside(version: DatasetVersion, suffix: str) -> Path:
    """Return the path of a version's own file, beside its rows."""
    return version.path.with_name(f"{version.id}{suffix}")


def delete(ws: Workspace, name: str, versions: Sequence[DatasetVersion]) -> None:
    """Remove all versions of a dataset, their evaluations, and files that no version uses any more.

    Raises:
        Conflict: A job was trained or evaluated on one of them.
    """
    ids = [version.id for version in versions]
    with ws.store.transaction():  # meanwhile no job can start on it, and no version be added
        jobs = ws.store.rows("jobs", dataset_version_id=ids)
        jobs += ws.store.rows("jobs", held_out_version_id=ids)
        if jobs:
            numbers = ", ".join(str(job) for job in sorted({job["id"] for job in jobs}))
            raise Conflict(
                f"Dataset {name!r} is used by job {numbers}; deleting it would leave the job "
                "without its rows. Keep it, or add the next rows under another name."
            )
        ws.store.delete("evaluations", dataset_version_id=ids)
        for number in sorted(ids, reverse=True):  # children before their parents
            ws.store.delete("dataset_versions", id=number)
        for version in versions:
            for suffix in (REFUSED, PROBLEMS):
                _beside(version, suffix).unlink(missing_ok=True)
            if ws.store.get("dataset_versions", path=str(version.path)) is None:
                _remove_content(ws, version)


def _remove_content(ws: Workspace, version: DatasetVersion) -> None:
    """Remove rows that no version has any more, and everything that was computed from them."""
    ws.store.delete("qualities", content_sha256=version.content_sha256)
    for suffix in (".jsonl", REFUSED, PROBLEMS):
        version.path.with_suffix(suffix).unlink(missing_ok=True)
    for folder in ws.tokens.glob(f"{version.path.stem}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def record(row: Mapping[str, Any]) -> DatasetVersion:
    """Return the record of a row of the store."""
    fields = {name: row[name] for name in row if name not in ("key", "path", "added_at")}
    return DatasetVersion(**fields, path=Path(row["path"]))
