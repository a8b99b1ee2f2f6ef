"""The conformance suite of graph drivers: every test runs on each of them."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from graphiti_core import Graphiti
from graphiti_core.cross_encoder.client import CrossEncoderClient
from graphiti_core.driver.driver import GraphProvider
from graphiti_core.edges import (
    CommunityEdge,
    EntityEdge,
    EpisodicEdge,
    HasEpisodeEdge,
    NextEpisodeEdge,
)
from graphiti_core.embedder import EmbedderClient
from graphiti_core.errors import EdgeNotFoundError, GroupsEdgesNotFoundError, NodeNotFoundError
from graphiti_core.llm_client import LLMClient, LLMConfig
from graphiti_core.nodes import CommunityNode, EntityNode, EpisodeType, EpisodicNode, SagaNode
from graphiti_core.search import search_config_recipes as recipes
from graphiti_core.search.search_filters import ComparisonOperator, DateFilter, SearchFilters
from graphiti_core.search.search_utils import (
    get_communities_by_nodes,
    get_embeddings_for_edges,
    get_embeddings_for_nodes,
)
from graphiti_core.utils.bulk_utils import add_nodes_and_edges_bulk
from graphiti_core.utils.maintenance.community_operations import (
    get_community_clusters,
    remove_communities,
)
from graphiti_core.utils.maintenance.graph_data_operations import clear_data

from ftlab_kit.errors import Conflict, InputError, Unavailable
from ftlab_kit.graphs import event_loop
from ftlab_kit.graphs.drivers.protocol import SCORES, Change
from ftlab_kit.graphs.embedders import hashed
from tests.conftest import fill

DRIVERS = ("sqlite", "neo4j")
NOW = datetime(2025, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LATER = datetime(2025, 6, 1, tzinfo=UTC)
HASH: Any = hashed.HashEmbedder(None, "hash")  # type: ignore[arg-type]


class Vectors(EmbedderClient):
    """Vectors by hashing."""

    async def create(self, input_data: Any) -> list[float]:
        return vector(input_data if isinstance(input_data, str) else input_data[0])

    async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
        return [vector(text) for text in input_data_list]


class WordOverlap(CrossEncoderClient):
    """A cross-encoder that counts the words that a passage shares with the query."""

    async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
        query_words = set(query.lower().split())
        scored = [(text, float(len(query_words & set(text.lower().split())))) for text in passages]
        return sorted(scored, key=lambda item: -item[1])


class Script(LLMClient):
    """A language model with one answer for each response model."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(LLMConfig(api_key="none"), cache=False)
        self.answers = answers
        self.requests: list[str] = []

    async def _generate_response(
        self, messages: Any, response_model: Any = None, *_: Any, **more: Any
    ) -> Any:
        self.requests.append(response_model.__name__)
        return self.answers[response_model.__name__]


def vector(text: str) -> list[float]:
    return HASH.vectors([text])[0]


def graphiti(driver: Any, **answers: Any) -> Graphiti:
    clients = {
        "llm_client": Script(**answers),
        "embedder": Vectors(),
        "cross_encoder": WordOverlap(),
    }
    return Graphiti(graph_driver=driver, **clients)


# how each driver is opened; a second call opens the same graph again


def of_sqlite(request: pytest.FixtureRequest) -> Callable[[], Any]:
    from ftlab_kit.graphs.drivers import sqlite

    path = request.getfixturevalue("tmp_path") / "graph.db"
    return lambda: sqlite.Driver(path)


def of_neo4j(request: pytest.FixtureRequest) -> Callable[[], Any]:
    from ftlab_kit.graphs.drivers import neo4j

    server = request.getfixturevalue("neo4j_server")
    return lambda: neo4j.Driver(server.uri, server.user, server.password)


OPENERS = {"sqlite": of_sqlite, "neo4j": of_neo4j}


