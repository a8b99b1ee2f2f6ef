"""Who is who in a document: its first reading, which finds things by their headings and labels."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ftlab_kit.graphs.extraction import phrases
from ftlab_kit.graphs.extraction.result import Mention
from ftlab_kit.graphs.extraction.sections import Item, Section

METHODS = "GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS"
ENDPOINT = re.compile(rf"\b((?:{METHODS})(?:/(?:{METHODS}))*)\s+(/[\w/:{{}}.\-]*)")
TERM = re.compile(r"\*\*(.+?):?\*\*\s*(?:\([^)]*\))?:?\s*(.*)$", re.DOTALL)
PLAIN_TERM = re.compile(r"([A-Z][^:`]{1,60}?):\s+(\S.*)$", re.DOTALL)
NUMBERED = re.compile(r"(?:step\s+)?\d+(?:\.\d+)*[.):]?\s+(.+)$", re.IGNORECASE)
EMPTY_TITLES = {"overview", "introduction", "summary", "description", "contents", "notes"}
LONGEST_NAME = 80


@dataclass
class EntityIndex:
    """What is known of a document's things: by name, and whose heading is which."""

    by_name: dict[str, Mention] = field(default_factory=dict)
    of_section: dict[int, Mention] = field(default_factory=dict)
    records: set[Mention] = field(default_factory=set)
    linking: set[str] = field(default_factory=set)  # labels whose values are things
    names: phrases.Names = field(default_factory=lambda: phrases.Names(()))

    def add(self, thing: Mention) -> Mention:
        """Take a thing; a name that is known stays what it was."""
        return self.by_name.setdefault(thing.name.lower(), thing)

    def known(self, name: str) -> Mention | None:
        """Return the thing of a name, with or without what stands in brackets after it."""
        name = phrases.plain(name)
        found = self.by_name.get(name.lower())
        return found or self.by_name.get(phrases.without_brackets(name).lower())

    def within(self, text: str) -> list[Mention]:
        """Return the things that a text names, in order."""
        return [self.by_name[name.lower()] for name in self.names.within(phrases.plain(text))]

    def of_type(self, name: str) -> list[Mention]:
        """Return the things of a type, in the order of the document."""
        return [thing for thing in self.by_name.values() if thing.type == name]


def read(sections: Sequence[Section]) -> EntityIndex:
    """Return who is who in a document."""
    who = EntityIndex()
    for section in sections:
        if (thing := _record(section)) is not None:
            who.of_section[id(section)] = who.add(thing)
            who.records.add(who.of_section[id(section)])
    for section in sections:
        for item in section.items:
            if (thing := _term(section, item, who)) is not None:
                who.add(thing)
        for thing in _rows(section):
            who.add(thing)
    _link(sections, who)
    for section in sections:
        if id(section) not in who.of_section and (topic := _topic(section)) is not None:
            who.of_section[id(section)] = who.add(topic)
    who.names = phrases.Names(thing.name for thing in who.by_name.values() if _is_apart(thing))
    return who


def _rows(section: Section) -> Iterator[Mention]:
    """Yield what the first cells of a section's tables name, of the type that their head says."""
    for table in section.tables:
        kind = phrases.noun(table.head[0]) if table.head else ""
        for cells, _ in table.rows:
            if kind and cells and _is_name(cells[0]):
                yield Mention(phrases.label(kind), phrases.plain(cells[0]))


def _is_apart(thing: Mention) -> bool:
    """Return whether a name can be told from a plain word of a text."""
    return len(thing.name) > 2 and thing.type not in ("Topic", "Document")


def _is_name(text: str) -> bool:
    plain = phrases.plain(text)
    return bool(plain) and len(plain) <= LONGEST_NAME and bool(re.search(r"\w", plain))


def title(section: Section) -> str:
    """Return a section's title without its number."""
    found = NUMBERED.match(section.title)
    return found[1] if found else section.title


def _record(section: Section) -> Mention | None:
    """Return the thing that a heading with labels below it is about."""
    if not section.title:
        return None
    keys = [key for key, _ in section.labels]
    for key in keys:
        if found := re.fullmatch(r"(.+?)\s+(?:ID|Id|id|name|Name)", key):
            return Mention(phrases.label(phrases.singular(found[1])), title(section))
    if NUMBERED.match(section.title):
        return Mention(_numbered(section), title(section))
    if section.level == 1 and keys:
        return Mention("Document", section.title)
    if len(keys) > 1 and section.above:
        return Mention(_type_of(section.above), title(section))
    return None


