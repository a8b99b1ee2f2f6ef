"""A certificate: whether an exported model still answers as its checkpoint did.

The same rows, held-out ones if the job had some, are measured before and after: the perplexity of
the references, and greedy answers to the same prompts, character by character. After the export,
the model is read back from the disk. How much may change depends on the precision, and is written
into the certificate.
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
GREEDY = GenerationSettings(max_new_tokens=32)
# by precision: the largest relative change of perplexity, and the smallest share of equal answers;
# a token that was nearly a tie may come out differently, and with it the rest of its answer
LIMITS = {"f32": (1e-3, 0.9), "f16": (1e-2, 0.75), "bf16": (2e-2, 0.5), "q8_0": (3e-2, 0.25)}


@dataclass(frozen=True, slots=True)
class Outputs:
    """A model's perplexity on the rows, None if not finite, and its answers to the prompts."""

    perplexity: float | None
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a model is measured on before and after: rows as tokens, and rendered prompts."""

    rows: Sequence[Encoded]
    prompts: Sequence[str]

    def measure(self, model: Any, tokenizer: Any) -> Outputs:
        """Return a model's outputs."""
        model = model.to(device.kind())
        sums = likelihood.nll(model, self.rows, pad_token_id=tokenizer.pad_token_id)
        n_trained = sum(row.n_trained for row in self.rows)
        answers = generation.complete(model, tokenizer, self.prompts, GREEDY)
        texts = tuple(answer.text for answer in answers if answer)
        return Outputs(_perplexity(sums, n_trained), texts)


def _perplexity(sums: Sequence[float], n_tokens: int) -> float | None:
    """Return e to the mean, or None if there is no token or the result is not finite."""
    with contextlib.suppress(OverflowError, ZeroDivisionError):
        perplexity = math.exp(math.fsum(sums) / n_tokens)
        return perplexity if math.isfinite(perplexity) else None
    return None


def probe(ws: Workspace, version: DatasetVersion, base: Path) -> Probe:
    """Return the first rows of a version, as the base model's tokenizer encodes them."""
    encoded = tokenized.read(ws, version, base)
    n_sides = len(encoded) // version.n_rows
    tokenizer = loading.tokenizer(base)
    rows = [*islice(datasets.rows(ws, version), N_ROWS)]
    prompts = [
        tokens.prompt(tokenizer, schema.messages(row)[:-1], tools=row.get("tools"))
        for row in rows
        if schema.messages(row)
    ]
    return Probe([encoded[number * n_sides] for number in range(len(rows))], prompts)


def compare(probe: Probe, before: Outputs, after: Outputs, precision: str) -> Certificate:
    """Return the certificate of an export from a model's outputs before and after."""
    max_change, min_same = LIMITS[precision]
    pairs = [*zip(probe.prompts, before.answers, after.answers, strict=True)]
    n_same = sum(old == new for _, old, new in pairs)
    was, now = before.perplexity, after.perplexity
    change = None if was is None or now is None else now / was - 1
    share = n_same / len(pairs) if pairs else 1.0
    return Certificate(
        is_ok=change is not None and abs(change) <= max_change and share >= min_same,
        n_rows=len(probe.rows),
        n_answers=len(pairs),
        n_same=n_same,
        min_same=min_same,
        perplexity_before=was,
        perplexity_after=now,
        change=change,
        max_change=max_change,
        first_difference=next((pair for pair in pairs if pair[1] != pair[2]), None),
    )


def describe(certificate: Certificate) -> str:
    """Return a certificate as text, with the first answer that differs."""
    change = "–" if certificate.change is None else f"{certificate.change:+.2%}"
    text = (
        f"perplexity {show(certificate.perplexity_before)} before and "
        f"{show(certificate.perplexity_after)} after ({change}; at most "
        f"{certificate.max_change:.1%} is allowed), {certificate.n_same} of "
        f"{certificate.n_answers} greedy answers the same (at least {certificate.min_same:.0%} "
        "must be)"
    )
    if certificate.first_difference:
        _, old, new = certificate.first_difference
        text += f"; the first that differs was {old!r} and is {new!r}"
    return text