@pytest.fixture(params=DRIVERS)
def opener(request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    """Opens an empty graph, as often as it is called."""
    make, drivers = OPENERS[request.param](request), []

    def opened() -> Any:
        drivers.append(make())
        if hasattr(drivers[-1], "prepare"):
            event_loop.run(drivers[-1].prepare(HASH.dimension))
        return drivers[-1]

    yield opened
    for driver in drivers:
        event_loop.run(driver.close())


@pytest.fixture
def driver(opener: Callable[[], Any]) -> Any:
    """An open driver of an empty graph."""
    return opener()


def settle(driver: Any) -> None:
    """Wait until a search sees the last write of Graphiti's own."""
    if hasattr(driver, "has_index"):
        query = "CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()"
        event_loop.run(driver.execute_query(query))


# a small graph


def node(name: str, *, label: str = "Model", group: str = "g", **more: Any) -> EntityNode:
    given = {"labels": ["Entity", label], "summary": f"{name} is a {label}.", "created_at": NOW}
    return EntityNode(name=name, group_id=group, name_embedding=vector(name), **given | more)


def fact(one: EntityNode, other: EntityNode, text: str, name: str = "SAYS", **more: Any) -> Any:
    ends = {"source_node_uuid": one.uuid, "target_node_uuid": other.uuid}
    given = {"group_id": one.group_id, "created_at": NOW, "valid_at": NOW, "episodes": []}
    return EntityEdge(name=name, fact=text, fact_embedding=vector(text), **ends | given | more)


def episode(text: str, *, group: str = "g", **more: Any) -> EpisodicNode:
    given = {"source": EpisodeType.text, "source_description": "a test", "created_at": NOW}
    return EpisodicNode(name=text[:9], group_id=group, content=text, valid_at=NOW, **given | more)


def link(kind: Any, one: Any, other: Any) -> Any:
    ends = {"source_node_uuid": one.uuid, "target_node_uuid": other.uuid}
    return kind(group_id=one.group_id, created_at=NOW, **ends)


class World(NamedTuple):
    nodes: list[EntityNode]
    facts: list[EntityEdge]
    episodes: list[EpisodicNode]
    mentions: list[EpisodicEdge]


def world(group: str = "g") -> World:
    """Two models, a provider and a capability; two episodes, both with the first fact."""
    red, blue = node("Red", group=group), node("Blue", group=group, attributes={"price": 1.5})
    acme = node("Acme", label="Provider", group=group)
    vision = node("Vision", label="Capability", group=group)
    first = episode("Red is made by Acme and supports vision.", group=group)
    second = episode("Red supports vision, which Blue does not.", group=group)
    both, one = [first.uuid, second.uuid], [second.uuid]
    facts = [
        fact(red, vision, "Red supports vision.", "HAS_CAPABILITY", episodes=both),
        fact(blue, vision, "Blue does not support vision.", "LACKS_CAPABILITY", episodes=one),
        fact(red, acme, "Red is made by Acme.", "PROVIDED_BY", episodes=[first.uuid]),
    ]
    first.entity_edges = [facts[0].uuid, facts[2].uuid]
    second.entity_edges = [facts[0].uuid, facts[1].uuid]
    pairs = [(first, red), (first, acme), (first, vision), (second, red), (second, blue)]
    mentions = [link(EpisodicEdge, one, other) for one, other in [*pairs, (second, vision)]]
    return World([red, blue, acme, vision], facts, [first, second], mentions)


def filled(driver: Any, group: str = "g") -> World:
    """The small graph, written by Graphiti's own bulk call."""
    sample = world(group)
    work = add_nodes_and_edges_bulk(
        driver, sample.episodes, sample.mentions, sample.nodes, sample.facts, Vectors()
    )
    event_loop.run(work)
    settle(driver)
    return sample


def plain(item: Any) -> dict[str, Any]:
    """All fields of a node or an edge that every driver stores, but its vector; labels sorted."""
    excluded = {"name_embedding", "fact_embedding", "episode_metadata", "labels"}
    labels = sorted(item.labels) if isinstance(item, EntityNode) else []
    return item.model_dump(exclude=excluded) | {"labels": labels}


def same(actual: Any, expected: Any) -> bool:
    by_uuid = {item.uuid: plain(item) for item in expected}
    return {item.uuid: plain(item) for item in actual} == by_uuid


def close_to(actual: dict[str, list[float]], expected: dict[str, list[float]]) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[key] == pytest.approx(expected[key], abs=1e-6) for key in expected
    )


async def counted(driver: Any, group: str = "g") -> list[int]:
    """The number of nodes and edges of every kind."""
    counts = [
        len(await kind.get_by_group_ids(driver, [group]))
        for kind in (EntityNode, EpisodicNode, CommunityNode, SagaNode)
    ]
    for kind in (EntityEdge, EpisodicEdge, CommunityEdge, HasEpisodeEdge, NextEpisodeEdge):
        counts.append(0)
        with suppress(GroupsEdgesNotFoundError):
            counts[-1] = len(await kind.get_by_group_ids(driver, [group]))
    return counts


