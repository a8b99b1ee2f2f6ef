"""The settings of an evaluation: which weights and rows, and how answers are made and judged."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ftlab_kit.configs.settings import Integer, Number, Settings, setting


class EvaluationConfig(Settings):
    """Everything that decides an evaluation besides model, rows and metrics.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    checkpoint: Literal["last", "best"] | Annotated[Integer, Field(ge=0)] = setting(
        "last", "Checkpoint of a job: last, best by held-out loss, or a step number"
    )
    max_rows: Integer | None = setting(
        None, "Evaluate at most this many rows, the first ones; empty: all", unit="rows", ge=1
    )
    max_new_tokens: Integer = setting(
        96, "Maximum length of an answer", unit="tokens", ge=1, le=131_072
    )
    temperature: Number = setting(
        0.0, "Sampling temperature; 0: greedy, always the most likely token", ge=0, le=10
    )
    seed: Integer = setting(0, "Seed of sampling and of confidence intervals", ge=0, lt=2**32)
    max_seconds: Number | None = setting(
        None, "Start no more answers after this time; empty: no limit", unit="s", gt=0
    )
    contains: str | None = setting(
        None, "Text that the metric contains looks for; empty: the reference answer"
    )
    pattern: str | None = setting(None, "Regular expression of the metric regex")
    json_schema: str | None = setting(
        None, "JSON Schema for the metric json, as text or as the path of a file"
    )
    embedder: str = setting("all-minilm-l6-v2", "Embedding model of the metric similarity")
    judge: str | None = setting(
        None, "Judge: a model, a job's number, or a hosted model as provider:model@url"
    )
    criteria: str = setting(
        "correct, helpful, clear", "Criteria of the judge, comma-separated", min_length=1
    )
    judge_labels: Integer | None = setting(
        None, "Dataset version with human preferences, to measure the judge's agreement", ge=1
    )
    usd_per_hour: Number | None = setting(
        None, "Price of this machine per hour; empty: unknown", unit="USD", ge=0
    )

    def conflicts(self) -> Iterator[str]:
        """Yield a message for each conflict between settings that are valid on their own."""
        if self.judge_labels is not None and self.judge is None:
            yield "judge_labels is set and judge is not; expected both. Name a judge."
        if not any(name.strip() for name in self.criteria.split(",")):
            yield "criteria is empty; expected words, comma-separated. Give at least one."
