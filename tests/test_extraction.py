"""What extraction reads from a document's form: each rule, foreign documents, and any text."""

import string
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from graphiti_core.helpers import validate_node_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab_kit.graphs import extraction, loaders
from ftlab_kit.graphs.extraction import Claim, Extract, Mention, idioms, values, wording
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


def claims_below(text: str) -> list[Claim]:
    """The claims of a text that follows the models."""
    return [claim for claim in read(MODELS + text).claims if claim.first.number > BEFORE]


def attributes(text: str) -> dict[str, object]:
    """The attributes that a text gives the models."""
    return {key: value for claim in claims_below(text) for key, value in claim.sets.items()}


def red_with(labels: str) -> Extract:
    return read(f"# Models\n\n## All Models\n\n### Red\n\n**Model ID:** red\n{labels}")


def only(extract: Extract, relation: str) -> Claim:
    (claim,) = [claim for claim in extract.claims if claim.relation == relation]
    return claim


# labels


def test_a_heading_with_an_id_is_an_entity_of_that_type() -> None:
    claim = only(red_with(""), "MODEL_ID")
    assert claim.source == claim.target == Mention("Model", "Red")
    assert claim.sets == {"model_id": "red"}
    assert (claim.first.number, claim.last.number) == (7, 7)


def test_a_label_is_an_attribute_with_its_unit() -> None:
    claim = only(red_with("**Context Window:** 256K tokens\n"), "CONTEXT_WINDOW")
    assert claim.sentence == "The context window of Red is 256K tokens."
    assert (claim.sets, claim.unit) == ({"context_window": 256000}, "tokens")


def test_a_value_may_stand_on_the_lines_below_its_label() -> None:
    claim = only(red_with("**Description:**\nThe red one\nof them all.\n"), "DESCRIPTION")
    assert claim.sets == {"description": "The red one of them all."}
    assert (claim.first.number, claim.last.number) == (8, 10)


def test_yes_and_no_are_booleans() -> None:
    extract = red_with("**Recommended:** Yes\n**Deprecated:** No\n")
    assert only(extract, "RECOMMENDED").sentence == "Red is recommended."
    assert only(extract, "DEPRECATED").sentence == "Red is not deprecated."
    assert only(extract, "DEPRECATED").sets == {"deprecated": False}


def test_a_list_below_a_label_gives_entities_of_the_label_s_noun() -> None:
    extract = red_with("\n**Key Strengths:**\n\n- Fast answers\n\n- Long context\n")
    strengths = [claim for claim in extract.claims if claim.relation == "HAS_STRENGTH"]
    assert [claim.target for claim in strengths] == [
        Mention("Strength", "Fast answers"),
        Mention("Strength", "Long context"),
    ]
    assert [claim.first.number for claim in strengths] == [11, 13]
    assert strengths[0].sentence == "Red has the key strength fast answers."


def test_use_cases_keep_both_words() -> None:
    claim = only(red_with("\n**Ideal Use Cases:**\n\n- Chats with people\n"), "HAS_USE_CASE")
    assert claim.target == Mention("UseCase", "Chats with people")


def test_prices_below_a_label_are_numbers_with_a_currency() -> None:
    extract = red_with("\n**Pricing:**\n\n- Input: $1.25 per 1M tokens\n- Output: €1,200.50\n")
    claim = only(extract, "PRICE_INPUT")
    assert (claim.sets, claim.unit) == ({"price_input": 1.25}, "USD per 1M tokens")
    assert claim.sentence == "Red costs $1.25 per 1M tokens: its input price."
    assert only(extract, "PRICE_OUTPUT").sets == {"price_output": 1200.5}