# reading and writing


def test_indices_can_be_built_again(driver: Any) -> None:
    client = graphiti(driver)
    event_loop.run(client.build_indices_and_constraints())
    event_loop.run(client.build_indices_and_constraints())
    assert driver.provider is GraphProvider.NEO4J


def test_what_graphiti_writes_in_bulk_is_read_back_equal(driver: Any) -> None:
    sample = filled(driver)
    assert same(event_loop.run(EntityNode.get_by_group_ids(driver, ["g"])), sample.nodes)
    assert same(event_loop.run(EntityEdge.get_by_group_ids(driver, ["g"])), sample.facts)
    assert same(event_loop.run(EpisodicNode.get_by_group_ids(driver, ["g"])), sample.episodes)
    assert same(event_loop.run(EpisodicEdge.get_by_group_ids(driver, ["g"])), sample.mentions)


def test_vectors_are_read_back_equal(driver: Any) -> None:
    sample = filled(driver)
    names = event_loop.run(get_embeddings_for_nodes(driver, sample.nodes))
    facts = event_loop.run(get_embeddings_for_edges(driver, sample.facts))
    assert close_to(names, {item.uuid: item.name_embedding for item in sample.nodes})
    assert close_to(facts, {item.uuid: item.fact_embedding for item in sample.facts})


def test_all_times_and_attributes_of_a_fact_come_back(driver: Any) -> None:
    red, blue = node("Red"), node("Blue")
    times = {"invalid_at": LATER, "expired_at": LATER, "reference_time": NOW}
    more = {"attributes": {"n": 3, "x": 1.25, "is_so": True, "words": ["a", "é"]}}
    sample = fact(red, blue, "Red is faster.", **times, **more)
    event_loop.run(driver.write(Change([red, blue], [sample], group="g")))
    assert plain(event_loop.run(EntityEdge.get_by_uuid(driver, sample.uuid))) == plain(sample)


def change(group: str = "g") -> tuple[World, SagaNode, list[Any], Change]:
    sample = world(group)
    ends = {
        "first_episode_uuid": sample.episodes[0].uuid,
        "last_episode_uuid": sample.episodes[1].uuid,
    }
    saga = SagaNode(name="a.md", group_id=group, created_at=NOW, **ends)
    links = [link(HasEpisodeEdge, saga, item) for item in sample.episodes]
    links.append(link(NextEpisodeEdge, *sample.episodes))
    nodes, edges = (
        [*sample.nodes, *sample.episodes, saga],
        [*sample.facts, *sample.mentions, *links],
    )
    return sample, saga, links, Change(nodes, edges, group=group, metadata={"embedder": "hash"})


def test_a_change_is_read_back_equal_by_graphiti(driver: Any) -> None:
    sample, saga, links, given = change()
    event_loop.run(driver.write(given))
    assert same(event_loop.run(EntityNode.get_by_group_ids(driver, ["g"])), sample.nodes)
    assert same(event_loop.run(EntityEdge.get_by_group_ids(driver, ["g"])), sample.facts)
    assert same(event_loop.run(EpisodicNode.get_by_group_ids(driver, ["g"])), sample.episodes)
    assert same(event_loop.run(SagaNode.get_by_group_ids(driver, ["g"])), [saga])
    assert same(event_loop.run(HasEpisodeEdge.get_by_group_ids(driver, ["g"])), links[:2])
    assert same(event_loop.run(NextEpisodeEdge.get_by_group_ids(driver, ["g"])), links[2:])


def test_around_returns_facts_mentions_and_the_embedder(driver: Any) -> None:
    sample, _, _, given = change()
    event_loop.run(driver.write(given))
    results = event_loop.run(driver.around("g", [sample.nodes[0].uuid]))
    assert same(results.facts, [sample.facts[0], sample.facts[2]])
    assert same(results.mentions, [sample.mentions[0], sample.mentions[3]])
    assert dict(results.metadata) == {"embedder": "hash"}
    assert not event_loop.run(driver.around("other", [])).metadata


