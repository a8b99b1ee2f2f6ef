"""Numeric answers, in the format of GSM8K (Cobbe et al. 2021, arXiv 2110.14168).

The number after the last `####` counts, or, without that mark, the last number of the text.
Thousands separators, currency signs and a final full stop are ignored, and 3.50 equals 3.5.
`numeric_strict` accepts only an answer with the mark, as lm-eval's strict match does.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

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
MEASURES = (Measure("numeric_answer", True, ratio), Measure("numeric_strict", True, ratio))

NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?|[-+]?\$?\.\d+")
MARK = "####"


def number(text: str, *, is_strict: bool = False) -> Decimal | None:
    """Return the number that a text ends with, None where it has none.

    Args:
        is_strict: Accept only a number after the mark.
    """
    _, mark, after = text.rpartition(MARK)
    numbers = NUMBER.findall(after if mark else text)
    if not numbers or (is_strict and not mark):
        return None
    digits = numbers[0] if mark else numbers[-1]
    try:
        return Decimal(digits.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return 1 for each answer with its reference's number, 0 for any other."""
    counts: dict[str, list[Counts | None]] = {measure.name: [] for measure in MEASURES}
    for example in examples:
        expected = number(example.reference)
        for name, rows in counts.items():
            if expected is None or example.answer is None:
                rows.append(None)
            else:
                answer = number(example.answer, is_strict=name == "numeric_strict")
                rows.append((float(answer == expected), 1.0))
    has_any = any(number(example.reference) is not None for example in examples)
    return EvaluatorResult(counts, reason=None if has_any else "no reference holds a number")
