"""A graph to look at: its picture, its explorer, its documents, and a search of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ftlab_kit import Workspace, graphs
from ftlab_kit.pictures import graph_data, layout, links, network
from ftlab_kit.records import Citation, Document, Entity, Fact, Hit, Neighbourhood, Rows
from ftlab_kit.widgets.documents_view import (
    DocumentsView,
    documents,
    documents_table,
    summary,
)
from ftlab_kit.widgets.explorer_widget import STATIC, Explorer
from ftlab_kit.widgets.finder_view import FinderView, finder, hits_table
from ftlab_kit.widgets.graph_explorer import EMPTY, explorer
from tests import front_end
from tests.conftest import text_of, until
from tests.test_browser import complaints

DARK = "{theme: 'JupyterLab Dark'}"
SCRIPT = STATIC / "explorer.js"
DAY = datetime(2025, 12, 3, tzinfo=UTC)
MODELS = """# Models

## GPT-5

**Model ID:** gpt-5
**Provider:** OpenAI
**Context Window:** 400K tokens

## GPT-5 Mini

**Model ID:** gpt-5-mini
**Provider:** OpenAI
**Context Window:** 200K tokens

## Claude Haiku 4.5

**Model ID:** claude-haiku-4-5
**Provider:** Anthropic
**Context Window:** 200K tokens
"""


def entity(name: str, kind: str = "Model", **attributes: str) -> Entity:
    return Entity(name, kind, attributes, "", (Citation("models.md", 3, 5),), f"id of {name}")


def fact(source: str, relation: str, target: str, *, ended: datetime | None = None) -> Fact:
    text = f"{source} {relation} {target}"
    place = (Citation("models.md", 12, 14),)
    return Fact(text, relation, source, target, place, None, ended, None, None, None, text)


def part(entities: list[Entity], facts: list[Fact], n_more: int = 0) -> Neighbourhood:
    return Neighbourhood(Rows(entities), Rows(facts), n_more)


@pytest.fixture
def three() -> Neighbourhood:
    """Two models of one provider, one of them no longer."""
    entities = [entity("GPT-5", context="400K"), entity("o1"), entity("OpenAI", "Provider")]
    of = [fact("GPT-5", "MADE_BY", "OpenAI"), fact("o1", "MADE_BY", "OpenAI", ended=DAY)]
    return part(entities, [*of, fact("GPT-5", "CONTEXT", "GPT-5")])


def many_nodes(number: int) -> Neighbourhood:
    entities = [entity(f"model {at}") for at in range(number)]
    hub = entity("hub", "Provider")
    return part([hub, *entities], [fact(one.name, "OF", "hub") for one in entities])


# the layout


def test_the_same_graph_looks_the_same_whatever_its_order():
    ids, pairs = ["a", "b", "c"], [("a", "b"), ("b", "c")]
    first = layout.spring_layout(ids, pairs, fixed={})
    assert layout.spring_layout(ids[::-1], pairs, fixed={}) == first


def test_a_link_is_about_one_long_and_no_two_nodes_meet():
    positions = network.positions(many_nodes(12))
    x, y = positions["id of hub"]
    others = [point for key, point in positions.items() if key != "id of hub"]
    assert all(0.5 < abs(complex(a - x, b - y)) < 4 for a, b in others)
    assert len({(round(a, 1), round(b, 1)) for a, b in others}) == 12


def test_fixed_nodes_stay_in_place(three: Neighbourhood):
    fixed = {"id of GPT-5": (1.0, 2.0), "id of OpenAI": (0.0, 1.0)}
    positions = network.positions(three, fixed=fixed)
    assert {key: positions[key] for key in fixed} == fixed
    assert abs(complex(*positions["id of o1"])) < 5


def test_a_single_node_and_an_empty_graph_have_a_layout():
    assert layout.spring_layout([], [], fixed={}) == {}
    assert layout.spring_layout(["a"], [], fixed={}) == {"a": (0.0, 0.0)}


# links and alt text


def test_facts_between_the_same_two_entities_are_one_link():
    facts = [fact("a", "KNOWS", "b"), fact("b", "LIKES", "a", ended=DAY)]
    (link,) = links.links(part([entity("a"), entity("b")], facts))
    assert (link.label, link.is_forth, link.is_back) == ("2 relations", True, True)
    assert link.text == "a KNOWS b\nb LIKES a until 2025-12-03"
    assert not link.is_ended


def test_a_fact_about_one_entity_is_counted_but_not_a_link(three: Neighbourhood):
    assert links.fact_counts(three)["id of GPT-5"] == 2
    assert {link.label for link in links.links(three)} == {"made by"}


def test_endpoints_are_ids_or_names():
    by_id = fact("id of a", "KNOWS", "id of b")
    assert links.endpoints(part([entity("a"), entity("b")], [by_id]))[by_id.id] == (
        "id of a",
        "id of b",
    )


def test_the_alt_text_of_a_graph_is_made_from_its_data(three: Neighbourhood):
    assert links.alt_text(three) == "3 entities, 3 facts; GPT-5 has the most, 2"
    assert links.alt_text(part([entity("a")], [], 7)) == (
        "1 entity, 0 facts; 7 more entities are left out"
    )


# the picture


@pytest.mark.parametrize("is_live", [True, False])
def test_the_picture_has_every_name_and_a_shape_for_each_type(three: Neighbourhood, is_live: bool):
    text = network.picture(three, is_live=is_live)
    texts = [item.text for item in ElementTree.fromstring(text).iter() if item.tag.endswith("text")]
    assert {"GPT-5", "o1", "OpenAI", "Model", "Provider", "made by"} <= {*texts}
    assert network.shape(0, 5) != network.shape(1, 5) != network.shape(2, 5)


def test_only_ended_facts_are_dashed(three: Neighbourhood):
    assert network.picture(three).count("stroke-dasharray") == 1


def test_a_live_picture_takes_the_front_ends_colour_and_a_still_one_has_a_background(
    three: Neighbourhood,
):
    live, still = network.picture(three), network.picture(three, is_live=False)
    assert "currentColor" in live and "<title>GPT-5, Model</title>" in live
    assert "currentColor" not in still and "<title>" not in still and "var(" not in still


def test_names_are_escaped_and_shortened():
    text = network.picture(part([entity("<script>alert('a long name')</script>")], []))
    assert "<script" not in text and "&lt;script&gt;alert(&#x27;a long n…" in text
    odd = replace(entity("bell\x07 and \ud800"), id="odd")
    ElementTree.fromstring(network.picture(part([odd], [fact(odd.name, "RINGS", odd.name)])))


def test_names_of_a_picture_do_not_overlap():
    text = network.picture(many_nodes(30))
    names = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)', text)
    boxes = [_box(float(x), float(y), anchor, name) for x, y, anchor, name in names]
    pairs = [(a, b) for at, a in enumerate(boxes) for b in boxes[:at]]
    assert len(boxes) > 25
    limit = 0.2 * network.LETTER_WIDTH * 8 * network.LINE_HEIGHT
    assert max(network._overlap(a, b) for a, b in pairs) < limit


def _box(x: float, y: float, anchor: str, name: str) -> network.Box:
    wide = network.LETTER_WIDTH * len(name)
    left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[anchor]
    return left, y + 4 - network.LINE_HEIGHT, left + wide, y + 4


def test_a_saved_notebook_has_the_picture_its_alt_text_and_its_data(three: Neighbourhood):
    text = network.figure(three)
    assert '<img alt="3 entities, 3 facts; GPT-5 has the most, 2"' in text
    assert "models.md:12-14" in text and "until 2025-12-03" in text and "context 400K" in text


# the explorer's data


def test_merged_parts_have_each_entity_once(three: Neighbourhood):
    more = part([entity("OpenAI", "Provider"), entity("o3")], [fact("o3", "MADE_BY", "OpenAI")], 4)
    both = graph_data.merged(three, more)
    assert [item.name for item in both.entities] == ["GPT-5", "o1", "OpenAI", "o3"]
    assert (len(both.facts), both.n_more) == (4, 4)


def test_a_type_keeps_its_shape_when_another_becomes_more_frequent(three: Neighbourhood):
    before = links.types(three.entities)
    more = part([entity(str(at), "Guide") for at in range(5)], [])
    both = graph_data.merged(three, more)
    assert graph_data.types(both, before) == ["Model", "Provider", "Guide"]


def test_facts_have_their_validity_and_their_source(three: Neighbourhood):
    ended = graph_data.facts(three)[1]
    assert ended["where"] == "until 2025-12-03; models.md:12-14"
    assert ended["ended"] and ended["ends"] == ["id of o1", "id of OpenAI"]


def test_the_script_is_small_sends_no_request_and_inserts_text_as_text():
    text = SCRIPT.read_text()
    assert len(text.encode()) < 12 * 1024
    own = text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, which is never fetched
    assert not re.search(r"http|fetch\(|import\b|require\(|@import|url\(|eval\(", own)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", own)
    assert "url(" not in (STATIC / "explorer.css").read_text()


def test_the_script_is_well_formed(tmp_path: Path):
    if not shutil.which("node"):
        pytest.skip("no node here: apt-get install nodejs")
    module = tmp_path / "explorer.mjs"
    module.write_text(SCRIPT.read_text())
    subprocess.run(["node", "--check", module], check=True)


@pytest.mark.parametrize("module", ["graph_explorer", "documents_view", "finder_view"])
def test_importing_a_view_of_the_graph_loads_neither_graphiti_nor_anywidget(module: str):
    code = f"import sys, ftlab_kit.widgets.{module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"graphiti_core", "anywidget"} & {*loaded}


# tables


def document(state: str, **more: Any) -> Document:
    given: dict[str, Any] = {
        "id": 1, "name": "models.md", "format": "markdown", "version": 2, "n_chunks": 1234,
        "n_entities": 3, "n_facts": 9, "n_tokens": 0, "cost_usd": None, "dated_at": DAY,
        "loaded_at": None, "notes": (), "error": None, "path": "", "content_sha256": None,
        "graph": "",
    }  # fmt: skip
    return Document(**{**given, **more}, state=state)


def test_a_document_is_shown_with_its_state_and_its_error():
    text = documents_table(
        [document("partial_failure", error="<page 3> is a picture", notes=("no OCR",))]
    )
    assert "</span> partial_failure<" in text and "2025-12-03" in text and "1,234" in text
    assert "&lt;page 3&gt; is a picture" in text and "no OCR" in text


def test_documents_are_counted_by_state():
    rows = [document("completed"), document("completed"), document("failed")]
    assert summary(rows) == "3 documents: 2 completed, 1 failed"


def test_a_hit_is_shown_with_its_sources_validity_and_scores():
    places = (Citation("models.md", 12, 14), Citation("guide.pdf", 3, 3, "page 2"))
    scores = {"full_text": 4.25, "vector": 0.5}
    text = hits_table(
        [Hit("<b>o1</b> is by OpenAI", "fact", 0.0328, scores, places, None, DAY, "")]
    )
    assert "models.md:12-14<" in text and "guide.pdf, page 2:3<" in text
    assert ">until 2025-12-03<" in text
    assert "0.0328<br/><small>full_text 4.25, vector 0.5</small>" in text
    assert "&lt;b&gt;o1&lt;/b&gt;" in text


# on a real graph


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a document of three models in its graph; tests only read it."""
    ws = Workspace(tmp_path_factory.mktemp("graph") / "lab")
    load(ws)
    yield ws
    ws.close()


