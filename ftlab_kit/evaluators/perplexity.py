"""Perplexity of the answers: exp of the mean negative log-likelihood of a trained token.

The mean is over all tokens together, not over rows or batches, so that it does not depend on how
rows are batched (https://huggingface.co/docs/transformers/perplexity).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ftlab_kit.models import likelihood

GREATER_IS_BETTER = False
NEEDS_ANSWERS = False


def score(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    answers: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> tuple[float | None, dict[str, Any]]:
    """Return the perplexity, None where no row has an answer, and the number of scored tokens."""
    encoded = [row["encoded"] for row in rows]
    n_tokens = sum(row.n_trained for row in encoded)
    if not n_tokens:
        return None, {"n_tokens": 0}
    sums = likelihood.nll(model, encoded, pad_token_id=tokenizer.pad_token_id, progress=progress)
    mean = math.fsum(sums) / n_tokens
    return math.exp(mean) if mean < 700 else None, {"n_tokens": n_tokens, "mean_nll": mean}
