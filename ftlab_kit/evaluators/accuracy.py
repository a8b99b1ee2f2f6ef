"""Token accuracy: the share of the references' tokens that the model finds likeliest."""

from collections.abc import Sequence

from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, ratio

NEEDS = frozenset({"likelihood"})
WANTS = ()
MEASURES = (Measure("token_accuracy", True, ratio),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return what rows add: tokens that are right, and tokens."""
    counts = [
        (float(case.n_correct), float(case.n_trained))
        if case.n_correct is not None and case.n_trained
        else None
        for case in cases
    ]
    reason = "no row has a token that is trained" if not any(counts) else None
    return Scored({"token_accuracy": counts}, reason=reason)
