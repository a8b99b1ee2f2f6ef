"""What grpo rewards: a number for an answer beside the reference answer of its row."""

from collections.abc import Callable


def chrf(answer: str, reference: str) -> float:
    """Return the likeness of two texts by their character n-grams, from 0 to 1 (Popović 2015)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(answer, [reference]).score) / 100


def exact(answer: str, reference: str) -> float:
    """Return 1 where two texts are equal but for spaces around them, else 0."""
    return float(answer.strip() == reference.strip())


REWARDS: dict[str, Callable[[str, str], float]] = {"chrf": chrf, "exact": exact}
