"""Perplexity of the references: exp of the mean negative log-likelihood of a trained token.

The mean is over all tokens together, not over rows or batches, so it does not depend on how rows
are batched (https://huggingface.co/docs/transformers/perplexity). `byte_perplexity` divides by
bytes instead, as lm-eval does, and so compares models with different tokenizers. The token that
ends an answer counts as part of it.
"""

from collections.abc import Sequence

import numpy as np

from ftlab_kit.evaluators.measures import (
    Array,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    ratio,
)

REQUIRES = frozenset({"likelihood"})
REQUIRED_SETTINGS = ()


def _exp_ratio(sums: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


MEASURES = (Measure("perplexity", False, _exp_ratio), Measure("byte_perplexity", False, _exp_ratio))


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return what rows add: log-likelihood and tokens, log-likelihood and bytes."""
    by_token = [
        (example.nll, float(example.n_trained))
        if example.nll is not None and example.n_trained
        else None
        for example in examples
    ]
    by_byte = [
        (tokens[0], float(example.n_bytes)) if tokens and example.n_bytes else None
        for tokens, example in zip(by_token, examples, strict=True)
    ]
    n_tokens = sum(int(tokens[1]) for tokens in by_token if tokens)
    reason = "no row has a trained token" if not any(by_token) else None
    counts = {"perplexity": by_token, "byte_perplexity": by_byte}
    return EvaluatorResult(counts, {"n_tokens": n_tokens}, reason)
