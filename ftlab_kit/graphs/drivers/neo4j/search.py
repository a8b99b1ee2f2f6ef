"""Search in Neo4j: full text and vectors by its indices, every filter before the limit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphiti_core.driver.driver import GraphProvider
from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.edges import EntityEdge, get_entity_edge_from_record
from graphiti_core.models.edges.edge_db_queries import (
    get_entity_edge_return_query,
)
from graphiti_core.models.nodes.node_db_queries import (
    EPISODIC_NODE_RETURN,
    get_entity_node_return_query,
)
from graphiti_core.nodes import (
    EntityNode,
    get_entity_node_from_record,
    get_episodic_node_from_record,
)
from graphiti_core.search.search_filters import (
    SearchFilters,
    edge_search_filter_query_constructor,
    node_search_filter_query_constructor,
)
from graphiti_core.search.search_utils import fulltext_query

from ftlab_kit.graphs.drivers.protocol import record_score


class VectorIndex(NamedTuple):
    """A vector index, in pieces of Cypher.

    Attributes:
        definition: What follows its name in CREATE VECTOR INDEX.
        procedure: Of `db.index.vector`, which searches it.
        yields: What the procedure calls a match.
        variable: What the queries here, and Graphiti's filters, call a match.
        property: Of a match, where its vector is.
        pattern: Matches all that may be in the index.
        ends: After the procedure, binds the two ends of an edge, which filters may need.
    """

    name: str
    definition: str
    procedure: str
    yields: str
    variable: str
    property: str
    pattern: str
    ends: str


NAMES = VectorIndex(
    name="ftlab_names",
    definition="FOR (n:Entity) ON (n.name_embedding)",
    procedure="queryNodes",
    yields="node",
    variable="n",
    property="name_embedding",
    pattern="(n:Entity)",
    ends="",
)
FACTS = VectorIndex(
    name="ftlab_facts",
    definition="FOR ()-[n:RELATES_TO]-() ON (n.fact_embedding)",
    procedure="queryRelationships",
    yields="relationship",
    variable="e",
    property="fact_embedding",
    pattern="(n:Entity)-[e:RELATES_TO]->(m:Entity)",
    ends="WITH e, score, startNode(e) AS n, endNode(e) AS m",
)
INDICES = {index.name: index.definition for index in (NAMES, FACTS)}
MAX_FROM_INDEX = 5000  # beyond, comparing all rows that pass is faster

# as Graphiti returns them, but without the vectors, which would be most of the traffic
FACT = get_entity_edge_return_query(GraphProvider.NEO4J).replace(
    "properties(e) AS", "e {.*, fact_embedding: null} AS"
)
ENTITY = get_entity_node_return_query(GraphProvider.NEO4J).replace(
    "properties(n) AS", "n {.*, name_embedding: null} AS"
)


class Filter(NamedTuple):
    """Conditions in Cypher, joined by AND, and the values of their parameters."""

    conditions: list[str]
    values: Mapping[str, Any]


class Neo4jSearch(SearchInterface):
    """The best matches that pass the filters. For other searches Graphiti sends its own Cypher."""

    async def edge_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return facts by Lucene's BM25 of their sentences."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryRelationships('edge_name_and_fact', $text, $options) "
            "YIELD relationship AS e, score "
            "WITH e, score, startNode(e) AS n, endNode(e) AS m",
            query,
            Filter(*edge_search_filter_query_constructor(search_filter, driver.provider)),
            FACT,
            group_ids=group_ids,
            limit=limit,
        )
        return _decoded("full_text", records, edge)

    async def node_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return entities by Lucene's BM25 of name and summary."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryNodes('node_name_and_summary', $text, $options) "
            "YIELD node AS n, score WITH n, score",
            query,
            Filter(*node_search_filter_query_constructor(search_filter, driver.provider)),
            ENTITY,
            group_ids=group_ids,
            limit=limit,
        )
        return _decoded("full_text", records, _node)

    async def episode_fulltext_search(
        self,
        driver: Any,
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return episodes by Lucene's BM25 of their text."""
        records = await _by_words(
            driver,
            "CALL db.index.fulltext.queryNodes('episode_content', $text, $options) "
            "YIELD node AS e, score WITH e, score",
            query,
            Filter([], {}),
            EPISODIC_NODE_RETURN,
            group_ids=group_ids,
            limit=limit,
        )
        return _decoded("full_text", records, get_episodic_node_from_record)

    async def edge_similarity_search(  # the signature is Graphiti's
        self,
        driver: Any,
        search_vector: list[float],
        source_node_uuid: str | None,
        target_node_uuid: str | None,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return facts by the cosine of their vectors; `min_score` is a (1 + cosine) / 2."""
        conditions, values = edge_search_filter_query_constructor(search_filter, driver.provider)
        for end, uuid in (("n", source_node_uuid), ("m", target_node_uuid)):
            if uuid:
                conditions.append(f"{end}.uuid = ${end}_uuid")
                values[f"{end}_uuid"] = uuid
        nearest = await _nearest(
            driver,
            FACTS,
            search_vector,
            Filter(conditions, values),
            group_ids=group_ids,
            limit=limit,
            min_score=min_score,
        )
        records, _, _ = await driver.execute_query(
            f"MATCH (n:Entity)-[e:RELATES_TO]->(m:Entity) WHERE e.uuid IN $uuids RETURN {FACT}",
            uuids=[uuid for uuid, _ in nearest],
            routing_="r",
        )
        return _in_order(nearest, map(edge, records))

    async def node_similarity_search(
        self,
        driver: Any,
        search_vector: list[float],
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return entities by the cosine of their names' vectors."""
        nearest = await _nearest(
            driver,
            NAMES,
            search_vector,
            Filter(*node_search_filter_query_constructor(search_filter, driver.provider)),
            group_ids=group_ids,
            limit=limit,
            min_score=min_score,
        )
        records, _, _ = await driver.execute_query(
            f"MATCH (n:Entity) WHERE n.uuid IN $uuids RETURN {ENTITY}",
            uuids=[uuid for uuid, _ in nearest],
            routing_="r",
        )
        return _in_order(nearest, map(_node, records))


def edge(record: Any) -> EntityEdge:
    """Return the fact of a record."""
    return get_entity_edge_from_record(dict(record), GraphProvider.NEO4J)


def _node(record: Any) -> EntityNode:
    return get_entity_node_from_record(dict(record), GraphProvider.NEO4J)


async def _by_words(
    driver: Any,
    call: str,
    query: str,
    passing: Filter,
    returned: str,
    *,
    group_ids: list[str] | None,
    limit: int,
) -> list[Any]:
    """Return the records of a full-text index that pass.

    The index has a limit of its own, which would apply before a filter: with one it is omitted.
    """
    lucene_query = fulltext_query(query, group_ids, driver)
    if not lucene_query:
        return []
    where = f"WHERE {' AND '.join(passing.conditions)}" if passing.conditions else ""
    records, _, _ = await driver.execute_query(
        f"{call} {where} WITH * ORDER BY score DESC LIMIT $limit RETURN score, {returned}",
        text=lucene_query,
        options={} if passing.conditions else {"limit": limit},
        limit=limit,
        routing_="r",
        **passing.values,
    )
    return list(records)


async def _nearest(
    driver: Any,
    index: VectorIndex,
    vector: list[float],
    passing: Filter,
    *,
    group_ids: list[str] | None,
    limit: int,
    min_score: float,
) -> list[tuple[str, float]]:
    """Return the nearest that pass, as uuids with (1 + cosine) / 2.

    An index has no filters: it is asked for more until enough of its matches pass. If a filter
    passes too few for that, all rows that pass are compared instead.
    """
    if not any(vector):
        return []  # the server has no cosine for a zero vector
    conditions = list(passing.conditions)
    values = {**passing.values, "vector": vector}
    if group_ids is not None:
        conditions.append(f"{index.variable}.group_id IN $group_ids")
        values["group_ids"] = group_ids
    passes = " AND ".join(f"({item})" for item in conditions) or "true"
    n_tried = 4 * limit
    while n_tried <= MAX_FROM_INDEX and await driver.has_index():
        query = (
            f"CALL db.index.vector.{index.procedure}($index, $n_tried, $vector) "
            f"YIELD {index.yields} AS {index.variable}, score {index.ends} "
            f"RETURN {index.variable}.uuid AS uuid, score, coalesce({passes}, false) AS passes "
            "ORDER BY score DESC, uuid"
        )
        options = {"index": index.name, "n_tried": n_tried, "routing_": "r"}
        records, _, _ = await driver.execute_query(query, **options, **values)
        matches = [(record["uuid"], record["score"]) for record in records if record["passes"]]
        if len(matches) >= limit or len(records) < n_tried:
            return [match for match in matches[:limit] if match[1] > min_score]
        n_tried *= 8
    stored = f"{index.variable}.{index.property}"
    query = (
        f"MATCH {index.pattern} WHERE {stored} IS NOT NULL AND {passes} "
        f"WITH {index.variable}, vector.similarity.cosine({stored}, $vector) "
        f"AS score WHERE score > $min_score RETURN {index.variable}.uuid AS uuid, score "
        "ORDER BY score DESC, uuid LIMIT $limit"
    )
    options = {"min_score": min_score, "limit": limit, "routing_": "r"}
    records, _, _ = await driver.execute_query(query, **options, **values)
    return [(record["uuid"], record["score"]) for record in records]


def _decoded(method: str, records: Iterable[Any], decode: Any) -> list[Any]:
    """Return the nodes or edges of records, and record the score of each."""
    items = []
    for record in records:
        values = dict(record)
        record_score(method, values["uuid"], values.pop("score"))
        items.append(decode(values))
    return items


def _in_order(nearest: Sequence[tuple[str, float]], items: Iterable[Any]) -> list[Any]:
    """Return nodes or edges in the order of their scores, and record the cosine of each."""
    by_uuid = {item.uuid: item for item in items}
    present = [(uuid, score) for uuid, score in nearest if uuid in by_uuid]
    for uuid, score in present:
        record_score("vector", uuid, 2 * score - 1)
    return [by_uuid[uuid] for uuid, _ in present]
