"""The rewards of grpo: a number for an answer, given the reference answer of its row."""

from collections.abc import Callable


def chrf(answer: str, reference: str) -> float:
    """Return the chrF of an answer, the overlap of character n-grams, 0 to 1 (Popović 2015)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(answer, [reference]).score) / 100


def exact(answer: str, reference: str) -> float:
    """Return 1 if two texts are equal, white space around them aside, else 0."""
    return float(answer.strip() == reference.strip())


REWARDS: dict[str, Callable[[str, str], float]] = {"chrf": chrf, "exact": exact}
