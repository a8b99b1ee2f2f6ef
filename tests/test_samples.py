"""The sample datasets of the kit: valid, distinct, and as their cards describe them."""

import ast
import json

import pytest

from ftlab_kit import datasets
from ftlab_kit.datasets import SAMPLES

TICKETS = {"prompt": "customer_message", "completion": "agent_reply"}
FILES = {
    "puddle_and_pine.jsonl": (300, 0),
    "twelve_faults.jsonl": (63, 12),
    "saltmere_tickets.csv": (130, 2),
    "brindle_code.jsonl": (130, 0),
    "lease_clauses.jsonl": (144, 0),
    "quillow_copy.jsonl": (128, 0),
}


def answers(name: str) -> list[str]:
    lines = (SAMPLES / name).read_text().splitlines()
    return [json.loads(line)["messages"][-1]["content"] for line in lines]


def test_every_sample_file_is_tested_here():
    assert {path.name for path in SAMPLES.iterdir() if path.suffix != ".md"} == {*FILES}


@pytest.mark.parametrize("name", FILES)
def test_the_rows_of_a_sample_can_be_trained_on(name: str):
    columns = TICKETS if name.endswith(".csv") else None
    report = datasets.validate(SAMPLES / name, columns=columns)
    assert (report.n_rows, report.n_refused) == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_a_sample_has_a_card_that_says_it_is_invented(name: str):
    card = (SAMPLES / name).with_suffix(".md")
    text = (card if card.exists() else SAMPLES / "README.md").read_text()
    assert "invented" in text and name.split(".")[0].replace("_", " ").split()[0] in text.lower()


@pytest.mark.parametrize(
    "name",
    ["puddle_and_pine.jsonl", "brindle_code.jsonl", "lease_clauses.jsonl", "quillow_copy.jsonl"],
)
def test_the_answers_of_a_sample_are_distinct(name: str):
    texts = answers(name)
    assert len({*texts}) == len(texts)


def test_all_code_is_python_that_uses_the_library():
    for text in answers("brindle_code.jsonl"):
        (task,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        assert task.args.args[0].arg == "ctx"
        assert ast.get_docstring(task)
        assert "@brindle.task(" in text and "print(" not in text


def test_all_labels_of_clauses_have_the_same_fields():
    fields = {tuple(json.loads(text)) for text in answers("lease_clauses.jsonl")}
    assert len(fields) == 1
