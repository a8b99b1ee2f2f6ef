"""The claims of a document: the second pass, which reads the blocks of each section.

Every claim is a whole sentence with the words that people search for, and the lines that state it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftlab_kit.graphs.extraction import entities, idioms, values, wording
from ftlab_kit.graphs.extraction.entities import EntityIndex
from ftlab_kit.graphs.extraction.idioms import CAPABILITY
from ftlab_kit.graphs.extraction.result import Claim, Mention
from ftlab_kit.graphs.extraction.sections import Item, Section, Span, Table
from ftlab_kit.graphs.extraction.values import strip_markdown
from ftlab_kit.graphs.extraction.wording import attribute_name, spoken_name
from ftlab_kit.graphs.loaders import Line

MAX_INLINE_WORDS = 8  # of a value that fits 'The X of Y is VALUE'
MAX_SENTENCE_CHARACTERS = 400
EMPTY_CELLS = ("", "-", "–", "—", "n/a")


def read(sections: Sequence[Section], index: EntityIndex) -> Iterator[Claim]:
    """Yield the claims of a document."""
    for section in sections:
        yield from _labels(section, index)
        yield from _list(section, index)
        for table in section.tables:
            yield from _table(table, index)
        yield from _paragraphs(section, index)


def _claim(
    source: Mention,
    relation: str,
    target: Mention,
    sentence: str,
    span: Span,
    *,
    sets: Mapping[str, Any] | None = None,
    unit: str = "",
    is_inferred: bool = False,
) -> Claim:
    attributes = {wording.unreserved(name): value for name, value in (sets or {}).items()}
    text = wording.as_sentence(sentence)
    return Claim(
        source, relation, target, text, span.first, span.last, attributes, unit, is_inferred
    )


# labels: `**Key:** value`


def _labels(section: Section, index: EntityIndex) -> Iterator[Claim]:
    entity = index.of_section.get(id(section))
    if entity is not None and entity in index.records:
        for key, span in section.labels:
            yield from _label(entity, key, span, index)


def _label(entity: Mention, key: str, span: Span, index: EntityIndex) -> Iterator[Claim]:
    endpoints = entities.endpoints(span.text)
    if endpoints:
        for endpoint in endpoints:
            sentence = f"{entity.name} uses {endpoint.name}"
            yield _claim(entity, "USES", endpoint, sentence, span)
            yield _endpoint(endpoint, "", "", span)
    elif key in index.linking_keys and (target := index.lookup(span.text)):
        name = attribute_name(key)
        sentence = f"The {spoken_name(name)} of {entity.name} is {target.name}"
        yield _claim(entity, f"HAS_{name.upper()}", target, sentence, span)
    else:
        yield _attribute(entity, attribute_name(key), span)


def _attribute(entity: Mention, name: str, span: Span) -> Claim:
    """Return the claim that an attribute of an entity has a value."""
    value, spoken = values.parse_value(span.text), spoken_name(name)
    if isinstance(value.value, bool):
        sentence = f"{entity.name} is {'' if value.value else 'not '}{spoken}"
    elif name.startswith("price_") or name == "price":
        sentence = f"{entity.name} costs {value.text}: its {spoken}"
    elif name in idioms.DESCRIBING_KEYS or len(value.text.split()) > MAX_INLINE_WORDS:
        key = "" if name in idioms.DESCRIBING_KEYS else f", {spoken}"
        sentence = f"{entity.name}{key}: {value.text}"
    else:
        verb = "are" if wording.is_plural(spoken) else "is"
        sentence = f"The {spoken} of {entity.name} {verb} {value.text}"
    sets = {name: value.value}
    return _claim(entity, name.upper(), entity, sentence, span, sets=sets, unit=value.unit)


# lists


def _list(section: Section, index: EntityIndex) -> Iterator[Claim]:
    entity = entities.subject(section, index)
    if entity is not None:
        for item in section.items:
            yield from _item(section, entity, item, index)


def _item(section: Section, entity: Mention, item: Item, index: EntityIndex) -> Iterator[Claim]:
    """Yield the claims of one item of a list, by the first form that it has."""
    if endpoints := entities.endpoints(item.span.text):
        yield from _endpoints(entity, endpoints, item)
        return
    comparison = idioms.read_comparison(section.title)
    if comparison and (claims := _compared(comparison, item, index)):
        yield from claims
        return
    if entities.is_record(section, index):
        yield from _record_item(entity, item, index)
        return
    member = index.lookup(item.span.text)
    if member and (having := idioms.read_having(item.label)):
        yield _having(having, member, item, index)
        return
    if member:
        yield from _member(entity, member, item)
        return
    definition = entities.term(item)
    if definition and (defined := index.by_name.get(definition[0].lower())):
        if defined.type != "Topic":
            yield from _definition(entity, defined, definition[1], item, index)
            return
    yield from _sentence(entity, item, index)


def _endpoints(entity: Mention, endpoints: list[Mention], item: Item) -> Iterator[Claim]:
    definition = entities.term(item)
    name = definition[0] if definition else ""
    details = " ".join(span.text for span in item.nested)
    whole = Span(item.span.text, item.span.first, _last(item))
    for endpoint in endpoints:
        yield _endpoint(endpoint, name, details, whole)
        if entity.type in ("Topic", "Document"):
            sentence = f"{endpoint.name} {_belongs_to(entity)}"
            yield _claim(endpoint, "PART_OF", entity, sentence, item.span)
        else:
            sentence = f"{entity.name} uses {endpoint.name}"
            yield _claim(entity, "USES", endpoint, sentence, item.span)
        for parameter in idioms.required_parameters(f"{item.span.text} {details}"):
            sentence = f"{endpoint.name} requires the parameter {parameter}"
            yield _claim(endpoint, "REQUIRES", Mention("Parameter", parameter), sentence, whole)


def _last(item: Item) -> Line:
    return item.nested[-1].last if item.nested else item.span.last


def _endpoint(endpoint: Mention, name: str, details: str, span: Span) -> Claim:
    method, path = endpoint.name.split(" ", 1)
    if name and details:
        sentence = f"{name}, {endpoint.name}: {strip_markdown(details)}"
    elif name:
        sentence = f"{name} is {endpoint.name}"
    else:
        sentence = f"{endpoint.name} is an endpoint"
    sets = {"method": method, "path": path}
    return _claim(endpoint, "IS_ENDPOINT", endpoint, sentence, span, sets=sets)


def _compared(comparison: idioms.Comparison, item: Item, index: EntityIndex) -> list[Claim]:
    """Return the claims of an item below 'Price Comparison (Input / Output per 1M tokens)'."""
    name = comparison.attribute
    if member := index.lookup(item.span.text):
        # the value stands above the list of those that have it
        if not item.label or index.lookup(item.label):
            return []
        return [_attribute(member, name, Span(item.label, item.span.first, item.span.last))]
    compared = idioms.read_compared(item.span.text)
    member = index.lookup(compared[0]) if compared else None
    if not compared or not member:
        return []
    sides, texts = comparison.sides, compared[1]
    if len(sides) != len(texts):
        sides = [""] if len(texts) == 1 else []
    return [
        _attribute(
            member,
            "_".join(filter(None, (name, side))),
            item.span._replace(text=f"{text} {comparison.unit}".strip()),
        )
        for side, text in zip(sides, texts, strict=False)
    ]


def _record_item(entity: Mention, item: Item, index: EntityIndex) -> Iterator[Claim]:
    """Yield the claims of an item below a record's heading: they are about the record."""
    definition = entities.term(item)
    if definition:
        name = attribute_name(definition[0])
        if attribute_name(item.label) in idioms.PRICE_KEYS:
            name = f"price_{name}"
        yield _attribute(entity, name, item.span._replace(text=definition[1]))
    elif item.label:
        noun = wording.type_noun(item.label)
        spoken = " ".join(wording.singular(word) for word in item.label.lower().split())
        name = strip_markdown(item.span.text).rstrip(".")
        is_code = item.span.text.startswith("`")
        target = Mention(wording.type_label(noun), name if is_code else wording.upper_first(name))
        sentence = f"{entity.name} has the {spoken} {wording.lower_first(target.name)}"
        relation = f"HAS_{attribute_name(_spaced(noun)).upper()}"
        yield _claim(entity, relation, target, sentence, item.span)
    else:
        yield from _sentence(entity, item, index)
    for span in item.nested:
        yield from _sentence(entity, Item(span), index)