def test_a_node_without_a_vector_keeps_the_stored_one_and_is_else_written_whole(
    driver: Any,
) -> None:
    sample, _, _, given = change()
    event_loop.run(driver.write(given))
    bare = sample.nodes[1].model_copy(update={"name_embedding": None, "attributes": {"size": 2}})
    event_loop.run(driver.write(Change([bare], group="g")))
    results = event_loop.run(EntityNode.get_by_uuid(driver, bare.uuid))
    assert results.attributes == {"size": 2}
    vectors = event_loop.run(get_embeddings_for_nodes(driver, [bare]))
    assert close_to(vectors, {bare.uuid: sample.nodes[1].name_embedding})


def test_what_a_change_deletes_is_gone(driver: Any) -> None:
    sample, _, _, given = change()
    event_loop.run(driver.write(given))
    gone = Change(
        deleted_nodes=[sample.nodes[3].uuid], deleted_edges=[sample.facts[2].uuid], group="g"
    )
    event_loop.run(driver.write(gone))
    assert event_loop.run(counted(driver)) == [3, 2, 0, 1, 0, 4, 0, 2, 1]
    with pytest.raises(NodeNotFoundError):
        event_loop.run(EntityNode.get_by_uuid(driver, sample.nodes[3].uuid))
    with pytest.raises(EdgeNotFoundError):
        event_loop.run(EntityEdge.get_by_uuid(driver, sample.facts[2].uuid))


def test_a_change_that_fails_leaves_nothing(driver: Any) -> None:
    async def fails() -> None:
        async with driver.write_transaction("g"):
            await driver.write(change()[3])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        event_loop.run(fails())
    assert event_loop.run(counted(driver)) == [0] * 9
    assert not event_loop.run(driver.around("g", [])).metadata


# search

QUERY = "Which models support vision?"
RERANKERS = ("RRF", "MMR", "CROSS_ENCODER", "NODE_DISTANCE", "EPISODE_MENTIONS")


def search(driver: Any, recipe: str, query: str = QUERY, **more: Any) -> Any:
    config = getattr(recipes, recipe).model_copy(deep=True, update={"limit": more.pop("limit", 5)})
    groups = more.pop("groups", ["g"])
    return event_loop.run(graphiti(driver).search_(query, config, groups, **more))


def with_community(driver: Any) -> tuple[World, CommunityNode]:
    sample = filled(driver)
    text = "Models with vision"
    given = {"summary": "Red and Blue, and what they see.", "name_embedding": vector(text)}
    community = CommunityNode(name=text, group_id="g", created_at=NOW, **given)
    event_loop.run(community.save(driver))
    for member in sample.nodes[:2]:
        event_loop.run(link(CommunityEdge, community, member).save(driver))
    settle(driver)
    return sample, community


def test_every_recipe_finds_the_fact(driver: Any) -> None:
    sample = filled(driver)
    for name in RERANKERS:
        results = search(
            driver, f"EDGE_HYBRID_SEARCH_{name}", center_node_uuid=sample.nodes[0].uuid
        )
        assert "vision" in results.edges[0].fact, name
        assert len(results.edge_reranker_scores) == len(results.edges) or name == "NODE_DISTANCE"


def test_every_recipe_finds_the_entity(driver: Any) -> None:
    sample = filled(driver)
    for name in RERANKERS:
        results = search(
            driver, f"NODE_HYBRID_SEARCH_{name}", "Vision", center_node_uuid=sample.nodes[3].uuid
        )
        assert "Vision" in [item.name for item in results.nodes], name
        assert results.nodes[0].name == "Vision" or name == "EPISODE_MENTIONS"
        assert results.node_reranker_scores == sorted(results.node_reranker_scores, reverse=True)


def test_every_recipe_finds_the_community(driver: Any) -> None:
    _, community = with_community(driver)
    for name in RERANKERS[:3]:
        results = search(driver, f"COMMUNITY_HYBRID_SEARCH_{name}", "models with vision")
        assert same(results.communities, [community]), name


def test_every_combined_recipe_finds_all_four_kinds(driver: Any) -> None:
    with_community(driver)
    for name in RERANKERS[:3]:
        results = search(driver, f"COMBINED_HYBRID_SEARCH_{name}", "Red models with vision")
        assert results.edges and results.nodes and results.episodes and results.communities, name


