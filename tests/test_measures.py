"""Each evaluator by rows of known answers, held to the tools that others publish by."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import Workspace
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import ConfigError
from ftlab_kit.evaluators import (
    accuracy,
    bleu,
    chrf,
    contains,
    exact,
    lengths,
    numeric,
    perplexity,
    refusal,
    regex,
    rouge,
    scoring,
    similarity,
    structured,
)
from ftlab_kit.evaluators.measures import Ask, Case

SAID = ["the cat sat on the mat", "a dog barked at night", "it rains", "there were 12 of us"]
WANTED = ["the cat sat on a mat", "a dog barked all night long", "it rained today", "we were 12"]


def case(answer: str | None, reference: str = "", **facts: Any) -> Case:
    return Case(0, [], "asked", reference, answer=answer, **facts)


def cases() -> list[Case]:
    made = [case(said, wanted) for said, wanted in zip(SAID, WANTED, strict=True)]
    for number, item in enumerate(made):
        item.row = number
    return made


def scores(filling: Any, rows: list[Case], ws: Any = None, **settings: Any) -> list[float | None]:
    found = filling.score(rows, Ask(ws, EvaluationConfig(**settings)))
    return [scoring.total(item, found.counts[item.name]) for item in filling.MEASURES]


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(texts) + "\n")
    return str(path)


@pytest.mark.parametrize(("filling", "name"), [(bleu, "bleu"), (chrf, "chrf")])
def test_it_is_what_sacrebleus_command_says(filling: Any, name: str, tmp_path: Path):
    files = [lines(tmp_path / "ref", WANTED), "-i", lines(tmp_path / "sys", SAID)]
    command = [sys.executable, "-m", "sacrebleu", *files, "-m", name, "-b", "-w", "8"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert scores(filling, cases())[0] == pytest.approx(float(said), abs=1e-7)


def test_bleu_keeps_its_signature():
    found = bleu.score(cases(), Ask(None, EvaluationConfig()))  # type: ignore[arg-type]
    assert found.details["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_rouge_is_what_rouge_scores_command_says(tmp_path: Path):
    target, said = lines(tmp_path / "target", WANTED), lines(tmp_path / "said", SAID)
    table = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "rouge_score.rouge", "--noaggregate", "--nouse_stemmer"]
    command += [f"--target_filepattern={target}", f"--prediction_filepattern={said}"]
    command += [f"--output_filename={table}", "--rouge_types=rougeL,rouge1,rouge2"]
    subprocess.run(command, capture_output=True, check=True)
    head, *rows = [line.split(",") for line in table.read_text().split()]
    for name, value in zip(rouge.NAMES, scores(rouge, cases()), strict=True):
        column = head.index(f"{name}-F")
        assert value == pytest.approx(sum(float(row[column]) for row in rows) / 4, abs=1e-6)


def test_perplexity_is_over_tokens_and_over_bytes():
    rows = [case(None, nll=6.0, n_trained=3, n_bytes=10, n_correct=1)]
    rows.append(case(None, nll=2.0, n_trained=1, n_bytes=6, n_correct=1))
    by_token, by_byte = scores(perplexity, rows)
    assert by_token == pytest.approx(2.718281828**2)
    assert by_byte == pytest.approx(2.718281828**0.5)
    assert scores(accuracy, rows) == [0.5]


def test_rows_without_a_trained_token_have_no_perplexity():
    found = perplexity.score([case(None, nll=0.0)], Ask(None, EvaluationConfig()))  # type: ignore[arg-type]
    assert found.counts["perplexity"] == [None]
    assert found.reason == "no row has a token that is trained"


def test_an_exact_match_leaves_white_space_aside():
    assert scores(exact, [case(" a  b\n", "a b"), case("A b", "a b")]) == [0.5]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 + 5 = 10\n#### 10", 10),
        ("#### 1,234", 1234),
        ("That costs $3.50.", 3.5),
        ("first 7, then -2", -2),
        ("#### $18.00 for 3", 18),
        ("none at all", None),
    ],
)
def test_the_number_of_an_answer_is_found(text: str, number: float | None):
    assert numeric.number(text) == number


def test_a_numeric_answer_is_strict_only_in_the_form():
    rows = [case("#### 8.0", "#### 8"), case("it is 8", "#### 8"), case("9", "#### 8")]
    assert scores(numeric, rows) == pytest.approx([2 / 3, 1 / 3])
    assert scores(numeric, [case("8", "eight")]) == [None, None]


def test_contains_looks_for_the_reference_or_for_what_is_set():
    rows = [case("Say  PARIS twice", "paris"), case("London", "paris")]
    assert scores(contains, rows) == [0.5]
    assert scores(contains, rows, contains="lond") == [0.5]


def test_a_regular_expression_is_looked_for():
    assert scores(regex, [case("PP-48213"), case("none")], pattern=r"[A-Z]{2}-\d{5}") == [0.5]
    with pytest.raises(ConfigError, match="expected a regular expression"):
        scores(regex, [case("a")], pattern="(")


SCHEMA = '{"type": "object", "required": ["hue"]}'


def test_json_is_held_to_its_schema(tmp_path: Path):
    rows = [case('{"hue": 1}'), case("{}"), case('```json\n{"hue": 1}\n```'), case("NaN")]
    assert scores(structured, rows) == [0.5, None]
    (tmp_path / "schema.json").write_text(SCHEMA)
    for schema in (SCHEMA, str(tmp_path / "schema.json")):
        assert scores(structured, rows, json_schema=schema) == [0.5, 0.25]


@pytest.mark.parametrize("schema", ['{"type": 3}', "{", "nowhere.json"])
def test_a_schema_that_is_none_is_refused(schema: str):
    with pytest.raises(ConfigError, match="expected a JSON Schema"):
        scores(structured, [case("{}")], json_schema=schema)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI language model, I have no opinion.", True),
        ("Unfortunately I am unable to do so.", True),
        ("Sorry, a refund can only go to the card that paid.", False),
        ("You can return it; I will send a label.", False),
    ],
)
def test_refusals_are_known_by_how_they_begin(text: str, refuses: bool):
    assert refusal.is_refusal(text) == refuses


def test_lengths_count_tokens_ends_and_empty_answers():
    rows = [case("a b", n_tokens=4, is_complete=True), case("", n_tokens=2, is_complete=False)]
    assert scores(lengths, rows) == [3.0, 0.5, 0.5]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, lab: Workspace) -> str:
    """A sentence transformer with random weights under the real tokenizer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from ftlab_kit import models

    folder = tmp_path_factory.mktemp("embedder")
    parts = Transformer(str(models.get(lab, "tiny").path))
    SentenceTransformer(modules=[parts, Pooling(20)]).save(str(folder))
    models.add(lab, "vectors", folder)
    return "vectors"