def _spaced(noun: str) -> str:
    """Return 'UseCase' as 'Use Case'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", noun)


def _having(having: idioms.Having, member: Mention, item: Item, index: EntityIndex) -> Claim:
    """Return the claim of an item below 'Models with Vision' or 'Models without Vision'."""
    matcher = wording.NameMatcher(entity.name for entity in index.of_type(CAPABILITY))
    name = next(matcher.find(having.capability), wording.upper_first(having.capability))
    return _capability(member, Mention(CAPABILITY, name), having.has_it, item.span)


def _capability(member: Mention, target: Mention, has_it: bool, span: Span) -> Claim:
    """Return the claim that an entity has or lacks a capability."""
    name = target.name.lower()
    if has_it:
        relation = "HAS_CAPABILITY"
        sentence = f"{member.name} supports {name}: it has the capability {name}"
    else:
        relation = "LACKS_CAPABILITY"
        sentence = f"{member.name} does not support {name}: it lacks the capability {name}"
    sets = {attribute_name(target.name): has_it}
    return _claim(member, relation, target, sentence, span, sets=sets)


def _member(entity: Mention, member: Mention, item: Item) -> Iterator[Claim]:
    """Yield the claim of an item that is the name of an entity: it belongs to the heading."""
    if entity == member:
        return
    if entity.type == "Topic":
        sentence = f"{member.name} {_belongs_to(entity)}"
        yield _claim(member, "IN_GROUP", entity, sentence, item.span)
    else:
        yield _membership(member, entity, item.span)


def _belongs_to(heading: Mention) -> str:
    """Return the end of a sentence about something below a heading."""
    verb = "is one of the" if wording.is_plural(heading.name) else "belongs to"
    return f"{verb} {heading.name}"


def _membership(member: Mention, group: Mention, span: Span) -> Claim:
    if group.type == CAPABILITY:
        return _capability(member, group, True, span)
    kind = attribute_name(_spaced(group.type))
    spoken = kind.replace("_", " ")
    name = group.name if spoken in group.name.lower() else f"{spoken} {group.name}"
    sentence = f"{member.name} is in the {name}"
    sets = {kind: group.name}
    return _claim(member, f"IN_{kind.upper()}", group, sentence, span, sets=sets)


def _definition(
    entity: Mention, defined: Mention, text: str, item: Item, index: EntityIndex
) -> Iterator[Claim]:
    """Yield the claims of '**Term:** text': the term's members, else its description."""
    whole = " ".join([text, *(span.text for span in item.nested)])
    members, excluded = _members(text, defined, index)
    for member in members:
        yield _membership(member, defined, item.span)
    for member in excluded:
        yield _capability(member, defined, False, item.span)
    if not members and whole.strip():
        span = Span(whole, item.span.first, _last(item))
        description = strip_markdown(whole)
        sentence = f"{defined.name}: {description}"
        sets = {"description": description}
        yield _claim(defined, "DESCRIPTION", defined, sentence, span, sets=sets)
    if entity != defined and defined.type not in idioms.GROUPING_TYPES:
        sentence = f"{defined.name} {_belongs_to(entity)}"
        yield _claim(defined, "PART_OF", entity, sentence, item.span)