def test_a_label_with_shared_values_links_to_entities() -> None:
    text = "".join(
        f"### {name}\n\n**Model ID:** {name}\n**Provider:** {provider}\n\n"
        for name, provider in (("Red", "Acme"), ("Blue", "Acme"), ("Green", "Bolt"))
    )
    claims = read(f"# Models\n\n## All Models\n\n{text}").claims
    links = [claim for claim in claims if "PROV" in claim.relation]
    assert [claim.target.name for claim in links] == ["Acme", "Acme", "Bolt"]
    assert links[0].sentence == "The provider of Red is Acme."
    assert links[0].target.type == "Provider"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("256K tokens", 256_000, "tokens"),
        ("1.5M", 1_500_000, ""),
        ("8 GB", 8_000_000_000, "b"),
        ("8 kB", 8000, "b"),
        ("5k", 5000, ""),
        ("62 m", 62, "m"),
        ("-3", -3, ""),
        ("12,345", 12345, ""),
        ("$0.40", 0.4, "USD"),
        ("£3 per seat", 3.0, "GBP per seat"),
        ("true", True, ""),
        ("**bold**", "bold", ""),
        ("3 little pigs went to town", "3 little pigs went to town", ""),
    ],
)
def test_a_value_is_parsed_with_its_unit(text: str, value: object, unit: str) -> None:
    parsed = values.parse_value(text)
    assert (parsed.value, type(parsed.value), parsed.unit) == (value, type(value), unit)


# lists of known entities


def test_tiers_list_their_members() -> None:
    claims = claims_below(
        "### Tiers\n\n- **Economy Tier:** GPT-5, Claude 3\n- **Premium:** GPT-5 Pro\n"
    )
    relations = [(claim.source.name, claim.relation, claim.target.name) for claim in claims]
    assert relations == [
        ("GPT-5", "IN_TIER", "Economy Tier"),
        ("Claude 3", "IN_TIER", "Economy Tier"),
        ("GPT-5 Pro", "IN_TIER", "Premium"),
    ]
    assert claims[0].sentence == "GPT-5 is in the Economy Tier."
    assert claims[2].sentence == "GPT-5 Pro is in the tier Premium."
    assert claims[0].sets == {"tier": "Economy Tier"}


def test_most_models_except_some_means_all_others() -> None:
    claims = claims_below(
        "### Capabilities\n\n- **Vision:** Most models except Claude 3 and GPT-5\n"
    )
    capabilities = {(claim.source.name, claim.sets["vision"]) for claim in claims}
    assert capabilities == {("GPT-5 Pro", True), ("Claude 3", False), ("GPT-5", False)}
    assert {claim.relation for claim in claims} == {"HAS_CAPABILITY", "LACKS_CAPABILITY"}


def test_a_family_is_every_name_with_the_same_beginning() -> None:
    text = "### Tiers\n\n- **Large Tier:** GPT-5 family (256K)\n- **Small Tier:** Claude models\n"
    relations = [(claim.source.name, claim.target.name) for claim in claims_below(text)]
    assert relations == [
        ("GPT-5", "Large Tier"),
        ("GPT-5 Pro", "Large Tier"),
        ("Claude 3", "Small Tier"),
    ]


def test_models_with_and_without_give_capabilities() -> None:
    text = (
        "### Who Sees\n\n**Models with Vision Capabilities:**\n\n- GPT-5\n- GPT-5 Pro (fast)\n\n"
        "**Models without Vision:**\n\n- Claude 3\n"
    )
    claims = claims_below(text)
    assert {claim.target for claim in claims} == {Mention("Capability", "Vision")}
    relations = [(claim.source.name, claim.sets["vision"]) for claim in claims]
    assert relations == [("GPT-5", True), ("GPT-5 Pro", True), ("Claude 3", False)]
    assert claims[2].sentence.startswith("Claude 3 does not support vision")


def test_a_comparison_gives_each_side_its_value() -> None:
    text = "### Price Comparison (Input / Output per 1M tokens)\n\n- **GPT-5:** $1.25 / $10.00\n"
    assert attributes(text) == {"price_input": 1.25, "price_output": 10.0}
    text = "### Context Window Comparison\n\n**256K tokens:**\n\n- GPT-5 Pro\n"
    assert attributes(text) == {"context_window": 256000}