def load(ws: Workspace, text: str = MODELS, *, at: datetime | None = None) -> None:
    path = ws.root / "models.md"
    path.write_text(text)
    graphs.load(ws, path, embedder="hash", at=at)


def test_a_report_has_the_graph_as_a_picture_with_its_data(loaded: Workspace):
    shown = explorer(loaded)
    assert 'src="data:image/svg+xml' in shown._repr_html_() and "GPT-5 Mini" in shown._repr_html_()
    assert re.match(r"\d+ entities, \d+ facts; .+ has the most, \d+", repr(shown))


def test_an_empty_graph_says_so_and_what_to_do(ws: Workspace, seated: None):
    assert repr(explorer(ws)) == EMPTY
    assert 'role="status"' in explorer(ws)._repr_html_()


def test_expanding_an_entity_adds_what_is_around_it(loaded: Workspace, seated: None):
    view = Explorer(loaded, graphs.around(loaded, "GPT-5", limit=1))
    before, positions = len(view.nodes), dict(view.positions)
    view.expand = view.nodes[0]["id"]
    assert (view.expand, view.error) == ("", "")
    assert len(view.nodes) > before and "more entit" in view.status
    assert {key: view.positions[key] for key in positions} == positions


def test_expanding_by_name_selects_it(loaded: Workspace, seated: None):
    view = explorer(loaded, "Claude Haiku 4.5")
    assert isinstance(view, Explorer)
    view.expand = "gpt-5 mini"
    names = {node["id"]: node["name"] for node in view.nodes}
    assert names[view.selected] == "GPT-5 Mini"


