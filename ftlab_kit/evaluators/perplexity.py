"""Perplexity of the references: exp of the mean negative log-likelihood of a trained token.

The mean is over all tokens together, not over rows or batches, so that it does not depend on how
rows are batched (https://huggingface.co/docs/transformers/perplexity). Per byte of what is trained
it compares models with other tokenizers too (`byte_perplexity`, as lm-eval has it). The token that
ends an answer counts with the answer.
"""

from collections.abc import Sequence

import numpy as np

from ftlab_kit.evaluators.measures import Array, Ask, Case, Measure, Scored, ratio

NEEDS = frozenset({"likelihood"})
WANTS = ()


def _exp(sums: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(ratio(sums))


MEASURES = (Measure("perplexity", False, _exp), Measure("byte_perplexity", False, _exp))


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return what rows add: log-likelihood and tokens, log-likelihood and bytes."""
    known = [case if case.nll is not None and case.n_trained else None for case in cases]
    by_token = [(float(case.nll or 0), float(case.n_trained)) if case else None for case in known]
    by_byte = [
        (float(case.nll or 0), float(case.n_bytes)) if case and case.n_bytes else None
        for case in known
    ]
    facts = {"n_tokens": sum(case.n_trained for case in known if case)}
    reason = "no row has a token that is trained" if not any(known) else None
    return Scored({"perplexity": by_token, "byte_perplexity": by_byte}, facts, reason)