def test_a_list_below_a_topic_is_its_group() -> None:
    (claim,) = claims_below("### Speed-Optimized Models\n\n- GPT-5\n")
    assert (claim.relation, claim.target) == (
        "IN_GROUP",
        Mention("Topic", "Speed-Optimized Models"),
    )
    assert claim.sentence == "GPT-5 is one of the Speed-Optimized Models."


def test_the_longest_name_is_found_first_and_none_inside_another() -> None:
    names = wording.NameMatcher(["GPT-5", "GPT-5 Pro", "Claude 3"])
    text = "GPT-5 Pro, gpt-5; GPT-50, GPT-5.1, GPT-5-mini, xGPT-5 and Claude 3."
    assert list(names.find(text)) == ["GPT-5 Pro", "GPT-5", "Claude 3"]
    assert list(wording.NameMatcher(["GPT-5"]).find("GPT-50 or GPT-5.1")) == []


# the parts of each idiom


def test_an_idiom_is_none_where_it_is_absent() -> None:
    text = "Most people like tea. See the comparison below"
    assert idioms.read_all_but(text) is None
    assert idioms.read_comparison(text) is None
    assert idioms.read_compared("GPT-5") is None
    assert idioms.read_having("Key Strengths") is None
    assert idioms.required_parameters(text) == []
    assert idioms.family_prefix("most models") is None


def test_a_comparison_has_an_attribute_sides_and_a_unit() -> None:
    parts = idioms.read_comparison("Price Comparison (Input / Output per 1M tokens)")
    assert parts == ("price", ["input", "output"], "per 1M tokens")
    assert idioms.read_comparison("Speed Comparison") == ("speed", [], "")


def test_the_other_idioms_give_their_parts() -> None:
    assert idioms.read_all_but("All ships but Comet") == ("ships", "Comet")
    assert idioms.read_compared("**GPT-5:** $1 / $2") == ("GPT-5", ["$1", "$2"])
    assert idioms.read_having("Models without Vision Support") == (False, "Vision")
    assert idioms.required_parameters("Requires `a`, `b` and `c`") == ["a", "b", "c"]
    assert idioms.family_prefix("GPT-5 family") == "gpt-5"


# endpoints, tables, definitions, paragraphs


def test_an_endpoint_is_a_method_and_a_path() -> None:
    text = "# API\n\n## Jobs\n\n- **Create:** `POST /jobs`\n  Requires `name`, `size`\n"
    claims = read(text).claims
    assert claims[0].sets == {"method": "POST", "path": "/jobs"}
    assert claims[0].source == Mention("Endpoint", "POST /jobs")
    required = [claim.target for claim in claims if claim.relation == "REQUIRES"]
    assert required == [Mention("Parameter", "name"), Mention("Parameter", "size")]


def test_several_methods_of_a_path_are_several_endpoints() -> None:
    claims = read("# API\n\n## Jobs\n\n- GET/PATCH/DELETE /jobs/{id}\n").claims
    names = [claim.source.name for claim in claims if claim.relation == "IS_ENDPOINT"]
    assert names == ["GET /jobs/{id}", "PATCH /jobs/{id}", "DELETE /jobs/{id}"]


def test_a_table_row_gives_an_entity_its_columns() -> None:
    text = "### Speeds\n\n| Model | Speed | Notes |\n|---|:-:|--|\n| GPT-5 | 5 | a \\| b |\n"
    claims = claims_below(text + "| Claude 3 | n/a | |\n")
    assert [dict(claim.sets) for claim in claims] == [{"speed": 5}, {"notes": "a | b"}]
    assert {claim.first.number for claim in claims} == {BEFORE + 5}


