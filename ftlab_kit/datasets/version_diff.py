"""The difference between two versions, row by row.

A row is the same if its content is, wherever it stands. Of the others, a removed and an added row
are one changed row if they have the same `id`, or else the same question, or the same answer.
"""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ftlab_kit.datasets import schema, version_store
from ftlab_kit.datasets.json_strict import ENCODE
from ftlab_kit.datasets.schema import Row
from ftlab_kit.records import Change, DatasetVersion, Diff, Rows

MAX_CHANGES = 1000


class _Hashes(NamedTuple):
    content: bytes
    question: bytes
    answers: bytes


def diff(before: DatasetVersion, after: DatasetVersion) -> Diff:
    """Return the rows that two versions share, and those that they do not, in their order."""
    old, new = _hashes(before), _hashes(after)
    unmatched = Counter(row.content for row in new)
    only_old = []
    for index, row in enumerate(old):
        if unmatched[row.content]:
            unmatched[row.content] -= 1
        else:
            only_old.append(index)
    only_new = []
    for index in reversed(range(len(new))):  # of equal rows, the last ones count as added
        if unmatched[new[index].content]:
            unmatched[new[index].content] -= 1
            only_new.append(index)
    only_new.reverse()
    changed = _paired(old, new, only_old, only_new)
    removed = [index for index in only_old if index not in changed]
    paired = set(changed.values())
    added = [index for index in only_new if index not in paired]
    return Diff(
        before=before,
        after=after,
        n_same=len(old) - len(only_old),
        n_added=len(added),
        n_removed=len(removed),
        n_changed=len(changed),
        changes=_changes(before, after, changed, removed, added),
    )


def _paired(
    old: Sequence[_Hashes], new: Sequence[_Hashes], only_old: list[int], only_new: list[int]
) -> dict[int, int]:
    """Return which new row each changed old row became."""
    changed: dict[int, int] = {}
    for field in ("question", "answers"):
        waiting: dict[bytes, deque[int]] = defaultdict(deque)
        paired = set(changed.values())
        for index in only_new:
            if index not in paired:
                waiting[getattr(new[index], field)].append(index)
        for index in only_old:
            if index not in changed and waiting[getattr(old[index], field)]:
                changed[index] = waiting[getattr(old[index], field)].popleft()
    return dict(sorted(changed.items()))


def _hashes(version: DatasetVersion) -> list[_Hashes]:
    return [
        _Hashes(_hash(ENCODE(row)), *map(_hash, _identities(row)))
        for row in version_store.rows(version)
    ]


def _identities(row: Row) -> tuple[bytes, bytes]:
    """Return what identifies a row: its id twice, or its question and its answers."""
    if "id" in row:
        return (b"id" + ENCODE(row["id"]),) * 2
    question, answers = schema.question(row), schema.answers(row)
    return (question or answers).encode(), answers.encode()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _changes(
    before: DatasetVersion,
    after: DatasetVersion,
    changed: Mapping[int, int],
    removed: Sequence[int],
    added: Sequence[int],
) -> Rows[Change]:
    """Return the first changes of each kind, with the rows' texts."""
    pairs = [*changed.items()][:MAX_CHANGES]
    removed, added = removed[: MAX_CHANGES - len(pairs)], added[:MAX_CHANGES]
    old = _texts(before, {*removed, *(index for index, _ in pairs)})
    new = _texts(after, {*added, *(index for _, index in pairs)})
    return Rows(
        [
            *(Change("changed", i, k, new[k], old[i]) for i, k in pairs),
            *(Change("removed", i, None, old[i]) for i in removed),
            *(Change("added", None, k, new[k]) for k in added),
        ][:MAX_CHANGES]
    )


def _texts(version: DatasetVersion, indices: set[int]) -> dict[int, str]:
    return {
        index: schema.dialogue(row)
        for index, row in enumerate(version_store.rows(version))
        if index in indices
    }