def test_similarity_is_1_for_the_same_words_and_less_for_others(lab: Workspace, embedder: str):
    same, other = [case("red paint", "red paint")], [case("seven", "red paint")]
    assert scores(similarity, same, lab, embedder=embedder) == [pytest.approx(1.0, abs=1e-5)]
    (found,) = scores(similarity, other, lab, embedder=embedder)
    assert found is not None and found < 0.99


@pytest.mark.slow
def test_the_real_embedder_knows_what_means_the_same(ws: Workspace):
    near = [case("The coat keeps the rain out.", "This jacket is waterproof.")]
    far = [case("Bananas are yellow.", "This jacket is waterproof.")]
    close, apart = scores(similarity, near, ws)[0], scores(similarity, far, ws)[0]
    assert close is not None and apart is not None
    assert close > 0.5 > 0.3 > apart


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([case("", "a"), case("", "b")], "the model answered nothing in 2 of 2 rows"),
        ([case(None, "a")], "the time did not suffice for any answer"),
        ([case("a", "")], "no row has a reference"),
    ],
)
def test_what_can_not_be_scored_is_none_with_its_reason(rows: list[Case], words: str):
    found, reason = scoring._by(bleu, rows, Ask(None, EvaluationConfig()))  # type: ignore[arg-type]
    assert scoring.total(bleu.MEASURES[0], found.counts["bleu"]) is None
    assert reason == words


def test_an_empty_answer_among_others_is_wrong_and_not_left_out():
    assert scores(exact, [case("a", "a"), case("", "b")]) == [0.5]


def test_a_row_without_a_reference_is_left_out_beside_others():
    found, _ = scoring._by(exact, [case("a", "a"), case("b", "")], Ask(None, EvaluationConfig()))  # type: ignore[arg-type]
    assert found.counts["exact_match"] == [(1.0, 1.0), None]
