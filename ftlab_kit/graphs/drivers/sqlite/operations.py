"""Reads and writes for Graphiti: its GraphOperationsInterface over the tables.

The names and arguments are Graphiti's: a method each for entities, episodes, communities and sagas,
and for five kinds of edges. Here one method serves every kind, because a row knows its kind; the
lines `episodic_node_save = node_save` give it Graphiti's other names. `cls` is the class on which
the method was called, a kind of nodes or edges.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from graphiti_core.driver.graph_operations.graph_operations import GraphOperationsInterface
from graphiti_core.edges import EntityEdge
from graphiti_core.errors import EdgeNotFoundError, GroupsEdgesNotFoundError, NodeNotFoundError
from graphiti_core.nodes import EntityNode, Node
from graphiti_core.utils.maintenance.community_operations import Neighbor, label_propagation

from ftlab_kit.graphs.drivers.sqlite import row_codec, tables

if TYPE_CHECKING:
    from ftlab_kit.graphs.drivers.sqlite import Driver


class SqliteOperations(GraphOperationsInterface):
    """Nodes and edges of every kind, read and written."""

    # writing nodes

    async def node_save(self, node: Any, driver: "Driver") -> None:
        """Write a node of any kind."""
        async with driver.writing():
            driver.put_nodes([row_codec.encode_node(node)])

    episodic_node_save = node_save
    community_node_save = node_save
    saga_node_save = node_save

    async def node_save_bulk(
        self, cls: Any, driver: "Driver", tx: Any, nodes: list[Any], batch_size: int = 100
    ) -> None:
        """Write entities, given with flat attributes."""
        async with driver.writing():
            driver.put_nodes(map(row_codec.encode_entity, nodes))

    async def episodic_node_save_bulk(
        self, cls: Any, driver: "Driver", tx: Any, nodes: list[Any], batch_size: int = 100
    ) -> None:
        """Write episodes, given as dicts."""
        async with driver.writing():
            driver.put_nodes(map(row_codec.encode_episode, nodes))

    async def node_delete(self, node: Any, driver: "Driver") -> None:
        """Delete a node and its edges."""
        async with driver.writing():
            driver.drop_nodes([node.uuid])

    episodic_node_delete = node_delete
    community_node_delete = node_delete
    saga_node_delete = node_delete

    async def node_delete_by_group_id(
        self, cls: Any, driver: "Driver", group_id: str, batch_size: int = 100
    ) -> None:
        """Delete the nodes of a group; of every kind if `cls` is Node."""
        kind = None if cls is Node else row_codec.kind_of(cls, row_codec.NODES)
        async with driver.writing():
            driver.drop_nodes(row["uuid"] for row in driver.nodes(kind, group_id=[group_id]))

    episodic_node_delete_by_group_id = node_delete_by_group_id
    community_node_delete_by_group_id = node_delete_by_group_id
    saga_node_delete_by_group_id = node_delete_by_group_id

    async def node_delete_by_uuids(
        self,
        cls: Any,
        driver: "Driver",
        uuids: list[str],
        group_id: str | None = None,
        batch_size: int = 100,
    ) -> None:
        """Delete nodes by uuid, only of a group if one is given."""
        where = {"uuid": uuids} | _in_groups([group_id] if group_id else None)
        async with driver.writing():
            driver.drop_nodes(row["uuid"] for row in driver.nodes(**where))

    episodic_node_delete_by_uuids = node_delete_by_uuids
    community_node_delete_by_uuids = node_delete_by_uuids
    saga_node_delete_by_uuids = node_delete_by_uuids

    # reading nodes

    async def node_get_by_uuid(self, cls: Any, driver: "Driver", uuid: str) -> Any:
        """Return a node.

        Raises:
            NodeNotFoundError: Graphiti's own; there is no such node.
        """
        rows = driver.nodes(row_codec.kind_of(cls, row_codec.NODES), uuid=[uuid])
        if not rows:
            raise NodeNotFoundError(uuid)
        return row_codec.decode_node(rows[0])

    episodic_node_get_by_uuid = node_get_by_uuid
    community_node_get_by_uuid = node_get_by_uuid
    saga_node_get_by_uuid = node_get_by_uuid

    async def node_get_by_uuids(
        self, cls: Any, driver: "Driver", uuids: list[str], group_id: str | None = None
    ) -> list[Any]:
        """Return the nodes that exist among some uuids."""
        where = {"uuid": uuids} | _in_groups([group_id] if group_id else None)
        return list(
            map(
                row_codec.decode_node,
                driver.nodes(row_codec.kind_of(cls, row_codec.NODES), **where),
            )
        )

    episodic_node_get_by_uuids = node_get_by_uuids
    community_node_get_by_uuids = node_get_by_uuids
    saga_node_get_by_uuids = node_get_by_uuids

    async def node_get_by_group_ids(
        self,
        cls: Any,
        driver: "Driver",
        group_ids: list[str],
        limit: int | None = None,
        uuid_cursor: str | None = None,
    ) -> list[Any]:
        """Return a page of the nodes of groups, by descending uuid, from below the cursor."""
        rows = driver.nodes(row_codec.kind_of(cls, row_codec.NODES), group_id=group_ids)
        return list(map(row_codec.decode_node, _page(rows, limit, uuid_cursor)))

    episodic_node_get_by_group_ids = node_get_by_group_ids
    community_node_get_by_group_ids = node_get_by_group_ids
    saga_node_get_by_group_ids = node_get_by_group_ids

    async def node_get_by_names(
        self, cls: Any, driver: "Driver", names: list[str], group_ids: list[str]
    ) -> list[Any]:
        """Return the entities with one of these names, in upper or lower case."""
        folded = {name.casefold() for name in names}
        rows = driver.nodes("Entity", group_id=group_ids)
        return [row_codec.decode_node(row) for row in rows if row["name"].casefold() in folded]

    async def node_get_by_attribute_values(
        self,
        cls: Any,
        driver: "Driver",
        group_id: str,
        attributes: dict[str, Any],
        node_labels: list[str] | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return entities of a group with these attributes, and one of the labels."""
        nodes = map(row_codec.decode_node, driver.nodes("Entity", group_id=[group_id]))
        matches = [
            node
            for node in nodes
            if all(node.attributes.get(key) == value for key, value in attributes.items())
            and (not node_labels or set(node_labels) & set(node.labels))
        ]
        return matches[:limit]

    async def node_load_embeddings(self, node: Any, driver: "Driver") -> None:
        """Set the vector of an entity's name."""
        rows = driver.nodes("Entity", uuid=[node.uuid])
        if not rows:
            raise NodeNotFoundError(node.uuid)
        node.name_embedding = tables.vector_floats(rows[0]["vector"])

    async def community_node_load_name_embedding(self, node: Any, driver: "Driver") -> None:
        """Set the vector of a community's name."""
        rows = driver.nodes("Community", uuid=[node.uuid])
        if not rows:
            raise NodeNotFoundError(node.uuid)
        node.name_embedding = tables.vector_floats(rows[0]["vector"])

    async def node_load_embeddings_bulk(
        self, driver: "Driver", nodes: list[Any], batch_size: int = 100
    ) -> dict[str, list[float]]:
        """Return the vectors of entities by uuid."""
        return _vectors_by_uuid(driver.nodes("Entity", uuid=[node.uuid for node in nodes]))

    # episodes and sagas

    async def retrieve_episodes(
        self,
        driver: "Driver",
        reference_time: datetime,
        last_n: int = 3,
        group_ids: list[str] | None = None,
        source: Any = None,
        saga: str | None = None,
    ) -> list[Any]:
        """Return the last episodes up to a time, oldest first."""
        where = _in_groups(group_ids)
        if saga is not None:
            owners = [row["uuid"] for row in driver.nodes("Saga", name=[saga], **where)]
            links = driver.edges("HAS_EPISODE", source=owners)
            where["uuid"] = [row["target"] for row in links]
        if source is not None:
            where["source"] = [source.value]
        until = str(tables.format_time(reference_time))
        rows = [row for row in driver.nodes("Episodic", **where) if row["valid_at"] <= until]
        rows.sort(key=lambda row: (row["valid_at"], row["created_at"]))
        return list(map(row_codec.decode_node, rows[-last_n:])) if last_n > 0 else []

    async def saga_get_previous_episode_uuid(
        self, driver: "Driver", saga_uuid: str, current_episode_uuid: str
    ) -> str | None:
        """Return the newest episode of a saga other than one."""
        rows = [row for row in _episodes(driver, saga_uuid) if row["uuid"] != current_episode_uuid]
        newest = max(rows, key=lambda row: (row["valid_at"], row["created_at"]), default=None)
        return newest["uuid"] if newest else None

    async def saga_get_episode_contents(
        self,
        driver: "Driver",
        saga_uuid: str,
        since: datetime | None = None,
        limit: int = 200,
    ) -> list[tuple[str, Any, Any]]:
        """Return content and times of a saga's episodes, in the order in which they were loaded."""
        after = tables.format_time(since) or ""
        rows = [row for row in _episodes(driver, saga_uuid) if row["created_at"] > after]
        rows.sort(key=lambda row: (row["created_at"], row["valid_at"]))
        return [
            (
                row["content"],
                tables.parse_time(row["valid_at"]),
                tables.parse_time(row["created_at"]),
            )
            for row in rows[:limit]
        ]

    async def episodic_node_get_by_entity_node_uuid(
        self, cls: Any, driver: "Driver", entity_node_uuid: str
    ) -> list[Any]:
        """Return the episodes that mention an entity."""
        links = driver.edges("MENTIONS", target=[entity_node_uuid])
        return _nodes(driver, "Episodic", [row["source"] for row in links])

    async def get_mentioned_nodes(self, driver: "Driver", episodes: list[Any]) -> list[Any]:
        """Return the entities that episodes mention."""
        links = driver.edges("MENTIONS", source=[episode.uuid for episode in episodes])
        return _nodes(driver, "Entity", [row["target"] for row in links])

    # writing edges

    async def edge_save(self, edge: Any, driver: "Driver") -> None:
        """Write an edge of any kind."""
        async with driver.writing():
            driver.put_edges([row_codec.encode_edge(edge)])

    episodic_edge_save = edge_save
    community_edge_save = edge_save
    has_episode_edge_save = edge_save
    next_episode_edge_save = edge_save

    async def edge_save_bulk(
        self, cls: Any, driver: "Driver", tx: Any, edges: list[Any], batch_size: int = 100
    ) -> None:
        """Write facts, given with flat attributes."""
        async with driver.writing():
            driver.put_edges(map(row_codec.encode_fact, edges))

    async def episodic_edge_save_bulk(
        self, cls: Any, driver: "Driver", tx: Any, edges: list[Any], batch_size: int = 100
    ) -> None:
        """Write mentions, given as dicts."""
        async with driver.writing():
            driver.put_edges(row_codec.encode_link(edge, "MENTIONS") for edge in edges)

    async def has_episode_edge_save_bulk(
        self, cls: Any, driver: "Driver", tx: Any, edges: list[Any], batch_size: int = 100
    ) -> None:
        """Write edges from sagas to episodes."""
        async with driver.writing():
            driver.put_edges(map(row_codec.encode_edge, edges))

    next_episode_edge_save_bulk = has_episode_edge_save_bulk

    async def edge_delete(self, edge: Any, driver: "Driver") -> None:
        """Delete an edge."""
        async with driver.writing():
            driver.drop_edges([edge.uuid])

    episodic_edge_delete = edge_delete
    community_edge_delete = edge_delete
    has_episode_edge_delete = edge_delete
    next_episode_edge_delete = edge_delete

    async def edge_delete_by_uuids(
        self, cls: Any, driver: "Driver", uuids: list[str], group_id: str | None = None
    ) -> None:
        """Delete edges by uuid, only of a group if one is given."""
        where = {"uuid": uuids} | _in_groups([group_id] if group_id else None)
        async with driver.writing():
            driver.drop_edges(row["uuid"] for row in driver.edges(**where))

    episodic_edge_delete_by_uuids = edge_delete_by_uuids
    community_edge_delete_by_uuids = edge_delete_by_uuids
    has_episode_edge_delete_by_uuids = edge_delete_by_uuids
    next_episode_edge_delete_by_uuids = edge_delete_by_uuids

    # reading edges

    async def edge_get_by_uuid(self, cls: Any, driver: "Driver", uuid: str) -> Any:
        """Return an edge.

        Raises:
            EdgeNotFoundError: Graphiti's own; there is no such edge.
        """
        rows = driver.edges(row_codec.kind_of(cls, row_codec.EDGES), uuid=[uuid])
        if not rows:
            raise EdgeNotFoundError(uuid)
        return row_codec.decode_edge(rows[0])

    episodic_edge_get_by_uuid = edge_get_by_uuid
    community_edge_get_by_uuid = edge_get_by_uuid
    has_episode_edge_get_by_uuid = edge_get_by_uuid
    next_episode_edge_get_by_uuid = edge_get_by_uuid

    async def edge_get_by_uuids(self, cls: Any, driver: "Driver", uuids: list[str]) -> list[Any]:
        """Return the edges that exist among some uuids."""
        return list(
            map(
                row_codec.decode_edge,
                driver.edges(row_codec.kind_of(cls, row_codec.EDGES), uuid=uuids),
            )
        )

    episodic_edge_get_by_uuids = edge_get_by_uuids
    community_edge_get_by_uuids = edge_get_by_uuids
    has_episode_edge_get_by_uuids = edge_get_by_uuids
    next_episode_edge_get_by_uuids = edge_get_by_uuids

    async def edge_get_by_group_ids(
        self,
        cls: Any,
        driver: "Driver",
        group_ids: list[str],
        limit: int | None = None,
        uuid_cursor: str | None = None,
    ) -> list[Any]:
        """Return a page of the edges of groups, by descending uuid, from below the cursor.

        Raises:
            GroupsEdgesNotFoundError: Graphiti's own; the groups have no such edges.
        """
        rows = driver.edges(row_codec.kind_of(cls, row_codec.EDGES), group_id=group_ids)
        page = _page(rows, limit, uuid_cursor)
        if not page:
            raise GroupsEdgesNotFoundError(group_ids)
        return list(map(row_codec.decode_edge, page))

    episodic_edge_get_by_group_ids = edge_get_by_group_ids
    community_edge_get_by_group_ids = edge_get_by_group_ids
    has_episode_edge_get_by_group_ids = edge_get_by_group_ids
    next_episode_edge_get_by_group_ids = edge_get_by_group_ids

    async def edge_get_between_nodes(
        self, cls: Any, driver: "Driver", source_node_uuid: str, target_node_uuid: str
    ) -> list[Any]:
        """Return the facts from one entity to another."""
        ends = {"source": [source_node_uuid], "target": [target_node_uuid]}
        return list(map(row_codec.decode_edge, driver.edges("RELATES_TO", **ends)))

    async def edge_get_by_node_uuid(self, cls: Any, driver: "Driver", node_uuid: str) -> list[Any]:
        """Return the facts that touch an entity."""
        return (await driver.around("", [node_uuid])).facts

    async def edge_load_embeddings(self, edge: Any, driver: "Driver") -> None:
        """Set the vector of a fact's sentence."""
        rows = driver.edges("RELATES_TO", uuid=[edge.uuid])
        if not rows:
            raise EdgeNotFoundError(edge.uuid)
        edge.fact_embedding = tables.vector_floats(rows[0]["vector"])

    async def edge_load_embeddings_bulk(
        self, driver: "Driver", edges: list[Any], batch_size: int = 100
    ) -> dict[str, list[float]]:
        """Return the vectors of facts by uuid."""
        return _vectors_by_uuid(driver.edges("RELATES_TO", uuid=[edge.uuid for edge in edges]))

    # communities, and deleting all

    async def get_communities_by_nodes(self, driver: "Driver", nodes: list[Any]) -> list[Any]:
        """Return the communities that entities are members of."""
        links = driver.edges("HAS_MEMBER", target=[node.uuid for node in nodes])
        return _nodes(driver, "Community", [row["source"] for row in links])

    async def clear_data(self, driver: "Driver", group_ids: list[str] | None = None) -> None:
        """Delete all nodes and edges, of some groups or all."""
        where = _in_groups(group_ids)
        async with driver.writing():
            driver.drop_nodes(row["uuid"] for row in driver.nodes(**where))
            driver.drop_edges(row["uuid"] for row in driver.edges(**where))

    async def get_community_clusters(
        self, driver: "Driver", group_ids: list[str] | None
    ) -> list[list[Any]]:
        """Return clusters of entities by Graphiti's label propagation, group by group."""
        where = _in_groups(group_ids)
        groups: dict[str, list[Any]] = {}
        for row in driver.nodes("Entity", **where):
            groups.setdefault(row["group_id"], []).append(row_codec.decode_node(row))
        return [
            cluster
            for group, nodes in sorted(groups.items())
            for cluster in _clusters(driver, group, nodes)
        ]

    async def remove_communities(
        self, driver: "Driver", group_ids: list[str] | None = None
    ) -> None:
        """Delete the communities, of some groups or all."""
        where = _in_groups(group_ids)
        async with driver.writing():
            driver.drop_nodes(row["uuid"] for row in driver.nodes("Community", **where))

    async def determine_entity_community(
        self, driver: "Driver", entity: Any
    ) -> tuple[Any | None, bool]:
        """Return an entity's community and False, else the neighbours' most common and True."""
        if communities := await self.get_communities_by_nodes(driver, [entity]):
            return communities[0], False
        facts = await self.edge_get_by_node_uuid(EntityEdge, driver, entity.uuid)
        ends = [end for edge in facts for end in (edge.source_node_uuid, edge.target_node_uuid)]
        members = driver.edges("HAS_MEMBER", target=[end for end in ends if end != entity.uuid])
        most_common = Counter(row["source"] for row in members).most_common(1)
        if not most_common:
            return None, False
        return _nodes(driver, "Community", [most_common[0][0]])[0], True


