"""ROUGE-L, ROUGE-1 and ROUGE-2, by rouge-score: the mean of the rows' F1, from 0 to 1.

Words are lower-cased and not stemmed, which is rouge-score's default (Lin 2004,
https://aclanthology.org/W04-1013).
"""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import (
    Counts,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    ratio,
)

REQUIRES = frozenset({"answers", "references"})
REQUIRED_SETTINGS = ()
NAMES = ("rougeL", "rouge1", "rouge2")
MEASURES = tuple(Measure(name, True, ratio) for name in NAMES)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return the three F1 scores of each answered row."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*NAMES])
    counts: dict[str, list[Counts | None]] = {name: [] for name in NAMES}
    for example in examples:
        has_answer = example.answer is not None
        f1 = scorer.score(example.reference, example.answer) if has_answer else None
        for name in NAMES:
            counts[name].append((float(f1[name].fmeasure), 1.0) if f1 else None)
    return EvaluatorResult(counts, {"stemmed": False})
