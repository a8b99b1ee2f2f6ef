"""The lab's own history, written into its graph as the document 'lab'.

Each dataset version, config, job, event, checkpoint, evaluation and export is a section of
statements, so that the history can be searched, cited and ended as any document can.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ftlab_kit import checkpoints, configs, datasets, evaluators, trainers
from ftlab_kit.graphs import statements
from ftlab_kit.graphs.statements import Mention, Section, Statement
from ftlab_kit.records import DatasetVersion, Evaluation, Job, Loading
from ftlab_kit.workspace import Workspace

DOCUMENT = "lab"
MAX_COMPARED = 40  # evaluations of one version; every pair of them is compared


def record(ws: Workspace, graph: str | None = None) -> Loading:
    """Write the workspace's history into a graph, or what has changed in it."""
    sections = list(_sections(ws))
    return statements.write(
        ws, DOCUMENT, sections, path=str(ws.root), format="lineage", graph=graph
    )


def _sections(ws: Workspace) -> Iterator[Section]:
    """Yield a section for everything that the store holds, always in the same order."""
    for dataset in datasets.list(ws):
        for version in datasets.versions(ws, dataset.name):
            yield Section(_version(version).name, list(_of_version(ws, version)))
    for name in configs.list(ws):
        yield Section(f"config {name}", list(_of_config(ws, name)))
    for job in sorted(trainers.list(ws), key=lambda job: job.id):
        yield Section(f"job {job.id}", list(_of_job(ws, job)))
    evaluations = sorted(evaluators.list(ws), key=lambda evaluation: evaluation.id)
    for evaluation in evaluations:
        yield Section(f"evaluation {evaluation.id}", list(_of_evaluation(ws, evaluation)))
    for export in checkpoints.exports(ws):
        exported, job_mention = Mention("Export", f"export {export.id}"), _job(export.job_id)
        attributes = {"format": export.format, "precision": export.precision, "step": export.step}
        sentence = (
            f"Export {export.id} is {job_mention.name} at step {export.step} as {export.format}"
        )
        made_from = Statement(exported, "MADE_FROM", job_mention, sentence, attributes)
        yield Section(exported.name, [made_from])
    comparisons = list(_comparisons(evaluations))
    if comparisons:
        yield Section("comparisons", comparisons)


def _version(version: DatasetVersion) -> Mention:
    return Mention("DatasetVersion", f"{version.dataset} version {version.id}")


def _job(number: int | None) -> Mention:
    return Mention("Job", f"job {number}")


def _described(entity: Mention, sentence: str, attributes: Mapping[str, Any]) -> Statement:
    """Return a statement about an entity alone."""
    return Statement(entity, "DESCRIBED", entity, sentence, attributes)


def _of_version(ws: Workspace, version: DatasetVersion) -> Iterator[Statement]:
    entity = _version(version)
    attributes = {
        "rows": version.n_rows,
        "side": version.side,
        "kind": version.kind,
        "dataset": version.dataset,
    }
    sentence = (
        f"{entity.name} has {version.n_rows} rows of kind {version.kind}: side {version.side}"
    )
    yield _described(entity, sentence, attributes)
    source = version.derivation.get("source")
    if source:
        file = Mention("File", str(source))
        sentence = f"{entity.name} was made from the file {file.name}"
        yield Statement(entity, "MADE_FROM", file, sentence)
    if version.parent_id is not None:
        parent = _version(datasets.get(ws, version.parent_id))
        sentence = f"{entity.name} was made from {parent.name}"
        yield Statement(entity, "MADE_FROM", parent, sentence)


def _of_config(ws: Workspace, name: str) -> Iterator[Statement]:
    settings = dict(_settings(configs.get(ws, name).model_dump()))
    sentence = f"Config {name} trains {settings.get('model')}"
    yield _described(Mention("Config", f"config {name}"), sentence, settings)


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(config.items()):
        if isinstance(value, (str, int, float, bool)):
            yield key, value