def test_a_table_can_introduce_entities() -> None:
    claims = read("# Animals\n\n| Animal | Legs |\n|---|---|\n| Zebra | 4 |\n").claims
    assert claims[0].source == Mention("Animal", "Zebra")
    assert claims[0].sentence == "The legs of Zebra are 4."


def test_a_definition_is_an_entity_with_a_description() -> None:
    text = "# Doc\n\n## Problems\n\n- **Job is slow:** Use a larger batch.\n  1. Stop it first\n"
    claim = read(text).claims[0]
    assert claim.source == Mention("Problem", "Job is slow")
    assert claim.sentence == "Job is slow: Use a larger batch. Stop it first."
    assert (claim.first.number, claim.last.number) == (5, 6)


def test_the_first_paragraph_describes_its_heading() -> None:
    (claim,) = read("# Doc\n\n## Things\n\nA thing is what there is.\n\nAnd more of it.\n").claims
    assert claim.sets == {"description": "A thing is what there is."}
    assert claim.source == Mention("Topic", "Things")


def test_a_sentence_that_names_two_entities_is_marked_as_inferred() -> None:
    text = "### Talk\n\nFirst words.\n\nGPT-5 Pro is faster than GPT-5. GPT-50 is not here.\n"
    (claim,) = [claim for claim in claims_below(text) if claim.is_inferred]
    assert (claim.source.name, claim.target.name) == ("GPT-5 Pro", "GPT-5")
    assert claim.sentence == "GPT-5 Pro is faster than GPT-5."


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_code_is_not_read(fence: str) -> None:
    text = (
        f"### Talk\n\n{fence}python\n# No heading\n**Model ID:** x\n- **Term:** in code\n"
        f"GPT-5 and Claude 3\nPOST /code\n| GPT-5 | 5 |\n{fence}\n"
    )
    assert claims_below(text) == []
    assert any("POST /code" in chunk.text for chunk in read(MODELS + text).chunks)


def test_numbers_of_headings_are_not_part_of_names() -> None:
    claims = read("# Setup\n\n## 1. Install the kit\n\nDo it now.\n").claims
    assert claims[0].source == Mention("Step", "Install the kit")


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
def test_a_document_gives_its_date(text: str) -> None:
    assert read(f"# A\n\n**Last Updated:** {text}\n").dated_at == datetime(2025, 12, 3, tzinfo=UTC)


def test_a_date_that_can_not_be_read_is_none() -> None:
    assert read("# A\n\n**Last Updated:** the other day\n").dated_at is None


def test_a_section_may_span_several_pages() -> None:
    pages = [("## Red", "page 1"), ("**Model ID:** red", "page 2"), ("- Fast answers", "page 3")]
    extract = extraction.read(Text(tuple(Line(text, 1, part) for text, part in pages)))
    claim = extract.claims[0]
    assert (claim.first.part, extraction.chunk_of(extract, claim)) == ("page 2", 0)


def test_names_of_attributes_leave_graphiti_s_own_alone() -> None:
    extract = red_with("**Name:** x\n**UUID:** y\n**Ended at:** z\n**Group ID:** 5\n")
    keys = {key for claim in extract.claims for key in claim.sets}
    assert keys == {"model_id", "stated_name", "stated_uuid", "stated_ended_at", "stated_group_id"}


@given(st.text())
def test_every_label_is_one_that_graphiti_accepts(text: str) -> None:
    label = wording.type_label(text)
    validate_node_labels([label])
    assert label not in wording.RESERVED_LABELS


# documents of other kinds, invented: a README, a page of an API, a changelog

DOCUMENTS = Path(__file__).parent / "documents"
IDIOMS = {"HAS_CAPABILITY", "LACKS_CAPABILITY", "IN_TIER", "IN_GROUP", "MENTIONED_WITH"}


def foreign(name: str) -> Extract:
    return extraction.read(loaders.read(DOCUMENTS / name))


