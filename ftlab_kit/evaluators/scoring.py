"""From a model and rows to scores.

The model answers each row once and scores each reference once, whatever the number of metrics;
then each evaluator counts.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed
from typing import Any

import numpy as np

from ftlab_kit import datasets
from ftlab_kit.chats import ChatModel
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.datasets import schema, tokenized
from ftlab_kit.errors import InputError
from ftlab_kit.evaluators.family import Evaluator
from ftlab_kit.evaluators.measures import (
    Counts,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    renamed,
)
from ftlab_kit.lm import likelihood, tokens
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import DatasetVersion, OnProgress
from ftlab_kit.workspace import Workspace

LIBRARIES = ("torch", "transformers", "peft", "sacrebleu", "rouge-score", "scipy")


def check_model(model: ChatModel, evaluators: Mapping[str, Evaluator]) -> None:
    """Refuse a metric that needs likelihoods from a hosted model.

    Raises:
        InputError: Names the metric.
    """
    names = [name for name, item in evaluators.items() if "likelihood" in item.REQUIRES]
    if names and model.model is None:
        raise InputError(
            f"{model.label} is a hosted model and returns no likelihoods; expected metrics of "
            f"answers in place of {', '.join(names)}. Use metrics=['bleu', 'chrf'] or others."
        )


def score(
    ws: Workspace,
    model: ChatModel,
    version: DatasetVersion,
    evaluators: Mapping[str, Evaluator],
    config: EvaluationConfig,
    progress: OnProgress | None,
) -> dict[str, Any]:
    """Return the columns of an evaluation: scores, counts, samples and how they were made."""
    rows = [*itertools.islice(datasets.rows(ws, version), config.max_rows)]
    examples = [_example(number, row) for number, row in enumerate(rows)]
    requires = frozenset[str]().union(*(item.REQUIRES for item in evaluators.values()))
    clock = _Clock()
    if "likelihood" in requires:
        _score_references(ws, model, version, examples, renamed(progress, "likelihood"))
        clock.stop("likelihood")
    if "answers" in requires:
        _answer(model, rows, examples, config, renamed(progress, "answers"))
        clock.stop("answers")
    scores: dict[str, float | None] = {}
    counts: dict[str, Sequence[Counts | None]] = {}
    details: dict[str, Any] = {"metrics": [*evaluators]}
    for name, evaluator in evaluators.items():
        result = _run(evaluator, examples, EvaluationContext(ws, config, progress))
        for measure in evaluator.MEASURES:
            rows_of = result.counts[measure.name]
            counts[measure.name], scores[measure.name] = rows_of, total(measure, rows_of)
            details[measure.name] = _facts(measure, evaluator)
            if scores[measure.name] is None:
                details[measure.name]["reason"] = result.reason or _why_none(rows_of)
        details[evaluator.MEASURES[0].name] |= result.details
        clock.stop(name)
    details |= {"seconds": clock.seconds, "config": config.model_dump(), "side": version.side}
    return {
        "n_rows": len(examples),
        "scores": {
            name: value
            for name, value in scores.items()
            # a secondary measure that these settings do not give is left out
            if value is not None or details[name]["primary"]
        },
        "details": details | _provenance(model),
        "counts": counts,
        "samples": [_sample(example, evaluators, counts) for example in examples],
        "n_tokens": sum(example.n_tokens or 0 for example in examples)
        + sum(example.n_trained for example in examples if example.nll is not None),
        "cost_usd": model.cost_usd,
    }


class _Clock:
    """The seconds that each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def stop(self, name: str) -> None:
        """Note the time of the part that ends here; the next one begins."""
        at = time.perf_counter()
        self.seconds[name], self._began = at - self._began, at


def _provenance(model: ChatModel) -> dict[str, Any]:
    """Return what decided the scores on the model's side."""
    return {
        "libraries": {name: installed(name) for name in LIBRARIES},
        "tokenizer": tokens.fingerprint(model.folder) if model.folder else None,
        "unanswered": {str(row): reason for row, reason in model.reasons.items()},
        "dtype": str(model.model.dtype).removeprefix("torch.") if model.model else None,
    }


def _example(number: int, row: dict[str, Any]) -> Example:
    messages = schema.messages(row)
    return Example(
        row=number,
        messages=messages,
        prompt=messages[-2]["content"] if len(messages) > 1 else "",
        reference=messages[-1]["content"] if messages else schema.answers(row),
        n_bytes=_trained_bytes(row, messages),
    )