def _of_job(ws: Workspace, job: Job) -> Iterator[Statement]:
    entity = _job(job.id)
    attributes: dict[str, Any] = {"state": job.state, "step": job.step, "model": job.model}
    sentence = f"Job {job.id} trains {job.model} and is {job.state} at step {job.step}"
    yield _described(entity, sentence, attributes)
    digest = hashlib.sha256(json.dumps(job.config, sort_keys=True).encode()).hexdigest()[:8]
    config = Mention("Config", f"config {digest}")
    yield _described(config, f"Config {digest} trains {job.model}", dict(_settings(job.config)))
    yield Statement(entity, "USES_CONFIG", config, f"Job {job.id} uses the config {digest}")
    model = Mention("Model", job.model)
    yield Statement(entity, "TRAINS", model, f"Job {job.id} trains the model {job.model}")
    yield from _data_of_job(ws, job, entity)
    if job.parent_id is not None:
        sentence = f"Job {job.id} goes on from job {job.parent_id} at step {job.parent_step}"
        yield Statement(entity, "FORKED_FROM", _job(job.parent_id), sentence)
    for event in trainers.events(ws, job):
        event_mention = Mention("Event", f"event {event.id} of job {job.id}")
        attributes = {"command": event.command, "state": event.state}
        sentence = f"Job {job.id} got the command {event.command} (event {event.id}): {event.state}"
        yield Statement(entity, "HAD_EVENT", event_mention, sentence)
        sentence = f"Event {event.id} is the command {event.command}"
        yield _described(event_mention, sentence, attributes)
    for checkpoint in checkpoints.list(ws, job):
        saved = Mention("Checkpoint", f"checkpoint {checkpoint.step} of job {job.id}")
        losses = {"loss": checkpoint.loss, "eval_loss": checkpoint.eval_loss}
        attributes = {name: loss for name, loss in losses.items() if loss is not None}
        sentence = f"Job {job.id} has a checkpoint at step {checkpoint.step}"
        yield Statement(entity, "HAS_CHECKPOINT", saved, sentence)
        sentence = f"{saved.name} holds step {checkpoint.step}"
        yield _described(saved, sentence, {"step": checkpoint.step, **attributes})


def _data_of_job(ws: Workspace, job: Job, entity: Mention) -> Iterator[Statement]:
    """Yield which rows a job has seen, and which files they came from."""
    version = datasets.get(ws, job.dataset_version_id)
    sentence = f"Job {job.id} saw {_version(version).name}"
    yield Statement(entity, "TRAINED_ON", _version(version), sentence)
    if job.held_out_version_id is not None:
        held_out = _version(datasets.get(ws, job.held_out_version_id))
        sentence = f"Job {job.id} was measured on {held_out.name}, held out"
        yield Statement(entity, "HELD_OUT", held_out, sentence)
    ancestor: DatasetVersion | None = version
    while ancestor is not None:
        if source := ancestor.derivation.get("source"):
            file = Mention("File", str(source))
            yield Statement(entity, "SAW_FILE", file, f"Job {job.id} saw the file {file.name}")
        parent_id = ancestor.parent_id
        ancestor = datasets.get(ws, parent_id) if parent_id is not None else None


def _of_evaluation(ws: Workspace, evaluation: Evaluation) -> Iterator[Statement]:
    entity = Mention("Evaluation", f"evaluation {evaluation.id}")
    scores = {
        statements.attribute_name(name): score
        for name, score in evaluation.scores.items()
        if score is not None
    }
    attributes = {**scores, "target": evaluation.target}
    if evaluation.step:
        attributes["step"] = evaluation.step
    listed = ", ".join(f"{name} {score:.4g}" for name, score in sorted(scores.items()))
    sentence = f"Evaluation {evaluation.id} of {evaluation.target}: {listed}"
    yield _described(entity, sentence, attributes)
    target = _target(evaluation)
    sentence = f"Evaluation {evaluation.id} judges {target.name}"
    yield Statement(entity, "JUDGES", target, sentence)
    if evaluation.dataset_version_id is not None:
        version = _version(datasets.get(ws, evaluation.dataset_version_id))
        sentence = f"Evaluation {evaluation.id} used {version.name}"
        yield Statement(entity, "ON", version, sentence)


def _target(evaluation: Evaluation) -> Mention:
    """Return what an evaluation judges: a job, or a model by its name."""
    if evaluation.job_id is not None:
        return _job(evaluation.job_id)
    return Mention("Model", evaluation.target)


def _comparisons(evaluations: list[Evaluation]) -> Iterator[Statement]:
    """Yield which target beat which, and on what, among the newest evaluations of the same rows."""
    by_version: dict[int | None, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_version.setdefault(evaluation.dataset_version_id, []).append(evaluation)
    for version_id, same_rows in sorted(by_version.items(), key=lambda pair: pair[0] or 0):
        if not version_id:
            continue
        for first, second in combinations(same_rows[-MAX_COMPARED:], 2):
            for metric in sorted(first.scores.keys() & second.scores.keys()):
                yield from _comparison(first, second, metric)


def _comparison(first: Evaluation, second: Evaluation, metric: str) -> Iterator[Statement]:
    first_score, second_score = first.scores[metric], second.scores[metric]
    greater_is_better = first.details.get(metric, {}).get("greater_is_better")
    if first_score is None or second_score is None or greater_is_better is None:
        return
    if first_score == second_score or _target(first) == _target(second):
        return
    first_wins = (first_score > second_score) == greater_is_better
    winner, loser = (first, second) if first_wins else (second, first)
    sentence = (
        f"{_target(winner).name} beat {_target(loser).name} on {metric}: "
        f"{winner.scores[metric]:.4g} against {loser.scores[metric]:.4g} "
        f"(evaluations {winner.id} and {loser.id})"
    )
    yield Statement(_target(winner), "BEAT", _target(loser), sentence)
