"""Evaluators: one call scores a model on a dataset version, and one compares two such scores.

An evaluator is a file of its own that says what each row adds to its measures (`measures`). What
can't be scored is None with its reason in the details, never 0. Every answer, every row's counts
and all that decided them are kept, so that intervals and verdicts need no model.
"""

import builtins
import importlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit import chats, datasets, device
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import ConfigError, InputError, NotFound, nearest
from ftlab_kit.records import (
    Checkpoint,
    DatasetVersion,
    Evaluation,
    Export,
    Job,
    Model,
    Rows,
    Score,
    Verdict,
)
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from ftlab_kit.evaluators.measures import Measure

EVALUATORS = {
    "perplexity": "ftlab_kit.evaluators.perplexity",
    "token_accuracy": "ftlab_kit.evaluators.accuracy",
    "exact_match": "ftlab_kit.evaluators.exact",
    "numeric_answer": "ftlab_kit.evaluators.numeric",
    "bleu": "ftlab_kit.evaluators.bleu",
    "chrf": "ftlab_kit.evaluators.chrf",
    "rouge": "ftlab_kit.evaluators.rouge",
    "contains": "ftlab_kit.evaluators.contains",
    "regex": "ftlab_kit.evaluators.regex",
    "json": "ftlab_kit.evaluators.structured",
    "similarity": "ftlab_kit.evaluators.similarity",
    "refusal": "ftlab_kit.evaluators.refusal",
    "lengths": "ftlab_kit.evaluators.lengths",
    "judge": "ftlab_kit.evaluators.judge",
}
# measures of one tokenizer's tokens, and what takes their place between two
BY_TOKEN = {"perplexity": "byte_perplexity", "token_accuracy": "byte_perplexity"}


