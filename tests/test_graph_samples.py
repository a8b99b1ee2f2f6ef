"""The documents that come with the kit: small, true of the package, and read as intended."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ftlab_kit import Workspace, configs, graphs, models, notebooks, records
from ftlab_kit.graphs import SAMPLES
from ftlab_kit.models.catalogue import CATALOGUE, DEFAULT
from ftlab_kit.records import Entity
from tests.test_house import LAYERS, rooms_of_the_map

DOCUMENTS = ("guides.md", "models.md", "rooms.md")
PRIVATE = Path(__file__).parents[2] / "shared" / "knowledge-base.md"
ROOMS = [room for room in reversed(LAYERS) if room in rooms_of_the_map()]
PROVIDERS = {
    "HuggingFaceTB": "Hugging Face",
    "Qwen": "Alibaba",
    "google": "Google",
    "meta-llama": "Meta",
    "mistralai": "Mistral AI",
    "sentence-transformers": "Sentence Transformers",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose graph holds the documents."""
    ws = Workspace(tmp_path_factory.mktemp("samples") / "lab")
    for name in DOCUMENTS:
        graphs.load(ws, SAMPLES / name, embedder="hash")
    return ws


@pytest.fixture(scope="module")
def entities(loaded: Workspace) -> dict[str, Entity]:
    """The models that the documents speak of, by their ids in the catalogue."""
    return {str(one.attributes["model_id"]): one for one in graphs.find(loaded, "Model")}


def linked(ws: Workspace, entity: Entity | str, relation: str) -> list[str]:
    """Return what an entity is linked to by a relation."""
    return [fact.target for fact in graphs.facts(ws, entity) if fact.relation == relation]


def test_they_are_three_and_a_card():
    assert {path.name for path in SAMPLES.iterdir()} == {*DOCUMENTS, "README.md"}


@pytest.mark.parametrize("name", [*DOCUMENTS, "README.md"])
def test_a_file_is_small_and_nothing_in_it_is_from_elsewhere(name: str):
    text = (SAMPLES / name).read_text()
    assert len(text.encode()) <= 25_000
    theirs = PRIVATE.read_text().splitlines() if PRIVATE.exists() else []
    long = {line.strip() for line in theirs if len(line.strip()) > 40}
    assert not [line for line in text.splitlines() if line.strip() in long]


def test_every_document_is_read_and_nothing_contradicts(loaded: Workspace):
    documents = graphs.documents(loaded)
    assert [item.name for item in documents] == [*DOCUMENTS]
    assert {(item.state, str(item.dated_at.date())) for item in documents if item.dated_at} == {
        ("completed", "2026-11-01")
    }
    assert graphs.contradictions(loaded) == ()


def test_every_structure_yields_entities_of_its_type(loaded: Workspace):
    expected = {"Model": 14, "Provider": 7, "Capability": 4, "Tier": 3, "Use": 6}
    expected |= {"Room": len(ROOMS), "Notebook": 14, "Recipe": 10, "Problem": 9, "Requirement": 4}
    around = graphs.around(loaded, limit=1000)
    counted = Counter(entity.type for entity in around.entities)
    assert {kind: counted[kind] for kind in expected} == expected


