"""Corpus BLEU of the answers against the references, by sacrebleu, with its signature.

0 to 100; comparable only under the same signature (Post 2018, arXiv 1804.08771).
"""

from collections.abc import Callable, Sequence
from typing import Any

GREATER_IS_BETTER = True
NEEDS_ANSWERS = True


def score(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    answers: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> tuple[float | None, dict[str, Any]]:
    """Return BLEU of the answers to the last turn of each row, and sacrebleu's signature."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU()
    references = [row["messages"][-1]["content"] for row in rows]
    value = bleu.corpus_score(list(answers), [references]).score
    return float(value), {"signature": str(bleu.get_signature())}
