"""Numeric answers, in the form of GSM8K (Cobbe et al. 2021, arXiv 2110.14168).

What counts is the number after the last `####`, or, where there is none, the last number of the
text; thousands' commas, currency signs and a final full stop are no part of it, and 3.50 is 3.5.
`numeric_strict` takes an answer only in the form itself, as lm-eval's strict match does.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from ftlab_kit.evaluators.measures import Ask, Case, Counts, Measure, Scored, ratio

NEEDS = frozenset({"answers", "references"})
WANTS = ()
MEASURES = (Measure("numeric_answer", True, ratio), Measure("numeric_strict", True, ratio))

NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?|[-+]?\$?\.\d+")
MARK = "####"


def number(text: str, *, is_strict: bool = False) -> Decimal | None:
    """Return the number that a text ends with, None where it has none."""
    _, mark, after = text.rpartition(MARK)
    found = NUMBER.findall(after if mark else text)
    if not found or (is_strict and not mark):
        return None
    chosen = found[0] if mark else found[-1]
    try:
        return Decimal(chosen.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return 1 for each answer with its reference's number, 0 for another."""
    counts: dict[str, list[Counts | None]] = {measure.name: [] for measure in MEASURES}
    for case in cases:
        wanted = number(case.reference)
        for name, found in counts.items():
            if wanted is None or case.answer is None:
                found.append(None)
            else:
                said = number(case.answer, is_strict=name == "numeric_strict")
                found.append((float(said == wanted), 1.0))
    has_any = any(number(case.reference) is not None for case in cases)
    return Scored(counts, reason=None if has_any else "no reference holds a number")