def test_an_unknown_name_is_an_alert_and_changes_nothing(loaded: Workspace, seated: None):
    view = explorer(loaded, "GPT-5")
    before = view.nodes
    view.expand = "GPT-9000"
    assert "GPT-9000" in view.error and view.nodes == before


def test_a_report_has_the_documents_as_a_table(loaded: Workspace):
    shown = documents(loaded)
    assert repr(shown) == "1 document: 1 completed"
    assert "models.md" in shown._repr_html_()


def test_a_document_is_loaded_by_its_path(ws: Workspace, seated: None):
    (ws.root / "first.md").write_text("# First\n\n**Owner:** Ada\n")
    graphs.load(ws, ws.root / "first.md", embedder="hash")
    view = documents(ws)
    assert isinstance(view, DocumentsView)
    (ws.root / "models.md").write_text(MODELS)
    view.path.value = str(ws.root / "models.md")
    view.load.click()
    until(lambda: "1 document: 1 completed; " in text_of(view))
    assert "2 documents: 2 completed" in text_of(view)
    view.close()


def test_loading_nothing_is_an_alert(ws: Workspace, seated: None):
    view = documents(ws)
    view.load.click()
    until(lambda: 'role="alert"' in text_of(view))
    assert "no documents yet" in text_of(view)


