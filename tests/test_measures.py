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
from ftlab_kit.evaluators.family import EVALUATORS, Evaluator
from ftlab_kit.evaluators.measures import EvaluationContext, EvaluatorResult, Example

ANSWERS = ["the cat sat on the mat", "a dog barked at night", "it rains", "there were 12 of us"]
REFERENCES = [
    "the cat sat on a mat",
    "a dog barked all night long",
    "it rained today",
    "we were 12",
]


def example(answer: str | None, reference: str = "", **facts: Any) -> Example:
    return Example(0, [], "prompt", reference, answer=answer, **facts)


def examples() -> list[Example]:
    rows = [example(answer, text) for answer, text in zip(ANSWERS, REFERENCES, strict=True)]
    for number, row in enumerate(rows):
        row.row = number
    return rows


def result(evaluator: Evaluator, rows: list[Example], ws: Any = None, **settings: Any) -> Any:
    return evaluator.score(rows, EvaluationContext(ws, EvaluationConfig(**settings)))


def scores(
    evaluator: Evaluator, rows: list[Example], ws: Any = None, **settings: Any
) -> list[float | None]:
    counts = result(evaluator, rows, ws, **settings).counts
    return [scoring.total(measure, counts[measure.name]) for measure in evaluator.MEASURES]


def run(evaluator: Evaluator, rows: list[Example]) -> EvaluatorResult:
    context = EvaluationContext(None, EvaluationConfig())  # type: ignore[arg-type]
    return scoring._run(evaluator, rows, context)


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(texts) + "\n")
    return str(path)


@pytest.mark.parametrize(("evaluator", "name"), [(bleu, "bleu"), (chrf, "chrf")])
def test_bleu_and_chrf_equal_sacrebleus_command(evaluator: Evaluator, name: str, tmp_path: Path):
    files = [lines(tmp_path / "ref", REFERENCES), "-i", lines(tmp_path / "sys", ANSWERS)]
    command = [sys.executable, "-m", "sacrebleu", *files, "-m", name, "-b", "-w", "8"]
    stdout = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert scores(evaluator, examples())[0] == pytest.approx(float(stdout), abs=1e-7)


def test_bleu_keeps_its_signature():
    signature = result(bleu, examples()).details["signature"]
    assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_rouge_equals_rouge_scores_command(tmp_path: Path):
    target, answers = lines(tmp_path / "target", REFERENCES), lines(tmp_path / "answers", ANSWERS)
    table = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "rouge_score.rouge", "--noaggregate", "--nouse_stemmer"]
    command += [f"--target_filepattern={target}", f"--prediction_filepattern={answers}"]
    command += [f"--output_filename={table}", "--rouge_types=rougeL,rouge1,rouge2"]
    subprocess.run(command, capture_output=True, check=True)
    head, *rows = [line.split(",") for line in table.read_text().split()]
    for name, value in zip(rouge.NAMES, scores(rouge, examples()), strict=True):
        column = head.index(f"{name}-F")
        assert value == pytest.approx(sum(float(row[column]) for row in rows) / 4, abs=1e-6)


def test_perplexity_is_over_tokens_and_over_bytes():
    rows = [example(None, nll=6.0, n_trained=3, n_bytes=10, n_correct=1)]
    rows.append(example(None, nll=2.0, n_trained=1, n_bytes=6, n_correct=1))
    by_token, by_byte = scores(perplexity, rows)
    assert by_token == pytest.approx(2.718281828**2)
    assert by_byte == pytest.approx(2.718281828**0.5)
    assert scores(accuracy, rows) == [0.5]


def test_rows_without_a_trained_token_have_no_perplexity():
    untrained = result(perplexity, [example(None, nll=0.0)])
    assert untrained.counts["perplexity"] == [None]
    assert untrained.reason == "no row has a trained token"


def test_an_exact_match_ignores_white_space():
    assert scores(exact, [example(" a  b\n", "a b"), example("A b", "a b")]) == [0.5]


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
def test_an_answers_number_is_read(text: str, number: float | None):
    assert numeric.number(text) == number


def test_a_strict_numeric_answer_needs_the_mark():
    rows = [example("#### 8.0", "#### 8"), example("it is 8", "#### 8"), example("9", "#### 8")]
    assert scores(numeric, rows) == pytest.approx([2 / 3, 1 / 3])
    assert scores(numeric, [example("8", "eight")]) == [None, None]


def test_contains_looks_for_the_reference_or_the_text_that_is_set():
    rows = [example("Say  PARIS twice", "paris"), example("London", "paris")]
    assert scores(contains, rows) == [0.5]
    assert scores(contains, rows, contains="lond") == [0.5]


