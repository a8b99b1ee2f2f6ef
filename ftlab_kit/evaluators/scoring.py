"""From a model and rows to scores: ask once, look once, and let every evaluator add up.

The model answers each row once and looks at each reference once, whatever the number of metrics.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit import datasets
from ftlab_kit.chats import ChatModel
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.datasets import schema, tokenized
from ftlab_kit.errors import InputError
from ftlab_kit.evaluators.measures import Ask, Case, Counts, Measure, Scored, whole
from ftlab_kit.lm import likelihood
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import DatasetVersion
from ftlab_kit.workspace import Workspace

Progress = Callable[[str, int, int], None]
LIBRARIES = ("torch", "transformers", "peft", "sacrebleu", "rouge-score", "scipy")
# what the files of a tokenizer are called that decide which tokens there are
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def check(speaker: ChatModel, fillings: Mapping[str, Any]) -> None:
    """Refuse a metric that looks into a model that is elsewhere.

    Raises:
        InputError: Names the metric.
    """
    looking = [name for name, filling in fillings.items() if "likelihood" in filling.NEEDS]
    if looking and speaker.model is None:
        raise InputError(
            f"{speaker.label} is elsewhere and tells no likelihoods; expected metrics of answers "
            f"in place of {', '.join(looking)}. Ask for metrics=['bleu', 'chrf'] or others."
        )


def scored(
    ws: Workspace,
    speaker: ChatModel,
    version: DatasetVersion,
    fillings: Mapping[str, Any],
    config: EvaluationConfig,
    progress: Progress | None,
) -> dict[str, Any]:
    """Return the columns of an evaluation: scores, counts, samples and how they were made."""
    rows = [*itertools.islice(datasets.rows(ws, version), config.max_rows)]
    cases = [_case(number, row) for number, row in enumerate(rows)]
    seconds: dict[str, float] = {}
    needs = frozenset[str]().union(*(filling.NEEDS for filling in fillings.values()))
    clock = _Clock(seconds)
    if "likelihood" in needs:
        _look(ws, speaker, version, cases, _named(progress, "likelihood"))
        clock.stop("likelihood")
    if "answers" in needs:
        _ask(speaker, rows, cases, config, _named(progress, "answers"))
        clock.stop("answers")
    scores: dict[str, float | None] = {}
    counts: dict[str, Any] = {}
    details: dict[str, Any] = {"metrics": [*fillings]}
    for name, filling in fillings.items():
        found, reason = _by(filling, cases, Ask(ws, config, _named(progress, name)))
        for measure in filling.MEASURES:
            counts[measure.name] = found.counts[measure.name]
            scores[measure.name] = total(measure, counts[measure.name])
            is_primary = measure is filling.MEASURES[0]
            details[measure.name] = _facts(measure, filling, is_primary)
            if scores[measure.name] is None:
                details[measure.name]["reason"] = reason or _why(counts[measure.name])
        details[filling.MEASURES[0].name] |= found.details
        clock.stop(name)
    details |= {
        "seconds": seconds,
        "config": config.model_dump(),
        "side": version.side,
        "libraries": {name: installed(name) for name in LIBRARIES},
        "tokenizer": _tokenizer(speaker.folder),
        "unanswered": {str(row): why for row, why in speaker.reasons.items()},
        "dtype": str(speaker.model.dtype).removeprefix("torch.") if speaker.model else None,
    }
    return {
        "n_rows": len(cases),
        "scores": {name: value for name, value in scores.items() if _is_told(name, value, details)},
        "details": details,
        "counts": counts,
        "samples": [_sample(case, fillings, counts) for case in cases],
        "n_tokens": sum(case.n_tokens or 0 for case in cases)
        + sum(case.n_trained for case in cases if case.nll is not None),
        "cost_usd": speaker.cost_usd,
    }


class _Clock:
    """How long each part took."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._began = seconds, time.perf_counter()

    def stop(self, name: str) -> None:
        """Note a part's time and begin the next one's."""
        at = time.perf_counter()
        self._seconds[name], self._began = at - self._began, at


def _case(number: int, row: dict[str, Any]) -> Case:
    messages = schema.messages(row)
    return Case(
        row=number,
        messages=messages,
        question=messages[-2]["content"] if len(messages) > 1 else "",
        reference=messages[-1]["content"] if messages else schema.answers(row),
        n_bytes=_bytes(row, messages),
    )


def _bytes(row: dict[str, Any], messages: Sequence[dict[str, Any]]) -> int:
    """Return the length of what is trained; 0 where a call of a tool is, whose text is the model's.

    The template writes such a call in a way of its own.
    """
    if not messages:
        return len(schema.answers(row).encode())
    said = [turn for turn in messages if turn["role"] == "assistant" and turn.get("train", True)]
    if any(turn.get("tool_calls") for turn in said):
        return 0
    return sum(len(turn["content"].encode()) for turn in said)


