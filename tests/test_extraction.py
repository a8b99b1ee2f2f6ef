"""What a document's form says without a language model: each rule, and that no text breaks it."""

import string
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from graphiti_core.helpers import validate_node_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab_kit.graphs import extraction, loaders
from ftlab_kit.graphs.extraction import Claim, Extract, Mention, values, wording
from ftlab_kit.graphs.loaders import Line, Text

MODELS = """# Models

## All Models

### GPT-5

**Model ID:** gpt-5

### GPT-5 Pro

**Model ID:** gpt-5-pro

### Claude 3

**Model ID:** claude-3

"""
BEFORE = MODELS.count("\n")


def read(text: str) -> Extract:
    lines = (Line(line, number) for number, line in enumerate(text.split("\n"), 1))
    return extraction.read(Text(tuple(lines)))


def sentences(text: str, after: int = 0) -> list[str]:
    """What a text says, from a line on."""
    return [claim.sentence for claim in read(text).claims if claim.first.number > after]


def further(text: str) -> list[Claim]:
    """What a text says below the models."""
    return [claim for claim in read(MODELS + text).claims if claim.first.number > BEFORE]


def about(text: str, after: int = BEFORE) -> dict[str, object]:
    """The attributes that a text gives, below the models."""
    found = (claim.sets for claim in read(MODELS + text).claims if claim.first.number > after)
    return {key: value for sets in found for key, value in sets.items()}


def of_red(labels: str) -> Extract:
    return read(f"# Models\n\n## All Models\n\n### Red\n\n**Model ID:** red\n{labels}")


def only(extract: Extract, relation: str) -> Claim:
    (found,) = [claim for claim in extract.claims if claim.relation == relation]
    return found


# labels


def test_a_heading_with_an_id_is_a_thing_of_that_type() -> None:
    claim = only(of_red(""), "MODEL_ID")
    assert claim.source == claim.target == Mention("Model", "Red")
    assert claim.sets == {"model_id": "red"}
    assert (claim.first.number, claim.last.number) == (7, 7)


def test_a_label_is_an_attribute_with_its_unit() -> None:
    claim = only(of_red("**Context Window:** 256K tokens\n"), "CONTEXT_WINDOW")
    assert claim.sentence == "The context window of Red is 256K tokens."
    assert (claim.sets, claim.unit) == ({"context_window": 256000}, "tokens")


def test_a_value_may_stand_on_the_lines_below_its_label() -> None:
    claim = only(of_red("**Description:**\nThe red one\nof them all.\n"), "DESCRIPTION")
    assert claim.sets == {"description": "The red one of them all."}
    assert (claim.first.number, claim.last.number) == (8, 10)


def test_yes_and_no_are_truths() -> None:
    extract = of_red("**Recommended:** Yes\n**Deprecated:** No\n")
    assert only(extract, "RECOMMENDED").sentence == "Red is recommended."
    assert only(extract, "DEPRECATED").sentence == "Red is not deprecated."
    assert only(extract, "DEPRECATED").sets == {"deprecated": False}


def test_a_list_below_a_label_is_things_of_the_label_s_noun() -> None:
    extract = of_red("\n**Key Strengths:**\n\n- Fast answers\n\n- Long context\n")
    strengths = [claim for claim in extract.claims if claim.relation == "HAS_STRENGTH"]
    assert [claim.target for claim in strengths] == [
        Mention("Strength", "Fast answers"),
        Mention("Strength", "Long context"),
    ]
    assert [claim.first.number for claim in strengths] == [11, 13]
    assert strengths[0].sentence == "Red has the key strength fast answers."


def test_use_cases_keep_both_words() -> None:
    claim = only(of_red("\n**Ideal Use Cases:**\n\n- Chats with people\n"), "HAS_USE_CASE")
    assert claim.target == Mention("UseCase", "Chats with people")


def test_prices_below_a_label_are_numbers_with_a_currency() -> None:
    extract = of_red("\n**Pricing:**\n\n- Input: $1.25 per 1M tokens\n- Output: €1,200.50\n")
    claim = only(extract, "PRICE_INPUT")
    assert (claim.sets, claim.unit) == ({"price_input": 1.25}, "USD per 1M tokens")
    assert claim.sentence == "Red costs $1.25 per 1M tokens: its input price."
    assert only(extract, "PRICE_OUTPUT").sets == {"price_output": 1200.5}


