"""Owners of a graph: each has a group of their own, and keeps what an older kit filed for them."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphiti_core.helpers import validate_group_id
from hypothesis import given
from hypothesis import strategies as st

from ftlab_kit import Workspace, graphs
from ftlab_kit.errors import Conflict, NotFound
from ftlab_kit.graphs import open_graph, owner_groups
from ftlab_kit.store import TABLES, Store
from tests.test_graphs import GUIDE, MODELS, Lab

ADA, OTHER_ADA, EARLIER = "ada@x.org", "ada.x@org", "ada_x_org"
owners = st.one_of(
    st.text(max_size=20),
    st.text("a_-.@/", max_size=6),
    st.sampled_from([ADA, OTHER_ADA, EARLIER]).map(owner_groups.group_of),
)


@given(owners, owners)
def test_two_owners_never_share_a_group(first: str, second: str):
    groups = owner_groups.group_of(first), owner_groups.group_of(second)
    assert (groups[0] == groups[1]) == (first == second)
    assert all(group and validate_group_id(group) for group in groups)


def test_a_group_can_be_read():
    assert owner_groups.group_of("ada-1_X") == "ada-1_X"
    assert owner_groups.group_of(ADA) == "ada_x_org-210e59f6e61aa3a3"
    assert owner_groups.group_of(OTHER_ADA) == "ada_x_org-a875600270f36bcc"


def entities(lab: Lab) -> set[str]:
    return {entity.name for entity in lab.around(limit=100).entities}


def names(ws: Workspace) -> list[str]:
    return [document.name for document in graphs.documents(ws)]


def test_owners_of_one_workspace_see_only_their_own_documents(ws: Workspace):
    lab = Lab(ws)
    for owner, text in ((ADA, MODELS), (OTHER_ADA, GUIDE)):
        ws.owner = owner
        assert names(ws) == []
        lab.put("same.md", text)
    assert "Blue" not in entities(lab)
    ws.owner = ADA
    assert "Blue" in entities(lab)
    lab.delete("same.md")
    assert names(ws) == []
    ws.owner = OTHER_ADA
    assert names(ws) == ["same.md"] and lab.facts("Red")


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Workspace]:
    """Ada's workspace with a document that an older kit loaded, which recorded no owner."""
    ws = Workspace(tmp_path / "lab")
    ws.owner = EARLIER
    Lab(ws).put("models.md", MODELS)
    ws.store.update("documents", {"name": "models.md"}, owner="")
    ws.close()
    with sqlite3.connect(ws.graph) as db:
        db.execute("DELETE FROM about WHERE name = ?", (f"{EARLIER}/owner",))
    db.close()
    again = Workspace(tmp_path / "lab")
    again.owner = ADA
    yield again
    again.close()


def test_documents_listed_by_an_older_kit_are_kept_without_an_owner(tmp_path: Path):
    columns = [column.name for column in TABLES.tables["documents"].c if column.name != "owner"]
    store = Store(tmp_path / "lab.db")
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE documents")
        defined = ", ".join(f"{name} {'INTEGER PRIMARY KEY' * (name == 'id')}" for name in columns)
        connection.exec_driver_sql(f"CREATE TABLE documents ({defined}, UNIQUE (graph, name))")
        connection.exec_driver_sql(
            "INSERT INTO documents (graph, name, path, format, state, version, notes, created_at, "
            "n_chunks, n_entities, n_facts, n_tokens) VALUES ('g', 'a.md', '/a.md', 'md', "
            "'completed', 2, '[]', '2026-01-01 00:00:00', 1, 2, 3, 4)"
        )
        connection.exec_driver_sql("UPDATE schema SET version = 7")
    store.close()
    store = Store(tmp_path / "lab.db")
    (row,) = store.rows("documents")
    assert (row["name"], row["version"], row["n_facts"], row["owner"]) == ("a.md", 2, 3, "")
    new = {key: value for key, value in row.items() if key != "id"} | {"owner": ADA}
    assert store.insert_new("documents", **new) and not store.insert_new("documents", **new)
    store.close()


def test_a_graph_of_an_older_kit_opens_for_its_owner_and_for_no_other(older: Workspace):
    assert Lab(older).facts("Red") and open_graph.get(older).group == EARLIER
    assert names(older) == ["models.md"]
    for other in (OTHER_ADA, EARLIER):
        older.owner = other
        assert open_graph.get(older).group != EARLIER
        assert names(older) == [] and not Lab(older).search("Red")
    older.owner = ADA
    Lab(older).put("models.md", MODELS.replace("$1.00", "$2.00"))
    assert names(older) == ["models.md"]


def test_a_workspace_that_did_not_load_an_older_graph_does_not_claim_it(
    older: Workspace, tmp_path: Path
):
    other = Workspace(tmp_path / "other")
    other.owner = ADA
    assert not graphs.documents(other, graph=f"file://{older.graph}")
    assert not graphs.search(other, "Red", graph=f"file://{older.graph}")
    other.close()


def test_a_document_whose_content_differs_is_no_proof(older: Workspace):
    older.store.update("documents", {"name": "models.md"}, content_sha256="0")
    assert not Lab(older).search("Red")


def test_a_copy_of_an_older_graph_is_its_owners(older: Workspace, tmp_path: Path):
    address = f"file://{tmp_path}/copy.db"
    assert [document.name for document in graphs.copy(older, address)] == ["models.md"]
    again = Workspace(tmp_path / "again")
    again.owner = ADA
    assert graphs.facts(again, "Red", graph=address)
    again.owner = OTHER_ADA
    with pytest.raises(NotFound):
        graphs.facts(again, "Red", graph=address)
    again.close()


def test_a_copy_does_not_enter_another_owners_group(older: Workspace, tmp_path: Path):
    assert names(older)
    Lab(older).facts("Red")  # which claims the group for Ada
    taken = Workspace(tmp_path / "taken")
    taken.owner = EARLIER
    Lab(taken).put("guide.md", GUIDE)
    address = f"file://{taken.graph}"
    with pytest.raises(Conflict, match="another owner's documents under the group ada_x_org"):
        graphs.copy(older, address)
    taken.close()
