"""What a graph says about itself: contradictions, and how well search finds its own facts."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.nodes import EntityNode

from ftlab_kit.graphs import citations, event_loop, lookups, metadata, searching
from ftlab_kit.graphs.extraction import wording
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Citation, Contradiction, Question, Retrieval

MAX_VALUE_WORDS = 8  # two longer texts may both be right


def contradictions(graph: Graph, keys: Sequence[str] | None = None) -> list[Contradiction]:
    """Return the attributes that documents give two values at once, of some entities or of all."""
    return event_loop.run(_contradictions(graph, keys))


async def _contradictions(graph: Graph, keys: Sequence[str] | None) -> list[Contradiction]:
    if keys is None:
        nodes = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
        keys = [node.uuid for node in nodes]
    if not keys:
        return []
    facts = (await graph.driver.around(graph.group, keys)).facts
    values = _values(fact for fact in facts if fact.invalid_at is None)
    clashing = {key: pairs for key, pairs in values.items() if _n_different(pairs) > 1}
    sources = sorted({source for source, _ in clashing})
    named = await EntityNode.get_by_uuids(graph.driver, sources) if sources else []
    names = {node.uuid: node.name for node in named}
    chunk_ids = {key for pairs in clashing.values() for _, fact in pairs for key in fact.episodes}
    chunks = await citations.chunks(graph, chunk_ids)
    clashes = []
    for (source, attribute), pairs in clashing.items():
        placed = [(citations.of_fact(fact, chunks)[0], value) for value, fact in pairs]
        placed.sort(key=lambda pair: _place_order(pair[0]))
        first = placed[0]
        second = next(pair for pair in placed if pair[1] != first[1])
        clashes.append(
            Contradiction(
                entity=names[source],
                attribute=attribute,
                first=first[1],
                first_place=first[0],
                second=second[1],
                second_place=second[0],
            )
        )
    return sorted(clashes, key=lambda clash: (clash.entity, clash.attribute))


def _place_order(place: Citation) -> tuple[str, str, int]:
    return place.document, place.part, place.first_line


def _values(facts: Iterable[EntityEdge]) -> dict[tuple[str, str], list[tuple[Any, EntityEdge]]]:
    """Return by entity and attribute the values that facts give, each with its fact."""
    values: dict[tuple[str, str], list[tuple[Any, EntityEdge]]] = {}
    for fact in facts:
        for attribute, value in metadata.values(fact).items():
            if not isinstance(value, str) or len(value.split()) <= MAX_VALUE_WORDS:
                values.setdefault((fact.source_node_uuid, attribute), []).append((value, fact))
    return values


def _n_different(pairs: Sequence[tuple[Any, EntityEdge]]) -> int:
    return len({json.dumps(value).casefold() for value, _ in pairs})


# questions from the graph itself


def questions(graph: Graph, limit: int) -> list[Question]:
    """Return questions that one fact answers, the same ones every time.

    The facts are those that hold now: an attribute of an entity, or a relation of it that leads to
    one entity only.
    """
    return event_loop.run(_questions(graph, limit))


async def _questions(graph: Graph, limit: int) -> list[Question]:
    living = [fact for fact in await lookups.edges(graph) if fact.invalid_at is None]
    nodes = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
    names = {node.uuid: node.name for node in nodes}
    n_alike = Counter((fact.source_node_uuid, fact.name) for fact in living)
    facts: dict[str, EntityEdge] = {}
    for fact in sorted(living, key=lambda fact: fact.uuid):
        text = _question(fact, names)
        is_only = n_alike[fact.source_node_uuid, fact.name] == 1
        if text and is_only and text not in facts:
            facts[text] = fact
    chosen = list(facts.items())[:limit]
    chunks = await citations.chunks(graph, {key for _, fact in chosen for key in fact.episodes})
    return [
        Question(text, fact.fact, fact.uuid, citations.of_fact(fact, chunks))
        for text, fact in chosen
    ]


def _question(fact: EntityEdge, names: Mapping[str, str]) -> str | None:
    """Return the question that a fact answers; None if it answers none."""
    name = names.get(fact.source_node_uuid, "")
    spoken = wording.spoken_name(fact.name.lower())
    if fact.source_node_uuid != fact.target_node_uuid:
        if fact.name.startswith("HAS_") and fact.name != "HAS_CAPABILITY":
            return f"Which {wording.spoken_name(fact.name[4:].lower())} does {name} have?"
        return f"Which {spoken[3:]} is {name} in?" if fact.name.startswith("IN_") else None
    if fact.name == "DESCRIPTION":
        return f"What is {name}?"
    if fact.name == "IS_ENDPOINT" or metadata.VALUES not in fact.attributes:
        return None
    value = next(iter(metadata.values(fact).values()))
    if isinstance(value, bool):
        return f"Is {name} {spoken}?"
    return f"What {'are' if wording.is_plural(spoken) else 'is'} the {spoken} of {name}?"


def judge(
    graph: Graph, questions: Sequence[Question], k: int, recipes: Sequence[str]
) -> list[Retrieval]:
    """Return how well each recipe finds the facts that answer questions, among facts alone."""
    return [_judge_recipe(graph, questions, k, recipe) for recipe in recipes]


def _judge_recipe(graph: Graph, questions: Sequence[Question], k: int, recipe: str) -> Retrieval:
    options = searching.SearchOptions(kinds=("fact",), recipe=recipe)
    ranks: list[int | None] = []
    times_ms = []
    for question in questions:
        began = time.perf_counter()
        hits = searching.search(graph, question.question, k, options)
        times_ms.append((time.perf_counter() - began) * 1000)
        ids = [hit.id for hit in hits]
        ranks.append(ids.index(question.fact_id) + 1 if question.fact_id in ids else None)
    n_hits = sum(rank is not None for rank in ranks)
    low, high = _wilson(n_hits, len(ranks))
    return Retrieval(
        recipe=recipe,
        n_questions=len(ranks),
        k=k,
        recall=n_hits / len(ranks),
        recall_low=low,
        recall_high=high,
        mrr=sum(1 / rank for rank in ranks if rank) / len(ranks),
        median_ms=statistics.median(times_ms),
    )


def _wilson(n_hits: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(n_hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def export(questions: Sequence[Question], path: Path) -> Path:
    """Write questions with their answers as chats, a line each, as `datasets.add` reads them."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": question.question},
                {"role": "assistant", "content": question.answer},
            ]
        }
        for question in questions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return path