def run(
    ws: Workspace,
    target: Job | Model | Checkpoint | Export | Path | int | str,
    dataset: DatasetVersion | str | int,
    *,
    metrics: Sequence[str] = ("perplexity", "bleu"),
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model on a dataset version and return the scores with every answer.

    Args:
        target: A base model by name, a job (its last checkpoint, or `checkpoint=`), a checkpoint or
            an export, the path of a model's folder or GGUF file, or a hosted chat model or
            deployment as `provider:model` or `provider:model@url`.
        metrics: Names of evaluators.
        progress: Called with what is being done, rows done, rows in all.
        settings: Those of an EvaluationConfig, such as max_new_tokens or checkpoint.

    Raises:
        ConfigError: No such metric or setting, or a metric without the setting that it wants.
        InputError: The rows can't give a metric what it compares.
        NotFound: No such model or job, or the job has no checkpoint yet.
    """
    device.share_cores()
    from ftlab_kit.evaluators import scoring

    config = EvaluationConfig(**settings)
    fillings = _fillings(metrics, config)
    scored = datasets.get(ws, dataset)
    _check_kind(scored, metrics, fillings)
    began = time.perf_counter()
    with chats.open(ws, target, checkpoint=config.checkpoint) as speaker:
        scoring.check(speaker, fillings)
        values = scoring.scored(ws, speaker, scored, fillings, config, progress)
    return _keep(ws, speaker, scored.id, config, began, values)


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
    return Evaluation.of(row)


def list(ws: Workspace) -> Rows[Evaluation]:
    """Return all evaluations, the oldest first."""
    return Rows(Evaluation.of(row) for row in ws.store.rows("evaluations"))


def scores(ws: Workspace, evaluation: Evaluation | int, *, level: float = 0.95) -> Rows[Score]:
    """Return the scores of an evaluation, each with the interval in which it lies.

    Args:
        level: How sure the intervals are to hold the score of all such rows, from 0 to 1.

    Raises:
        InputError: The level is none.
    """
    from ftlab_kit.evaluators import intervals

    found = _evaluation(ws, evaluation)
    _check_level(level)
    measures = _measures(found)
    rows = []
    for name, value in found.scores.items():
        counts = [tuple(item) for item in found.counts.get(name, ()) if item]
        bounds = None
        if value is not None and name in measures:
            bounds = intervals.of_score(measures[name], counts, level=level)
        low, high = bounds or (None, None)
        facts = found.details.get(name, {})
        is_greater = facts.get("greater_is_better")
        rows.append(Score(name, value, low, high, len(counts), is_greater, facts.get("reason")))
    return Rows(rows)


def compare(
    ws: Workspace,
    before: Evaluation | int,
    *after: Evaluation | int,
    metrics: Sequence[str] = (),
    level: float = 0.95,
) -> Verdict:
    """Return what evaluations of the same rows say about each other: a verdict for each measure.

    Differences are paired by row, with bootstrap intervals; many are widened so that they hold
    together. What is not distinguishable is called so.

    Args:
        before: What the others are compared with.
        after: One or more evaluations.
        metrics: Measures; if none is named, the first of each metric that all were scored by.
        level: How sure all differences together are, from 0 to 1.

    Raises:
        InputError: They scored other rows, or share no measure.
        ConfigError: Not all were scored by a measure that is asked for.
    """
    from ftlab_kit.evaluators import verdicts

    _check_level(level)
    first, others = _evaluation(ws, before), [_evaluation(ws, item) for item in after]
    if not others:
        raise InputError(
            "compare was given one evaluation; expected two or more. Score the other model with "
            "evaluators.run on the same version."
        )
    verdicts.check_same([first, *others])
    return verdicts.judge(first, others, _shared(first, others, metrics), level)


def suite(
    ws: Workspace,
    target: Job | Model | Checkpoint | Export | Path | int | str,
    tasks: Sequence[str],
    *,
    folder: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Run tasks of lm-eval on a model by lm-eval itself, and keep what it says as an evaluation.

    Args:
        target: A base model by name, a job, a checkpoint, an export or a path.
        tasks: Names of lm-eval's tasks, as gsm8k.
        folder: Where task files of your own lie.
        progress: Called with what is being done, tasks done, tasks in all.
        settings: Those of an EvaluationConfig: checkpoint, max_rows, seed.

    Raises:
        Unavailable: lm-eval is not installed.
        InputError: lm-eval does not know a task, or the model is elsewhere.
    """
    from ftlab_kit.evaluators import suites

    config = EvaluationConfig(**settings)
    suites.check(tasks, folder)
    began = time.perf_counter()
    with chats.open(ws, target, checkpoint=config.checkpoint) as speaker:
        if progress:
            progress("lm-eval", 0, len(tasks))
        values = suites.scored(speaker, tasks, folder, config)
    return _keep(ws, speaker, None, config, began, values)


def _keep(
    ws: Workspace,
    speaker: chats.ChatModel,
    version_id: int | None,
    config: EvaluationConfig,
    began: float,
    values: dict[str, Any],
) -> Evaluation:
    """Write an evaluation down and return it.

    Args:
        began: When it began, by `time.perf_counter`.
    """
    spent = time.perf_counter() - began
    judged = values["details"].get("judge", {}).get("cost_usd")
    costs = [values.pop("cost_usd", None), judged, _machine(spent, config)]
    evaluation_id = ws.store.insert(
        "evaluations",
        **values,
        target=speaker.label,
        job_id=speaker.job_id,
        step=speaker.step,
        dataset_version_id=version_id,
        seconds=spent,
        cost_usd=_sum(costs),
        created_at=now(),
    )
    return get(ws, evaluation_id)


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [item for item in costs if item is not None]
    return sum(known) if known else None


def _machine(seconds: float, config: EvaluationConfig) -> float | None:
    """Return what the machine has cost, None where its price is not known."""
    return None if config.usd_per_hour is None else config.usd_per_hour * seconds / 3600


def _fillings(metrics: Sequence[str], config: EvaluationConfig) -> dict[str, Any]:
    """Return the evaluators by name.

    Raises:
        ConfigError: There is no such metric, none at all, or one without the setting it wants.
    """
    if not metrics or isinstance(metrics, str):
        raise ConfigError(
            f"metrics is {metrics!r}; expected names in a list, as ['perplexity', 'bleu']."
        )
    for name in metrics:
        if name not in EVALUATORS:
            raise ConfigError(
                f"There is no metric {name!r}; there are {', '.join(EVALUATORS)}."
                f"{nearest(name, EVALUATORS)} Ask for one of these."
            )
    found = {name: importlib.import_module(EVALUATORS[name]) for name in metrics}
    for name, filling in found.items():
        absent = [setting for setting in filling.WANTS if getattr(config, setting) is None]
        if absent:
            help = EvaluationConfig.model_fields[absent[0]].description
            raise ConfigError(
                f"The metric {name} wants {absent[0]}, which is not set; expected it: {help}. "
                f"Call evaluators.run(..., {absent[0]}=...)."
            )
    return found


def _check_kind(version: DatasetVersion, metrics: Sequence[str], fillings: dict[str, Any]) -> None:
    """Refuse to let a model answer where nothing is asked."""
    asking = [name for name, filling in fillings.items() if "answers" in filling.NEEDS]
    if asking and version.kind == "text":
        without = [name for name in metrics if name not in asking] or ["perplexity"]
        raise InputError(
            f"Version {version.id} holds texts, in which nothing is asked; expected chats for "
            f"{', '.join(asking)}. Ask for metrics={without} alone."
        )


def _check_level(level: float) -> None:
    if not 0.5 <= level < 1:
        raise InputError(f"level is {level}; expected 0.5 or more and below 1, such as 0.95.")


def _measures(found: Evaluation) -> "dict[str, Measure]":
    """Return the measures of an evaluation by name; none of what lm-eval measured."""
    metrics = found.details.get("metrics", ())
    fillings: builtins.list[Any] = [importlib.import_module(EVALUATORS[name]) for name in metrics]
    every = itertools.chain.from_iterable(filling.MEASURES for filling in fillings)
    return {item.name: item for item in every}


def _shared(
    first: Evaluation, others: Sequence[Evaluation], wanted: Sequence[str]
) -> "builtins.list[Measure]":
    """Return the measures to compare by.

    Raises:
        InputError: There is none that all have.
        ConfigError: One that is asked for is not among them.
    """
    every = [first, *others]
    known = _measures(first)
    shared = [name for name in known if all(item.counts.get(name) for item in every)]
    primary = [name for name in known if first.details[name]["primary"]]
    if len({item.details.get("tokenizer") for item in every}) > 1:
        # a token of one is not a token of the other
        shared = [name for name in shared if name not in BY_TOKEN]
        primary = [BY_TOKEN.get(name, name) for name in primary]
    for name in wanted:
        if name not in shared:
            raise ConfigError(
                f"{name!r} can't be compared; expected a measure that all share: "
                f"{', '.join(shared) or 'none'}.{nearest(name, shared)}"
            )
    if not shared:
        raise InputError(
            f"Evaluations {', '.join(str(item.id) for item in every)} share no measure whose rows "
            "were kept; expected one. Score them by the same metrics with evaluators.run."
        )
    return [known[name] for name in wanted or [name for name in primary if name in shared]]


def _evaluation(ws: Workspace, found: Evaluation | int) -> Evaluation:
    return found if isinstance(found, Evaluation) else get(ws, found)
