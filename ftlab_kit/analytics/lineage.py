"""The lab's own history in its graph: what the store knows, as a document named 'lab'.

Each dataset version, config, job, event, checkpoint, evaluation and export is a chunk with its
facts, so that history is searched, cited and ended as any document is.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ftlab_kit import checkpoints, configs, datasets, evaluators, trainers
from ftlab_kit.graphs import event_loop, loading, updates
from ftlab_kit.graphs.extraction import phrases
from ftlab_kit.graphs.extraction.result import Chunk, Claim, Extract, Mention
from ftlab_kit.graphs.loaders import Line
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import DatasetVersion, Evaluation, Job, Loading, Rows
from ftlab_kit.workspace import Workspace, now

NAME = "lab"
MOST_COMPARED = 40  # evaluations on one version, of which each pair is compared
Said = tuple[Mention, str, Mention, str, Mapping[str, Any]]


def record(graph: Graph) -> Loading:
    """Write what the store knows into the graph, or what has changed of it."""
    began = time.perf_counter()
    extract = _extract(graph.ws)
    text = "\n".join(chunk.text for chunk in extract.chunks)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    loading.write_down(graph, NAME, path=str(graph.ws.root), format="lineage")
    before = event_loop.run(updates.episodes_of(graph, NAME))
    kept = updates.ChangeSummary()
    if extract.chunks and not updates.is_same(before, sha256):
        loaded_at = now()
        draft = updates.Draft(
            NAME, str(graph.ws.root), "lineage", sha256, extract, loaded_at, loaded_at
        )
        kept = event_loop.run(updates.put(graph, draft, loading.vectors(graph, draft)))
        loading.finish(graph, draft, kept, notes=())
    else:
        loading.set_state(graph, NAME, "completed")
    return Loading(
        documents=Rows([loading.get(graph.ws, NAME, graph.address)]),
        n_new_facts=kept.n_new_facts,
        n_ended_facts=kept.n_ended_facts,
        n_removed_facts=kept.n_removed_facts,
        contradictions=Rows(),
        seconds=time.perf_counter() - began,
    )


def _extract(ws: Workspace) -> Extract:
    """Return the lab's history as chunks of sentences; each sentence is a line."""
    extract = Extract()
    number = 0
    for title, said in _everything(ws):
        first = number + 1
        lines = []
        for source, relation, target, sentence, sets in said:
            number += 1
            line = Line(phrases.sentence(sentence), number)
            lines.append(line)
            extract.at[line] = len(extract.chunks)
            extract.claims.append(Claim(source, relation, target, line.text, line, line, sets))
            extract.mentions |= {(len(extract.chunks), thing) for thing in (source, target)}
        text = "\n".join(line.text for line in lines)
        extract.chunks.append(Chunk(text, Line("", first), Line("", number), title))
    return extract


def _everything(ws: Workspace) -> Iterator[tuple[str, list[Said]]]:
    """Yield each thing that the store knows with what is said of it, in an order that lasts."""
    for dataset in datasets.list(ws):
        for version in datasets.versions(ws, dataset.name):
            yield _version(version).name, list(_of_version(ws, version))
    for name in configs.list(ws):
        yield f"config {name}", list(_of_config(ws, name))
    for found_job in sorted(trainers.list(ws), key=lambda item: item.id):
        yield f"job {found_job.id}", list(_of_job(ws, found_job))
    found = sorted(evaluators.list(ws), key=lambda item: item.id)
    for evaluation in found:
        yield f"evaluation {evaluation.id}", list(_of_evaluation(ws, evaluation))
    for export in checkpoints.exports(ws):
        thing, job = Mention("Export", f"export {export.id}"), _job(export.job_id)
        sets = {"format": export.format, "precision": export.precision, "step": export.step}
        sentence = f"Export {export.id} is {job.name} at step {export.step} as {export.format}"
        yield thing.name, [(thing, "MADE_FROM", job, sentence, sets)]
    compared = list(_beaten(found))
    if compared:
        yield "comparisons", compared


def _version(version: DatasetVersion) -> Mention:
    return Mention("DatasetVersion", f"{version.dataset} version {version.id}")


def _job(number: int | None) -> Mention:
    return Mention("Job", f"job {number}")


def _of_version(ws: Workspace, version: DatasetVersion) -> Iterator[Said]:
    thing = _version(version)
    sets = {"rows": version.n_rows, "side": version.side, "kind": version.kind}
    sets["dataset"] = version.dataset
    sentence = f"{thing.name} has {version.n_rows} rows of kind {version.kind}: side {version.side}"
    yield thing, "DESCRIBED", thing, sentence, sets
    source = version.derivation.get("source")
    if source:
        file = Mention("File", str(source))
        yield thing, "MADE_FROM", file, f"{thing.name} was made from the file {file.name}", {}
    if version.parent_id is not None:
        parent = _version(datasets.get(ws, version.parent_id))
        yield thing, "MADE_FROM", parent, f"{thing.name} was made from {parent.name}", {}


def _of_config(ws: Workspace, name: str) -> Iterator[Said]:
    thing = Mention("Config", f"config {name}")
    sets = dict(_settings(configs.get(ws, name).model_dump()))
    yield thing, "DESCRIBED", thing, f"Config {name} trains {sets.get('model')}", sets


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(config.items()):
        if isinstance(value, (str, int, float, bool)):
            yield key, value


