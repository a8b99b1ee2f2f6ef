"""A certificate: whether a model says after an export what it said before.

The same rows, held-out ones where there are some: perplexity of the references before and after,
and greedy answers to the same prompts, character by character. What comes after is read back from
the disk. How much may change hangs on the precision, and stands in the
certificate.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ftlab_kit import datasets, device
from ftlab_kit.datasets import schema, tokenized
from ftlab_kit.lm import generation, likelihood, loading, tokens
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.lm.tokens import Encoded
from ftlab_kit.records import Certificate, DatasetVersion, show
from ftlab_kit.workspace import Workspace

N_ROWS = 16
MANNER = GenerationSettings(max_new_tokens=32)
# by precision: the relative change of perplexity that is borne, and the share of equal answers; a
# token that was nearly a tie may fall otherwise, and with it the rest of its answer
BORNE = {"f32": (1e-3, 0.9), "f16": (1e-2, 0.75), "bf16": (2e-2, 0.5), "q8_0": (3e-2, 0.25)}


@dataclass(frozen=True, slots=True)
class Said:
    """What a model makes of the rows: its perplexity, and its answers to the prompts.

    A perplexity that is no finite number is None.
    """

    perplexity: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """What a model is asked before and after: rows as tokens, and prompts."""

    rows: Sequence[Encoded]
    prompts: Sequence[str]

    def take(self, model: Any, tokenizer: Any) -> Said:
        """Return what a model makes of it."""
        model = model.to(device.kind())
        sums = likelihood.nll(model, self.rows, pad_token_id=tokenizer.pad_token_id)
        n_trained = sum(row.n_trained for row in self.rows)
        found = generation.complete(model, tokenizer, self.prompts, MANNER)
        return Said(_perplexity(sums, n_trained), tuple(item.text for item in found if item))


def _perplexity(sums: Sequence[float], n_tokens: int) -> float | None:
    """Return e to the mean, or None where there is no token or it is no finite number."""
    with contextlib.suppress(OverflowError, ZeroDivisionError):
        found = math.exp(math.fsum(sums) / n_tokens)
        return found if math.isfinite(found) else None
    return None


def exam(ws: Workspace, version: DatasetVersion, base: Path) -> Exam:
    """Return what to ask: the first rows of a version, as the base model's tokenizer has them."""
    encoded = tokenized.read(ws, version, base)
    sides = len(encoded) // version.n_rows
    tokenizer = loading.tokenizer(base)
    rows = [*islice(datasets.rows(ws, version), N_ROWS)]
    prompts = [
        tokens.prompt(tokenizer, schema.messages(row)[:-1], tools=row.get("tools"))
        for row in rows
        if schema.messages(row)
    ]
    return Exam([encoded[number * sides] for number in range(len(rows))], prompts)


def compare(taken: Exam, before: Said, after: Said, precision: str) -> Certificate:
    """Return the certificate of an export from what was said before and after."""
    most_change, least_same = BORNE[precision]
    pairs = [*zip(taken.prompts, before.answers, after.answers, strict=True)]
    n_same = sum(was == now for _, was, now in pairs)
    old, new = before.perplexity, after.perplexity
    change = None if old is None or new is None else new / old - 1
    share = n_same / len(pairs) if pairs else 1.0
    return Certificate(
        is_ok=change is not None and abs(change) <= most_change and share >= least_same,
        n_rows=len(taken.rows),
        n_answers=len(pairs),
        n_same=n_same,
        least_same=least_same,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        change=change,
        most_change=most_change,
        first_difference=next((pair for pair in pairs if pair[1] != pair[2]), None),
    )


def in_words(found: Certificate) -> str:
    """Return what a certificate says, with the first answer that differs."""
    change = "–" if found.change is None else f"{found.change:+.2%}"
    words = (
        f"perplexity {show(found.perplexity_before)} before and {show(found.perplexity_after)} "
        f"after ({change}, {found.most_change:.1%} are borne), {found.n_same} of "
        f"{found.n_answers} greedy answers the same ({found.least_same:.0%} are wanted)"
    )
    if found.first_difference:
        _, old, new = found.first_difference
        words += f"; the first to differ was {old!r} and is {new!r}"
    return words