def test_a_label_that_several_share_links_them_to_a_thing() -> None:
    text = "".join(
        f"### {name}\n\n**Model ID:** {name}\n**Provider:** {provider}\n\n"
        for name, provider in (("Red", "Acme"), ("Blue", "Acme"), ("Green", "Bolt"))
    )
    found = [c for c in read(f"# Models\n\n## All Models\n\n{text}").claims if "PROV" in c.relation]
    assert [claim.target.name for claim in found] == ["Acme", "Acme", "Bolt"]
    assert found[0].sentence == "The provider of Red is Acme."
    assert found[0].target.type == "Provider"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("256K tokens", 256_000, "tokens"),
        ("1.5M", 1_500_000, ""),
        ("8 GB", 8_000_000_000, "b"),
        ("-3", -3, ""),
        ("12,345", 12345, ""),
        ("$0.40", 0.4, "USD"),
        ("£3 per seat", 3.0, "GBP per seat"),
        ("true", True, ""),
        ("**bold**", "bold", ""),
        ("3 little pigs went to town", "3 little pigs went to town", ""),
    ],
)
def test_a_value_is_what_it_says(text: str, value: object, unit: str) -> None:
    found = values.parse_value(text)
    assert (found.value, type(found.value), found.unit) == (value, type(value), unit)


# what lists say of known things


def test_tiers_list_their_members() -> None:
    found = further("### Tiers\n\n- **Economy Tier:** GPT-5, Claude 3\n- **Premium:** GPT-5 Pro\n")
    said = [(claim.source.name, claim.relation, claim.target.name) for claim in found]
    assert said == [
        ("GPT-5", "IN_TIER", "Economy Tier"),
        ("Claude 3", "IN_TIER", "Economy Tier"),
        ("GPT-5 Pro", "IN_TIER", "Premium"),
    ]
    assert found[0].sentence == "GPT-5 is in the Economy Tier."
    assert found[2].sentence == "GPT-5 Pro is in the tier Premium."
    assert found[0].sets == {"tier": "Economy Tier"}


def test_most_models_except_some_are_all_others() -> None:
    found = further("### Capabilities\n\n- **Vision:** Most models except Claude 3 and GPT-5\n")
    said = {(claim.source.name, claim.sets["vision"]) for claim in found}
    assert said == {("GPT-5 Pro", True), ("Claude 3", False), ("GPT-5", False)}
    assert {claim.relation for claim in found} == {"HAS_CAPABILITY", "LACKS_CAPABILITY"}


def test_a_family_is_all_whose_names_begin_so() -> None:
    text = "### Tiers\n\n- **Large Tier:** GPT-5 family (256K)\n- **Small Tier:** Claude models\n"
    said = [(claim.source.name, claim.target.name) for claim in further(text)]
    assert said == [
        ("GPT-5", "Large Tier"),
        ("GPT-5 Pro", "Large Tier"),
        ("Claude 3", "Small Tier"),
    ]


def test_models_with_and_without_say_who_can() -> None:
    text = (
        "### Who Sees\n\n**Models with Vision Capabilities:**\n\n- GPT-5\n- GPT-5 Pro (fast)\n\n"
        "**Models without Vision:**\n\n- Claude 3\n"
    )
    found = further(text)
    assert {claim.target for claim in found} == {Mention("Capability", "Vision")}
    said = [(claim.source.name, claim.sets["vision"]) for claim in found]
    assert said == [("GPT-5", True), ("GPT-5 Pro", True), ("Claude 3", False)]
    assert found[2].sentence.startswith("Claude 3 does not support vision")


def test_a_comparison_gives_each_side_its_value() -> None:
    text = "### Price Comparison (Input / Output per 1M tokens)\n\n- **GPT-5:** $1.25 / $10.00\n"
    assert about(text) == {"price_input": 1.25, "price_output": 10.0}
    text = "### Context Window Comparison\n\n**256K tokens:**\n\n- GPT-5 Pro\n"
    assert about(text) == {"context_window": 256000}


def test_a_list_below_a_topic_is_its_group() -> None:
    (claim,) = further("### Speed-Optimized Models\n\n- GPT-5\n")
    assert (claim.relation, claim.target) == (
        "IN_GROUP",
        Mention("Topic", "Speed-Optimized Models"),
    )
    assert claim.sentence == "GPT-5 is one of the Speed-Optimized Models."


def test_the_longest_name_comes_first_and_none_within_another() -> None:
    names = wording.NameMatcher(["GPT-5", "GPT-5 Pro", "Claude 3"])
    text = "GPT-5 Pro, gpt-5; GPT-50, GPT-5.1, GPT-5-mini, xGPT-5 and Claude 3."
    assert list(names.find(text)) == ["GPT-5 Pro", "GPT-5", "Claude 3"]
    assert list(wording.NameMatcher(["GPT-5"]).find("GPT-50 or GPT-5.1")) == []


# endpoints, tables, definitions, paragraphs