def test_a_document_is_deleted_only_when_that_is_confirmed(ws: Workspace, seated: None):
    load(ws)
    view = documents(ws)
    view.delete.click()
    until(lambda: "Delete models.md, with every fact that only it states?" in text_of(view))
    view.keep.click()
    until(lambda: "nothing was deleted" in text_of(view))
    view.delete.click()
    until(lambda: "Delete models.md" in text_of(view))
    assert len(graphs.documents(ws)) == 1
    view.confirm.click()
    until(lambda: "models.md is deleted" in text_of(view))
    assert not graphs.documents(ws)


def test_a_search_shows_the_number_of_hits_and_their_sources(loaded: Workspace, seated: None):
    view = finder(loaded, "context window of GPT-5")
    assert isinstance(view, FinderView)
    until(lambda: " hits in " in text_of(view))
    assert re.search(r"models\.md:\d+", text_of(view))


def test_a_search_returns_at_most_the_limit(loaded: Workspace, seated: None):
    view = finder(loaded)
    view.limit.value = 2
    view.query.value = "OpenAI"
    until(lambda: ">2 hits in " in text_of(view))
    view.recipe.value = "mmr"
    until(lambda: text_of(view).count("<tr>") == 3)


def test_ended_facts_are_found_when_they_are_included(ws: Workspace, seated: None):
    load(ws, at=datetime(2025, 1, 1, tzinfo=UTC))
    load(ws, MODELS.replace("400K", "512K"), at=DAY)
    view = finder(ws, "GPT-5 context window")
    until(lambda: " hits in " in text_of(view))
    assert "GPT-5 is 400K tokens" not in text_of(view)
    view.ended.value = True
    until(lambda: "GPT-5 is 400K tokens" in text_of(view))


