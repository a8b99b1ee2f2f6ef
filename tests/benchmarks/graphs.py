"""Knowledge graphs against the clock: a document, ten thousand facts, and Graphiti on Neo4j.

Both drivers of the race write the same nodes and facts and answer the same questions through
Graphiti's own search, by turns, on one server. Graphiti's own drops behind a filter come last.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ftlab_kit import Workspace, graphs
from ftlab_kit.graphs import embedders, open_graph

GROUP = "bench"
QUERIES = 25


def document(path: Path, embedder: str) -> None:
    """Load a document twice and ask it; print seconds of each, in a fresh process if you can."""
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "lab")
        began = time.perf_counter()
        first = graphs.load(ws, path, embedder=embedder)
        loaded = time.perf_counter() - began
        again = graphs.load(ws, path).seconds
        took = [_took(lambda: graphs.search(ws, first_words(path))) for _ in range(QUERIES)]
        facts = first.n_new_facts
        ws.close()
    print(
        f"{embedder}: {path.name}, {facts} facts searchable after {loaded:.2f} s, again "
        f"{again:.3f} s, a search {1000 * median(took):.1f} ms"
    )


def first_words(path: Path) -> str:
    """Return a document's first words, to ask for."""
    return " ".join(path.read_text().split()[1:8])


def _took(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def many(n_facts: int, uri: str | None) -> None:
    """Write and search `n_facts` facts in a file, and on Neo4j beside Graphiti's own driver."""
    open_graph.silence_graphiti()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ws = stack.enter_context(_closing(Workspace(folder / "lab")))
        items = _generated(embedders.get(ws, "hash"), n_facts)
        table = Table("driver", "facts/s stored", "search, ms", "of facts that hold, ms")
        for name, legs in asyncio.run(_race(folder, items, uri)).items():
            table.add_row(name, *(f"{median(values):,.1f}" for values in zip(*legs, strict=True)))
    Console().print(f"{n_facts:,} entities and as many facts, vectors of 384 numbers")
    Console().print(table)


class _closing:
    def __init__(self, ws: Workspace) -> None:
        self._ws = ws

    def __enter__(self) -> Workspace:
        return self._ws

    def __exit__(self, *_: object) -> None:
        self._ws.close()


def _generated(embedder: Any, n_facts: int) -> tuple[list[Any], list[Any]]:
    """Return entities and facts with vectors, the same ones every time."""
    from graphiti_core.edges import EntityEdge
    from graphiti_core.nodes import EntityNode
    from graphiti_core.utils.datetime_utils import utc_now

    days = ("monday", "friday")
    names = [f"thing {number}" for number in range(n_facts)]
    facts = [
        f"thing {number} likes thing {(7 * number + 1) % n_facts} on {days[number % 2]}"
        for number in range(n_facts)
    ]
    vectors = np.round(embedder.vectors(names + facts), 6).tolist()
    ids = [hashlib.md5(name.encode()).hexdigest() for name in names]
    nodes = [
        EntityNode(
            uuid=ids[number],
            name=name,
            group_id=GROUP,
            labels=["Thing"],
            summary=f"number {number} is here",
            name_embedding=vectors[number],
        )
        for number, name in enumerate(names)
    ]
    edges = [
        EntityEdge(
            group_id=GROUP,
            source_node_uuid=ids[number],
            target_node_uuid=ids[(7 * number + 1) % n_facts],
            created_at=utc_now(),
            name="LIKES",
            fact=fact,
            fact_embedding=vectors[n_facts + number],
            episodes=["episode"],
        )
        for number, fact in enumerate(facts)
    ]
    return nodes, edges


async def _race(
    folder: Path, items: tuple[list[Any], list[Any]], uri: str | None
) -> dict[str, list[tuple[float, float, float]]]:
    from ftlab_kit.graphs.drivers import sqlite

    results: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(3):
        driver = sqlite.Driver(folder / f"{number}.db")
        results.setdefault("the kit, SQLite", []).append(await _leg(driver, items))
        await driver.close()
    if uri is None:
        return results
    from graphiti_core.driver.neo4j_driver import Neo4jDriver

    from ftlab_kit.graphs.drivers import neo4j

    own = await asyncio.to_thread(neo4j.Driver, uri, "neo4j", "")
    theirs = await asyncio.to_thread(Neo4jDriver, uri, "neo4j", "")
    await own.prepare(384)
    for _ in range(3):
        for name, driver in (("Graphiti's own, Neo4j", theirs), ("the kit, Neo4j", own)):
            await _wipe(own)
            results.setdefault(name, []).append(await _leg(driver, items))
    await _wipe(own)
    await theirs.close()
    await own.close()
    return results


async def _wipe(own: Any) -> None:
    for index in ("ftlab_names", "ftlab_facts"):
        await own.run(f"DROP INDEX {index} IF EXISTS")
    own._is_indexed = own._is_ready = False
    query = "MATCH (n) WITH n LIMIT 5000 DETACH DELETE n RETURN count(*) AS n"
    while (await own.run(query))[0]["n"]:
        pass


async def _leg(driver: Any, items: tuple[list[Any], list[Any]]) -> tuple[float, float, float]:
    """Return facts stored a second, and milliseconds of a search without and with a filter."""
    from graphiti_core.search.search_filters import ComparisonOperator, DateFilter, SearchFilters
    from graphiti_core.utils.bulk_utils import add_nodes_and_edges_bulk

    from ftlab_kit.graphs.drivers.protocol import Change

    nodes, edges = items
    began = time.perf_counter()
    if hasattr(driver, "write"):
        await driver.write(Change(nodes=nodes, edges=edges, group=GROUP))
    else:
        for first in range(0, len(nodes), 500):
            some = slice(first, first + 500)
            await add_nodes_and_edges_bulk(driver, [], [], nodes[some], edges[some], None)
    stored = len(edges) / (time.perf_counter() - began)
    while hasattr(driver, "has_index") and not await driver.has_index():
        await asyncio.sleep(0.1)
    never = DateFilter(comparison_operator=ComparisonOperator.is_null)
    plain = await _search_times(driver, nodes, SearchFilters())
    held = await _search_times(driver, nodes, SearchFilters(invalid_at=[[never]]))
    return stored, 1000 * median(plain), 1000 * median(held)


async def _search_times(driver: Any, nodes: Sequence[Any], filters: Any) -> list[float]:
    from graphiti_core.graphiti_types import GraphitiClients
    from graphiti_core.search.search import search
    from graphiti_core.search.search_config_recipes import EDGE_HYBRID_SEARCH_RRF

    clients = GraphitiClients.model_construct(
        driver=driver, embedder=None, cross_encoder=None, llm_client=None, tracer=None
    )
    took = []
    for number in range(QUERIES):
        node = nodes[31 * number % len(nodes)]
        began = time.perf_counter()
        results = await search(
            clients,
            f"{node.name} likes friday",
            [GROUP],
            EDGE_HYBRID_SEARCH_RRF,
            filters,
            query_vector=node.name_embedding,
        )
        took.append(time.perf_counter() - began)
        assert results.edges
    return took