def _in_groups(group_ids: Sequence[str] | None) -> dict[str, Any]:
    return {"group_id": group_ids} if group_ids else {}


def _page(rows: list[row_codec.Row], limit: int | None, cursor: str | None) -> list[row_codec.Row]:
    """Return a page of rows that are in the order of descending uuid."""
    below = [row for row in rows if row["uuid"] < cursor] if cursor else rows
    return below if limit is None else below[:limit]


def _vectors_by_uuid(rows: list[row_codec.Row]) -> dict[str, list[float]]:
    vectors = {row["uuid"]: tables.vector_floats(row["vector"]) for row in rows}
    return {uuid: vector for uuid, vector in vectors.items() if vector is not None}


def _nodes(driver: "Driver", kind: str, uuids: Sequence[str]) -> list[Any]:
    return list(map(row_codec.decode_node, driver.nodes(kind, uuid=uuids)))


def _episodes(driver: "Driver", saga_uuid: str) -> list[row_codec.Row]:
    links = driver.edges("HAS_EPISODE", source=[saga_uuid])
    return driver.nodes("Episodic", uuid=[row["target"] for row in links])


def _clusters(driver: "Driver", group: str, nodes: list[EntityNode]) -> list[list[EntityNode]]:
    by_uuid = {node.uuid: node for node in nodes}
    counts: dict[str, Counter[str]] = {uuid: Counter() for uuid in by_uuid}
    for row in driver.edges("RELATES_TO", group_id=[group]):
        for one, other in ((row["source"], row["target"]), (row["target"], row["source"])):
            if one in counts and other in counts:
                counts[one][other] += 1
    projection = {
        uuid: [Neighbor(node_uuid=other, edge_count=n) for other, n in counter.items()]
        for uuid, counter in counts.items()
    }
    return [[by_uuid[uuid] for uuid in cluster] for cluster in label_propagation(projection)]