@pytest.mark.parametrize("name", ["readme.md", "api_page.md", "changelog.md"])
def test_a_foreign_document_triggers_no_idiom_of_the_handbook(name: str) -> None:
    extract = foreign(name)
    assert not IDIOMS & {claim.relation for claim in extract.claims}
    assert not any(claim.is_inferred for claim in extract.claims)


@pytest.mark.parametrize("name", ["readme.md", "api_page.md", "changelog.md"])
def test_every_line_of_a_foreign_document_is_in_a_chunk(name: str) -> None:
    text = loaders.read(DOCUMENTS / name)
    chunks = "\n".join(chunk.text for chunk in extraction.read(text).chunks)
    assert all(line.text.strip() in chunks for line in text.lines)


def test_a_readme_gives_topics_descriptions_and_the_rows_of_its_table() -> None:
    extract = foreign("readme.md")
    types = {claim.source.type for claim in extract.claims}
    assert types == {"Store", "Topic", "Feature"}
    assert {
        c.source.name: c.sets["reads_per_second"] for c in extract.claims if "READS" in c.relation
    } == {
        "pebble": 1_200_000,
        "bigdb": 300_000,
    }
    usage = [c.sentence for c in extract.claims if c.source.name == "Usage"]
    assert usage == ["Usage: Open a database, and use it like a dictionary."]


def test_the_badges_of_a_readme_are_taken_for_its_first_paragraph() -> None:
    (title,) = [c for c in foreign("readme.md").claims if c.sentence.startswith("pebble: ")]
    assert "pebble.svg" in title.sentence


def test_an_api_page_gives_endpoints_with_their_parameters() -> None:
    claims = foreign("api_page.md").claims
    endpoints = [c.source.name for c in claims if c.relation == "IS_ENDPOINT"]
    assert endpoints == ["GET /parcels", "POST /parcels", "DELETE /parcels/{id}"]
    required = [c.target.name for c in claims if c.relation == "REQUIRES"]
    assert required == ["weight", "street", "city"]
    meanings = [c.source for c in claims if c.relation == "MEANING"]
    assert meanings == [Mention("Code", "401"), Mention("Code", "404")]


def test_a_changelog_gives_its_items_as_sentences_and_its_versions_only_as_titles() -> None:
    extract = foreign("changelog.md")
    assert {claim.source.type for claim in extract.claims} == {"Topic"}
    assert "Fixed: a crash when the disk is full (#214)." in [c.sentence for c in extract.claims]
    (fixed,) = [chunk for chunk in extract.chunks if "#214" in chunk.text]
    assert fixed.title == "Changelog > [2.1.0] - 2024-03-01 > Fixed"
    assert not any("2.1.0" in claim.sentence for claim in extract.claims)


# any text

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
    """Every claim's lines are in the document, and the first of them is in the claim's chunk."""
    extract = extraction.read(Text(tuple(numbered)))
    present = set(numbered)
    for claim in extract.claims:
        chunk = extract.chunks[extraction.chunk_of(extract, claim)]
        assert claim.first in present and claim.last in present
        assert claim.first.number <= claim.last.number or claim.first.part != claim.last.part
        if chunk.first.part == claim.first.part == chunk.last.part:
            assert chunk.first.number <= claim.first.number <= chunk.last.number
        assert claim.sentence.strip() and claim.source.name and claim.target.name
    for number, entity in extract.mentions:
        assert 0 <= number < len(extract.chunks) and entity.type


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
def test_the_result_depends_on_the_text_alone(texts: list[str]) -> None:
    one, other = read("\n".join(texts)), read("\n".join(texts))
    assert one.claims == other.claims and one.mentions == other.mentions


def test_it_reads_what_the_loaders_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("RED\n===\n\nModel ID: red\nPrice: $5\n")
    claims = extraction.read(loaders.read(tmp_path / "a.txt")).claims
    assert {key for claim in claims for key in claim.sets} == {"model_id", "price"}
