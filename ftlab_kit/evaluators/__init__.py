"""Evaluators: score a model on a dataset version, and compare such scores.

An evaluator is one file that returns what each row adds to its measures (`measures`, `family`). A
score that can't be computed is None with its reason in the details, never 0. Answers, each row's
counts and everything that decided them are stored, so intervals and verdicts need no model.

Other rooms may import `verdicts`, whose `check_same` says whether evaluations can be compared.
"""

import builtins
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit import chats, datasets, device
from ftlab_kit.configs import EvaluationConfig, takes_settings
from ftlab_kit.errors import ConfigError, InputError, NotFound, nearest
from ftlab_kit.records import (
    Checkpoint,
    DatasetVersion,
    Evaluation,
    Export,
    Job,
    Model,
    OnProgress,
    Progress,
    Rows,
    Score,
    Verdict,
)
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from ftlab_kit.evaluators.family import Evaluator
    from ftlab_kit.evaluators.measures import Measure

__all__ = ["compare", "get", "list", "run", "scores", "suite", "verdicts"]

# measures per token of one tokenizer, and what replaces them where tokenizers differ
BY_TOKEN = {"perplexity": "byte_perplexity", "token_accuracy": "byte_perplexity"}


@takes_settings(EvaluationConfig, has_defaults=True)
def run(
    ws: Workspace,
    target: Job | Model | Checkpoint | Export | Path | int | str,
    dataset: DatasetVersion | str | int,
    *,
    metrics: Sequence[str] = ("perplexity", "bleu"),
    progress: OnProgress | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model on a dataset version and return the scores with every answer.

    Args:
        target: A base model by name, a job (its last checkpoint, or `checkpoint=`), a checkpoint or
            an export, the path of a model's folder or GGUF file, or a hosted chat model or
            deployment as `provider:model` or `provider:model@url`.
        dataset: A version, its number, or a dataset's name for its newest version.
        metrics: Names of evaluators.
        progress: Called while rows are scored and answered.
        settings: Those of an EvaluationConfig.

    Raises:
        ConfigError: An unknown metric or setting, or a metric without a setting that it requires.
        InputError: The rows lack what a metric compares.
        NotFound: There is no such model or job, or the job has no checkpoint yet.
    """
    device.share_cores()
    from ftlab_kit.evaluators import scoring

    config = EvaluationConfig(**settings)
    evaluators = _evaluators(metrics, config)
    version = datasets.get(ws, dataset)
    _check_kind(version, evaluators)
    began = time.perf_counter()
    with chats.open(ws, target, checkpoint=config.checkpoint) as model:
        scoring.check_model(model, evaluators)
        columns = scoring.score(ws, model, version, evaluators, config, progress)
    return _save(ws, model, version.id, config, began, columns)


def get(ws: Workspace, evaluation_id: int) -> Evaluation:
    """Return one evaluation.

    Raises:
        NotFound: There is no evaluation with this id.
    """
    row = ws.store.get("evaluations", id=evaluation_id)
    if row is None:
        raise NotFound(f"There is no evaluation {evaluation_id}. List them: evaluators.list(ws).")
    return Evaluation.of(row)


def list(ws: Workspace, *, job_id: int | None = None) -> Rows[Evaluation]:
    """Return the evaluations, the oldest first.

    Args:
        job_id: Only those of this job; None for all.
    """
    where: dict[str, Any] = {} if job_id is None else {"job_id": job_id}
    return Rows(Evaluation.of(row) for row in ws.store.rows("evaluations", **where))


def scores(ws: Workspace, evaluation: Evaluation | int, *, level: float = 0.95) -> Rows[Score]:
    """Return the scores of an evaluation, each with its confidence interval.

    Args:
        evaluation: An evaluation or its id.
        level: Confidence of each interval, from 0.5 to below 1.

    Raises:
        InputError: The level is out of range.
        NotFound: There is no such evaluation.
    """
    from ftlab_kit.evaluators import intervals

    evaluation = _evaluation(ws, evaluation)
    _check_level(level)
    measures = _measures(evaluation)
    rows = []
    for name, value in evaluation.scores.items():
        counts = [tuple(row) for row in evaluation.counts.get(name, ()) if row]
        bounds = None
        if value is not None and name in measures:
            bounds = intervals.score_interval(measures[name], counts, level=level)
        low, high = bounds or (None, None)
        facts = evaluation.details.get(name, {})
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
    """Return how evaluations of the same rows differ: a verdict for each measure.

    Differences are paired by row, with bootstrap intervals. With several differences, the intervals
    are widened so that all hold together. A difference that may be chance is called "not
    distinguishable".

    Args:
        before: What the others are compared with: an evaluation or its id.
        after: One or more evaluations.
        metrics: Measures to compare by; by default the primary measure of each metric that all
            evaluations share.
        level: Confidence of all differences together, from 0.5 to below 1.

    Raises:
        InputError: The evaluations scored different rows, or share no measure.
        ConfigError: One of `metrics` is not a measure that all evaluations have.
        NotFound: There is no such evaluation.
    """
    from ftlab_kit.evaluators import verdicts

    _check_level(level)
    first, others = _evaluation(ws, before), [_evaluation(ws, other) for other in after]
    if not others:
        raise InputError(
            "compare was given one evaluation; expected two or more. Score the other model with "
            "evaluators.run on the same version."
        )
    verdicts.check_same([first, *others])
    return verdicts.compare(first, others, _shared_measures(first, others, metrics), level)


@takes_settings(EvaluationConfig, has_defaults=True)
def suite(
    ws: Workspace,
    target: Job | Model | Checkpoint | Export | Path | int | str,
    tasks: Sequence[str],
    *,
    folder: str | None = None,
    progress: OnProgress | None = None,
    **settings: Any,
) -> Evaluation:
    """Run tasks of lm-eval on a model by lm-eval itself, and return its scores as an evaluation.

    Of the settings, lm-eval uses checkpoint, max_rows, max_new_tokens and seed.

    Args:
        target: A base model by name, a job, a checkpoint, an export or a path.
        tasks: Names of lm-eval's tasks, such as gsm8k.
        folder: The folder of your own task files.
        progress: Called before lm-eval starts and when it is done.
        settings: Those of an EvaluationConfig.

    Raises:
        Unavailable: lm-eval is not installed.
        InputError: lm-eval has no such task, or the model is hosted elsewhere.
    """
    from ftlab_kit.evaluators import suites

    config = EvaluationConfig(**settings)
    suites.check_tasks(tasks, folder)
    tell = progress or (lambda _: None)
    began = time.perf_counter()
    with chats.open(ws, target, checkpoint=config.checkpoint) as model:
        tell(Progress("lm-eval", 0, len(tasks)))
        columns = suites.run_tasks(model, tasks, folder, config)
        tell(Progress("lm-eval", len(tasks), len(tasks)))
    return _save(ws, model, None, config, began, columns)


def _save(
    ws: Workspace,
    model: chats.ChatModel,
    version_id: int | None,
    config: EvaluationConfig,
    began: float,
    columns: dict[str, Any],
) -> Evaluation:
    """Store an evaluation and return it.

    Args:
        began: When it began, by `time.perf_counter`.
        columns: What scoring or lm-eval returned.
    """
    seconds = time.perf_counter() - began
    judge_usd = columns["details"].get("judge", {}).get("cost_usd")
    costs = [columns.pop("cost_usd", None), judge_usd, _machine_usd(seconds, config)]
    evaluation_id = ws.store.insert(
        "evaluations",
        **columns,
        target=model.label,
        job_id=model.job_id,
        step=model.step,
        dataset_version_id=version_id,
        seconds=seconds,
        cost_usd=_sum(costs),
        created_at=now(),
    )
    return get(ws, evaluation_id)


def _sum(costs: Sequence[float | None]) -> float | None:
    """Return the sum of the costs that are not None, None if all are."""
    amounts = [cost for cost in costs if cost is not None]
    return sum(amounts) if amounts else None


def _machine_usd(seconds: float, config: EvaluationConfig) -> float | None:
    """Return the cost of the machine, None where its price is not set."""
    return None if config.usd_per_hour is None else config.usd_per_hour * seconds / 3600


def _evaluators(metrics: Sequence[str], config: EvaluationConfig) -> "dict[str, Evaluator]":
    """Return the evaluators by name.

    Raises:
        ConfigError: A metric is unknown, none is given, or one lacks a setting that it requires.
    """
    from ftlab_kit.evaluators.family import EVALUATORS

    if not metrics or isinstance(metrics, str):
        raise ConfigError(
            f"metrics is {metrics!r}; expected a list of names, such as ['perplexity', 'bleu']."
        )
    for name in metrics:
        if name not in EVALUATORS:
            raise ConfigError(
                f"There is no metric {name!r}.{nearest(name, EVALUATORS)} Use one of "
                f"{', '.join(EVALUATORS)}."
            )
    evaluators = {name: EVALUATORS[name] for name in metrics}
    for name, evaluator in evaluators.items():
        for setting in evaluator.REQUIRED_SETTINGS:
            if getattr(config, setting) is None:
                help = EvaluationConfig.model_fields[setting].description
                raise ConfigError(
                    f"The metric {name} requires {setting}, which is not set ({help}). Call "
                    f"evaluators.run(..., {setting}=...)."
                )
    return evaluators


def _check_kind(version: DatasetVersion, evaluators: "Mapping[str, Evaluator]") -> None:
    """Refuse metrics of answers on rows without prompts."""
    of_answers = [name for name, item in evaluators.items() if "answers" in item.REQUIRES]
    if of_answers and version.kind == "text":
        others = [name for name in evaluators if name not in of_answers] or ["perplexity"]
        raise InputError(
            f"Dataset version {version.id} is plain text without prompts, so "
            f"{', '.join(of_answers)} can't be computed; expected chats. Use a chat dataset, or "
            f"metrics={others}."
        )


def _check_level(level: float) -> None:
    if not 0.5 <= level < 1:
        raise InputError(f"level is {level}; expected 0.5 or more and below 1, such as 0.95.")


def _measures(evaluation: Evaluation) -> "dict[str, Measure]":
    """Return the measures of an evaluation by name; empty for an evaluation by lm-eval."""
    from ftlab_kit.evaluators.family import EVALUATORS

    evaluators = [EVALUATORS[name] for name in evaluation.details.get("metrics", ())]
    measures = itertools.chain.from_iterable(item.MEASURES for item in evaluators)
    return {measure.name: measure for measure in measures}


def _shared_measures(
    first: Evaluation, others: Sequence[Evaluation], names: Sequence[str]
) -> "builtins.list[Measure]":
    """Return the measures to compare by.

    Args:
        names: The measures to use; the primary ones that all share if empty.

    Raises:
        InputError: The evaluations share no measure.
        ConfigError: One of `names` is not shared.
    """
    evaluations = [first, *others]
    measures = _measures(first)
    shared = [name for name in measures if all(item.counts.get(name) for item in evaluations)]
    primary = [name for name in measures if first.details[name]["primary"]]
    if len({item.details.get("tokenizer") for item in evaluations}) > 1:
        # numbers per token compare only where the tokens are the same
        shared = [name for name in shared if name not in BY_TOKEN]
        primary = [BY_TOKEN.get(name, name) for name in primary]
    for name in names:
        if name not in shared:
            raise ConfigError(
                f"{name!r} can't be compared; expected a measure that all evaluations share: "
                f"{', '.join(shared) or 'there is none'}.{nearest(name, shared)}"
            )
    if not shared:
        raise InputError(
            f"Evaluations {', '.join(str(item.id) for item in evaluations)} share no measure with "
            "counts for each row; expected one. Score them by the same metrics with evaluators.run."
        )
    return [measures[name] for name in names or [name for name in primary if name in shared]]


def _evaluation(ws: Workspace, evaluation: Evaluation | int) -> Evaluation:
    return evaluation if isinstance(evaluation, Evaluation) else get(ws, evaluation)