def test_an_endpoint_is_a_method_and_a_path() -> None:
    text = "# API\n\n## Jobs\n\n- **Create:** `POST /jobs`\n  Requires `name`, `size`\n"
    found = read(text).claims
    assert found[0].sets == {"method": "POST", "path": "/jobs"}
    assert found[0].source == Mention("Endpoint", "POST /jobs")
    required = [claim.target for claim in found if claim.relation == "REQUIRES"]
    assert required == [Mention("Parameter", "name"), Mention("Parameter", "size")]


def test_several_methods_of_a_path_are_several_endpoints() -> None:
    found = read("# API\n\n## Jobs\n\n- GET/PATCH/DELETE /jobs/{id}\n").claims
    names = [claim.source.name for claim in found if claim.relation == "IS_ENDPOINT"]
    assert names == ["GET /jobs/{id}", "PATCH /jobs/{id}", "DELETE /jobs/{id}"]


def test_a_table_gives_a_thing_its_columns() -> None:
    text = "### Speeds\n\n| Model | Speed | Notes |\n|---|:-:|--|\n| GPT-5 | 5 | a \\| b |\n"
    found = further(text + "| Claude 3 | n/a | |\n")
    assert [dict(claim.sets) for claim in found] == [{"speed": 5}, {"notes": "a | b"}]
    assert {claim.first.number for claim in found} == {BEFORE + 5}


def test_a_table_can_bring_its_things() -> None:
    found = read("# Animals\n\n| Animal | Legs |\n|---|---|\n| Zebra | 4 |\n").claims
    assert found[0].source == Mention("Animal", "Zebra")
    assert found[0].sentence == "The legs of Zebra are 4."


def test_a_definition_is_a_thing_with_a_description() -> None:
    text = "# Doc\n\n## Problems\n\n- **Job is slow:** Use a larger batch.\n  1. Stop it first\n"
    claim = read(text).claims[0]
    assert claim.source == Mention("Problem", "Job is slow")
    assert claim.sentence == "Job is slow: Use a larger batch. Stop it first."
    assert (claim.first.number, claim.last.number) == (5, 6)


def test_the_first_paragraph_says_what_a_heading_is() -> None:
    (claim,) = read("# Doc\n\n## Things\n\nA thing is what there is.\n\nAnd more of it.\n").claims
    assert claim.sets == {"description": "A thing is what there is."}
    assert claim.source == Mention("Topic", "Things")


def test_a_sentence_that_names_two_things_is_marked_as_inferred() -> None:
    text = "### Talk\n\nFirst words.\n\nGPT-5 Pro is faster than GPT-5. GPT-50 is not here.\n"
    (claim,) = [claim for claim in further(text) if claim.is_inferred]
    assert (claim.source.name, claim.target.name) == ("GPT-5 Pro", "GPT-5")
    assert claim.sentence == "GPT-5 Pro is faster than GPT-5."


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_what_stands_in_code_is_not_read(fence: str) -> None:
    text = (
        f"### Talk\n\n{fence}python\n# No heading\n**Model ID:** x\n- **Term:** in code\n"
        f"GPT-5 and Claude 3\nPOST /code\n| GPT-5 | 5 |\n{fence}\n"
    )
    assert further(text) == []
    assert any("POST /code" in chunk.text for chunk in read(MODELS + text).chunks)


def test_numbers_of_headings_are_no_part_of_names() -> None:
    found = read("# Setup\n\n## 1. Install the kit\n\nDo it now.\n").claims
    assert found[0].source == Mention("Step", "Install the kit")


# chunks and dates


def test_a_chunk_is_a_section_with_its_path_and_lines() -> None:
    chunk = read(MODELS).chunks[2]
    assert chunk.title == "Models > All Models > GPT-5"
    assert (chunk.first.number, chunk.last.number) == (5, 8)
    assert chunk.text == "### GPT-5\n\n**Model ID:** gpt-5"


def test_a_long_section_is_cut_and_no_line_is_lost() -> None:
    lines = [f"Line {number} of a long section." for number in range(200)]
    extract = read("# Long\n\n" + "\n".join(lines))
    assert len(extract.chunks) > 4
    assert max(len(chunk.text) for chunk in extract.chunks) <= extraction.MAX_CHUNK_CHARACTERS
    held = "\n".join(chunk.text for chunk in extract.chunks).split("\n")
    assert [line for line in held if line.startswith("Line")] == lines


@pytest.mark.parametrize("text", ["December 3, 2025", "2025-12-03", "3 Dec 2025", "03.12.2025"])
def test_a_document_bears_its_date(text: str) -> None:
    assert read(f"# A\n\n**Last Updated:** {text}\n").dated_at == datetime(2025, 12, 3, tzinfo=UTC)


def test_a_date_that_is_none_is_none() -> None:
    assert read("# A\n\n**Last Updated:** the other day\n").dated_at is None


