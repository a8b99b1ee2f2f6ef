"""The settings of an evaluation: whose weights, which rows, how answers are made and judged."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ftlab_kit.configs.settings import Real, Settings, Whole, setting


class EvaluationConfig(Settings):
    """Everything that decides an evaluation besides model, rows and metrics.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    checkpoint: Literal["last", "best"] | Annotated[Whole, Field(ge=0)] = setting(
        "last", "Of a job: its last checkpoint, the best by held-out loss, or the one of a step"
    )
    max_rows: Whole | None = setting(
        None, "Only the first so many rows; empty: all", unit="rows", ge=1
    )
    max_new_tokens: Whole = setting(96, "An answer is cut there", unit="tokens", ge=1, le=131_072)
    temperature: Real = setting(0.0, "0 takes the likeliest token, more draws freely", ge=0, le=10)
    seed: Whole = setting(0, "Seeds answers that are drawn, and the intervals", ge=0, lt=2**32)
    max_seconds: Real | None = setting(
        None, "No more answers are begun after so long; the other rows go without", unit="s", gt=0
    )
    contains: str | None = setting(None, "contains looks for this; empty: for the reference")
    pattern: str | None = setting(None, "The regular expression that regex looks for")
    json_schema: str | None = setting(None, "A JSON Schema as text, or the path of its file")
    embedder: str = setting("all-minilm-l6-v2", "The model that similarity compares by")
    judge: str | None = setting(
        None, "Who judges: a model, a job's number, or a hosted one as provider:model@url"
    )
    criteria: str = setting(
        "correct, helpful, clear", "What the judge goes by, with commas between", min_length=1
    )
    judge_labels: Whole | None = setting(
        None, "A version of preferences that people labelled, to measure the judge by", ge=1
    )
    usd_per_hour: Real | None = setting(
        None, "What an hour of this machine costs; empty: not known", unit="USD", ge=0
    )

    def conflicts(self) -> Iterator[str]:
        """Yield, for settings that are fine alone but not together, what is and what to do."""
        if self.judge_labels is not None and self.judge is None:
            yield "judge_labels is set and judge is not; expected both. Name a judge."
        if not any(name.strip() for name in self.criteria.split(",")):
            yield "criteria names nothing; expected words with commas between. Name some."