def _members(
    text: str, defined: Mention, index: EntityIndex
) -> tuple[list[Mention], list[Mention]]:
    """Return the entities that a text lists, and those that it excludes.

    'Most models except A and B' lists all others; 'Claude models (200K-300K)' a family. A text
    with anything but entities lists none.
    """
    plain = strip_markdown(text).rstrip(".")
    if all_but := idioms.read_all_but(plain):
        kind = wording.type_label(wording.singular(all_but.kind)).capitalize()
        everything = index.of_type(kind)
        names = wording.split_list(all_but.names)
        excluded = [entity for name in names if (entity := index.lookup(name))]
        members = [entity for entity in everything if entity not in excluded]
        return members, excluded if everything else []
    records = [entity for entity in index.by_name.values() if entity in index.records]
    members = []
    for part in wording.split_list(plain):
        named = index.lookup(part)
        matches = [named] if named else entities.family(part, records)
        if not matches:
            return [], []
        members.extend(match for match in matches if match not in members and match != defined)
    return members, []


def _sentence(entity: Mention, item: Item, index: EntityIndex) -> Iterator[Claim]:
    """Yield an item as a sentence about its heading and the first entity that it names."""
    text = strip_markdown(item.span.text)
    if len(text.split()) < 2 or len(text) > MAX_SENTENCE_CHARACTERS:
        return
    others = [named for named in index.named_in(text) if named != entity]
    target = others[0] if others else entity
    sentence = f"{entity.name}: {wording.lower_first(text)}"
    yield _claim(entity, "SAYS", target, sentence, item.span)
    for span in item.nested:
        yield from _sentence(entity, Item(span), index)


# tables and paragraphs


def _table(table: Table, index: EntityIndex) -> Iterator[Claim]:
    for cells, line in table.rows:
        entity = index.lookup(cells[0]) if cells else None
        for column, cell in zip(table.header[1:], cells[1:], strict=False):
            if entity and strip_markdown(cell) not in EMPTY_CELLS:
                yield from _label(entity, strip_markdown(column), Span(cell, line, line), index)


def _paragraphs(section: Section, index: EntityIndex) -> Iterator[Claim]:
    """Yield the description of a heading, and the sentences that name two entities."""
    entity = entities.subject(section, index)
    list_begins = min((item.span.first.number for item in section.items), default=None)
    for number, span in enumerate(section.paragraphs):
        text = strip_markdown(span.text)
        # a paragraph after a list, often below a rule, does not describe the heading
        is_before_list = list_begins is None or span.first.number < list_begins
        is_description = number == 0 and section.title and is_before_list
        if entity and is_description and len(text) <= MAX_SENTENCE_CHARACTERS:
            sets = {"description": text} if id(section) in index.of_section else {}
            sentence = f"{entity.name}: {text}"
            yield _claim(entity, "DESCRIPTION", entity, sentence, span, sets=sets)
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
            named = index.named_in(sentence)
            if len(named) > 1 and len(sentence) <= MAX_SENTENCE_CHARACTERS:
                one, other = named[:2]
                yield _claim(one, "MENTIONED_WITH", other, sentence, span, is_inferred=True)
