"""Checks of a job's rows and answers: what can't be learned, is cut, or never ends."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from ftlab_kit import datasets
from ftlab_kit.datasets import schema
from ftlab_kit.diagnostics.evidence import Evidence, TokenizedRows, listed, set_settings
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.records import DatasetVersion, Evaluation, Finding, percent
from ftlab_kit.workspace import Workspace

MOST = 0.5  # of the answers: a single long one is an accident
MIN_ANSWERS = 4  # fewer give no share worth reporting
LONGER = 1.5  # than its reference: a shorter answer was just cut by max_new_tokens


def masked_rows(rows: TokenizedRows) -> Finding | None:
    """Look for rows without a trained token."""
    masked = np.flatnonzero(rows.cut.n_trained == 0)
    if not len(masked):
        return None
    is_cut = bool((rows.whole.n_trained[masked] > 0).all())
    changes = _longer(rows, masked) if is_cut else None
    numbers = _numbers(rows, masked)
    return Finding(
        problem="all-masked rows",
        importance=2,
        side="data",
        evidence=(
            f"{len(masked)} of {len(rows.cut)} rows have no trained token: {listed(numbers)}; "
            f"max_length is {rows.config.max_length} tokens."
        ),
        cause=(
            "the prompt alone fills max_length, so the answer is cut off"
            if is_cut
            else "no assistant turn is marked for training"
        ),
        fix=set_settings(changes)
        if changes
        else f"Remove them: datasets.filter(ws, {rows.version.id}, without={numbers}).",
        changes=changes,
    )


def truncated_answers(rows: TokenizedRows) -> Finding | None:
    """Look for answers that are cut at max_length."""
    cut = np.flatnonzero(rows.cut.n_cut > 0)
    if not len(cut):
        return None
    changes = _longer(rows, cut)
    longest = int(rows.whole.lengths[cut].max())
    return Finding(
        problem="truncated answers",
        importance=2,
        side="settings" if changes else "data",
        evidence=(
            f"{len(cut)} of {len(rows.cut)} rows are cut at {rows.config.max_length} tokens"
            f" ({percent(len(cut) / len(rows.cut))}): {listed(_numbers(rows, cut))};"
            f" {int(rows.cut.n_cut.sum())} tokens of answers are lost, the longest row has "
            f"{longest}."
        ),
        cause="these rows are longer than max_length; cut answers teach the model not to stop",
        fix=set_settings(changes)
        if changes
        else f"Split these rows: the model reads at most {rows.context_tokens} tokens.",
        changes=changes,
    )


def missing_end_token(rows: TokenizedRows) -> Finding | None:
    """Look for whole answers without an end token."""
    unclosed = np.flatnonzero(~rows.whole.has_end)
    if not len(unclosed):
        return None
    return Finding(
        problem="no end token",
        importance=1,
        side="data",
        evidence=(
            f"{len(unclosed)} of {len(rows.whole)} rows have an answer without an end token: "
            f"{listed(_numbers(rows, unclosed))}; the end token is {rows.whole.end!r}."
        ),
        cause="the chat template does not close an answer, so the model never learns to stop",
        fix="Use a model whose chat template closes each answer with a special token.",
        changes=None,
    )


def never_ending_answers(evidence: Evidence) -> Finding | None:
    """Look for answers that don't end by themselves, in the newest evaluation with answers."""
    for evaluation in reversed(evidence.evaluations):
        answers = [item for item in evaluation.samples if item.is_complete is not None]
        if len(answers) < MIN_ANSWERS:
            continue
        unended = [
            item
            for item in answers
            if not item.is_complete
            and item.reference
            and len(item.answer or "") > LONGER * len(item.reference)
        ]
        if len(unended) <= MOST * len(answers):
            return None
        return _never_ending(evidence, evaluation, len(unended), len(answers))
    return None


def _never_ending(
    evidence: Evidence, evaluation: Evaluation, n_unended: int, n_answers: int
) -> Finding:
    truncated = truncated_answers(evidence.rows) if evidence.rows else None
    steps = evidence.job.total_steps or evidence.job.step
    changes = truncated.changes if truncated else {"max_steps": 2 * steps} if steps else None
    return Finding(
        problem="never-ending answers",
        importance=2,
        side="settings",
        evidence=(
            f"{n_unended} of {n_answers} answers of evaluation {evaluation.id} did not end and are "
            "far longer than their references. "
            + (truncated.evidence if truncated else f"The job did {steps} steps.")
        ),
        cause=(
            "truncated answers, which teach the model not to stop"
            if truncated
            else "the job was too short to learn where an answer ends"
        ),
        fix=set_settings(changes) if changes else "Split the rows that are cut.",
        changes=changes,
    )


def contradicting(ws: Workspace, version: DatasetVersion) -> tuple[int, ...]:
    """Return rows with the prompt of an earlier row and another answer, counted from 0."""
    answer_to: dict[str, str] = {}
    numbers = []
    for number, row in enumerate(datasets.rows(ws, version)):
        prompt = "\n".join(
            turn["content"] for turn in schema.messages(row) if turn["role"] != "assistant"
        )
        answer = schema.answers(row)
        if prompt and answer_to.setdefault(prompt, answer) != answer:
            numbers.append(number)
    return tuple(numbers)


def min_loss(rows: Iterable[Encoded]) -> float:
    """Return the lowest mean loss that any model can reach on some rows, in nats per token.

    Where equal prefixes continue differently no model can know how: the loss there is at least the
    entropy of the next token.
    """
    next_tokens: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        for place, label in enumerate(row.labels):
            if label != IGNORED:
                next_tokens[tuple(row.input_ids[:place])][label] += 1
    total = sum(counts.total() for counts in next_tokens.values())
    nats = sum(
        -n * math.log(n / counts.total())
        for counts in next_tokens.values()
        for n in counts.values()
    )
    return nats / total if total else 0.0


def _longer(rows: TokenizedRows, places: np.ndarray) -> dict[str, int] | None:
    """Return the length at which some rows are whole, or None if the model can't read so far."""
    longest = int(rows.whole.lengths[places].max())
    return {"max_length": longest} if longest <= rows.context_tokens else None


def _numbers(rows: TokenizedRows, places: np.ndarray) -> list[int]:
    """Return the numbers of rows; a preference has two places."""
    sides = max(1, len(rows.cut) // rows.version.n_rows)
    return sorted({int(place) // sides for place in places})


ROW_CHECKS = {
    "all-masked rows": masked_rows,
    "truncated answers": truncated_answers,
    "no end token": missing_end_token,
}
