"""What became of the rows of one version in another.

A row is the same if its content is, wherever it stands. Of the others, one that went and one that
came are a changed row if they have the same `id`, or else the same question, or the same answer.
"""

import hashlib
from collections import Counter, defaultdict, deque
from typing import NamedTuple

from ftlab_kit.datasets import schema, splits, version_store
from ftlab_kit.datasets.json_strict import ENCODE
from ftlab_kit.datasets.schema import Row
from ftlab_kit.records import Change, DatasetVersion, Diff, Rows

MOST = 1000


class _Known(NamedTuple):
    content: bytes
    question: bytes
    answers: bytes


def diff(before: DatasetVersion, after: DatasetVersion) -> Diff:
    """Return the rows that two versions share, and those that they do not, in their order."""
    old, new = (_known(version) for version in (before, after))
    left = Counter(item.content for item in new)
    gone = []
    for index, item in enumerate(old):
        if left[item.content]:
            left[item.content] -= 1
        else:
            gone.append(index)
    came = []
    for index in reversed(range(len(new))):  # of equal rows the last are the ones that came
        if left[new[index].content]:
            left[new[index].content] -= 1
            came.append(index)
    came.reverse()
    changed = _paired(old, new, gone, came)
    taken = set(changed.values())
    removed = [index for index in gone if index not in changed]
    added = [index for index in came if index not in taken]
    return Diff(
        before=before,
        after=after,
        n_same=len(old) - len(gone),
        n_added=len(added),
        n_removed=len(removed),
        n_changed=len(changed),
        changes=_told(before, after, changed, removed, added),
    )


def _paired(
    old: list[_Known], new: list[_Known], gone: list[int], came: list[int]
) -> dict[int, int]:
    """Return which of the rows that came each of those that went has become."""
    changed: dict[int, int] = {}
    for what in ("question", "answers"):
        waiting: dict[bytes, deque[int]] = defaultdict(deque)
        taken = set(changed.values())
        for index in came:
            if index not in taken:
                waiting[getattr(new[index], what)].append(index)
        for index in gone:
            if index not in changed and waiting[getattr(old[index], what)]:
                changed[index] = waiting[getattr(old[index], what)].popleft()
    return dict(sorted(changed.items()))


def _known(version: DatasetVersion) -> list[_Known]:
    return [
        _Known(_hash(ENCODE(row)), *map(_hash, _identities(row)))
        for row in version_store.rows(version)
    ]


def _identities(row: Row) -> tuple[bytes, bytes]:
    if "id" in row:
        return (b"id" + ENCODE(row["id"]),) * 2
    asked, said = schema.question(row), schema.answers(row)
    return (asked or said).encode(), said.encode()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _told(
    before: DatasetVersion,
    after: DatasetVersion,
    changed: dict[int, int],
    removed: list[int],
    added: list[int],
) -> Rows[Change]:
    """Return the first changes of each kind, with what the rows say."""
    pairs = [*changed.items()][:MOST]
    removed, added = removed[: MOST - len(pairs)], added[:MOST]
    old = _texts(before, {*removed, *(index for index, _ in pairs)})
    new = _texts(after, {*added, *(index for _, index in pairs)})
    return Rows(
        [
            *(Change("changed", i, k, new[k], old[i]) for i, k in pairs),
            *(Change("removed", i, None, old[i]) for i in removed),
            *(Change("added", None, k, new[k]) for k in added),
        ][:MOST]
    )


def _texts(version: DatasetVersion, wanted: set[int]) -> dict[int, str]:
    return {
        index: splits.said(row)
        for index, row in enumerate(version_store.rows(version))
        if index in wanted
    }
