"""Finding, as Graphiti asks for it: its SearchInterface over FTS5, vectors and edges.

Every filter is applied before the limit: what is returned are the best of those that pass, as many
as were asked for. What each method computes for each find is also kept in `protocol.SCORES`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphiti_core.driver.search_interface.search_interface import SearchInterface
from graphiti_core.search.search_filters import ComparisonOperator, SearchFilters
from graphiti_core.search.search_utils import rrf

from ftlab_kit.graphs.drivers.protocol import record_score
from ftlab_kit.graphs.drivers.sqlite import row_codec, tables

if TYPE_CHECKING:
    from ftlab_kit.graphs.drivers.sqlite import Driver

MOST_WORDS = 128
EVERYWHERE = frozenset(
    "a about an and are as at be by can did do does for from had has have how i in is it its many "
    "much of on or s than that the their there these they this to was were what when where which "
    "who whom whose why will with would you your".split()
)
DATES = ("valid_at", "invalid_at", "created_at", "expired_at")
Chosen = tuple[list[str], list[Any]]  # conditions in SQL, and their values


class SearchMixin(SearchInterface):
    """The best of what passes the filters, by words, by vectors, or by steps along the edges."""

    async def edge_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return facts by BM25 of their sentences."""
        found = _by_words(driver, tables.FACT_WORDS, query, _facts(search_filter, group_ids), limit)
        return _edges(driver, "full_text", found)

    async def node_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return entities by BM25 of name and summary."""
        chosen = _entities(search_filter, group_ids)
        return _nodes(driver, "full_text", _by_words(driver, "entity_words", query, chosen, limit))

    async def episode_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return episodes by BM25 of their text."""
        chosen = _groups("t", group_ids)
        return _nodes(driver, "full_text", _by_words(driver, "passage_words", query, chosen, limit))

    async def community_fulltext_search(
        self,
        driver: "Driver",
        query: str,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return communities by BM25 of name and summary."""
        chosen = _groups("t", group_ids)
        found = _by_words(driver, "community_words", query, chosen, limit)
        return _nodes(driver, "full_text", found)

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
        """Return facts by the cosine of their vectors; `min_score` is of (1 + cosine) / 2."""
        conditions, values = _facts(search_filter, None)
        ends = (("t.source", source_node_uuid), ("t.target", target_node_uuid))
        for column, uuid in ends:
            if uuid:
                conditions.append(f"{column} = ?")
                values.append(uuid)
        chosen = (conditions, values)
        found = _by_vector(driver, ("edges", "RELATES_TO"), search_vector, chosen, group_ids, limit)
        return _edges(driver, "vector", _above(found, min_score))

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
        chosen = _entities(search_filter, None)
        found = _by_vector(driver, ("nodes", "Entity"), search_vector, chosen, group_ids, limit)
        return _nodes(driver, "vector", _above(found, min_score))

    async def community_similarity_search(
        self,
        driver: "Driver",
        search_vector: list[float],
        group_ids: list[str] | None = None,
        limit: int = 100,
        min_score: float = 0.6,
    ) -> list[Any]:
        """Return communities by the cosine of their names' vectors."""
        nothing: Chosen = ([], [])
        found = _by_vector(driver, ("nodes", "Community"), search_vector, nothing, group_ids, limit)
        return _nodes(driver, "vector", _above(found, min_score))

    async def edge_bfs_search(
        self,
        driver: "Driver",
        bfs_origin_node_uuids: list[str] | None,
        bfs_max_depth: int,
        search_filter: SearchFilters,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return the facts on the ways that lead out of some nodes, the nearest first."""
        steps = _walk(driver, bfs_origin_node_uuids or [], bfs_max_depth)
        ways = {uuid: step for uuid, (step, _) in steps.items()}
        conditions, values = _facts(search_filter, group_ids)
        found = _passing(driver, "edges", [*conditions, "t.kind = 'RELATES_TO'"], values, ways)
        return _edges(driver, "graph", found[:limit])

    async def node_bfs_search(
        self,
        driver: "Driver",
        bfs_origin_node_uuids: list[str] | None,
        search_filter: SearchFilters,
        bfs_max_depth: int,
        group_ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return the entities that the ways out of some nodes lead to, the nearest first."""
        ways: dict[str, int] = {}
        for step, target in _walk(driver, bfs_origin_node_uuids or [], bfs_max_depth).values():
            ways[target] = min(step, ways.get(target, step))
        conditions, values = _entities(search_filter, group_ids)
        found = _passing(driver, "nodes", [*conditions, "t.kind = 'Entity'"], values, ways)
        return _nodes(driver, "graph", found[:limit])

    async def get_embeddings_for_communities(
        self, driver: "Driver", communities: list[Any]
    ) -> dict[str, list[float]]:
        """Return the vectors of communities by uuid."""
        found = driver.nodes("Community", uuid=[item.uuid for item in communities])
        vectors = {row["uuid"]: tables.numbers(row["vector"]) for row in found}
        return {uuid: vector for uuid, vector in vectors.items() if vector is not None}

    async def node_distance_reranker(
        self,
        driver: "Driver",
        node_uuids: list[str],
        center_node_uuid: str,
        min_score: float = 0,
    ) -> tuple[list[str], list[float]]:
        """Order entities as Graphiti does: the centre, its neighbours, the rest; 10, 1 and 0."""
        around = (await driver.around("", [center_node_uuid])).facts
        near = {end for edge in around for end in (edge.source_node_uuid, edge.target_node_uuid)}
        scores = {uuid: 1.0 if uuid in near else 0.0 for uuid in node_uuids}
        if center_node_uuid in scores:
            scores[center_node_uuid] = 10.0
        return _ordered(scores, min_score)

    async def episode_mentions_reranker(
        self, driver: "Driver", node_uuids: list[list[str]], min_score: float = 0
    ) -> tuple[list[str], list[float]]:
        """Order entities by how many episodes mention them."""
        known, _ = rrf(node_uuids)
        counted = Counter(row["target"] for row in driver.edges("MENTIONS", target=known))
        return _ordered({uuid: float(counted[uuid]) for uuid in known}, min_score)


def _ordered(scores: dict[str, float], least: float) -> tuple[list[str], list[float]]:
    """Return what reaches a score, the greatest first; equals stay as they came."""
    kept = [uuid for uuid in scores if scores[uuid] >= least]
    kept.sort(key=lambda uuid: -scores[uuid])
    return kept, [scores[uuid] for uuid in kept]


def words(query: str) -> str:
    """Return a query for FTS5 of any text: its words, quoted, one of which must be there.

    Words that are in every second sentence tell nothing, and would have all of them ranked.
    """
    known = list(dict.fromkeys(re.findall(r"\w+", query.casefold())))
    telling = [word for word in known if word not in EVERYWHERE] or known
    return " OR ".join(f'"{word}"' for word in telling[:MOST_WORDS])


def _by_words(
    driver: "Driver", table: str, query: str, chosen: Chosen, limit: int
) -> list[tuple[int, float]]:
    """Return ids with their BM25, of what passes, the greatest first.

    As with vectors: the best are asked whether they pass, then more, then all.
    """
    if not (match := words(query)):
        return []
    kept = "edges" if table == tables.FACT_WORDS else "nodes"
    conditions, values = chosen
    best = f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ? ORDER BY rank, rowid LIMIT ?"
    for most in (4 * limit, 32 * limit):
        near = [(row[0], row[1]) for row in driver.db.execute(best, (match, most))]
        found = _passed(driver, kept, chosen, near)
        if len(found) >= limit or len(near) < most:
            return found[:limit]
    sql = (
        f"SELECT t.id, -bm25({table}) AS score FROM {table} JOIN {kept} t ON t.id = {table}.rowid "
        f"{_ends(conditions)} WHERE {' AND '.join([f'{table} MATCH ?', *conditions])} "
        "ORDER BY score DESC, t.id LIMIT ?"
    )
    return [(row[0], row[1]) for row in driver.db.execute(sql, (match, *values, limit))]


def _passed(
    driver: "Driver", table: str, chosen: Chosen, near: Sequence[tuple[int, float]]
) -> list[tuple[int, float]]:
    """Return those of some finds that pass."""
    conditions, values = chosen
    if not conditions:
        return list(near)
    where = " AND ".join([*conditions, "t.id IN (SELECT value FROM json_each(?))"])
    sql = f"SELECT t.id FROM {table} t {_ends(conditions)} WHERE {where}"
    ids = tables.listed(number for number, _ in near)
    passing = {row[0] for row in driver.db.execute(sql, (*values, ids))}
    return [item for item in near if item[0] in passing]


def _by_vector(
    driver: "Driver",
    of: tuple[str, str],
    vector: list[float],
    chosen: Chosen,
    group_ids: list[str] | None,
    limit: int,
) -> list[tuple[int, float]]:
    """Return ids with their cosines, of what passes, the greatest first.

    The nearest are asked whether they pass, and more of them until enough do; where few pass,
    these are compared alone.
    """
    table, kind = of
    conditions, values = chosen
    known = driver.vectors(table, kind)
    if not conditions:
        return known.nearest(vector, limit, groups=group_ids)
    for most in (4 * limit, 32 * limit):
        near = known.nearest(vector, most, groups=group_ids)
        found = _passed(driver, table, chosen, near)
        if len(found) >= limit or len(near) < most:
            return found[:limit]
    where = " AND ".join([*conditions, "t.kind = ?"])
    sql = f"SELECT t.id FROM {table} t {_ends(conditions)} WHERE {where}"
    among = [row[0] for row in driver.db.execute(sql, (*values, kind))]
    return known.nearest(vector, limit, groups=group_ids, among=among)


def _above(found: list[tuple[int, float]], least: float) -> list[tuple[int, float]]:
    return [(number, cosine) for number, cosine in found if (1 + cosine) / 2 > least]


def _ends(conditions: list[str]) -> str:
    """Return the joins of a fact's two ends, where a condition is about them."""
    if not any(item.startswith("EXISTS") and "s.labels" in item for item in conditions):
        return ""
    return "JOIN nodes s ON s.uuid = t.source JOIN nodes o ON o.uuid = t.target"


def _walk(driver: "Driver", origins: Sequence[str], depth: int) -> dict[str, tuple[int, str]]:
    """Return the edges on the ways out of some nodes: uuid to step and target, each step once."""
    found: dict[str, tuple[int, str]] = {}
    edge_nodes = list(dict.fromkeys(origins))
    for step in range(1, depth + 1):
        sql = (
            "SELECT uuid, target FROM edges WHERE kind IN ('RELATES_TO', 'MENTIONS') "
            "AND source IN (SELECT value FROM json_each(?)) ORDER BY id"
        )
        out = driver.db.execute(sql, (tables.listed(edge_nodes),)).fetchall()
        new = {uuid: (step, target) for uuid, target in out if uuid not in found}
        found |= new
        edge_nodes = list(dict.fromkeys(target for _, target in new.values()))
        if not edge_nodes:
            break
    return found


def _passing(
    driver: "Driver", table: str, conditions: list[str], values: list[Any], ways: dict[str, int]
) -> list[tuple[int, float]]:
    """Return the ids of those of some uuids that pass, with their steps, the nearest first."""
    where = " AND ".join([*conditions, "t.uuid IN (SELECT value FROM json_each(?))"])
    sql = f"SELECT t.id, t.uuid FROM {table} t {_ends(conditions)} WHERE {where}"
    found = driver.db.execute(sql, (*values, tables.listed(ways)))
    steps = [(number, float(ways[uuid])) for number, uuid in found]
    return sorted(steps, key=lambda item: (item[1], item[0]))


def _edges(driver: "Driver", method: str, found: Sequence[tuple[int, float]]) -> list[Any]:
    return _things(driver, "edges", row_codec.edge, method, found)


def _nodes(driver: "Driver", method: str, found: Sequence[tuple[int, float]]) -> list[Any]:
    return _things(driver, "nodes", row_codec.node, method, found)


def _things(
    driver: "Driver",
    table: str,
    make: Callable[[row_codec.Row], Any],
    method: str,
    found: Sequence[tuple[int, float]],
) -> list[Any]:
    """Return what has these ids, in their order, and note what was computed for each."""
    sql = f"SELECT * FROM {table} WHERE id IN (SELECT value FROM json_each(?))"
    ids = tables.listed(number for number, _ in found)
    by_id = {row["id"]: dict(row) for row in driver.db.execute(sql, (ids,))}
    for number, score in found:
        record_score(method, by_id[number]["uuid"], score)
    return [make(by_id[number]) for number, _ in found]


def _groups(table: str, group_ids: list[str] | None) -> Chosen:
    if group_ids is None:
        return [], []
    return [f"{table}.group_id IN (SELECT value FROM json_each(?))"], [tables.listed(group_ids)]


def _entities(filters: SearchFilters, group_ids: list[str] | None) -> Chosen:
    """Return the conditions that a filter and groups set for entities."""
    conditions, values = _groups("t", group_ids)
    if filters.node_labels is not None:
        conditions.append(_labelled("t"))
        values.append(tables.listed(filters.node_labels))
    return conditions, values


def _labelled(table: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM json_each({table}.labels) l "
        "WHERE l.value IN (SELECT value FROM json_each(?)))"
    )


def _facts(filters: SearchFilters, group_ids: list[str] | None) -> Chosen:
    """Return the conditions that a filter and groups set for facts."""
    conditions, values = _groups("t", group_ids)
    columns = {
        "t.name": filters.edge_types,
        "t.uuid": filters.edge_uuids,
        "t.source": filters.edge_source_node_uuids,
        "t.target": filters.edge_target_node_uuids,
    }
    for column, wanted in columns.items():
        if wanted is not None:
            conditions.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(tables.listed(wanted))
    for end in ("s", "o") if filters.node_labels is not None else ():
        conditions.append(_labelled(end))
        values.append(tables.listed(filters.node_labels or ()))
    for name in DATES:
        if (either := getattr(filters, name)) is not None:
            sides = [
                " AND ".join(_date(f"t.{name}", item, values) for item in all_of)
                for all_of in either
            ]
            conditions.append(f"({' OR '.join(f'({side})' for side in sides)})")
    return conditions, values


def _date(column: str, wanted: Any, values: list[Any]) -> str:
    operator = wanted.comparison_operator
    if operator in (ComparisonOperator.is_null, ComparisonOperator.is_not_null):
        return f"{column} {operator.value}"
    values.append(tables.text(wanted.date))
    return f"{column} {operator.value} ?"