def _trained_bytes(row: dict[str, Any], messages: Sequence[dict[str, Any]]) -> int:
    """Return the UTF-8 length of the text that is trained; 0 where a turn calls a tool.

    How a tool call is written depends on the model's chat template, so its bytes are not known.
    """
    if not messages:
        return len(schema.answers(row).encode())
    trained = [turn for turn in messages if turn["role"] == "assistant" and turn.get("train", True)]
    if any(turn.get("tool_calls") for turn in trained):
        return 0
    return sum(len(turn["content"].encode()) for turn in trained)


def _score_references(
    ws: Workspace,
    model: ChatModel,
    version: DatasetVersion,
    examples: Sequence[Example],
    progress: OnProgress | None,
) -> None:
    """Set the likelihood of each reference under the model."""
    if model.folder is None:
        raise InputError(f"{model.label} has no tokenizer here; expected a local model.")
    encoded = tokenized.read(ws, version, model.folder)
    # a preference is two rows of tokens, the chosen answer first
    n_sides = len(encoded) // version.n_rows
    rows = [encoded[example.row * n_sides] for example in examples]
    likelihoods = likelihood.likelihoods(
        model.model, rows, pad_token_id=model.tokenizer.pad_token_id, progress=progress
    )
    for example, row, item in zip(examples, rows, likelihoods, strict=True):
        example.nll, example.n_trained, example.n_correct = item.nll, row.n_trained, item.n_correct


def _answer(
    model: ChatModel,
    rows: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    config: EvaluationConfig,
    progress: OnProgress | None,
) -> None:
    """Have the model answer the last turn of each row."""
    settings = GenerationSettings(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        max_seconds=config.max_seconds,
    )
    prompts = [example.messages[:-1] for example in examples]
    tools = [row.get("tools") for row in rows]
    answers = model.answers(prompts, settings, progress, tools=tools)
    for example, answer in zip(examples, answers, strict=True):
        if answer is not None:
            example.answer, example.is_complete = answer.content, answer.is_complete
            example.n_tokens = answer.usage.n_output_tokens


def _run(
    evaluator: Evaluator, examples: Sequence[Example], context: EvaluationContext
) -> EvaluatorResult:
    """Return an evaluator's result, with None for rows that lack what it requires."""
    reason = _why_not(evaluator, examples)
    if reason:
        no_counts: dict[str, list[Counts | None]] = {
            measure.name: [None] * len(examples) for measure in evaluator.MEASURES
        }
        return EvaluatorResult(no_counts, reason=reason)
    needs_reference = "references" in evaluator.REQUIRES
    has_all = [bool(example.reference) or not needs_reference for example in examples]
    usable = [example for example, is_usable in zip(examples, has_all, strict=True) if is_usable]
    result = evaluator.score(usable, context)
    counts = {name: _spread(has_all, rows) for name, rows in result.counts.items()}
    return EvaluatorResult(counts, result.details, result.reason)


def _why_not(evaluator: Evaluator, examples: Sequence[Example]) -> str | None:
    """Return why an evaluator can't score any row, None if it can."""
    is_silent = not any(example.answer for example in examples)
    if "answers" in evaluator.REQUIRES and is_silent:
        n_answered = sum(example.answer is not None for example in examples)
        if "empty answers" not in evaluator.REQUIRES:
            if n_answered:
                return f"all {n_answered} answers are empty"
            return "max_seconds passed before the first answer"
    if "references" in evaluator.REQUIRES and not any(example.reference for example in examples):
        return "no row has a reference"
    return None


def _spread(has_all: Sequence[bool], counts: Sequence[Counts | None]) -> list[Counts | None]:
    """Put the counts back beside the rows that were left out, which get None."""
    rest = iter(counts)
    return [next(rest) if is_usable else None for is_usable in has_all]


def total(measure: Measure, counts: Sequence[Counts | None]) -> float | None:
    """Return a score, None where no row can be scored or the score is not finite."""
    rows = [row for row in counts if row is not None]
    if not rows:
        return None
    value = float(measure.total(np.asarray(rows, float).sum(0)))
    return value if np.isfinite(value) else None


def _why_none(counts: Sequence[Counts | None]) -> str:
    return "no row could be scored" if not any(counts) else "the score is not finite"


def _facts(measure: Measure, evaluator: Evaluator) -> dict[str, Any]:
    return {
        "greater_is_better": measure.greater_is_better,
        "primary": measure is evaluator.MEASURES[0],
        "needs": sorted(evaluator.REQUIRES),
    }


def _sample(
    example: Example,
    evaluators: Mapping[str, Evaluator],
    counts: Mapping[str, Sequence[Counts | None]],
) -> dict[str, Any]:
    primary = [evaluator.MEASURES[0] for evaluator in evaluators.values()]
    return {
        "prompt": example.prompt,
        "reference": example.reference,
        "answer": example.answer,
        "row": example.row,
        "is_complete": example.is_complete,
        "scores": {item.name: total(item, [counts[item.name][example.row]]) for item in primary},
    }
