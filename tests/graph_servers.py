"""A real Neo4j for the tests: the one of NEO4J_URI, otherwise one that is started for the session.

Tests delete what they write. A server from NEO4J_URI must be empty, so that no graph is lost.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from neo4j import GraphDatabase
from neo4j.exceptions import AuthError, ServiceUnavailable, SessionExpired

START = Path(__file__).parent.parent.parent / "shared" / "neo4j" / "start"
WAIT_S = 90
INDICES = ("ftlab_names", "ftlab_facts")
FIRST, PASSWORD = "neo4j", "a long secret"
# a server that runs for a minute starts faster without the optimising compiler
JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}


class Server(NamedTuple):
    """A server with a user. `address` is what the kit's verbs take."""

    uri: str
    user: str
    password: str

    @property
    def address(self) -> str:
        return self.uri.replace("://", f"://{self.user}@", 1)

    def ask(self, query: str, database: str = "neo4j", **values: Any) -> list[dict[str, Any]]:
        """Run Cypher, and return the rows."""
        with self._driver() as driver:
            result = driver.execute_query(query, values, database_=database)
        return [record.data() for record in result.records]

    def _driver(self) -> Any:
        auth = (self.user, self.password)
        return GraphDatabase.driver(self.uri, auth=auth, notifications_min_severity="OFF")

    def clear(self) -> None:
        """Delete all that a test has written. Indices stay: building them is what takes time."""
        self.ask("MATCH (n) DETACH DELETE n")

    def drop_indices(self) -> None:
        """Drop the vector indices."""
        for name in INDICES:
            self.ask(f"DROP INDEX {name} IF EXISTS")

    def is_there(self) -> bool:
        """Whether it answers, even if it refuses the user."""
        try:
            with self._driver() as driver:
                driver.verify_connectivity()
        except AuthError:
            return True
        except (ServiceUnavailable, SessionExpired):
            return False
        return True


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def started(home: Path) -> Iterator[Server]:
    """Start a server with a password, and stop it in the end; skip the test if there is none."""
    if not START.exists() or not shutil.which("java"):
        pytest.skip(
            "no Neo4j: set NEO4J_URI (with NEO4J_PASSWORD) to an empty server, or provide "
            f"{START} and java on the PATH"
        )
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "console.log").open("wb") as log:
        command = [str(START), str(home), str(port), "--auth"]
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | JAVA
        )
    try:
        server = Server(f"bolt://127.0.0.1:{port}", "neo4j", FIRST)
        _wait(server, child, home / "console.log")
        change = f"ALTER CURRENT USER SET PASSWORD FROM '{FIRST}' TO $password"
        server.ask(change, database="system", password=PASSWORD)
        yield server._replace(password=PASSWORD)
    finally:
        _stop(child)


def _wait(server: Server, child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not server.is_there():
        if child.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"Neo4j did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        child.kill()  # its home goes with the session
        child.wait()


def _given() -> Server | None:
    uri = os.environ.get("NEO4J_URI")
    if not uri:
        return None
    parts = urllib.parse.urlsplit(uri)
    bare = f"{parts.scheme}://{parts.hostname}:{parts.port or 7687}"
    server = Server(bare, parts.username or "neo4j", os.environ.get("NEO4J_PASSWORD", ""))
    (count,) = server.ask("MATCH (n) RETURN count(n) AS n")
    if count["n"]:
        pytest.fail(f"NEO4J_URI holds {count['n']} nodes; the tests clear it. Give an empty one.")
    return server


@pytest.fixture(scope="session")
def neo4j_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one server of a test session."""
    if server := _given():
        server.drop_indices()
        yield server
        server.clear()
        server.drop_indices()
        return
    with started(tmp_path_factory.mktemp("neo4j")) as server:
        yield server


@pytest.fixture
def neo4j_server(neo4j_session: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The session's server, empty."""
    monkeypatch.setenv("NEO4J_PASSWORD", neo4j_session.password)
    neo4j_session.clear()
    return neo4j_session
