"""Versions in the workspace: rows under the hash of their content, and their record.

<sha256>.jsonl           the rows, one a line, in the one form
<sha256>.refused.jsonl   the lines that were set aside, as they were
<sha256>.problems.jsonl  why, line by line
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
from ftlab_kit.errors import InputError, room_on_disk
from ftlab_kit.records import DatasetVersion, Problem
from ftlab_kit.workspace import Workspace, now

ASIDE = (".refused.jsonl", ".problems.jsonl")
ENCODE_LINES = msgspec.json.Encoder().encode_lines
FLUSH = 2**20
NAME = re.compile(r"[\w][\w .:@()+-]{0,199}")


class VersionWriter:
    """Rows on their way to a version: written once, hashed as they go by."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Write rows of a kind to a file in this folder that no one else writes to."""
        self.n_rows = self.n_refused = 0
        self.kind = kind
        self._digest = hashlib.sha256()
        self._files: dict[str, IO[bytes]] = {}
        self._path = folder / f".{uuid.uuid4().hex}.partial"
        self._waiting = bytearray()

    def write(self, rows: Sequence[Any]) -> None:
        """Add rows in the one form."""
        self.n_rows += len(rows)
        self._waiting += ENCODE_LINES(rows)
        if len(self._waiting) > FLUSH:
            self._flush()

    def refuse(self, raw: bytes, problem: Problem) -> None:
        """Set a line aside, with what is wrong with it."""
        self.n_refused += 1
        for suffix, data in zip(ASIDE, (raw, ENCODE(problem.as_dict())), strict=True):
            self._open(suffix).write(data + b"\n")

    def _open(self, suffix: str) -> IO[bytes]:
        if suffix not in self._files:
            self._files[suffix] = self._path.with_suffix(f".partial{suffix}").open("wb")
        return self._files[suffix]

    def _flush(self) -> None:
        self._digest.update(self._waiting)
        self._open("").write(self._waiting)
        self._waiting.clear()

    def keep(
        self,
        ws: Workspace,
        name: str,
        side: str,
        made: Mapping[str, Any],
        *,
        parent_id: int | None = None,
    ) -> DatasetVersion:
        """Give the rows their name by content and their record, unless they have them.

        Args:
            made: The verb, and what and how.
            parent_id: The version that they were made from; the dataset's last one if None.
        """
        self._flush()
        sha256 = self._digest.hexdigest()
        path = ws.datasets / f"{sha256}.jsonl"
        for suffix, file in self._files.items():
            file.close()
            Path(file.name).replace(path.with_suffix(suffix or path.suffix))
        if parent_id is None:
            last = ws.store.get("dataset_versions", dataset=name, side="all")
            parent_id, key = (last["id"] if last else None), f"{name}/{side}/{sha256}/"
        else:
            key = f"{name}/{side}/{sha256}/{parent_id}"
        values: dict[str, Any] = {
            "dataset": name,
            "side": side,
            "content_sha256": sha256,
            "path": str(path),
        }
        values |= {"kind": self.kind, "n_rows": self.n_rows, "n_refused": self.n_refused}
        values |= {"parent_id": parent_id, "derivation": {**made}, "created_at": now()}
        at = values["created_at"]
        if not ws.store.insert_new("dataset_versions", key=key, added_at=at, **values):
            # the rows are the same, and what stood beside them is what was set aside last
            new = {"added_at": at, "n_refused": self.n_refused, "derivation": {**made}}
            ws.store.update("dataset_versions", {"key": key}, **new)
        row = ws.store.get("dataset_versions", key=key)
        assert row is not None
        return version(row)

    def drop(self) -> None:
        """Remove what was not kept."""
        for file in self._files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)


@contextmanager
def draft(ws: Workspace, dataset: str, kind: str) -> Iterator[VersionWriter]:
    """Hold a draft for a dataset, of which nothing stays that was not kept.

    Raises:
        DiskFull: While writing it.
    """
    made = VersionWriter(ws.datasets, kind)
    try:
        with room_on_disk(f"the dataset {dataset}"):
            yield made
    finally:
        made.drop()


def derive(
    ws: Workspace,
    parent: DatasetVersion,
    rows: Iterable[Row],
    made: Mapping[str, Any],
    *,
    side: str | None = None,
) -> DatasetVersion:
    """Keep rows that were made from a version as its child, of the same dataset.

    Args:
        side: Which part of the dataset it is; the parent's if None.

    Raises:
        InputError: There are none.
    """
    with draft(ws, parent.dataset, parent.kind) as drafted:
        for row in rows:
            drafted.write([row])
        if not drafted.n_rows:
            raise InputError(
                f"{made['verb']} leaves none of the {parent.n_rows} rows of version {parent.id}; "
                "expected at least one. Ask for less."
            )
        return drafted.keep(ws, parent.dataset, side or parent.side, made, parent_id=parent.id)


def check_name(name: str) -> str:
    """Return a name under which rows can be kept.

    Raises:
        InputError: It could be taken for a path, or can't be typed.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be the name of a dataset; expected letters, digits and . - _ : @ + ( )"
            " beginning with a letter or digit, no slash. Give another name."
        )
    return name


def rows(version: DatasetVersion) -> Iterator[Row]:
    """Yield the rows of a version in their order."""
    decode = msgspec.json.Decoder().decode
    with version.path.open("rb") as file:
        for line in file:
            yield decode(line)


def remove(ws: Workspace, path: Path) -> None:
    """Remove the rows at a path that no version has any more, with all that was made of them."""
    path.unlink(missing_ok=True)
    for suffix in ASIDE:
        path.with_suffix(suffix).unlink(missing_ok=True)
    for encoded in ws.tokens.glob(f"{path.stem}-*"):
        shutil.rmtree(encoded, ignore_errors=True)


def version(row: dict[str, Any]) -> DatasetVersion:
    """Return the record of a row of the store."""
    fields = {name: row[name] for name in row if name not in ("key", "path", "added_at")}
    return DatasetVersion(**fields, path=Path(row["path"]))
