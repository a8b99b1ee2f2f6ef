"""Looks at the rows of a job and at its answers: what can't be learnt, is cut, or never ends."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from ftlab_kit import datasets
from ftlab_kit.datasets import schema
from ftlab_kit.diagnostics.evidence import Evidence, Reading, in_words, rows_in_words
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.records import DatasetVersion, Finding, percent
from ftlab_kit.workspace import Workspace

MOSTLY = 0.5  # of the answers: one that rambles is an accident
ASKED = 4  # answers before a share of them says anything
LONGER = 1.5  # than its reference: a shorter one that has no end was cut by who asked


def masked(reading: Reading) -> Finding | None:
    """Look for rows in which no token is trained."""
    blind = np.flatnonzero(reading.cut.n_trained == 0)
    if not len(blind):
        return None
    is_cut = bool((reading.whole.n_trained[blind] > 0).all())
    changes = _longer(reading, blind) if is_cut else None
    rows = _numbers(reading, blind)
    return Finding(
        problem="all-masked rows",
        importance=2,
        side="data",
        evidence=(
            f"{len(blind)} of {len(reading.cut)} rows have no trained token: "
            f"{rows_in_words(rows)}; max_length is "
            f"{reading.config.max_length} tokens."
        ),
        cause=(
            "the question alone fills max_length, and the answer is cut away"
            if is_cut
            else "no turn of the assistant is to be learnt from"
        ),
        fix=f"Set {in_words(changes)}."
        if changes
        else f"Leave them out: datasets.filter(ws, {reading.version.id}, without={rows}).",
        changes=changes,
    )


def cut(reading: Reading) -> Finding | None:
    """Look for answers that are cut at max_length."""
    rows = np.flatnonzero(reading.cut.n_cut > 0)
    if not len(rows):
        return None
    changes = _longer(reading, rows)
    longest = int(reading.whole.lengths[rows].max())
    return Finding(
        problem="cut answers",
        importance=2,
        side="settings" if changes else "data",
        evidence=(
            f"{len(rows)} of {len(reading.cut)} rows are cut at {reading.config.max_length} tokens"
            f" ({percent(len(rows) / len(reading.cut))}): {rows_in_words(_numbers(reading, rows))};"
            f" {int(reading.cut.n_cut.sum())} tokens of answers are lost, the longest row has "
            f"{longest}."
        ),
        cause="max_length is shorter than these rows, and a cut answer teaches never to end",
        fix=f"Set {in_words(changes)}."
        if changes
        else f"Part these rows: the model reads {reading.context_tokens} tokens at most.",
        changes=changes,
    )


def no_end(reading: Reading) -> Finding | None:
    """Look for whole answers that no end token closes."""
    rows = np.flatnonzero(~reading.whole.has_end)
    if not len(rows):
        return None
    return Finding(
        problem="no end token",
        importance=1,
        side="data",
        evidence=(
            f"{len(rows)} of {len(reading.whole)} rows have an answer without an end token: "
            f"{rows_in_words(_numbers(reading, rows))}; the end is {reading.whole.end!r}."
        ),
        cause="the chat template does not close an answer, so that ending is never learnt",
        fix="Take a model whose chat template closes each answer with a special token.",
        changes=None,
    )


def endless(seen: Evidence) -> Finding | None:
    """Look for answers that don't end by themselves, in the newest evaluation that has some."""
    for evaluation in reversed(seen.evaluations):
        known = [item for item in evaluation.samples if item.is_complete is not None]
        if len(known) < ASKED:
            continue
        open_ended = [
            item
            for item in known
            if not item.is_complete
            and item.reference
            and len(item.answer or "") > LONGER * len(item.reference)
        ]
        if len(open_ended) <= MOSTLY * len(known):
            return None
        words = (
            f"{len(open_ended)} of {len(known)} answers of evaluation {evaluation.id} did not end "
            "and are far longer than asked for"
        )
        return _endless(seen, words)
    return None


def _endless(seen: Evidence, words: str) -> Finding:
    cuts = cut(seen.reading) if seen.reading else None
    steps = seen.job.total_steps or seen.job.step
    changes = cuts.changes if cuts else {"max_steps": 2 * steps} if steps else None
    return Finding(
        problem="never-ending answers",
        importance=2,
        side="settings",
        evidence=f"{words}." + (f" {cuts.evidence}" if cuts else f" The job did {steps} steps."),
        cause=(
            "cut answers, which have taught never to end"
            if cuts
            else "the job was too short to learn where an answer ends"
        ),
        fix=f"Set {in_words(changes)}." if changes else "Part the rows that are cut.",
        changes=changes,
    )


def contradicting(ws: Workspace, version: DatasetVersion) -> tuple[int, ...]:
    """Return rows that ask what an earlier row asks and answer otherwise, counted from 0."""
    first: dict[str, tuple[str, int]] = {}
    found = []
    for number, row in enumerate(datasets.rows(ws, version)):
        asked = "\n".join(
            turn["content"] for turn in schema.messages(row) if turn["role"] != "assistant"
        )
        answer, _ = first.setdefault(asked, (schema.answers(row), number))
        if asked and answer != schema.answers(row):
            found.append(number)
    return tuple(found)


def least_loss(rows: Iterable[Encoded]) -> float:
    """Return the lowest mean loss that any model can reach on some rows, in nats a token.

    It is above 0 where equal beginnings go on differently: then no model can know how.
    """
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        for place, label in enumerate(row.labels):
            if label != IGNORED:
                after[tuple(row.input_ids[:place])][label] += 1
    total = sum(count.total() for count in after.values())
    nats = sum(-n * math.log(n / count.total()) for count in after.values() for n in count.values())
    return nats / total if total else 0.0


def _longer(reading: Reading, rows: np.ndarray) -> dict[str, int] | None:
    """Return the length at which some rows are whole, or None if the model can't read so far."""
    longest = int(reading.whole.lengths[rows].max())
    return {"max_length": longest} if longest <= reading.context_tokens else None


def _numbers(reading: Reading, places: np.ndarray) -> list[int]:
    """Return the numbers of rows; a preference stands in two places."""
    sides = max(1, len(reading.cut) // reading.version.n_rows)
    return sorted({int(place) // sides for place in places})


ROWS = {"all-masked rows": masked, "cut answers": cut, "no end token": no_end}
