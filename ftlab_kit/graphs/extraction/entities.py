"""The entities of a document: the first pass, which finds them by headings, lists and tables."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ftlab_kit.graphs.extraction import idioms, values, wording
from ftlab_kit.graphs.extraction.result import Mention
from ftlab_kit.graphs.extraction.sections import Item, Section

METHODS = "GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS"
ENDPOINT = re.compile(rf"\b((?:{METHODS})(?:/(?:{METHODS}))*)\s+(/[\w/:{{}}.\-]*)")
TERM = re.compile(r"\*\*(.+?):?\*\*\s*(?:\([^)]*\))?:?\s*(.*)$", re.DOTALL)
PLAIN_TERM = re.compile(r"([A-Z][^:`]{1,60}?):\s+(\S.*)$", re.DOTALL)
NUMBERED = re.compile(r"(?:step\s+)?\d+(?:\.\d+)*[.):]?\s+(.+)$", re.IGNORECASE)
EMPTY_TITLES = frozenset("overview introduction summary description contents notes".split())
MAX_NAME_CHARACTERS = 80


@dataclass
class EntityIndex:
    """The entities of a document: by name, and by the section whose heading names them.

    Attributes:
        of_section: By id() of a section, its entity.
        records: Entities whose headings have labels below them.
        linking_keys: Labels whose values are entities themselves.
    """

    by_name: dict[str, Mention] = field(default_factory=dict)
    of_section: dict[int, Mention] = field(default_factory=dict)
    records: set[Mention] = field(default_factory=set)
    linking_keys: set[str] = field(default_factory=set)
    matcher: wording.NameMatcher = field(default_factory=lambda: wording.NameMatcher(()))

    def add(self, entity: Mention) -> Mention:
        """Add an entity, and return the first one that had its name."""
        return self.by_name.setdefault(entity.name.lower(), entity)

    def lookup(self, name: str) -> Mention | None:
        """Return the entity of a name, with or without brackets after it."""
        name = values.strip_markdown(name)
        entity = self.by_name.get(name.lower())
        return entity or self.by_name.get(wording.without_parenthesis(name).lower())

    def named_in(self, text: str) -> list[Mention]:
        """Return the entities that a text names, in order."""
        names = self.matcher.find(values.strip_markdown(text))
        return [self.by_name[name.lower()] for name in names]

    def of_type(self, name: str) -> list[Mention]:
        """Return the entities of a type, in the order of the document."""
        return [entity for entity in self.by_name.values() if entity.type == name]


def read(sections: Sequence[Section]) -> EntityIndex:
    """Return the entities of a document."""
    index = EntityIndex()
    for section in sections:
        if (entity := _record(section)) is not None:
            index.of_section[id(section)] = index.add(entity)
            index.records.add(index.of_section[id(section)])
    for section in sections:
        for item in section.items:
            if (entity := _term(section, item, index)) is not None:
                index.add(entity)
        for entity in _first_cells(section):
            index.add(entity)
    _find_linking_keys(sections, index)
    for section in sections:
        if id(section) not in index.of_section and (topic := _topic(section)) is not None:
            index.of_section[id(section)] = index.add(topic)
    names = (entity.name for entity in index.by_name.values() if _is_distinctive(entity))
    index.matcher = wording.NameMatcher(names)
    return index


def _first_cells(section: Section) -> Iterator[Mention]:
    """Yield the entities in the first column of a section's tables, typed by its header."""
    for table in section.tables:
        noun = wording.type_noun(table.header[0]) if table.header else ""
        for cells, _ in table.rows:
            if noun and cells and _is_name(cells[0]):
                yield Mention(wording.type_label(noun), values.strip_markdown(cells[0]))


def _is_distinctive(entity: Mention) -> bool:
    """Return whether a name differs from a plain word of a text."""
    return len(entity.name) > 2 and entity.type not in ("Topic", "Document")


def _is_name(text: str) -> bool:
    name = values.strip_markdown(text)
    return bool(name) and len(name) <= MAX_NAME_CHARACTERS and bool(re.search(r"\w", name))


def title(section: Section) -> str:
    """Return a section's title without its number."""
    match = NUMBERED.match(section.title)
    return match[1] if match else section.title


def _record(section: Section) -> Mention | None:
    """Return the entity of a heading with labels below it."""
    if not section.title:
        return None
    keys = [key for key, _ in section.labels]
    for key in keys:
        if match := re.fullmatch(r"(.+?)\s+(?:ID|Id|id|name|Name)", key):
            return Mention(wording.type_label(wording.singular(match[1])), title(section))
    if NUMBERED.match(section.title):
        return Mention(_numbered_type(section), title(section))
    if section.level == 1 and keys:
        return Mention("Document", section.title)
    if len(keys) > 1 and section.above:
        return Mention(_heading_type(section.above.title), title(section))
    return None


