"""The documents that come with the kit: true of it, small, and read as they are meant to be."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ftlab_kit import Workspace, configs, graphs, models, notebooks, records
from ftlab_kit.graphs import SAMPLES
from ftlab_kit.models.catalogue import CATALOGUE, DEFAULT
from ftlab_kit.records import Entity
from tests.test_house import FLOORS, table

DOCUMENTS = ("guides.md", "models.md", "rooms.md")
PRIVATE = Path(__file__).parents[2] / "shared" / "knowledge-base.md"
ROOMS = sorted({*table()} | {"graphs"})
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
def known(loaded: Workspace) -> dict[str, Entity]:
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


def test_all_is_read_and_nothing_contradicts_anything(loaded: Workspace):
    found = graphs.documents(loaded)
    assert [item.name for item in found] == [*DOCUMENTS]
    assert {(item.state, str(item.dated_at.date())) for item in found if item.dated_at} == {
        ("completed", "2026-11-01")
    }
    assert graphs.contradictions(loaded) == ()


def test_every_form_makes_entities_of_its_type(loaded: Workspace):
    wanted = {"Model": 14, "Provider": 7, "Capability": 4, "Tier": 3, "Use": 6}
    wanted |= {"Room": len(ROOMS), "Notebook": 14, "Recipe": 10, "Problem": 9, "Requirement": 4}
    around = graphs.around(loaded, limit=1000)
    counted = Counter(entity.type for entity in around.entities)
    assert {kind: counted[kind] for kind in wanted} == wanted


def test_the_models_are_those_of_the_catalogue(known: dict[str, Entity]):
    assert {*known} == {*CATALOGUE}


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_number_of_a_model_is_the_catalogues(loaded, known, name: str):
    entry, said = CATALOGUE[name], known[name].attributes
    numbers = (said["parameters"], said["vocabulary"], said["context_window"])
    assert numbers == (entry.parameters_millions, entry.vocabulary, entry.context_tokens)
    assert said["training_memory"] == models.get(loaded, name).gpu_memory_gib
    assert (said["family"], said["licence"]) == (entry.family, entry.licence)
    assert said.get("hub") == entry.hub_id
    owner = entry.hub_id.split("/")[0] if entry.hub_id else ""
    assert linked(loaded, known[name], "HAS_PROVIDER") == [PROVIDERS.get(owner, "The kit")]


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_capability_tier_and_badge_is_so(loaded, known, name: str):
    entry, said = CATALOGUE[name], known[name].attributes
    is_embedder = entry.family == "BERT"
    assert (said["chat"], said.get("embedding", False)) == (not is_embedder, is_embedder)
    assert said["hub_download"] == ("hub" in entry.sources)
    assert said.get("wheel_download", False) == ("wheel" in entry.sources)
    memory = said["training_memory"]
    tiers = {"Laptop Tier": (0, 2), "8 GiB Tier": (2, 8), "24 GiB Tier": (8, 24)}
    low, high = tiers[said["tier"]]
    assert low < memory <= high
    assert (said.get("badge") == "Default") == (name == DEFAULT)


def test_no_number_of_the_models_stands_in_plain_text_unread(loaded: Workspace):
    text = (SAMPLES / "models.md").read_text()
    units = {f"{entry.context_tokens:,} tokens" for entry in CATALOGUE.values()}
    units |= {f"{entry.vocabulary:,} tokens" for entry in CATALOGUE.values()}
    units |= {f"{entry.parameters_millions:,} million" for entry in CATALOGUE.values()}
    units |= {f"{model.gpu_memory_gib} GiB" for model in models.list(loaded)}
    assert {*re.findall(r"[\d,.]+ (?:tokens|million|GiB)\b(?! Tier)", text)} == units


def test_the_guides_say_of_models_what_the_models_page_says(loaded: Workspace):
    facts = [fact for fact in graphs.facts(loaded, "Tiny") if len(fact.places) > 2]
    assert {fact.attribute for fact in facts} == {"context_window", "training_memory"}
    for fact in facts:
        assert {place.document for place in fact.places} == {"guides.md", "models.md"}


def test_the_rooms_are_those_of_the_package(loaded: Workspace):
    found = {one.name: one.attributes["floor"] for one in graphs.find(loaded, "Room")}
    assert sorted(found) == ROOMS
    assert found == {name: FLOORS[name] for name in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_the_verbs_of_a_room_are_its_own(loaded: Workspace, room: str):
    (one,) = graphs.find(loaded, "Room", {"room_id": room})
    module = importlib.import_module(f"ftlab_kit.{room}")
    public = {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and callable(value)
        and not isinstance(value, type)
        and not name.startswith("_")
    }
    verbs = {*module.__all__} if room == "widgets" else public
    assert {name.lower() for name in linked(loaded, one, "HAS_VERB")} == verbs


def test_the_records_stand_in_their_rooms(loaded: Workspace):
    found = graphs.find(loaded, "Record")
    for one in found:
        assert hasattr(records, one.name) or hasattr(configs, one.name), one.name
    rooms: dict[str, set[str]] = {}
    for one in found:
        rooms.setdefault(one.attributes["room"], set()).add(one.name)
    assert {*rooms} == {*ROOMS} - {"widgets"}
    assert all({*names} <= rooms[room] for room, (names, _) in table().items() if names)


def test_the_notebooks_are_those_of_the_curriculum(loaded: Workspace):
    assert {one.name for one in graphs.find(loaded, "Notebook")} == {*notebooks.list()}
    for one in graphs.find(loaded, "Room"):
        assert {*linked(loaded, one, "HAS_NOTEBOOK")} <= {*notebooks.list()}


def test_every_name_of_code_in_the_guides_is_there(loaded: Workspace):
    text = (SAMPLES / "guides.md").read_text()
    for room, verb in re.findall(r"`(\w+)\.(\w+)`", text):
        assert hasattr(importlib.import_module(f"ftlab_kit.{room}"), verb)
    named = {*re.findall(r"`(\w+)`", text)}
    assert named and named <= {*configs.Config.model_fields}


def test_a_question_is_answered_with_its_line(loaded: Workspace):
    best = graphs.search(loaded, "Why is a score a dash?", kinds=("fact",))[0]
    (place,) = best.places
    line = (SAMPLES / place.document).read_text().splitlines()[place.first_line - 1]
    assert line.startswith("- **A score is a dash:**")
