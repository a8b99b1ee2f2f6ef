"""Regex: whether a regular expression (Python's) matches somewhere in the answer."""

import re
from collections.abc import Sequence

from ftlab_kit.errors import ConfigError
from ftlab_kit.evaluators.measures import (
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    means,
    ratio,
)

REQUIRES = frozenset({"answers"})
REQUIRED_SETTINGS = ("pattern",)
MEASURES = (Measure("regex", True, ratio),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return 1 for each answer that the pattern matches, 0 for any other.

    Raises:
        ConfigError: The pattern is not a regular expression.
    """
    pattern = compiled(context.config.pattern or "")

    def matches(example: Example) -> float:
        return float(bool(pattern.search(example.answer or "")))

    return EvaluatorResult(means("regex", examples, matches), {"pattern": pattern.pattern})


def compiled(text: str) -> re.Pattern[str]:
    """Return a pattern, compiled.

    Raises:
        ConfigError: It is not a regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"pattern is {text!r}; expected a regular expression ({error}). Put a backslash before "
            "each character that is meant literally."
        ) from error