def test_an_empty_query_is_an_alert(ws: Workspace, seated: None):
    view = finder(ws)
    view.search.click()
    until(lambda: 'role="alert"' in text_of(view))


def test_a_report_has_the_hits_as_a_table(loaded: Workspace):
    shown = finder(loaded, "OpenAI")
    assert re.fullmatch(r"OpenAI: \d+ hits", repr(shown))
    assert "models.md:" in shown._repr_html_()
    assert "The query is empty" in repr(finder(loaded))


# in a real front end


def in_a_browser(test: Callable) -> Callable:
    for mark in front_end.needs_a_browser:
        test = mark(test)
    return test


@pytest.fixture(params=["light", "dark"])
def page(request: Any, tmp_path: Path, ws: Workspace) -> Iterator[Any]:
    """A page that shows a graph in one of the themes, and sends no request outside."""
    load(ws)
    front_end.write_notebook(tmp_path / "graph.ipynb", ws, 'widgets.explorer(ws, "GPT-5")')
    with front_end.served(tmp_path) as address, front_end.browser(tmp_path) as context:
        seen = front_end.Seen(address)
        page = seen.watch(context.new_page())
        front_end.open_notebook(page, address, "graph.ipynb")
        if request.param == "dark":
            page.evaluate(
                f"() => {{ jupyterapp.commands.execute('apputils:change-theme', {DARK}) }}"
            )
            page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
        front_end.run(page)
        page.wait_for_selector(".ftlab-graph .node", timeout=60_000)
        yield page
        pictures = Path(os.environ.get("FTLAB_PICTURES", tmp_path)).absolute()
        page.screenshot(path=pictures / f"graph_{request.param}.png")
        assert complaints(page) == []
    assert seen.outside() == [] and seen.errors == []


def middle(part: Any) -> tuple[float, float]:
    box = part.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@in_a_browser
def test_a_graph_is_walked_through_dragged_and_zoomed(page: Any):
    nodes = page.locator(".ftlab-graph .node")
    before = nodes.count()
    page.get_by_role("button", name="OpenAI, ").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('.node').length > {before}")
    page.wait_for_selector(".ftlab-graph h3:has-text('OpenAI')")

    sign = page.get_by_role("button", name="GPT-5 Mini, ").locator("path").first
    x, y = middle(sign)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 30, steps=4)
    page.mouse.up()
    assert middle(sign) == pytest.approx((x + 40, y + 30), abs=2)
    page.wait_for_selector(".ftlab-graph h3:has-text('GPT-5 Mini')")

    page.mouse.wheel(0, -300)  # over the sign, which stays under the pointer
    assert middle(sign) == pytest.approx((x + 40, y + 30), abs=2)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[role=status]:has-text('Enter shows what is around it')")


@in_a_browser
def test_the_shipped_documents_are_explored(tmp_path: Path, ws: Workspace):
    graphs.load(ws, graphs.SAMPLES / "models.md", embedder="hash")
    shown = 'widgets.explorer(ws, "SmolLM2 135M Instruct")'
    front_end.write_notebook(tmp_path / "shipped.ipynb", ws, shown)
    with front_end.served(tmp_path) as address, front_end.browser(tmp_path) as context:
        page = context.new_page()
        front_end.open_notebook(page, address, "shipped.ipynb")
        front_end.run(page)
        page.get_by_role("button", name="Hugging Face, ").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="SmolLM2 1.7B Instruct, ").wait_for(timeout=60_000)
        page.get_by_role("button", name="SmolLM2 135M Instruct, ").click()
        page.wait_for_selector(".ftlab-graph h3:has-text('SmolLM2 135M')")
        pictures = Path(os.environ.get("FTLAB_PICTURES", tmp_path)).absolute()
        page.locator(".ftlab-graph").screenshot(path=pictures / "graph.png")
        assert (pictures / "graph.png").stat().st_size > 10_000
