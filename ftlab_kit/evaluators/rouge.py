"""ROUGE-L, ROUGE-1 and ROUGE-2, by rouge-score: the mean of the rows' F1, from 0 to 1.

Words are lower-cased and not stemmed, as rouge-score does by itself (Lin 2004,
https://aclanthology.org/W04-1013).
"""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import Ask, Case, Counts, Measure, Scored, ratio

NEEDS = frozenset({"answers", "references"})
WANTS = ()
NAMES = ("rougeL", "rouge1", "rouge2")
MEASURES = tuple(Measure(name, True, ratio) for name in NAMES)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return the three F1 of each answered row."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*NAMES])
    counts: dict[str, list[Counts | None]] = {name: [] for name in NAMES}
    for case in cases:
        found = scorer.score(case.reference, case.answer) if case.answer is not None else None
        for name in NAMES:
            counts[name].append((float(found[name].fmeasure), 1.0) if found else None)
    return Scored(counts, {"stemmed": False})
