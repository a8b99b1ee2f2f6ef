"""Evaluators: one call scores a base model or a job's, on the same rows, and keeps the answers.

An evaluator is a file that says whether greater is better and whether it needs answers, and scores.
What can't be scored is None with its reason in the details, never 0.
"""

import builtins
import importlib
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ftlab_kit import checkpoints, datasets, models
from ftlab_kit.datasets import chats, encodings
from ftlab_kit.errors import ConfigError, Conflict, InputError, NotFound, nearest
from ftlab_kit.models import weights
from ftlab_kit.records import DatasetVersion, Evaluation, Job, Model, Rows, Sample
from ftlab_kit.workspace import Workspace, now

EVALUATORS = {
    "perplexity": "ftlab_kit.evaluators.perplexity",
    "bleu": "ftlab_kit.evaluators.bleu",
}


def run(
    ws: Workspace,
    target: Job | Model | int | str,
    dataset: DatasetVersion | str | int,
    *,
    metrics: Sequence[str] = ("perplexity", "bleu"),
    max_new_tokens: int = 96,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Score a model on a dataset version and return the scores with every answer.

    Args:
        target: A base model by name, or a job (its newest checkpoint).
        metrics: Names of evaluators.
        max_new_tokens: A generated answer is cut there.
        progress: Called with what is being done, rows done, rows in all.

    Raises:
        ConfigError: No such metric.
        InputError: A metric compares answers, and the rows are texts.
        NotFound: No such model or job, or the job has no checkpoint yet.
    """
    for name in metrics:
        if name not in EVALUATORS:
            raise ConfigError(
                f"There is no metric {name!r}; there are {', '.join(EVALUATORS)}."
                f"{nearest(name, EVALUATORS)} Ask for one of these."
            )
    scored = datasets.get(ws, dataset)
    fillings: dict[str, Any] = {name: importlib.import_module(EVALUATORS[name]) for name in metrics}
    needs_answers = any(filling.NEEDS_ANSWERS for filling in fillings.values())
    if needs_answers and scored.kind == "text":
        raise InputError(
            f"Version {scored.id} holds texts, in which nothing is asked; expected chats for "
            f"{', '.join(metrics)}. Ask for metrics=['perplexity'] alone."
        )
    began = time.perf_counter()
    label, job_id, model, folder = _load(ws, target)
    tokenizer = weights.tokenizer(folder)
    rows = _rows(ws, scored, folder)
    seconds = {"loading": time.perf_counter() - began}
    answers: Sequence[str] = []
    if needs_answers:
        answers = _answers(model, tokenizer, rows, max_new_tokens, _named(progress, "answers"))
        seconds["answers"] = time.perf_counter() - began - sum(seconds.values())
    scores: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for name, filling in fillings.items():
        step = _named(progress, name)
        scores[name], details[name] = filling.score(model, tokenizer, rows, answers, step)
        details[name]["greater_is_better"] = filling.GREATER_IS_BETTER
        seconds[name] = time.perf_counter() - began - sum(seconds.values())
    details |= {
        "seconds": seconds,
        "generation": {"max_new_tokens": max_new_tokens, "do_sample": False},
        "libraries": {name: version(name) for name in ("torch", "transformers", "sacrebleu")},
    }
    evaluation_id = ws.store.insert(
        "evaluations",
        target=label,
        job_id=job_id,
        dataset_version_id=scored.id,
        n_rows=len(rows),
        scores=scores,
        details=details,
        samples=[sample.as_dict() for sample in _samples(rows, answers)],
        seconds=time.perf_counter() - began,
        created_at=now(),
    )
    return get(ws, evaluation_id)


def get(ws: Workspace, evaluation_id: int) -> Evaluation:
    """Return one evaluation.

    Raises:
        NotFound: There is none of this id.
    """
    row = ws.store.get("evaluations", id=evaluation_id)
    if row is None:
        raise NotFound(
            f"There is no evaluation {evaluation_id}. See them with evaluators.list(ws)."
        )
    return Evaluation(**{**row, "samples": Rows(Sample(**item) for item in row["samples"])})


def list(ws: Workspace) -> Rows[Evaluation]:
    """Return all evaluations, the oldest first."""
    return Rows(get(ws, row["id"]) for row in ws.store.rows("evaluations"))


def scores(ws: Workspace, evaluation: Evaluation | int) -> dict[str, float | None]:
    """Return the scores of an evaluation by metric."""
    found = evaluation if isinstance(evaluation, Evaluation) else get(ws, evaluation)
    return dict(found.scores)


def _rows(ws: Workspace, version: DatasetVersion, folder: Path) -> builtins.list[dict[str, Any]]:
    """Return rows with their turns and, whole, their tokens; of a preference the better side."""
    encoded = encodings.read(ws, version, folder)
    sides = len(encoded) // version.n_rows
    return [
        {
            "messages": chats.messages(row),
            "tools": row.get("tools"),
            "encoded": encoded[number * sides],
        }
        for number, row in enumerate(datasets.rows(ws, version))
    ]


def _load(ws: Workspace, target: Job | Model | int | str) -> tuple[str, int | None, Any, Path]:
    """Return a target's label, job, model, and the folder with its tokenizer."""
    from ftlab_kit import device

    job_id = target.id if isinstance(target, Job) else target if isinstance(target, int) else None
    learnt = None
    if job_id is not None:
        row = ws.store.get("jobs", id=job_id)
        if row is None:
            raise NotFound(f"There is no job {job_id}. See them with trainers.list(ws).")
        checkpoint = checkpoints.get(ws, job_id)
        damage = checkpoints.verify(checkpoint)
        if damage:
            raise Conflict(
                f"Checkpoint {checkpoint.step} of job {job_id} can't be trusted: {damage}. "
                "Score another job, or train this one again."
            )
        name, label = row["model"], f"job {job_id}, step {checkpoint.step}"
        learnt = checkpoint.path
    else:
        name = target.id if isinstance(target, Model) else str(target)
        label = name
    folder = models.pull(ws, name).path
    assert folder is not None
    # a GPU scores in the type it trains in, a processor in the one it is exact in
    dtype = weights.dtype(device.precision("auto"), adapter="lora")
    model = (
        weights.trained(folder, learnt, dtype=dtype)
        if learnt
        else weights.load(folder, dtype=dtype)
    ).to(device.kind())
    return label, job_id, model, folder


def _answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    max_new_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> Sequence[str]:
    from ftlab_kit.models import generation, tokens

    prompts = [tokens.prompt(tokenizer, row["messages"][:-1], tools=row["tools"]) for row in rows]
    return generation.answers(
        model, tokenizer, prompts, max_new_tokens=max_new_tokens, progress=progress
    )


def _samples(rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> Rows[Sample]:
    return Rows(
        Sample(
            prompt=row["messages"][-2]["content"],
            reference=row["messages"][-1]["content"],
            answer=answer,
        )
        for row, answer in zip(rows, answers, strict=False)
    )


def _named(
    progress: Callable[[str, int, int], None] | None, what: str
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)