def test_a_section_may_go_over_several_pages() -> None:
    pages = [("## Red", "page 1"), ("**Model ID:** red", "page 2"), ("- Fast answers", "page 3")]
    extract = extraction.read(Text(tuple(Line(text, 1, part) for text, part in pages)))
    claim = extract.claims[0]
    assert (claim.first.part, extraction.chunk_of(extract, claim)) == ("page 2", 0)


def test_names_of_attributes_leave_graphiti_s_own_alone() -> None:
    extract = of_red("**Name:** x\n**UUID:** y\n**Ended at:** z\n**Group ID:** 5\n")
    keys = {key for claim in extract.claims for key in claim.sets}
    assert keys == {"model_id", "stated_name", "stated_uuid", "stated_ended_at", "stated_group_id"}


@given(st.text())
def test_every_label_is_one_that_graphiti_takes(text: str) -> None:
    made = wording.type_label(text)
    validate_node_labels([made])
    assert made not in wording.RESERVED_LABELS


# whatever the text

some = st.sampled_from
NAMES = ("Red", "Blue", "All Models", "Vision", "Tiers", "Models", "Key Strengths", "Pricing")
FRAGMENTS = (
    "# ", "## ", "### 1. ", "**", ":** ", "**Model ID:** ", "**Price:** $", "- ", "  - ", "1. ",
    "| ", " | ", "|---|", "```", "~~~", "`", "GET /x", "POST/PUT ", "/jobs/{id}", "Red", "Blue",
    " Comparison (Input / Output per 1M)", "Models with ", "Most models except ", " family", ", ",
    " and ", "Requires `a`, `b`", "Vision", "Tiers", "Capabilities", "256K tokens", "Yes", "$1.5",
    "*", "_", "(", ")", "[", "\\", " ", "  ", "\t", "\u00a0", "ß", "日本語", "\U0001f600", "é", ":",
    "-", "--", "---", "İ", "ǆ", "\x00", "\u2028", "0", "9" * 30, "1e5", ".", "?",
)  # fmt: skip
pieces = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join)
SHAPES = (
    "# {}",
    "## {}",
    "### {}",
    "**{}:** {}",
    "**{} ID:** {}",
    "**{}:**",
    "- {}",
    "- **{}:** {}",
)
SHAPES += (
    "- {}: {}",
    "  {}",
    "  - {}",
    "| {} | {} |",
    "|---|---|",
    "GET/POST /{}",
    "{} and {}.",
    "",
)
lines = st.one_of(
    st.builds(lambda shape, one, other: shape.format(one, other), some(SHAPES), pieces, pieces),
    st.builds(
        lambda shape, one, other: shape.format(one, other), some(SHAPES), some(NAMES), pieces
    ),
    pieces,
    st.text(st.characters(exclude_characters="\n"), max_size=30),
    st.text(string.printable.replace("\n", ""), max_size=30),
)
documents = st.lists(lines, min_size=1, max_size=30)


def check(numbered: Sequence[Line]) -> None:
    """Every claim's lines lie in the document and, the first of them, in the claim's chunk."""
    extract = extraction.read(Text(tuple(numbered)))
    there = set(numbered)
    for claim in extract.claims:
        chunk = extract.chunks[extraction.chunk_of(extract, claim)]
        assert claim.first in there and claim.last in there
        assert claim.first.number <= claim.last.number or claim.first.part != claim.last.part
        if chunk.first.part == claim.first.part == chunk.last.part:
            assert chunk.first.number <= claim.first.number <= chunk.last.number
        assert claim.sentence.strip() and claim.source.name and claim.target.name
    for number, thing in extract.mentions:
        assert 0 <= number < len(extract.chunks) and thing.type


@settings(max_examples=300, deadline=None)
@given(documents)
def test_no_text_breaks_it(texts: list[str]) -> None:
    check([Line(text, number) for number, text in enumerate(texts, 1)])


@settings(max_examples=100, deadline=None)
@given(documents, st.integers(1, 5))
def test_no_text_in_pages_breaks_it(texts: list[str], length: int) -> None:
    check(
        [
            Line(text, number % length + 1, f"page {number // length + 1}")
            for number, text in enumerate(texts)
        ]
    )


@settings(max_examples=100, deadline=None)
@given(documents)
def test_what_it_yields_depends_on_the_text_alone(texts: list[str]) -> None:
    one, other = read("\n".join(texts)), read("\n".join(texts))
    assert one.claims == other.claims and one.mentions == other.mentions


def test_it_reads_what_the_loaders_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("RED\n===\n\nModel ID: red\nPrice: $5\n")
    found = extraction.read(loaders.read(tmp_path / "a.txt")).claims
    assert {key for claim in found for key in claim.sets} == {"model_id", "price"}
