"""Splits of a version: seeded, stable, and without leakage from one side to the other.

Rows that belong together share a side: those with the same answers, near duplicates, and those of
one group. The draw of such a set depends only on the seed and its first row, so that it is the same
whatever other rows there are, and the held-out share is met on average. With strata the share is
met in each stratum instead, as nearly as sets allow, and rows that an earlier split drew keep their
side.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ftlab_kit.datasets import near_duplicates, schema, version_store
from ftlab_kit.datasets.near_duplicates import DisjointSets
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import DataError, nearest
from ftlab_kit.records import DatasetVersion
from ftlab_kit.workspace import Workspace

SIDES = ("train", "held_out")


class Draw(NamedTuple):
    """What decides a row's side: its set's number in [0, 1), and the set's stratum."""

    number: float
    stratum: Any


def split(
    ws: Workspace,
    version: DatasetVersion,
    *,
    held_out: float,
    seed: int,
    groups: str | None,
    strata: str | None,
) -> tuple[DatasetVersion, DatasetVersion]:
    """Return the train and the held-out side of a version.

    Raises:
        DataError: One side would be empty, or a row lacks the field of groups or strata.
    """
    derivation: dict[str, Any] = {"verb": "split", "held_out": held_out, "seed": seed}
    derivation |= {"groups": groups} if groups else {}
    derivation |= {"strata": strata} if strata else {}
    draws = draw(partial(version_store.rows, version), seed, groups, strata)
    earlier = _earlier_draws(ws, version, derivation) if strata else None
    is_held_out = choose(draws, held_out, earlier)
    if len({*is_held_out}) < 2:
        raise DataError(
            f"A split of {version.n_rows} rows with held_out={held_out} and seed={seed} leaves one "
            "side empty; expected rows on both. Use another share or seed, or more rows."
        )
    train, out = (_side(ws, version, side, is_held_out, derivation) for side in (False, True))
    return train, out


def _side(
    ws: Workspace,
    version: DatasetVersion,
    side: bool,
    is_held_out: Sequence[bool],
    derivation: Mapping[str, Any],
) -> DatasetVersion:
    """Return one side of a split as a version; the held-out one if `side`."""
    rows = zip(version_store.rows(version), is_held_out, strict=True)
    chosen = (row for row, is_out in rows if is_out is side)
    return version_store.derive(ws, version, chosen, derivation, side=SIDES[side])


def _earlier_draws(
    ws: Workspace, version: DatasetVersion, derivation: Mapping[str, Any]
) -> dict[float, bool]:
    """Return the draws of the last split with the same arguments: whether each was held out."""
    earlier: dict[float, bool] = {}
    for side in SIDES:
        rows = ws.store.rows("dataset_versions", dataset=version.dataset, side=side)
        same = [version_store.record(row) for row in rows if row["derivation"] == derivation]
        for last in same[-1:]:
            draws = draw(
                partial(version_store.rows, last),
                derivation["seed"],
                derivation.get("groups"),
                derivation["strata"],
            )
            earlier |= {item.number: side == "held_out" for item in draws}
    return earlier


def held_out_of(ws: Workspace, version: DatasetVersion) -> DatasetVersion | None:
    """Return the held-out side of the split that a train side comes from, perhaps via others."""
    if version.side != "train":
        return None
    while version.derivation.get("verb") != "split" and version.parent_id is not None:
        (row,) = ws.store.rows("dataset_versions", id=version.parent_id)
        version = version_store.record(row)
    rows = ws.store.rows("dataset_versions", parent_id=version.parent_id, side="held_out")
    same = [row for row in rows if row["derivation"] == version.derivation]
    return version_store.record(same[-1]) if same else None


def draw(
    rows: Callable[[], Iterable[Row]], seed: int, groups: str | None, strata: str | None
) -> list[Draw]:
    """Return the draw of every row.

    Args:
        rows: Returns the rows; called twice.
        groups: A field of the rows; those with the same value belong together.
        strata: A field of the rows; each value gets its share.

    Raises:
        DataError: A row lacks the field.
    """
    answers, group_names, row_strata = [], [], []
    for index, row in enumerate(rows()):
        answers.append(_digest(f"{seed}\n{schema.answers(row)}"))
        group_names.append(_digest(f"{seed}\n{_value(row, groups, index)}") if groups else None)
        row_strata.append(_value(row, strata, index) if strata else None)
    sets = DisjointSets(len(answers))
    sets.unite_equal(answers)
    sets.unite_equal(group_names)
    for pair in near_duplicates.find_pairs(map(schema.dialogue, rows())):
        sets.unite(pair.row, pair.of)
    draws = []
    for index in range(len(answers)):
        first = sets.first(index)
        # a group is drawn by its name, so that it doesn't matter which of its rows comes first
        digest = group_names[first] or answers[first]
        draws.append(Draw(int.from_bytes(digest[:8]) / 2**64, row_strata[first]))
    return draws


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _value(row: Row, field: str, index: int) -> str:
    if field not in row:
        raise DataError(
            f"Row {index} has no field {field!r}; expected one in every row to split by."
            f"{nearest(field, row)} It has {', '.join(map(repr, row))}. Add it, or name another."
        )
    return repr(row[field])


def choose(draws: Sequence[Draw], share: float, earlier: Mapping[float, bool] | None) -> list[bool]:
    """Return for each row whether it is held out.

    Args:
        share: Of the rows, between 0 and 1.
        earlier: For strata, the draws of an earlier split and whether each was held out; None
            decides each set by itself.
    """
    if earlier is None:
        return [item.number < share for item in draws]
    strata: dict[Any, dict[float, int]] = {}
    for item in draws:
        sizes = strata.setdefault(item.stratum, {})
        sizes[item.number] = sizes.get(item.number, 0) + 1
    chosen: set[float] = set()
    for sizes in strata.values():
        target = share * sum(sizes.values())
        before = {number for number in sizes if earlier.get(number)}
        chosen |= before
        count = sum(sizes[number] for number in before)
        for number in sorted(sizes.keys() - earlier.keys()):
            if count + sizes[number] / 2 <= target:
                chosen.add(number)
                count += sizes[number]
    return [item.number in chosen for item in draws]