def _of_job(ws: Workspace, job: Job) -> Iterator[Said]:
    thing = _job(job.id)
    sets = {"state": job.state, "step": job.step, "model": job.model}
    sentence = f"Job {job.id} trains {job.model} and is {job.state} at step {job.step}"
    yield thing, "DESCRIBED", thing, sentence, sets
    digest = hashlib.sha256(json.dumps(job.config, sort_keys=True).encode()).hexdigest()[:8]
    config = Mention("Config", f"config {digest}")
    values = dict(_settings(job.config))
    yield config, "DESCRIBED", config, f"Config {digest} trains {job.model}", values
    yield thing, "USES_CONFIG", config, f"Job {job.id} uses the config {digest}", {}
    model = Mention("Model", job.model)
    yield thing, "TRAINS", model, f"Job {job.id} trains the model {job.model}", {}
    yield from _rows_of_job(ws, job, thing)
    if job.parent_id is not None:
        words_of = f"Job {job.id} goes on from job {job.parent_id} at step {job.parent_step}"
        yield thing, "FORKED_FROM", _job(job.parent_id), words_of, {}
    for event in trainers.events(ws, job):
        named = Mention("Event", f"event {event.id} of job {job.id}")
        values = {"command": event.command, "state": event.state}
        text = f"Job {job.id} got the command {event.command} (event {event.id}): {event.state}"
        yield thing, "HAD_EVENT", named, text, {}
        yield named, "DESCRIBED", named, f"Event {event.id} is the command {event.command}", values
    for item in checkpoints.list(ws, job):
        named = Mention("Checkpoint", f"checkpoint {item.step} of job {job.id}")
        known = {"step": item.step, "loss": item.loss, "eval_loss": item.eval_loss}
        values = {key: value for key, value in known.items() if value is not None}
        text = f"Job {job.id} has a checkpoint at step {item.step}"
        yield thing, "HAS_CHECKPOINT", named, text, {}
        yield named, "DESCRIBED", named, f"{named.name} holds step {item.step}", values


def _rows_of_job(ws: Workspace, job: Job, thing: Mention) -> Iterator[Said]:
    """Yield which rows a job has seen, and from which files these came."""
    version = datasets.get(ws, job.dataset_version_id)
    yield thing, "TRAINED_ON", _version(version), f"Job {job.id} saw {_version(version).name}", {}
    if job.held_out_version_id is not None:
        held = _version(datasets.get(ws, job.held_out_version_id))
        yield thing, "HELD_OUT", held, f"Job {job.id} was measured on {held.name}, held out", {}
    above: DatasetVersion | None = version
    while above is not None:
        if source := above.derivation.get("source"):
            file = Mention("File", str(source))
            yield thing, "SAW_FILE", file, f"Job {job.id} saw the file {file.name}", {}
        parent = above.parent_id
        above = datasets.get(ws, parent) if parent is not None else None


def _of_evaluation(ws: Workspace, found: Evaluation) -> Iterator[Said]:
    thing = Mention("Evaluation", f"evaluation {found.id}")
    scores = {phrases.snake(key): value for key, value in found.scores.items() if value is not None}
    sets = {**scores, "target": found.target} | ({"step": found.step} if found.step else {})
    said = ", ".join(f"{key} {value:.4g}" for key, value in sorted(scores.items()))
    yield thing, "DESCRIBED", thing, f"Evaluation {found.id} of {found.target}: {said}", sets
    judged = _target(found)
    yield thing, "JUDGES", judged, f"Evaluation {found.id} judges {judged.name}", {}
    if found.dataset_version_id is not None:
        version = _version(datasets.get(ws, found.dataset_version_id))
        yield thing, "ON", version, f"Evaluation {found.id} asked {version.name}", {}


def _target(found: Evaluation) -> Mention:
    return _job(found.job_id) if found.job_id is not None else Mention("Model", found.target)


def _beaten(found: list[Evaluation]) -> Iterator[Said]:
    """Yield who beat whom on what, among the newest evaluations of the same rows."""
    by_version: dict[int | None, list[Evaluation]] = {}
    for item in found:
        by_version.setdefault(item.dataset_version_id, []).append(item)
    for version, some in sorted(by_version.items(), key=lambda item: item[0] or 0):
        for one, other in combinations(some[-MOST_COMPARED:], 2) if version else ():
            for measure in sorted(one.scores.keys() & other.scores.keys()):
                yield from _pair(one, other, measure)


def _pair(one: Evaluation, other: Evaluation, measure: str) -> Iterator[Said]:
    first, second = one.scores[measure], other.scores[measure]
    is_greater = one.details.get(measure, {}).get("greater_is_better")
    if first is None or second is None or first == second or is_greater is None:
        return
    if _target(one) == _target(other):
        return
    better, worse = (one, other) if (first > second) == is_greater else (other, one)
    best, least = better.scores[measure], worse.scores[measure]
    sentence = (
        f"{_target(better).name} beat {_target(worse).name} on {measure}: {best:.4g} against "
        f"{least:.4g} (evaluations {better.id} and {worse.id})"
    )
    yield _target(better), "BEAT", _target(worse), sentence, {}