def _numbered(section: Section) -> str:
    """Return what a numbered heading is: an item of what the document's title lists, or a step."""
    top: Section | None = section
    while top and top.above and top.above.title:
        top = top.above
    listed = top.title if top is not None and top is not section else ""
    return _label(phrases.noun(listed)) if phrases.is_plural(listed) else "Step"


def _type_of(section: Section) -> str:
    return _label(phrases.noun(section.title))


def _label(noun: str) -> str:
    return phrases.label(noun) if noun and noun.lower() not in phrases.ABOUT else "Topic"


def endpoints(text: str) -> list[Mention]:
    """Return the endpoints that a text names: 'GET/POST /x' are two."""
    return [
        Mention("Endpoint", f"{method} {path.rstrip('.')}")
        for several, path in ENDPOINT.findall(text)
        for method in several.split("/")
    ]


def term(item: Item) -> tuple[str, str] | None:
    """Return the term of an item and what is said of it, None if it has none."""
    found = TERM.match(item.said.text) or PLAIN_TERM.match(item.said.text)
    if not found or not _is_name(found[1]):
        return None
    return phrases.plain(found[1]).rstrip(":"), found[2].strip()


def is_record(section: Section, who: EntityIndex) -> bool:
    """Return whether what stands below a heading is said of the heading's thing."""
    return who.of_section.get(id(section)) in who.records


def _term(section: Section, item: Item, who: EntityIndex) -> Mention | None:
    """Return the thing that an item defines, None if it defines none."""
    for found in endpoints(item.said.text):
        who.add(found)
    split = term(item)
    if split is None or is_record(section, who) or endpoints(item.said.text):
        return None
    is_bold = item.said.text.startswith("**")
    heading = item.label or section.title
    kind = phrases.noun(heading)
    if not is_bold and not _is_list_of(section, heading):
        return None
    return Mention(_label(kind), split[0])


def _is_list_of(section: Section, heading: str) -> bool:
    """Return whether plain items are terms: a plural above them, and every one has its text."""
    return phrases.is_plural(heading) and all(
        (split := term(item)) and len(split[1].split()) > 3 for item in section.items
    )


def _link(sections: Sequence[Section], who: EntityIndex) -> None:
    """Find the labels whose values are things: a type has their name, or several share a value."""
    types = {thing.type for thing in who.by_name.values()}
    values: dict[str, Counter[str]] = {}
    for section in sections:
        for key, said in section.labels if is_record(section, who) else ():
            values.setdefault(key, Counter())[phrases.plain(said.text)] += 1
    for key, counted in values.items():
        if key.endswith((" ID", " Id", " id")) or endpoints(" ".join(counted)):
            continue
        is_type = phrases.label(phrases.singular(key)) in types
        is_shared = max(counted.values()) > 1 and len(counted) > 1 and all(map(_is_proper, counted))
        if is_type or is_shared:
            who.linking.add(key)
            for name in counted:
                who.add(Mention(phrases.label(phrases.singular(key)), name))


def _is_proper(text: str) -> bool:
    """Return whether a text is a name: short, its first letter a capital, no number or truth."""
    found = phrases.value(text)
    short = len(text.split()) <= 4
    return short and isinstance(found.value, str) and text[:1].isupper() and "." not in text


def _topic(section: Section) -> Mention | None:
    """Return the thing that a heading without labels is: a topic, unless it says nothing."""
    name = title(section)
    if not name or name.lower() in EMPTY_TITLES:
        return None
    return Mention("Topic", name)


def about(section: Section, who: EntityIndex) -> Mention | None:
    """Return what a section is about: its own thing, or that of the next heading above."""
    above: Section | None = section
    while above is not None:
        if (thing := who.of_section.get(id(above))) is not None:
            return thing
        above = above.above
    return None


def family(text: str, things: Iterable[Mention]) -> list[Mention]:
    """Return the things that 'Claude models (200K-300K)' or 'GPT-5 family' mean: by their names."""
    found = re.fullmatch(
        r"(.+?)\s+(?:models|family|series|variants|line)", phrases.without_brackets(text)
    )
    if not found:
        return []
    begin = found[1].lower()
    same = [
        thing for thing in things if re.match(rf"{re.escape(begin)}(?![\w.])", thing.name.lower())
    ]
    return same if begin not in ("all", "most", "other") else []