def test_node_distance_ranks_near_entities_first(driver: Any) -> None:
    sample = filled(driver)
    near = {"center_node_uuid": sample.nodes[1].uuid}
    results = search(driver, "EDGE_HYBRID_SEARCH_NODE_DISTANCE", "Red Blue vision Acme", **near)
    assert results.edges[0].fact == "Blue does not support vision."
    results = search(driver, "NODE_HYBRID_SEARCH_NODE_DISTANCE", "Red Blue Acme Vision", **near)
    assert [item.name for item in results.nodes][:2] == ["Blue", "Vision"]


def test_episode_mentions_ranks_frequent_entities_first(driver: Any) -> None:
    filled(driver)
    results = search(driver, "EDGE_HYBRID_SEARCH_EPISODE_MENTIONS", "Red Blue vision Acme")
    assert results.edges[0].fact == "Red supports vision."
    results = search(driver, "NODE_HYBRID_SEARCH_EPISODE_MENTIONS", "Red Blue Acme Vision")
    assert {item.name for item in results.nodes[:2]} == {"Red", "Vision"}


def test_the_scores_of_search_methods_are_recorded(driver: Any) -> None:
    sample = filled(driver)

    async def scores_of_search() -> dict[str, dict[str, float]]:
        SCORES.set(scores := {})
        config = recipes.EDGE_HYBRID_SEARCH_RRF.model_copy(deep=True)
        await graphiti(driver).search_("Red supports vision.", config, ["g"])
        return scores

    scores = event_loop.run(scores_of_search())[sample.facts[0].uuid]
    assert scores["vector"] == pytest.approx(1, abs=1e-4)
    assert scores["full_text"] > 0


@pytest.fixture
def crowd(driver: Any) -> EntityEdge:
    """300 facts in the same words; one is of another kind, time, group and type of ends."""
    red, blue, rare = node("Red"), node("Blue"), node("Red", label="Rare", group="h")
    facts = [fact(red, blue, "Red is faster than Blue.") for _ in range(299)]
    other = {"valid_at": LATER, "group_id": "h"}
    one = fact(rare, rare, "Red is faster than Blue.", "RARE", **other)
    nodes, edges = [red, blue, rare], [*facts[:200], one, *facts[200:]]
    event_loop.run(add_nodes_and_edges_bulk(driver, [], [], nodes, edges, Vectors()))
    event_loop.run(
        driver.write(Change(group="g"))
    )  # where there are vector indices, they are built
    settle(driver)
    return one


def test_filters_come_before_the_limit(driver: Any, crowd: EntityEdge) -> None:
    after = DateFilter(date=NOW, comparison_operator=ComparisonOperator.greater_than)
    either = {"groups": ["g", "h"], "limit": 1}
    filters = (
        SearchFilters(edge_types=["RARE"]),
        SearchFilters(valid_at=[[after]]),
        SearchFilters(node_labels=["Rare"]),
        SearchFilters(edge_uuids=[crowd.uuid]),
    )
    for name in ("RRF", "CROSS_ENCODER"):
        recipe = f"EDGE_HYBRID_SEARCH_{name}"
        for item in filters:
            results = search(driver, recipe, "Red is faster", search_filter=item, **either)
            assert [edge.uuid for edge in results.edges] == [crowd.uuid], item
        results = search(driver, recipe, "Red is faster", groups=["h"], limit=1)
        assert [edge.uuid for edge in results.edges] == [crowd.uuid]


def test_a_filter_that_nothing_passes_finds_nothing(driver: Any, crowd: EntityEdge) -> None:
    nothing = SearchFilters(edge_types=["NO_SUCH"])
    results = search(driver, "EDGE_HYBRID_SEARCH_RRF", "Red is faster", search_filter=nothing)
    assert results.edges == []
    assert search(driver, "EDGE_HYBRID_SEARCH_RRF", "Red is faster", groups=["i"]).edges == []


def test_entities_are_filtered_by_label_before_the_limit(driver: Any) -> None:
    alike = [node("Red one") for _ in range(60)]
    alike.insert(30, node("Red one", label="Rare"))
    event_loop.run(add_nodes_and_edges_bulk(driver, [], [], alike, [], Vectors()))
    settle(driver)
    rare = SearchFilters(node_labels=["Rare"])
    for name in ("RRF", "MMR"):
        recipe = f"NODE_HYBRID_SEARCH_{name}"
        results = search(driver, recipe, "Red one", search_filter=rare, limit=1)
        assert [item.uuid for item in results.nodes] == [alike[30].uuid]