def _numbered_type(section: Section) -> str:
    """Return the type of a numbered heading: an item of the list in the document's title, or Step.

    Below '# Seven habits', '## 1. Begin early' is a Habit.
    """
    top: Section | None = section
    while top and top.above and top.above.title:
        top = top.above
    document_title = top.title if top is not None and top is not section else ""
    return _heading_type(document_title) if wording.is_plural(document_title) else "Step"


def _heading_type(heading: str) -> str:
    """Return the type of the items below a heading; Topic if it does not say what they are."""
    noun = wording.type_noun(heading)
    return wording.type_label(noun) if noun and noun.lower() not in idioms.ABOUT else "Topic"


def endpoints(text: str) -> list[Mention]:
    """Return the endpoints that a text names: 'GET/POST /x' are two."""
    return [
        Mention("Endpoint", f"{method} {path.rstrip('.')}")
        for methods, path in ENDPOINT.findall(text)
        for method in methods.split("/")
    ]


def term(item: Item) -> tuple[str, str] | None:
    """Return the term that an item defines and its definition, None if it defines none."""
    match = TERM.match(item.span.text) or PLAIN_TERM.match(item.span.text)
    if not match or not _is_name(match[1]):
        return None
    return values.strip_markdown(match[1]).rstrip(":"), match[2].strip()


def is_record(section: Section, index: EntityIndex) -> bool:
    """Return whether the text below a heading is about the heading's own entity."""
    return index.of_section.get(id(section)) in index.records


def _term(section: Section, item: Item, index: EntityIndex) -> Mention | None:
    """Return the entity that an item defines, None if it defines none."""
    for endpoint in endpoints(item.span.text):
        index.add(endpoint)
    definition = term(item)
    if definition is None or is_record(section, index) or endpoints(item.span.text):
        return None
    is_bold = item.span.text.startswith("**")
    heading = item.label or section.title
    if not is_bold and not _is_list_of_terms(section, heading):
        return None
    return Mention(_heading_type(heading), definition[0])


def _is_list_of_terms(section: Section, heading: str) -> bool:
    """Return whether plain items are terms: a plural above them, and a definition in each."""
    return wording.is_plural(heading) and all(
        (definition := term(item)) and len(definition[1].split()) > 3 for item in section.items
    )


def _find_linking_keys(sections: Sequence[Section], index: EntityIndex) -> None:
    """Find the labels whose values are entities: a type has their name, or records share values."""
    types = {entity.type for entity in index.by_name.values()}
    counts: dict[str, Counter[str]] = {}
    for section in sections:
        for key, span in section.labels if is_record(section, index) else ():
            counts.setdefault(key, Counter())[values.strip_markdown(span.text)] += 1
    for key, counter in counts.items():
        if key.endswith((" ID", " Id", " id")) or endpoints(" ".join(counter)):
            continue
        label = wording.type_label(wording.singular(key))
        is_shared = max(counter.values()) > 1 and len(counter) > 1 and all(map(_is_proper, counter))
        if label in types or is_shared:
            index.linking_keys.add(key)
            for name in counter:
                index.add(Mention(label, name))


def _is_proper(text: str) -> bool:
    """Return whether a text looks like a name: short, with a capital, not a number or a yes."""
    is_text = isinstance(values.parse_value(text).value, str)
    return len(text.split()) <= 4 and is_text and text[:1].isupper() and "." not in text


def _topic(section: Section) -> Mention | None:
    """Return the topic of a heading without labels, None for 'Overview' and the like."""
    name = title(section)
    if not name or name.lower() in EMPTY_TITLES:
        return None
    return Mention("Topic", name)


def subject(section: Section, index: EntityIndex) -> Mention | None:
    """Return the entity that a section is about: its heading's, or that of a heading above."""
    above: Section | None = section
    while above is not None:
        if (entity := index.of_section.get(id(above))) is not None:
            return entity
        above = above.above
    return None


def family(text: str, entities: Iterable[Mention]) -> list[Mention]:
    """Return the entities that 'Claude models (200K-300K)' or 'GPT-5 family' means."""
    prefix = idioms.family_prefix(wording.without_parenthesis(text))
    if prefix is None:
        return []
    pattern = re.compile(rf"{re.escape(prefix)}(?![\w.])")
    return [entity for entity in entities if pattern.match(entity.name.lower())]
