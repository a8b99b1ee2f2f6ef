"""Search for Graphiti: its SearchInterface over FTS5, vectors and edges.

Filters apply before the limit: a search returns the best rows that pass, up to the limit. The score
of each is also recorded in `protocol.SCORES`. A match is a pair of a row's id and its score.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.search.search_filters import ComparisonOperator, SearchFilters
from graphiti_core.search.search_utils import rrf

from ftlab_kit.graphs.drivers.protocol import record_score
from ftlab_kit.graphs.drivers.sqlite import row_codec, tables

if TYPE_CHECKING:
    from ftlab_kit.graphs.drivers.sqlite import Driver

MAX_QUERY_WORDS = 128
STOP_WORDS = frozenset(
    "a about an and are as at be by can did do does for from had has have how i in is it its many "
    "much of on or s than that the their there these they this to was were what when where which "
    "who whom whose why will with would you your".split()
)
DATES = ("valid_at", "invalid_at", "created_at", "expired_at")


class Filter(NamedTuple):
    """Conditions in SQL, joined by AND, and the values for their question marks."""

    conditions: list[str]
    values: list[Any]


Matches = Sequence[tuple[int, float]]  # (row id, score), the best first


class SqliteSearch(SearchInterface):
    """The best rows that pass the filters: by words, by vectors, or by steps along the edges."""

    async def edge_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return facts by BM25 of their sentences."""
        passing = _fact_filter(search_filter, group_ids)
        matches = _by_words(driver, tables.FACT_INDEX, query, passing, limit)
        return _edges(driver, "full_text", matches)

    async def node_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return entities by BM25 of name and summary."""
        passing = _entity_filter(search_filter, group_ids)
        index = tables.TEXT_INDEXES["Entity"]
        return _nodes(driver, "full_text", _by_words(driver, index, query, passing, limit))

    async def episode_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return episodes by BM25 of their text."""
        index = tables.TEXT_INDEXES["Episodic"]
        matches = _by_words(driver, index, query, _group_filter(group_ids), limit)
        return _nodes(driver, "full_text", matches)

    async def community_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return communities by BM25 of name and summary."""
        index = tables.TEXT_INDEXES["Community"]
        matches = _by_words(driver, index, query, _group_filter(group_ids), limit)
        return _nodes(driver, "full_text", matches)

    async def edge_similarity_search(  # the signature is Graphiti's
        self,
        driver: "Driver",
        search_vector: list[float],
        source_node_uuid: str | None,
        target_node_uuid: str | None,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return facts by the cosine of their vectors; `min_score` is a (1 + cosine) / 2."""
        passing = _fact_filter(search_filter, None)
        for column, uuid in (("t.source", source_node_uuid), ("t.target", target_node_uuid)):
            if uuid:
                passing.conditions.append(f"{column} = ?")
                passing.values.append(uuid)
        matches = _by_vector(
            driver, "edges", "RELATES_TO", search_vector, passing, group_ids=group_ids, limit=limit
        )
        return _edges(driver, "vector", _above(matches, min_score))

    async def node_similarity_search(
        self,
        driver: "Driver",
        search_vector: list[float],
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.7,
    ) -> list[Any]:
        """Return entities by the cosine of their names' vectors."""
        passing = _entity_filter(search_filter, None)
        matches = _by_vector(
            driver, "nodes", "Entity", search_vector, passing, group_ids=group_ids, limit=limit
        )
        return _nodes(driver, "vector", _above(matches, min_score))

    async def community_similarity_search(
        self,
        driver: "Driver",
        search_vector: list[float],
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.6,
    ) -> list[Any]:
        """Return communities by the cosine of their names' vectors."""
        every = Filter([], [])
        matches = _by_vector(
            driver, "nodes", "Community", search_vector, every, group_ids=group_ids, limit=limit
        )
        return _nodes(driver, "vector", _above(matches, min_score))

    async def edge_bfs_search(
        self,
        driver: "Driver",
        bfs_origin_node_uuids: list[str] | None,
        bfs_max_depth: int,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return the facts on the paths out of some nodes, nearest first."""
        paths = _walk(driver, bfs_origin_node_uuids or [], bfs_max_depth)
        steps = {uuid: step for uuid, (step, _) in paths.items()}
        passing = _fact_filter(search_filter, group_ids)
        passing.conditions.append("t.kind = 'RELATES_TO'")
        return _edges(driver, "graph", _by_steps(driver, "edges", passing, steps)[:limit])

    async def node_bfs_search(
        self,
        driver: "Driver",
        bfs_origin_node_uuids: list[str] | None,
        search_filter: SearchFilters,
        bfs_max_depth: int,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return the entities on the paths out of some nodes, nearest first."""
        steps: dict[str, int] = {}
        for step, target in _walk(driver, bfs_origin_node_uuids or [], bfs_max_depth).values():
            steps[target] = min(step, steps.get(target, step))
        passing = _entity_filter(search_filter, group_ids)
        passing.conditions.append("t.kind = 'Entity'")
        return _nodes(driver, "graph", _by_steps(driver, "nodes", passing, steps)[:limit])

    async def get_embeddings_for_communities(
        self, driver: "Driver", communities: list[Any]
    ) -> dict[str, list[float]]:
        """Return the vectors of communities by uuid."""
        rows = driver.nodes("Community", uuid=[item.uuid for item in communities])
        vectors = {row["uuid"]: tables.vector_floats(row["vector"]) for row in rows}
        return {uuid: vector for uuid, vector in vectors.items() if vector is not None}

    async def node_distance_reranker(
        self,
        driver: "Driver",
        node_uuids: list[str],
        center_node_uuid: str,
        min_score: float = 0,
    ) -> tuple[list[str], list[float]]:
        """Score entities as Graphiti does: the centre 10, its neighbours 1, the rest 0."""
        facts = (await driver.around("", [center_node_uuid])).facts
        near = {end for edge in facts for end in (edge.source_node_uuid, edge.target_node_uuid)}
        scores = {uuid: 1.0 if uuid in near else 0.0 for uuid in node_uuids}
        if center_node_uuid in scores:
            scores[center_node_uuid] = 10.0
        return _ordered(scores, min_score)

    async def episode_mentions_reranker(
        self, driver: "Driver", node_uuids: list[list[str]], min_score: float = 0
    ) -> tuple[list[str], list[float]]:
        """Order entities by how many episodes mention them."""
        uuids, _ = rrf(node_uuids)
        counts = Counter(row["target"] for row in driver.edges("MENTIONS", target=uuids))
        return _ordered({uuid: float(counts[uuid]) for uuid in uuids}, min_score)


def _ordered(scores: dict[str, float], min_score: float) -> tuple[list[str], list[float]]:
    """Return uuids and scores from a score on, greatest first; equal ones in their old order."""
    uuids = [uuid for uuid in scores if scores[uuid] >= min_score]
    uuids.sort(key=lambda uuid: -scores[uuid])
    return uuids, [scores[uuid] for uuid in uuids]


def fts5_query(query: str) -> str:
    """Return a query for FTS5 of any text: its words, quoted, joined by OR.

    Stop words are dropped: half of all sentences have one, and all of those would be ranked.
    """
    distinct = list(dict.fromkeys(re.findall(r"\w+", query.casefold())))
    content = [word for word in distinct if word not in STOP_WORDS] or distinct
    return " OR ".join(f'"{word}"' for word in content[:MAX_QUERY_WORDS])


def _by_words(driver: "Driver", index: str, query: str, passing: Filter, limit: int) -> Matches:
    """Return the matches of a full-text index that pass, with their BM25.

    As with vectors, the filter is tried on the best matches, then on more, then on all.
    """
    if not (match := fts5_query(query)):
        return []
    table = "edges" if index == tables.FACT_INDEX else "nodes"
    best = f"SELECT rowid, -rank FROM {index} WHERE {index} MATCH ? ORDER BY rank, rowid LIMIT ?"
    for n_tried in (4 * limit, 32 * limit):
        candidates = [(row[0], row[1]) for row in driver.db.execute(best, (match, n_tried))]
        matches = _passing(driver, table, passing, candidates)
        if len(matches) >= limit or len(candidates) < n_tried:
            return matches[:limit]
    sql = (
        f"SELECT t.id, -bm25({index}) AS score FROM {index} JOIN {table} t ON t.id = {index}.rowid "
        f"{_ends(passing)} WHERE {' AND '.join([f'{index} MATCH ?', *passing.conditions])} "
        "ORDER BY score DESC, t.id LIMIT ?"
    )
    return [(row[0], row[1]) for row in driver.db.execute(sql, (match, *passing.values, limit))]


def _passing(driver: "Driver", table: str, passing: Filter, candidates: Matches) -> Matches:
    """Return the candidates that pass."""
    if not passing.conditions:
        return candidates
    where = " AND ".join([*passing.conditions, "t.id IN (SELECT value FROM json_each(?))"])
    sql = f"SELECT t.id FROM {table} t {_ends(passing)} WHERE {where}"
    ids = tables.json_array(row_id for row_id, _ in candidates)
    passed = {row[0] for row in driver.db.execute(sql, (*passing.values, ids))}
    return [match for match in candidates if match[0] in passed]


def _by_vector(
    driver: "Driver",
    table: str,
    kind: str,
    vector: list[float],
    passing: Filter,
    *,
    group_ids: list[str] | None,
    limit: int,
) -> Matches:
    """Return the nearest vectors that pass, with their cosines.

    The filter is tried on the nearest, then on more. If few pass, only those are compared.
    """
    index = driver.vector_index(table, kind)
    if not passing.conditions:
        return index.nearest(vector, limit, groups=group_ids)
    for n_tried in (4 * limit, 32 * limit):
        candidates = index.nearest(vector, n_tried, groups=group_ids)
        matches = _passing(driver, table, passing, candidates)
        if len(matches) >= limit or len(candidates) < n_tried:
            return matches[:limit]
    where = " AND ".join([*passing.conditions, "t.kind = ?"])
    sql = f"SELECT t.id FROM {table} t {_ends(passing)} WHERE {where}"
    among = [row[0] for row in driver.db.execute(sql, (*passing.values, kind))]
    return index.nearest(vector, limit, groups=group_ids, among=among)


def _above(matches: Matches, min_score: float) -> Matches:
    return [(row_id, cosine) for row_id, cosine in matches if (1 + cosine) / 2 > min_score]


def _ends(passing: Filter) -> str:
    """Return the joins of a fact's two ends, if a condition is about them."""
    if not any(item.startswith("EXISTS") and "s.labels" in item for item in passing.conditions):
        return ""
    return "JOIN nodes s ON s.uuid = t.source JOIN nodes o ON o.uuid = t.target"


def _walk(driver: "Driver", origins: Sequence[str], depth: int) -> dict[str, tuple[int, str]]:
    """Return the edges on the paths out of some nodes: by uuid, their first step and target."""
    paths: dict[str, tuple[int, str]] = {}
    edge_nodes = list(dict.fromkeys(origins))
    for step in range(1, depth + 1):
        sql = (
            "SELECT uuid, target FROM edges WHERE kind IN ('RELATES_TO', 'MENTIONS') "
            "AND source IN (SELECT value FROM json_each(?)) ORDER BY id"
        )
        out = driver.db.execute(sql, (tables.json_array(edge_nodes),)).fetchall()
        new = {uuid: (step, target) for uuid, target in out if uuid not in paths}
        paths |= new
        edge_nodes = list(dict.fromkeys(target for _, target in new.values()))
        if not edge_nodes:
            break
    return paths


def _by_steps(driver: "Driver", table: str, passing: Filter, steps: dict[str, int]) -> Matches:
    """Return the rows that pass among some uuids, by their steps from the origin."""
    where = " AND ".join([*passing.conditions, "t.uuid IN (SELECT value FROM json_each(?))"])
    sql = f"SELECT t.id, t.uuid FROM {table} t {_ends(passing)} WHERE {where}"
    rows = driver.db.execute(sql, (*passing.values, tables.json_array(steps)))
    matches = [(row_id, float(steps[uuid])) for row_id, uuid in rows]
    return sorted(matches, key=lambda match: (match[1], match[0]))


def _edges(driver: "Driver", method: str, matches: Matches) -> list[Any]:
    return [row_codec.decode_edge(row) for row in _rows(driver, "edges", method, matches)]


def _nodes(driver: "Driver", method: str, matches: Matches) -> list[Any]:
    return [row_codec.decode_node(row) for row in _rows(driver, "nodes", method, matches)]


def _rows(driver: "Driver", table: str, method: str, matches: Matches) -> list[row_codec.Row]:
    """Return the rows of matches, in their order, and record the score of each."""
    sql = f"SELECT * FROM {table} WHERE id IN (SELECT value FROM json_each(?))"
    ids = tables.json_array(row_id for row_id, _ in matches)
    by_id = {row["id"]: dict(row) for row in driver.db.execute(sql, (ids,))}
    for row_id, score in matches:
        record_score(method, by_id[row_id]["uuid"], score)
    return [by_id[row_id] for row_id, _ in matches]


def _group_filter(group_ids: list[str] | None) -> Filter:
    if group_ids is None:
        return Filter([], [])
    groups = tables.json_array(group_ids)
    return Filter(["t.group_id IN (SELECT value FROM json_each(?))"], [groups])


def _entity_filter(filters: SearchFilters, group_ids: list[str] | None) -> Filter:
    """Return Graphiti's filter and the groups as a filter of entities."""
    conditions, values = _group_filter(group_ids)
    if filters.node_labels is not None:
        conditions.append(_labelled("t"))
        values.append(tables.json_array(filters.node_labels))
    return Filter(conditions, values)


def _labelled(table: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM json_each({table}.labels) l "
        "WHERE l.value IN (SELECT value FROM json_each(?)))"
    )


def _fact_filter(filters: SearchFilters, group_ids: list[str] | None) -> Filter:
    """Return Graphiti's filter and the groups as a filter of facts."""
    conditions, values = _group_filter(group_ids)
    columns = {
        "t.name": filters.edge_types,
        "t.uuid": filters.edge_uuids,
        "t.source": filters.edge_source_node_uuids,
        "t.target": filters.edge_target_node_uuids,
    }
    for column, allowed in columns.items():
        if allowed is not None:
            conditions.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(tables.json_array(allowed))
    for end in ("s", "o") if filters.node_labels is not None else ():
        conditions.append(_labelled(end))
        values.append(tables.json_array(filters.node_labels or ()))
    for name in DATES:
        # Graphiti's form: any of the lists, all of the tests within one
        if (any_of := getattr(filters, name)) is not None:
            alternatives = [
                " AND ".join(_date_test(f"t.{name}", test, values) for test in all_of)
                for all_of in any_of
            ]
            conditions.append(f"({' OR '.join(f'({item})' for item in alternatives)})")
    return Filter(conditions, values)


def _date_test(column: str, test: Any, values: list[Any]) -> str:
    operator = test.comparison_operator
    if operator in (ComparisonOperator.is_null, ComparisonOperator.is_not_null):
        return f"{column} {operator.value}"
    values.append(tables.format_time(test.date))
    return f"{column} {operator.value} ?"
