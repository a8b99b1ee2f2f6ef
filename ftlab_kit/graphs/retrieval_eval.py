"""What can be told of a graph from itself: contradictions, and how well search finds its facts."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.nodes import EntityNode

from ftlab_kit.graphs import citations, event_loop, searching, updates
from ftlab_kit.graphs.extraction import wording
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Contradiction, Question, Retrieval

SHORT_WORDS = 8


def contradictions(graph: Graph, keys: Sequence[str] | None = None) -> list[Contradiction]:
    """Return the attributes that documents give two values at once, of some entities or of all."""
    return event_loop.run(_contradictions(graph, keys))


async def _contradictions(graph: Graph, keys: Sequence[str] | None) -> list[Contradiction]:
    if keys is None:
        found = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
        keys = [node.uuid for node in found]
    if not keys:
        return []
    facts = (await graph.driver.around(graph.group, keys)).facts
    said = _said(fact for fact in facts if fact.invalid_at is None)
    clashing = {key: pairs for key, pairs in said.items() if len(_values(pairs)) > 1}
    ends = sorted({source for source, _ in clashing})
    names = (
        {node.uuid: node for node in await EntityNode.get_by_uuids(graph.driver, ends)}
        if ends
        else {}
    )
    episodes = {key for pairs in clashing.values() for _, fact in pairs for key in fact.episodes}
    known = await citations.chunks(graph, episodes)
    made = []
    for (source, attribute), pairs in clashing.items():
        placed = sorted(
            ((citations.places(fact, known)[0], value) for value, fact in pairs),
            key=lambda item: (item[0].document, item[0].part, item[0].first_line),
        )
        first = placed[0]
        other = next(item for item in placed if item[1] != first[1])
        made.append(
            Contradiction(names[source].name, attribute, first[1], first[0], other[1], other[0])
        )
    return sorted(made, key=lambda item: (item.entity, item.attribute))


def _said(facts: Iterable[EntityEdge]) -> dict[tuple[str, str], list[tuple[Any, EntityEdge]]]:
    """Return the values of each attribute of each entity, with the facts that give them."""
    said: dict[tuple[str, str], list[tuple[Any, EntityEdge]]] = {}
    for fact in facts:
        for attribute, value in json.loads(fact.attributes.get(updates.SETS, "{}")).items():
            if not isinstance(value, str) or len(value.split()) <= SHORT_WORDS:
                said.setdefault((fact.source_node_uuid, attribute), []).append((value, fact))
    return said


def _values(pairs: Sequence[tuple[Any, EntityEdge]]) -> set[str]:
    return {json.dumps(value).casefold() for value, _ in pairs}


# questions from the graph itself


def questions(graph: Graph, limit: int) -> list[Question]:
    """Return questions that one fact each answers, the same ones every time.

    Of facts that hold now: an attribute of an entity, or the one thing that a relation leads to.
    """
    return event_loop.run(_questions(graph, limit))


async def _questions(graph: Graph, limit: int) -> list[Question]:
    living = [fact for fact in await searching.edges(graph) if fact.invalid_at is None]
    nodes = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
    names = {node.uuid: node.name for node in nodes}
    alike = Counter((fact.source_node_uuid, fact.name) for fact in living)
    asked: dict[str, EntityEdge] = {}
    for fact in sorted(living, key=lambda item: item.uuid):
        words = _question(fact, names)
        is_only = alike[fact.source_node_uuid, fact.name] == 1
        if words and is_only and words not in asked:
            asked[words] = fact
    chosen = list(asked.items())[:limit]
    known = await citations.chunks(graph, {key for _, fact in chosen for key in fact.episodes})
    return [
        Question(words, fact.fact, fact.uuid, citations.places(fact, known))
        for words, fact in chosen
    ]


def _question(fact: EntityEdge, names: Mapping[str, str]) -> str | None:
    """Return what one would ask to hear a fact; None for one that answers no question."""
    name = names.get(fact.source_node_uuid, "")
    spoken = wording.spoken_name(fact.name.lower())
    if fact.source_node_uuid != fact.target_node_uuid:
        if fact.name.startswith("HAS_") and fact.name not in ("HAS_CAPABILITY",):
            return f"Which {wording.spoken_name(fact.name[4:].lower())} does {name} have?"
        return f"Which {spoken[3:]} is {name} in?" if fact.name.startswith("IN_") else None
    if fact.name == "DESCRIPTION":
        return f"What is {name}?"
    if fact.name == "IS_ENDPOINT" or updates.SETS not in fact.attributes:
        return None
    (value,) = list(json.loads(fact.attributes[updates.SETS]).values())[:1]
    if isinstance(value, bool):
        return f"Is {name} {spoken}?"
    return f"What {'are' if wording.is_plural(spoken) else 'is'} the {spoken} of {name}?"


def judge(
    graph: Graph, asked: Sequence[Question], k: int, recipes: Sequence[str]
) -> list[Retrieval]:
    """Return how well each recipe finds the facts that answer questions, among facts alone."""
    made = []
    for recipe in recipes:
        ranks, took = [], []
        for question in asked:
            began = time.perf_counter()
            hits = searching.search(
                graph, question.question, k, searching.SearchOptions(("fact",), recipe)
            )
            took.append((time.perf_counter() - began) * 1000)
            found = [hit.id for hit in hits]
            ranks.append(found.index(question.fact_id) + 1 if question.fact_id in found else None)
        n_found = sum(rank is not None for rank in ranks)
        low, high = _wilson(n_found, len(ranks))
        made.append(
            Retrieval(
                recipe=recipe,
                n_questions=len(ranks),
                k=k,
                recall=n_found / len(ranks),
                recall_low=low,
                recall_high=high,
                mrr=sum(1 / rank for rank in ranks if rank) / len(ranks),
                median_ms=statistics.median(took),
            )
        )
    return made


def _wilson(n_found: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(n_found, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def export(asked: Sequence[Question], path: Path) -> Path:
    """Write questions with their facts as chats, a line each, as `datasets.add` takes them."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": item.question},
                {"role": "assistant", "content": item.answer},
            ]
        }
        for item in asked
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return path
