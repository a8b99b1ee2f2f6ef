"""The family of evaluators: what one is, and all of them by the name of their metric."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ftlab_kit.evaluators import (
    accuracy,
    bleu,
    chrf,
    contains,
    exact,
    judge,
    lengths,
    numeric,
    perplexity,
    refusal,
    regex,
    rouge,
    similarity,
    structured,
)
from ftlab_kit.evaluators.measures import EvaluationContext, EvaluatorResult, Example, Measure


class Evaluator(Protocol):
    """A file of this folder, with a function `score` and three constants.

    REQUIRES names what the rows must have: "answers" where the model must answer, "references"
    where rows without one are left out, "likelihood" where the model must score the references.
    An evaluator that also counts empty answers has "empty answers" too: the others are not run
    where the model answered nothing at all.
    """

    @property
    def REQUIRES(self) -> frozenset[str]:
        """What the rows must have."""

    @property
    def REQUIRED_SETTINGS(self) -> tuple[str, ...]:
        """Fields of EvaluationConfig that must be set."""

    @property
    def MEASURES(self) -> tuple[Measure, ...]:
        """What it measures, the primary measure first."""

    def score(self, examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
        """Return what each row adds to each measure."""


EVALUATORS: Mapping[str, Evaluator] = {
    "perplexity": perplexity,
    "token_accuracy": accuracy,
    "exact_match": exact,
    "numeric_answer": numeric,
    "bleu": bleu,
    "chrf": chrf,
    "rouge": rouge,
    "contains": contains,
    "regex": regex,
    "json": structured,
    "similarity": similarity,
    "refusal": refusal,
    "lengths": lengths,
    "judge": judge,
}