SYNTAX = (
    'a" OR NEAR(b) AND NOT *',
    "MATCH (n) DETACH DELETE n",
    "'; DROP TABLE nodes; --",
    "fact:* name:[a TO z] ~2 ^3 && || ! \\",
    "(((",
    "*:*",
    '"',
    "-- ?",
    "AND",
    "\x00\n\t",
    "$words {uuid: 1} `x`",
    "Ünïcödé 日本語 \U0001f600",
)


def test_a_query_in_a_query_language_is_taken_as_plain_text(driver: Any) -> None:
    filled(driver)
    before = event_loop.run(counted(driver))
    for query in SYNTAX:
        search(driver, "COMBINED_HYBRID_SEARCH_RRF", query)
        results = search(driver, "EDGE_HYBRID_SEARCH_RRF", f"{query} Acme")
        assert "Red is made by Acme." in [item.fact for item in results.edges], query
    assert event_loop.run(counted(driver)) == before


# Graphiti's own work with the driver

NO_DUPLICATE = {"duplicate_facts": [], "contradicted_facts": []}


def test_a_triplet_is_added_without_a_language_model_if_nothing_is_similar(driver: Any) -> None:
    client = graphiti(driver)
    red, acme = node("Red"), node("Acme", label="Provider")
    event_loop.run(client.add_triplet(red, fact(red, acme, "Acme makes Red."), acme))
    assert event_loop.run(counted(driver))[:5] == [2, 0, 0, 0, 1]
    assert client.llm_client.requests == []


def test_a_triplet_can_end_a_fact(driver: Any) -> None:
    sample = filled(driver)
    answer = {"EdgeDuplicate": {"duplicate_facts": [], "contradicted_facts": [0]}}
    client = graphiti(driver, **answer)
    new = fact(sample.nodes[1], sample.nodes[3], "Blue supports vision now.", valid_at=LATER)
    done = event_loop.run(client.add_triplet(sample.nodes[1], new, sample.nodes[3]))
    assert client.llm_client.requests == ["EdgeDuplicate"]
    ended = event_loop.run(EntityEdge.get_by_uuid(driver, done.edges[1].uuid))
    assert ended.fact == "Blue does not support vision." and ended.invalid_at == LATER


ANSWERS: dict[str, Any] = {
    "ExtractedEntities": {
        "extracted_entities": [
            {"name": "Green", "entity_type_id": 0},
            {"name": "Acme", "entity_type_id": 0},
        ]
    },
    "ExtractedEdges": {
        "edges": [
            {
                "source_entity_name": "Acme",
                "target_entity_name": "Green",
                "relation_type": "MAKES",
                "fact": "Acme makes Green.",
            }
        ]
    },
    "NodeResolutions": {"entity_resolutions": []},
    "EdgeDuplicate": NO_DUPLICATE,
    "EdgeTimestamps": {"valid_at": None, "invalid_at": None},
    "BatchEdgeTimestamps": {"timestamps": [{"valid_at": None, "invalid_at": None}]},
    "SummarizedEntities": {"summaries": []},
    "Summary": {"summary": "Models."},
    "SummaryDescription": {"description": "Models"},
    "SagaSummary": {"summary": "What was said."},
}


def test_graphiti_adds_episodes_to_a_saga(driver: Any) -> None:
    client = graphiti(driver, **ANSWERS)
    for text in ("Acme makes Green.", "Acme still makes Green."):
        given = {"source_description": "a test", "reference_time": NOW, "group_id": "g"}
        done = event_loop.run(client.add_episode(text, text, saga="talk", **given))
    (saga,) = event_loop.run(SagaNode.get_by_group_ids(driver, ["g"]))
    assert saga.name == "talk" and saga.last_episode_uuid == done.episode.uuid
    assert event_loop.run(counted(driver)) == [2, 2, 0, 1, 1, 4, 0, 2, 1]
    (one,) = event_loop.run(EntityEdge.get_by_group_ids(driver, ["g"]))
    assert one.fact == "Acme makes Green." and len(one.episodes) == 2


