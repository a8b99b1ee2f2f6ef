"""Finding in Neo4j: full text and vectors by its indices, every filter before the limit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphiti_core.driver.driver import GraphProvider
from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.edges import (
    EntityEdge,
    get_entity_edge_from_record,
)
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


class Where(NamedTuple):
    """Where vectors are compared: an index, how it is asked, and what it is of."""

    name: str
    on: str
    call: str
    yields: str
    thing: str
    vector: str
    match: str
    ends: str


NAMES = Where(
    name="ftlab_names",
    on="FOR (n:Entity) ON (n.name_embedding)",
    call="queryNodes",
    yields="node",
    thing="n",
    vector="name_embedding",
    match="(n:Entity)",
    ends="",
)
FACTS = Where(
    name="ftlab_facts",
    on="FOR ()-[n:RELATES_TO]-() ON (n.fact_embedding)",
    call="queryRelationships",
    yields="relationship",
    thing="e",
    vector="fact_embedding",
    match="(n:Entity)-[e:RELATES_TO]->(m:Entity)",
    ends="WITH e, score, startNode(e) AS n, endNode(e) AS m",
)
INDICES = {where.name: where.on for where in (NAMES, FACTS)}
MOST_ASKED = 5000  # of an index; beyond, comparing what passes is faster


# as Graphiti returns them, but without the vectors, which would be most of what is sent
FACT = get_entity_edge_return_query(GraphProvider.NEO4J).replace(
    "properties(e) AS", "e {.*, fact_embedding: null} AS"
)
ENTITY = get_entity_node_return_query(GraphProvider.NEO4J).replace(
    "properties(n) AS", "n {.*, name_embedding: null} AS"
)


class SearchMixin(SearchInterface):
    """The best of what passes the filters; what is not here Graphiti asks in its own Cypher."""

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
            "CALL db.index.fulltext.queryRelationships('edge_name_and_fact', $words, $most) "
            "YIELD relationship AS e, score "
            "WITH e, score, startNode(e) AS n, endNode(e) AS m",
            (query, group_ids, limit),
            edge_search_filter_query_constructor(search_filter, driver.provider),
            FACT,
        )
        return _noted("full_text", records, edge)

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
            "CALL db.index.fulltext.queryNodes('node_name_and_summary', $words, $most) "
            "YIELD node AS n, score WITH n, score",
            (query, group_ids, limit),
            node_search_filter_query_constructor(search_filter, driver.provider),
            ENTITY,
        )
        return _noted("full_text", records, _node)

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
            "CALL db.index.fulltext.queryNodes('episode_content', $words, $most) "
            "YIELD node AS e, score WITH e, score",
            (query, group_ids, limit),
            ([], {}),
            EPISODIC_NODE_RETURN,
        )
        return _noted("full_text", records, get_episodic_node_from_record)

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
        """Return facts by the cosine of their vectors; `min_score` is of (1 + cosine) / 2."""
        wanted, values = edge_search_filter_query_constructor(search_filter, driver.provider)
        for end, uuid in (("n", source_node_uuid), ("m", target_node_uuid)):
            if uuid:
                wanted.append(f"{end}.uuid = ${end}_uuid")
                values[f"{end}_uuid"] = uuid
        asked = (search_vector, group_ids, limit, min_score)
        nearest = await _nearest(driver, FACTS, asked, (wanted, values))
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
        chosen = node_search_filter_query_constructor(search_filter, driver.provider)
        asked = (search_vector, group_ids, limit, min_score)
        nearest = await _nearest(driver, NAMES, asked, chosen)
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
    asked: tuple[str, list[str] | None, int],
    chosen: tuple[list[str], Mapping[str, Any]],
    wanted: str,
) -> list[Any]:
    """Ask a full-text index. Its own limit would come before a filter: it is left out then."""
    query, group_ids, limit = asked
    words = fulltext_query(query, group_ids, driver)
    if not words:
        return []
    conditions, values = chosen
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    records, _, _ = await driver.execute_query(
        f"{call} {where} WITH * ORDER BY score DESC LIMIT $limit RETURN score, {wanted}",
        words=words,
        most={} if conditions else {"limit": limit},
        limit=limit,
        routing_="r",
        **values,
    )
    return list(records)


async def _nearest(
    driver: Any,
    where: "Where",
    asked: tuple[list[float], list[str] | None, int, float],
    chosen: tuple[list[str], Mapping[str, Any]],
) -> list[tuple[str, float]]:
    """Return uuids with (1 + cosine) / 2 of what passes.

    An index knows no filter: it is asked for more until enough of what it finds passes. Where a
    filter lets so little through that the index does not help, what passes is compared itself.
    """
    vector, group_ids, limit, least = asked
    if not any(vector):
        return []  # of nothing: the server has no cosine for it
    conditions = list(chosen[0])
    values = {**chosen[1], "vector": vector}
    if group_ids is not None:
        conditions.append(f"{where.thing}.group_id IN $group_ids")
        values["group_ids"] = group_ids
    passes = " AND ".join(f"({item})" for item in conditions) or "true"
    most = 4 * limit
    while most <= MOST_ASKED and await driver.has_index():
        query = (
            f"CALL db.index.vector.{where.call}($index, $most, $vector) "
            f"YIELD {where.yields} AS {where.thing}, score {where.ends} "
            f"RETURN {where.thing}.uuid AS uuid, score, coalesce({passes}, false) AS passes "
            "ORDER BY score DESC, uuid"
        )
        more = {"index": where.name, "most": most, "routing_": "r"}
        records, _, _ = await driver.execute_query(query, **more, **values)
        found = [(record["uuid"], record["score"]) for record in records if record["passes"]]
        if len(found) >= limit or len(records) < most:
            return [item for item in found[:limit] if item[1] > least]
        most *= 8
    query = (
        f"MATCH {where.match} WHERE {where.thing}.{where.vector} IS NOT NULL AND {passes} "
        f"WITH {where.thing}, vector.similarity.cosine({where.thing}.{where.vector}, $vector) "
        f"AS score WHERE score > $least RETURN {where.thing}.uuid AS uuid, score "
        "ORDER BY score DESC, uuid LIMIT $limit"
    )
    more = {"least": least, "limit": limit, "routing_": "r"}
    records, _, _ = await driver.execute_query(query, **more, **values)
    return [(record["uuid"], record["score"]) for record in records]


def _noted(method: str, records: Iterable[Any], make: Any) -> list[Any]:
    made = []
    for record in records:
        values = dict(record)
        record_score(method, values["uuid"], values.pop("score"))
        made.append(make(values))
    return made


def _in_order(nearest: Sequence[tuple[str, float]], found: Iterable[Any]) -> list[Any]:
    by_uuid = {item.uuid: item for item in found}
    kept = [(uuid, score) for uuid, score in nearest if uuid in by_uuid]
    for uuid, score in kept:
        record_score("vector", uuid, 2 * score - 1)
    return [by_uuid[uuid] for uuid, _ in kept]