def test_the_models_are_those_of_the_catalogue(entities: dict[str, Entity]):
    assert {*entities} == {*CATALOGUE}


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_number_of_a_model_is_the_catalogues(
    loaded: Workspace, entities: dict[str, Entity], name: str
):
    entry, stated = CATALOGUE[name], entities[name].attributes
    numbers = (stated["parameters"], stated["vocabulary"], stated["context_window"])
    assert numbers == (entry.parameters_millions, entry.vocabulary, entry.context_tokens)
    assert stated["training_memory"] == models.get(loaded, name).gpu_memory_gib
    assert (stated["family"], stated["licence"]) == (entry.family, entry.licence)
    assert stated.get("hub") == entry.hub_id
    owner = entry.hub_id.split("/")[0] if entry.hub_id else ""
    assert linked(loaded, entities[name], "HAS_PROVIDER") == [PROVIDERS.get(owner, "The kit")]


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_capability_tier_and_badge_is_true(entities: dict[str, Entity], name: str):
    entry, stated = CATALOGUE[name], entities[name].attributes
    is_embedder = entry.family == "BERT"
    assert (stated["chat"], stated.get("embedding", False)) == (not is_embedder, is_embedder)
    assert stated["hub_download"] == ("hub" in entry.sources)
    assert stated.get("wheel_download", False) == ("wheel" in entry.sources)
    memory = stated["training_memory"]
    tiers = {"Laptop Tier": (0, 2), "8 GiB Tier": (2, 8), "24 GiB Tier": (8, 24)}
    low, high = tiers[stated["tier"]]
    assert low < memory <= high
    assert (stated.get("badge") == "Default") == (name == DEFAULT)


def test_every_number_in_the_text_is_one_of_the_catalogue(loaded: Workspace):
    text = (SAMPLES / "models.md").read_text()
    units = {f"{entry.context_tokens:,} tokens" for entry in CATALOGUE.values()}
    units |= {f"{entry.vocabulary:,} tokens" for entry in CATALOGUE.values()}
    units |= {f"{entry.parameters_millions:,} million" for entry in CATALOGUE.values()}
    units |= {f"{model.gpu_memory_gib} GiB" for model in models.list(loaded)}
    assert {*re.findall(r"[\d,.]+ (?:tokens|million|GiB)\b(?! Tier)", text)} == units


def test_the_guides_agree_with_the_models_page(loaded: Workspace):
    facts = [fact for fact in graphs.facts(loaded, "Tiny") if len(fact.places) > 2]
    assert {fact.attribute for fact in facts} == {"context_window", "training_memory"}
    for fact in facts:
        assert {place.document for place in fact.places} == {"guides.md", "models.md"}


def test_the_rooms_are_those_of_the_package(loaded: Workspace):
    assert {one.name for one in graphs.find(loaded, "Room")} == {*ROOMS}
    text = (SAMPLES / "rooms.md").read_text().partition("## Records")[0]
    assert re.findall(r"^### (\w+)$", text, re.M) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_the_verbs_of_a_room_are_its_own(loaded: Workspace, room: str):
    (one,) = graphs.find(loaded, "Room", {"room_id": room})
    verbs = rooms_of_the_map()[room][1]
    assert {name.lower() for name in linked(loaded, one, "HAS_VERB")} == {*verbs}


def test_the_records_stand_in_their_rooms(loaded: Workspace):
    by_room: dict[str, set[str]] = {}
    for one in graphs.find(loaded, "Record"):
        assert hasattr(records, one.name) or hasattr(configs, one.name), one.name
        by_room.setdefault(one.attributes["room"], set()).add(one.name)
    assert by_room == {room: {*names} for room, (names, _) in rooms_of_the_map().items() if names}


def test_the_notebooks_are_those_of_the_curriculum(loaded: Workspace):
    assert {one.name for one in graphs.find(loaded, "Notebook")} == {*notebooks.list()}
    for one in graphs.find(loaded, "Room"):
        assert {*linked(loaded, one, "HAS_NOTEBOOK")} <= {*notebooks.list()}


def test_every_name_in_the_guides_exists(loaded: Workspace):
    text = (SAMPLES / "guides.md").read_text()
    for room, verb in re.findall(r"`(\w+)\.(\w+)`", text):
        assert hasattr(importlib.import_module(f"ftlab_kit.{room}"), verb)
    settings = {*re.findall(r"`(\w+)`", text)}
    assert settings and settings <= {*configs.Config.model_fields}


def test_a_question_is_answered_with_its_line(loaded: Workspace):
    best = graphs.search(loaded, "Why is a score a dash?", kinds=("fact",))[0]
    (place,) = best.places
    line = (SAMPLES / place.document).read_text().splitlines()[place.first_line - 1]
    assert line.startswith("- **A score is a dash:**")