def test_the_episodes_of_a_saga_are_in_order_and_end_at_a_time(driver: Any) -> None:
    saga = SagaNode(name="talk", group_id="g", created_at=NOW)
    days = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    episodes = [episode(f"On day {day.day}.").model_copy(update={"valid_at": day}) for day in days]
    for item in (saga, *episodes, episode("In no saga.")):
        event_loop.run(item.save(driver))
    for item in episodes:
        event_loop.run(link(HasEpisodeEdge, saga, item).save(driver))
    client = graphiti(driver)
    results = event_loop.run(client.retrieve_episodes(days[1], 5, ["g"], saga="talk"))
    assert [item.content for item in results] == ["On day 1.", "On day 2."]
    results = event_loop.run(client.retrieve_episodes(LATER, 2, ["g"], saga="talk"))
    assert [item.content for item in results] == ["On day 2.", "On day 3."]


def test_graphiti_summarizes_a_saga(driver: Any) -> None:
    _, saga, _, given = change()
    event_loop.run(driver.write(given))
    event_loop.run(graphiti(driver, **ANSWERS).summarize_saga(saga.uuid))
    results = event_loop.run(SagaNode.get_by_uuid(driver, saga.uuid))
    assert results.summary == "What was said."


def test_communities_are_built_and_removed(driver: Any) -> None:
    sample = filled(driver)
    clusters = event_loop.run(get_community_clusters(driver, ["g"]))
    assert {item.uuid for some in clusters for item in some} == {item.uuid for item in sample.nodes}
    built, members = event_loop.run(graphiti(driver, **ANSWERS).build_communities(["g"]))
    assert event_loop.run(counted(driver)) == [4, 2, len(built), 0, 3, 6, 4, 0, 0]
    assert same(event_loop.run(CommunityNode.get_by_group_ids(driver, ["g"])), built)
    assert same(event_loop.run(CommunityEdge.get_by_group_ids(driver, ["g"])), members)
    (mine,) = event_loop.run(get_communities_by_nodes(driver, sample.nodes[:1]))
    assert mine.uuid in {item.source_node_uuid for item in members}
    event_loop.run(remove_communities(driver, ["g"]))
    assert event_loop.run(counted(driver)) == [4, 2, 0, 0, 3, 6, 0, 0, 0]


def test_graphiti_removes_an_episode_and_keeps_the_facts_of_another(driver: Any) -> None:
    sample = filled(driver)
    event_loop.run(graphiti(driver, **ANSWERS).remove_episode(sample.episodes[0].uuid))
    facts = event_loop.run(EntityEdge.get_by_group_ids(driver, ["g"]))
    assert {item.fact for item in facts} == {item.fact for item in sample.facts[:2]}
    assert all(item.episodes == [sample.episodes[1].uuid] for item in facts)
    names = event_loop.run(EntityNode.get_by_group_ids(driver, ["g"]))
    assert {item.name for item in names} == {"Red", "Blue", "Vision"}


def test_clearing_one_group_leaves_the_other(driver: Any) -> None:
    filled(driver)
    other = filled(driver, "h")
    event_loop.run(clear_data(driver, ["g"]))
    assert event_loop.run(counted(driver)) == [0] * 9
    assert event_loop.run(counted(driver, "h")) == [4, 2, 0, 0, 3, 6, 0, 0, 0]
    settle(driver)
    results = search(driver, "EDGE_HYBRID_SEARCH_RRF", groups=["g", "h"])
    assert {item.uuid for item in results.edges} <= {item.uuid for item in other.facts}


# several processes, and killed ones