def test_a_regular_expression_is_matched_in_the_answer():
    assert scores(regex, [example("PP-48213"), example("none")], pattern=r"[A-Z]{2}-\d{5}") == [0.5]
    with pytest.raises(ConfigError, match="expected a regular expression"):
        scores(regex, [example("a")], pattern="(")


SCHEMA = '{"type": "object", "required": ["hue"]}'


def test_json_is_held_to_its_schema(tmp_path: Path):
    rows = [
        example('{"hue": 1}'),
        example("{}"),
        example('```json\n{"hue": 1}\n```'),
        example("NaN"),
    ]
    assert scores(structured, rows) == [0.5, None]
    (tmp_path / "schema.json").write_text(SCHEMA)
    for schema in (SCHEMA, str(tmp_path / "schema.json")):
        assert scores(structured, rows, json_schema=schema) == [0.5, 0.25]


@pytest.mark.parametrize("schema", ['{"type": 3}', "{", "nowhere.json"])
def test_an_invalid_schema_is_refused(schema: str):
    with pytest.raises(ConfigError, match="expected a JSON Schema"):
        scores(structured, [example("{}")], json_schema=schema)


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
def test_refusals_are_recognised_by_how_they_begin(text: str, refuses: bool):
    assert refusal.is_refusal(text) == refuses


def test_lengths_count_tokens_ends_and_empty_answers():
    rows = [
        example("a b", n_tokens=4, is_complete=True),
        example("", n_tokens=2, is_complete=False),
    ]
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


def test_similarity_is_1_for_the_same_text_and_less_for_another(lab: Workspace, embedder: str):
    same, other = [example("red paint", "red paint")], [example("seven", "red paint")]
    assert scores(similarity, same, lab, embedder=embedder) == [pytest.approx(1.0, abs=1e-5)]
    (cosine,) = scores(similarity, other, lab, embedder=embedder)
    assert cosine is not None and cosine < 0.99


@pytest.mark.slow
def test_the_real_embedder_recognises_a_paraphrase(ws: Workspace):
    near = [example("The coat keeps the rain out.", "This jacket is waterproof.")]
    far = [example("Bananas are yellow.", "This jacket is waterproof.")]
    close, apart = scores(similarity, near, ws)[0], scores(similarity, far, ws)[0]
    assert close is not None and apart is not None
    assert close > 0.5 > 0.3 > apart


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([example("", "a"), example("", "b")], "all 2 answers are empty"),
        ([example(None, "a")], "max_seconds passed before the first answer"),
        ([example("a", "")], "no row has a reference"),
    ],
)
def test_a_score_that_can_not_be_computed_is_none_with_its_reason(rows: list[Example], reason: str):
    unscored = run(bleu, rows)
    assert scoring.total(bleu.MEASURES[0], unscored.counts["bleu"]) is None
    assert unscored.reason == reason


def test_an_empty_answer_among_others_counts_as_wrong():
    assert scores(exact, [example("a", "a"), example("", "b")]) == [0.5]


def test_a_row_without_a_reference_is_left_out():
    rows = [example("a", "a"), example("b", "")]
    assert run(exact, rows).counts["exact_match"] == [(1.0, 1.0), None]


@pytest.mark.parametrize(
    ("metric", "measures", "requires"),
    [
        ("perplexity", "perplexity- byte_perplexity-", "likelihood"),
        ("token_accuracy", "token_accuracy+", "likelihood"),
        ("exact_match", "exact_match+", "answers references"),
        ("numeric_answer", "numeric_answer+ numeric_strict+", "answers references"),
        ("bleu", "bleu+", "answers references"),
        ("chrf", "chrf+", "answers references"),
        ("rouge", "rougeL+ rouge1+ rouge2+", "answers references"),
        ("contains", "contains+", "answers references"),
        ("regex", "regex+", "answers"),
        ("json", "json_valid+ json_schema+", "answers"),
        ("similarity", "similarity+", "answers references"),
        ("refusal", "refusal", "answers"),
        ("lengths", "answer_tokens ended+ empty-", "answers empty answers"),
        ("judge", "judge+ judge_win_rate+", "answers"),
    ],
)
def test_each_metric_has_these_measures(metric: str, measures: str, requires: str):
    signs = {True: "+", False: "-", None: ""}
    evaluator = EVALUATORS[metric]
    named = [item.name + signs[item.greater_is_better] for item in evaluator.MEASURES]
    assert " ".join(named) == measures
    assert " ".join(sorted(evaluator.REQUIRES)) == requires


def test_the_metrics_are_those_of_the_table_above():
    (mark,) = test_each_metric_has_these_measures.pytestmark
    assert {row[0] for row in mark.args[1]} == {*EVALUATORS}
