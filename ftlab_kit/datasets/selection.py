"""New versions from the rows of others: some of them, changed ones, or those of several."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from ftlab_kit.datasets import pii, schema, version_store
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import InputError
from ftlab_kit.records import DatasetVersion
from ftlab_kit.workspace import Workspace


def matching_rows(
    ws: Workspace,
    version: DatasetVersion,
    *,
    keep: Callable[[Row], bool] | None,
    only: Sequence[int],
    without: Sequence[int],
    matching: str,
) -> DatasetVersion:
    """Return a version with the rows that meet every condition.

    Raises:
        InputError: No row is left, a number is out of range, or the expression is invalid.
    """
    for index in (*only, *without):
        if not 0 <= index < version.n_rows:
            raise InputError(f"There is no row {index}; expected 0 to {version.n_rows - 1}.")
    try:
        pattern = re.compile(matching)
    except re.error as error:
        raise InputError(
            f"matching is {matching!r}; expected a regular expression ({error})."
        ) from None
    included, excluded = {*only}, {*without}
    rows = (
        row
        for index, row in enumerate(version_store.rows(version))
        if (not included or index in included)
        and index not in excluded
        and (not matching or pattern.search(schema.dialogue(row)))
        and (keep is None or keep(row))
    )
    arguments: dict[str, Any] = {
        "keep": getattr(keep, "__name__", ""),
        "only": sorted(included),
        "without": sorted(excluded),
        "matching": matching,
    }
    given = {name: value for name, value in arguments.items() if value}
    return version_store.derive(ws, version, rows, {"verb": "filter", **given})


def random_rows(
    ws: Workspace, version: DatasetVersion, n_rows: int, *, seed: int
) -> DatasetVersion:
    """Return a version with rows drawn at random, in their order.

    Raises:
        InputError: There are not that many rows.
    """
    if not 1 <= n_rows <= version.n_rows:
        raise InputError(f"n_rows is {n_rows}; expected 1 to {version.n_rows}.")
    drawn = {*random.Random(seed).sample(range(version.n_rows), n_rows)}
    rows = (row for index, row in enumerate(version_store.rows(version)) if index in drawn)
    derivation = {"verb": "sample", "n_rows": n_rows, "seed": seed}
    side = "sample" if version.side == "all" else version.side
    return version_store.derive(ws, version, rows, derivation, side=side)


def redacted_rows(
    ws: Workspace, version: DatasetVersion, *, kinds: Sequence[str]
) -> DatasetVersion:
    """Return a version with placeholders for personal data of these kinds.

    Raises:
        InputError: A kind is unknown.
    """
    for kind in kinds:
        if kind not in pii.KINDS:
            raise InputError(f"There is no kind {kind!r}; there are {', '.join(pii.KINDS)}.")
    rows = (
        schema.with_texts(row, lambda text: pii.redact(text, frozenset(kinds)))
        for row in version_store.rows(version)
    )
    derivation = {"verb": "redact", "kinds": sorted({*kinds})}
    return version_store.derive(ws, version, rows, derivation)


def joined_rows(ws: Workspace, versions: Sequence[DatasetVersion], *, name: str) -> DatasetVersion:
    """Return a version of a new dataset with the rows of several, one after the other.

    Raises:
        InputError: They are of different kinds.
    """
    kinds = {version.kind for version in versions}
    if len(kinds) != 1:
        raise InputError(
            f"The parts hold rows of the kinds {', '.join(sorted(kinds)) or 'none'}; expected "
            "versions of one kind. Merge those of one kind."
        )
    parts = [
        {"id": item.id, "dataset": item.dataset, "content_sha256": item.content_sha256}
        for item in versions
    ]
    with version_store.writer(ws, name, *kinds) as new:
        for version in versions:
            for row in version_store.rows(version):
                new.write([row])
        return new.commit("all", {"verb": "merge", "of": parts})