def run_child(code: str, opener: Callable[[], Any], **more: str) -> "subprocess.Popen[str]":
    """Start Python with `driver` open on the same graph."""
    driver = opener()
    if hasattr(driver, "uri"):
        auth = os.environ.get("NEO4J_PASSWORD", "")
        begin = (
            "from ftlab_kit.graphs.drivers import neo4j\n"
            f"driver = neo4j.Driver({driver.uri!r}, 'neo4j', {auth!r})\n"
            "event_loop.run(driver.prepare(384))\n"
        )
    else:
        begin = (
            "from pathlib import Path\nfrom ftlab_kit.graphs.drivers import sqlite\n"
            f"driver = sqlite.Driver(Path({str(driver.path)!r}))\n"
        )
    head = "import warnings\nwarnings.simplefilter('ignore')\n"
    head += "from ftlab_kit.graphs import event_loop\n"
    off = {"GRAPHITI_TELEMETRY_ENABLED": "false", "PYTHON_DOTENV_DISABLED": "true"}
    return subprocess.Popen(
        [sys.executable, "-c", head + begin + code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | off | more,
        cwd=Path(__file__).parent.parent,
    )


WRITES = """
import itertools
from tests.test_graph_drivers import NOW, Change, episode, link, HasEpisodeEdge, SagaNode
for number in itertools.count():
    saga = SagaNode(name=str(number), group_id="g", created_at=NOW)
    chunks = [episode(f"Chunk {at} of document {number}.") for at in range(20)]
    links = [link(HasEpisodeEdge, saga, chunk) for chunk in chunks]
    event_loop.run(driver.write(Change([saga, *chunks], links, group="g")))
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_and_leaves_no_half_change(opener: Callable[[], Any]) -> None:
    child = run_child(WRITES, opener)
    assert child.stdout
    with child, child.stdout:
        printed = [int(child.stdout.readline()) for _ in range(8)]
        child.kill()
        printed += [int(line) for line in child.stdout if line.endswith("\n")]
    driver = opener()
    sagas = event_loop.run(SagaNode.get_by_group_ids(driver, ["g"]))
    assert {saga.name for saga in sagas} >= set(map(str, printed))
    links = event_loop.run(HasEpisodeEdge.get_by_group_ids(driver, ["g"]))
    counts = [[one.source_node_uuid for one in links].count(saga.uuid) for saga in sagas]
    assert set(counts) == {20}
    assert len(event_loop.run(EpisodicNode.get_by_group_ids(driver, ["g"]))) == 20 * len(sagas)


def test_a_reopened_graph_is_complete(opener: Callable[[], Any]) -> None:
    sample = filled(opener())
    again = opener()
    assert same(event_loop.run(EntityEdge.get_by_group_ids(again, ["g"])), sample.facts)
    results = search(again, "EDGE_HYBRID_SEARCH_RRF")
    assert "vision" in results.edges[0].fact


def test_the_write_of_another_driver_is_found_at_once(opener: Callable[[], Any]) -> None:
    one, other = opener(), opener()
    assert search(other, "EDGE_HYBRID_SEARCH_RRF").edges == []
    event_loop.run(one.write(change()[3]))
    for recipe in ("EDGE_HYBRID_SEARCH_RRF", "EDGE_HYBRID_SEARCH_MMR"):
        assert "vision" in search(other, recipe).edges[0].fact


# the file


def open_file(path: Path) -> Any:
    from ftlab_kit.graphs.drivers import sqlite

    return sqlite.Driver(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    event_loop.run(open_file(path).close())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(Conflict, match="has schema 99; this kit supports .* Install the newer kit"):
        open_file(path)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.db").write_text("# Notes\n" * 1000)
    with pytest.raises(InputError, match="is not a graph of this kit .*Move it away"):
        open_file(tmp_path / "graph.db")


def test_a_path_that_is_a_folder_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="can't be used now: unable to open database file"):
        open_file(tmp_path)


def test_a_full_disk_is_reported_and_leaves_no_half_change(small_disk: Path) -> None:
    driver = open_file(small_disk / "graph.db")
    event_loop.run(driver.write(change()[3]))
    fill(small_disk, but_bytes=2**16)
    long = [episode("x" * 100_000 + str(uuid4())) for _ in range(20)]
    with pytest.raises(Unavailable, match="Is the disk full"):
        event_loop.run(driver.write(Change(long, group="g")))
    assert event_loop.run(counted(driver))[1] == 2
    (small_disk / "ballast").unlink()
    event_loop.run(driver.write(Change(long, group="g")))
    event_loop.run(driver.close())


def test_cypher_is_refused(tmp_path: Path) -> None:
    driver = open_file(tmp_path / "graph.db")
    with pytest.raises(InputError, match="does not run Cypher: 'MATCH .n. RETURN n'"):
        event_loop.run(driver.execute_query("MATCH (n) RETURN n"))
    event_loop.run(driver.close())


def test_an_attribute_that_json_can_not_hold_is_refused(tmp_path: Path) -> None:
    driver = open_file(tmp_path / "graph.db")
    odd = node("Red", attributes={"odd": {1, 2}})
    with pytest.raises(InputError, match="can't be an attribute"):
        event_loop.run(odd.save(driver))
    event_loop.run(driver.close())
