"""Which rows train and which are held out: seeded, stable, and nothing on both sides.

Rows that belong together are drawn together: those with the same answers, those that say nearly the
same, and those of one group. A set's side follows from the seed and its first row alone, so that it
is the same whatever other rows there are, and the held-out share is met on average. With strata it
is met in each of them instead, as nearly as sets allow, and what an earlier split drew stays drawn.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ftlab_kit.datasets import near_duplicates, schema
from ftlab_kit.datasets.near_duplicates import Sets
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import DataError, nearest


class Drawn(NamedTuple):
    """For each row its set's first row, the set's draw in [0, 1), and its stratum."""

    first: int
    draw: float
    stratum: Any


def said(row: Row) -> str:
    """Return what a row says, without a system turn that many share."""
    if schema.kind(row) == "text":
        return str(row["text"])
    return "\n".join(
        turn["content"]
        for chat in schema.conversations(row)
        for turn in chat
        if turn["role"] not in ("system", "tool")
    )


def drawn(
    rows: Callable[[], Iterable[Row]], seed: int, groups: str | None, strata: str | None
) -> list[Drawn]:
    """Return the draw of every row.

    Args:
        rows: Gives the rows, as often as wanted.
        groups: A field of the rows; those with the same value belong together.
        strata: A field of the rows; each value gets its share.

    Raises:
        DataError: A row lacks the field.
    """
    answers, group_of, stratum_of = [], [], []
    for index, row in enumerate(rows()):
        answers.append(hashlib.sha256(f"{seed}\n{schema.answers(row)}".encode()).digest())
        group_of.append(_value(row, groups, index) if groups else None)
        stratum_of.append(_value(row, strata, index) if strata else None)
    sets = Sets(len(answers))
    sets.unite_equal(answers)
    sets.unite_equal(group_of)
    for pair in near_duplicates.near(said(row) for row in rows()):
        sets.unite(pair.row, pair.of)
    found = []
    for index in range(len(answers)):
        first = sets.first(index)
        digest = answers[first]
        if groups:  # a group is drawn by its name, whichever row of it comes first
            digest = hashlib.sha256(f"{seed}\n{group_of[first]}".encode()).digest()
        draw = int.from_bytes(digest[:8]) / 2**64
        found.append(Drawn(first, draw, stratum_of[first]))
    return found


def _value(row: Row, name: str, index: int) -> Any:
    if name not in row:
        raise DataError(
            f"Row {index} has no field {name!r}; expected one in every row to split by."
            f"{nearest(name, row)} It has {', '.join(map(repr, row))}. Add it, or name another."
        )
    return repr(row[name])


def held_out(draws: Sequence[Drawn], share: float, known: dict[float, bool] | None) -> list[bool]:
    """Return for each row whether it is held out.

    Args:
        share: Of the rows, between 0 and 1.
        known: For strata, the draws that an earlier split knew, and whether they were held out;
            None draws each set by itself.
    """
    if known is None:
        return [item.draw < share for item in draws]
    strata: dict[Any, dict[float, int]] = {}
    for item in draws:
        sizes = strata.setdefault(item.stratum, {})
        sizes[item.draw] = sizes.get(item.draw, 0) + 1
    chosen: set[float] = set()
    for sizes in strata.values():
        wanted = share * sum(sizes.values())
        count = sum(size for draw, size in sizes.items() if known.get(draw))
        chosen |= {draw for draw in sizes if known.get(draw)}
        for draw in sorted(set(sizes) - known.keys()):
            if count + sizes[draw] / 2 <= wanted:
                chosen.add(draw)
                count += sizes[draw]
    return [item.draw in chosen for item in draws]