def _look(
    ws: Workspace,
    speaker: ChatModel,
    version: DatasetVersion,
    cases: Sequence[Case],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Note what a model makes of the references."""
    assert speaker.folder is not None
    encoded = tokenized.read(ws, version, speaker.folder)
    sides = len(encoded) // version.n_rows  # of a preference the better answer comes first
    rows = [encoded[case.row * sides] for case in cases]
    found = likelihood.likelihoods(
        speaker.model,
        rows,
        pad_token_id=speaker.tokenizer.pad_token_id,
        progress=progress and (lambda now: progress(now.done, now.total or 0)),
    )
    for case, row, seen in zip(cases, rows, found, strict=True):
        case.nll, case.n_trained, case.n_correct = seen.nll, row.n_trained, seen.n_correct


def _ask(
    speaker: ChatModel,
    rows: Sequence[dict[str, Any]],
    cases: Sequence[Case],
    config: EvaluationConfig,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Let a model answer the last turn of each row."""
    manner = GenerationSettings(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=config.seed,
        max_seconds=config.max_seconds,
    )
    asked = [case.messages[:-1] for case in cases]
    tools = [row.get("tools") for row in rows]
    for case, answer in zip(
        cases, speaker.answers(asked, manner, whole(progress), tools=tools), strict=True
    ):
        if answer is not None:
            case.answer, case.is_complete = answer.content, answer.is_complete
            case.n_tokens = answer.usage.n_output_tokens


def _by(filling: Any, cases: Sequence[Case], ask: Ask) -> tuple[Scored, str | None]:
    """Return what an evaluator finds, and why it finds nothing where it does not."""
    reason = None
    if "references" in filling.NEEDS:
        reason = "no row has a reference" if not any(case.reference for case in cases) else None
    is_silent = "answers" in filling.NEEDS and not any(case.answer for case in cases)
    if is_silent and "silence" not in filling.NEEDS:
        n_asked = sum(case.answer is not None for case in cases)
        reason = f"the model answered nothing in {n_asked} of {len(cases)} rows"
        reason = reason if n_asked else "the time did not suffice for any answer"
    if reason:
        nothing: dict[str, list[Counts | None]] = {
            measure.name: [None] * len(cases) for measure in filling.MEASURES
        }
        return Scored(nothing), reason
    known = [case if _can(filling, case) else None for case in cases]
    found = filling.score([case for case in known if case], ask)
    whole = {name: _spread(known, counts) for name, counts in found.counts.items()}
    return Scored(whole, found.details), found.reason


def _can(filling: Any, case: Case) -> bool:
    """Return whether a row has what an evaluator compares."""
    return bool(case.reference) or "references" not in filling.NEEDS


def _spread(known: Sequence[Case | None], counts: Sequence[Counts | None]) -> list[Counts | None]:
    """Put what was found back beside the rows that were left out."""
    rest = iter(counts)
    return [next(rest) if case else None for case in known]


def total(measure: Measure, counts: Sequence[Counts | None]) -> float | None:
    """Return a score, None where no row can be scored or the score is no number."""
    known = [row for row in counts if row is not None]
    if not known:
        return None
    value = float(measure.total(np.asarray(known, float).sum(0)))
    return value if np.isfinite(value) else None


def _why(counts: Sequence[Counts | None]) -> str:
    return "no row could be scored" if not any(counts) else "the score is no finite number"


def _facts(measure: Measure, filling: Any, is_primary: bool) -> dict[str, Any]:
    return {
        "greater_is_better": measure.greater_is_better,
        "primary": is_primary,
        "needs": sorted(filling.NEEDS),
    }


def _is_told(name: str, value: float | None, details: Mapping[str, Any]) -> bool:
    """Leave out what no one asked for: a second measure that these settings do not give."""
    return value is not None or bool(details[name]["primary"])


def _sample(
    case: Case, fillings: Mapping[str, Any], counts: Mapping[str, Sequence[Counts | None]]
) -> dict[str, Any]:
    scores = {}
    for filling in fillings.values():
        measure = filling.MEASURES[0]
        row = counts[measure.name][case.row]
        scores[measure.name] = total(measure, [row])
    return {
        "prompt": case.question,
        "reference": case.reference,
        "answer": case.answer,
        "row": case.row,
        "is_complete": case.is_complete,
        "scores": scores,
    }


def _tokenizer(folder: Path | None) -> str | None:
    """Return what tells one tokenizer from another."""
    if folder is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(folder / name for name in TOKENIZER):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
