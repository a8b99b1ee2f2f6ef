"""What a document says of its things: its second reading, block by block.

Every claim is a whole sentence with the verbs that people search for, and the lines that say it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftlab_kit.graphs.extraction import naming, phrases
from ftlab_kit.graphs.extraction.naming import EntityIndex
from ftlab_kit.graphs.extraction.result import Claim, Mention
from ftlab_kit.graphs.extraction.sections import Item, Said, Section, Table

EXCEPT = re.compile(r"(?:most|all)\s+(\w+)\s+(?:except|but)\s+(.+)$", re.IGNORECASE)
HAVING = re.compile(r"(\w+)\s+(with|without)\s+(.+)$", re.IGNORECASE)
COMPARED = re.compile(r"(.+?)\s+Comparison\b\s*(?:\((.+)\))?$", re.IGNORECASE)
REQUIRES = re.compile(r"[Rr]equires?\s+((?:`[^`]+`(?:,\s*|\s+and\s+)?)+)")
CAPABLE = re.compile(r"\s+(?:capabilit(?:y|ies)|support)$", re.IGNORECASE)
CAPABILITY = "Capability"
TELLING = ("description", "about", "summary")
PRICES = {"pricing", "price", "prices", "cost", "costs"}
LONG_WORDS = 8
LONGEST_SENTENCE = 400


def read(sections: Sequence[Section], who: EntityIndex) -> Iterator[Claim]:
    """Yield what a document says."""
    for section in sections:
        yield from _labels(section, who)
        yield from _listed(section, who)
        for table in section.tables:
            yield from _table(table, who)
        yield from _paragraphs(section, who)


def _claim(
    ends: tuple[Mention, str, Mention],
    sentence: str,
    said: Said,
    sets: Mapping[str, Any] | None = None,
    unit: str = "",
) -> Claim:
    text = phrases.sentence(sentence)
    free = {phrases.free(name): value for name, value in (sets or {}).items()}
    return Claim(ends[0], ends[1], ends[2], text, said.first, said.last, free, unit)


def _own(thing: Mention, relation: str) -> tuple[Mention, str, Mention]:
    return thing, relation, thing


# labels: `**Key:** value`


def _labels(section: Section, who: EntityIndex) -> Iterator[Claim]:
    thing = who.of_section.get(id(section))
    if thing is not None and thing in who.records:
        for key, said in section.labels:
            yield from _label(thing, key, said, who)


def _label(thing: Mention, key: str, said: Said, who: EntityIndex) -> Iterator[Claim]:
    found = naming.endpoints(said.text)
    if found:
        for endpoint in found:
            sentence = f"{thing.name} uses {endpoint.name}"
            yield _claim((thing, "USES", endpoint), sentence, said)
            yield _endpoint(endpoint, "", "", said)
    elif key in who.linking and (other := who.known(said.text)):
        noun = phrases.spoken(phrases.snake(key))
        ends = (thing, f"HAS_{phrases.snake(key).upper()}", other)
        yield _claim(ends, f"The {noun} of {thing.name} is {other.name}", said)
    else:
        yield attribute(thing, phrases.snake(key), said)


def attribute(thing: Mention, name: str, said: Said) -> Claim:
    """Return the claim that an attribute of a thing has a value."""
    found = phrases.value(said.text)
    spoken, own = phrases.spoken(name), _own(thing, name.upper())
    sets = {name: found.value}
    if isinstance(found.value, bool):
        sentence = f"{thing.name} is {'' if found.value else 'not '}{spoken}"
    elif name.startswith("price_") or name == "price":
        sentence = f"{thing.name} costs {found.text}: its {spoken}"
    elif name in TELLING or len(found.text.split()) > LONG_WORDS:
        called = "" if name in TELLING else f", {spoken}"
        sentence = f"{thing.name}{called}: {found.text}"
    else:
        verb = "are" if phrases.is_plural(spoken) else "is"
        sentence = f"The {spoken} of {thing.name} {verb} {found.text}"
    return _claim(own, sentence, said, sets, found.unit)


# lists


def _listed(section: Section, who: EntityIndex) -> Iterator[Claim]:
    thing = naming.about(section, who)
    if thing is None:
        return
    for item in section.items:
        yield from _item(section, thing, item, who)


def _item(section: Section, thing: Mention, item: Item, who: EntityIndex) -> Iterator[Claim]:
    """Yield what one item of a list says, by the first form that it has."""
    found = naming.endpoints(item.said.text)
    if found:
        yield from _endpoints(thing, found, item)
        return
    if (compared := COMPARED.match(section.title)) and (one := _compared(compared, item, who)):
        yield from one
        return
    if naming.is_record(section, who):
        yield from _of_record(thing, item, who)
        return
    if (having := HAVING.match(item.label)) and (member := who.known(item.said.text)):
        yield from _having(having, member, item, who)
        return
    if member := who.known(item.said.text):
        yield from _member(thing, member, item, who)
        return
    split = naming.term(item)
    if split and (named := who.by_name.get(split[0].lower())) and named.type != "Topic":
        yield from _term(thing, named, split[1], item, who)
        return
    yield from _sentence(thing, item, who)


def _endpoints(thing: Mention, found: list[Mention], item: Item) -> Iterator[Claim]:
    split = naming.term(item)
    called = split[0] if split else ""
    said = " ".join(part.text for part in item.below)
    whole = Said(
        item.said.text, item.said.first, item.below[-1].last if item.below else item.said.last
    )
    for endpoint in found:
        yield _endpoint(endpoint, called, said, whole)
        ends = (endpoint, "PART_OF", thing)
        if thing.type in ("Topic", "Document"):
            yield _claim(ends, f"{endpoint.name} {_among(thing)}", item.said)
        else:
            yield _claim((thing, "USES", endpoint), f"{thing.name} uses {endpoint.name}", item.said)
        for required in REQUIRES.findall(f"{item.said.text} {said}"):
            for name in re.findall(r"`([^`]+)`", required):
                parameter = Mention("Parameter", name)
                sentence = f"{endpoint.name} requires the parameter {name}"
                yield _claim((endpoint, "REQUIRES", parameter), sentence, whole)


def _endpoint(endpoint: Mention, called: str, said: str, where: Said) -> Claim:
    method, path = endpoint.name.split(" ", 1)
    if called and said:
        sentence = f"{called}, {endpoint.name}: {phrases.plain(said)}"
    elif called:
        sentence = f"{called} is {endpoint.name}"
    else:
        sentence = f"{endpoint.name} is an endpoint"
    return _claim(_own(endpoint, "IS_ENDPOINT"), sentence, where, {"method": method, "path": path})


def _compared(found: re.Match[str], item: Item, who: EntityIndex) -> list[Claim]:
    """Return what an item of 'Price Comparison (Input / Output per 1M tokens)' says."""
    name = phrases.snake(found[1])
    if member := who.known(item.said.text):
        if not item.label or who.known(item.label):
            return []
        return [attribute(member, name, Said(item.label, item.said.first, item.said.last))]
    split = re.match(r"(.+?):\s+(\S.*)$", phrases.plain(item.said.text))
    member = who.known(split[1]) if split else None
    if not split or not member:
        return []
    sides, unit = _sides(found[2] or "")
    values = [part.strip() for part in re.split(r"\s+/\s+", split[2])]
    if len(sides) != len(values):
        sides = [""] if len(values) == 1 else []
    return [
        attribute(
            member,
            "_".join(filter(None, (name, side))),
            item.said._replace(text=f"{value} {unit}".strip()),
        )
        for side, value in zip(sides, values, strict=False)
    ]


def _sides(text: str) -> tuple[list[str], str]:
    """Return the columns and the unit of 'Input / Output per 1M tokens'."""
    per = re.search(r"\bper\b.*$", text)
    columns = text[: per.start()] if per else text
    return [phrases.snake(part) for part in columns.split("/") if part.strip()], per[
        0
    ] if per else ""


def _of_record(thing: Mention, item: Item, who: EntityIndex) -> Iterator[Claim]:
    """Yield what an item below a record's heading says of it."""
    split = naming.term(item)
    if split:
        name = phrases.snake(split[0])
        if phrases.snake(item.label) in PRICES:
            name = f"price_{name}"
        yield attribute(thing, name, item.said._replace(text=split[1]))
    elif item.label:
        noun = phrases.noun(item.label)
        of = " ".join(phrases.singular(word) for word in item.label.lower().split())
        name = phrases.plain(item.said.text).rstrip(".")
        is_code = item.said.text.startswith("`")
        other = Mention(phrases.label(noun), name if is_code else _capital(name))
        sentence = f"{thing.name} has the {of} {phrases.lower_first(other.name)}"
        yield _claim(
            (thing, f"HAS_{phrases.snake(_parted(noun)).upper()}", other), sentence, item.said
        )
    else:
        yield from _sentence(thing, item, who)
    for below in item.below:
        yield from _sentence(thing, Item(below), who)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _parted(noun: str) -> str:
    """Return 'UseCase' as 'Use Case'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", noun)


def _having(found: re.Match[str], member: Mention, item: Item, who: EntityIndex) -> Iterator[Claim]:
    """Yield what an item below 'Models with Vision' or 'Models without Vision' says."""
    names = phrases.Names(thing.name for thing in who.of_type(CAPABILITY))
    said = CAPABLE.sub("", phrases.plain(found[3]))
    name = next(names.within(said), _capital(said))
    yield capability(member, Mention(CAPABILITY, name), found[2].lower() == "with", item.said)


def capability(member: Mention, other: Mention, has_it: bool, said: Said) -> Claim:
    """Return the claim that something has or lacks a capability."""
    name = other.name.lower()
    if has_it:
        ends = (member, "HAS_CAPABILITY", other)
        sentence = f"{member.name} supports {name}: it has the capability {name}"
    else:
        ends = (member, "LACKS_CAPABILITY", other)
        sentence = f"{member.name} does not support {name}: it lacks the capability {name}"
    return _claim(ends, sentence, said, {phrases.snake(other.name): has_it})


def _member(thing: Mention, member: Mention, item: Item, who: EntityIndex) -> Iterator[Claim]:
    """Yield what an item that is the name of a thing says: that it belongs to what is above."""
    if thing == member:
        return
    if thing.type == "Topic":
        yield _claim((member, "IN_GROUP", thing), f"{member.name} {_among(thing)}", item.said)
    else:
        yield _belongs(member, thing, item.said)


def _among(thing: Mention) -> str:
    """Return what something is that stands below a heading."""
    return f"{'is one of the' if phrases.is_plural(thing.name) else 'belongs to'} {thing.name}"


def _belongs(member: Mention, other: Mention, said: Said) -> Claim:
    if other.type == CAPABILITY:
        return capability(member, other, True, said)
    kind = phrases.snake(_parted(other.type))
    has_kind = kind.replace("_", " ") in other.name.lower()
    where = f"the {other.name}" if has_kind else f"the {kind.replace('_', ' ')} {other.name}"
    sets = {kind: other.name}
    return _claim((member, f"IN_{kind.upper()}", other), f"{member.name} is in {where}", said, sets)


def _term(
    thing: Mention, named: Mention, text: str, item: Item, who: EntityIndex
) -> Iterator[Claim]:
    """Yield what '**Term:** text' says: who belongs to the term, else what it is."""
    whole = [item.said, *item.below]
    said = Said(
        " ".join([text, *(part.text for part in item.below)]), item.said.first, whole[-1].last
    )
    members, others = _members(text, named, who)
    for member in members:
        yield _belongs(member, named, item.said)
    for member in others:
        yield capability(member, named, False, item.said)
    if not members and said.text.strip():
        own = _own(named, "DESCRIPTION")
        plain = phrases.plain(said.text)
        yield _claim(own, f"{named.name}: {plain}", said, {"description": plain})
    if thing != named and named.type not in ("Tier", CAPABILITY, "Provider"):
        yield _claim((named, "PART_OF", thing), f"{named.name} {_among(thing)}", item.said)


def _members(text: str, named: Mention, who: EntityIndex) -> tuple[list[Mention], list[Mention]]:
    """Return the things that a text lists, and those that it excepts.

    'Most models except A and B' lists all others; 'Claude models (200K-300K)' a family.
    """
    plain = phrases.plain(text).rstrip(".")
    if found := EXCEPT.match(plain):
        every = who.of_type(phrases.label(phrases.singular(found[1])).capitalize())
        others = [thing for part in phrases.listed(found[2]) if (thing := who.known(part))]
        return [thing for thing in every if thing not in others], others if every else []
    members: list[Mention] = []
    for part in phrases.listed(plain):
        known = who.known(part)
        found_all = [known] if known else naming.family(part, _records(who))
        if not found_all:
            return [], []
        members.extend(thing for thing in found_all if thing not in members and thing != named)
    return members, []


def _records(who: EntityIndex) -> list[Mention]:
    return [thing for thing in who.by_name.values() if thing in who.records]


def _sentence(thing: Mention, item: Item, who: EntityIndex) -> Iterator[Claim]:
    """Yield an item as a sentence, about its heading and the first thing that it names."""
    text = phrases.plain(item.said.text)
    if len(text.split()) < 2 or len(text) > LONGEST_SENTENCE:
        return
    named = [found for found in who.within(text) if found != thing]
    ends = (thing, "SAYS", named[0] if named else thing)
    yield _claim(ends, f"{thing.name}: {phrases.lower_first(text)}", item.said)
    for below in item.below:
        yield from _sentence(thing, Item(below), who)


# tables and paragraphs


def _table(table: Table, who: EntityIndex) -> Iterator[Claim]:
    for cells, line in table.rows:
        thing = who.known(cells[0]) if cells else None
        for head, cell in zip(table.head[1:], cells[1:], strict=False):
            said = Said(cell, line, line)
            if thing and phrases.plain(cell) not in ("", "-", "–", "—", "n/a"):
                yield from _label(thing, phrases.plain(head), said, who)


def _paragraphs(section: Section, who: EntityIndex) -> Iterator[Claim]:
    """Yield what a heading is, by its first paragraph, and sentences that name two things."""
    thing = naming.about(section, who)
    begins = min((item.said.first.number for item in section.items), default=None)
    for number, said in enumerate(section.paragraphs):
        text = phrases.plain(said.text)
        # what follows a list, often below a ruler, is no word about the heading
        leads = not number and section.title and (begins is None or said.first.number < begins)
        if thing and leads and len(text) <= LONGEST_SENTENCE:
            sets = {"description": text} if id(section) in who.of_section else {}
            yield _claim(_own(thing, "DESCRIPTION"), f"{thing.name}: {text}", said, sets)
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
            named = who.within(sentence)
            if len(named) > 1 and len(sentence) <= LONGEST_SENTENCE:
                found = _claim((named[0], "MENTIONED_WITH", named[1]), sentence, said)
                yield Claim(**{**vars(found), "is_inferred": True})
