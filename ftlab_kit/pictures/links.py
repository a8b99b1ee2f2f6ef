"""What a part of a graph says: the facts between two entities as one link, counts, and alt text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ftlab_kit.records import Citation, Entity, Fact, Neighbourhood, grid, show

MAX_ROWS = 60  # facts of a table


@dataclass(frozen=True)
class Link:
    """All facts between two entities; it points to an entity where one of the facts does."""

    source: str
    target: str
    facts: tuple[Fact, ...]
    is_forth: bool
    is_back: bool

    @property
    def is_ended(self) -> bool:
        """Whether none of its facts holds any more."""
        return all(fact.invalid_at for fact in self.facts)

    @property
    def label(self) -> str:
        """The relation, or how many there are."""
        names = [*dict.fromkeys(fact.relation for fact in self.facts)]
        return readable(names[0]) if len(names) == 1 else f"{len(names)} relations"

    @property
    def text(self) -> str:
        """Its facts with their validity, a line each."""
        return "\n".join(f"{fact.fact} {validity(fact)}".strip() for fact in self.facts)


def readable(relation: str) -> str:
    """Return a relation's name as a person writes it: MADE_BY is "made by"."""
    return relation.replace("_", " ").lower()


def validity(fact: Fact) -> str:
    """Return since when and until when a fact holds, as far as that is known."""
    return date_range(fact.valid_at, fact.invalid_at)


def date_range(start: datetime | None, end: datetime | None) -> str:
    """Return "from ... until ..." with the dates that are known; nothing where neither is."""
    parts = [f"from {start:%Y-%m-%d}"] if start else []
    return " ".join([*parts, f"until {end:%Y-%m-%d}"] if end else parts)


def sources(citations: Sequence[Citation]) -> str:
    """Return where something is stated."""
    return ", ".join(map(str, citations))


def endpoints(graph: Neighbourhood) -> dict[str, tuple[str, ...]]:
    """Return the ids of the entities that each fact is about: one, two, or none if left out."""
    ids = {entity.name: entity.id for entity in reversed(graph.entities)}
    ids |= {entity.id: entity.id for entity in graph.entities}
    pairs = {fact.id: [ids.get(fact.source), ids.get(fact.target)] for fact in graph.facts}
    return {key: tuple(dict.fromkeys(filter(None, pair))) for key, pair in pairs.items()}


def fact_counts(graph: Neighbourhood) -> Counter[str]:
    """Return how many facts each entity has, by its id."""
    counts = Counter({entity.id: 0 for entity in graph.entities})
    counts.update(entity_id for pair in endpoints(graph).values() for entity_id in pair)
    return counts


def links(graph: Neighbourhood) -> list[Link]:
    """Return one link for each two entities that have facts between them."""
    pairs: dict[tuple[str, ...], list[tuple[str, Fact]]] = {}
    ends = endpoints(graph)
    for fact in graph.facts:
        if len(ends[fact.id]) == 2:
            pair = tuple(sorted(ends[fact.id]))
            pairs.setdefault(pair, []).append((ends[fact.id][0], fact))
    return [
        Link(
            source=pair[0],
            target=pair[1],
            facts=tuple(fact for _, fact in facts),
            is_forth=any(start == pair[0] for start, _ in facts),
            is_back=any(start == pair[1] for start, _ in facts),
        )
        for pair, facts in pairs.items()
    ]


def types(entities: Sequence[Entity]) -> list[str]:
    """Return the types of entities, the most frequent first."""
    counts = Counter(entity.type for entity in entities)
    return sorted(counts, key=lambda name: (-counts[name], name))


def alt_text(graph: Neighbourhood) -> str:
    """Return the picture's alt text, made from its data."""
    counts = fact_counts(graph)
    entities = plural(len(graph.entities), "entity", "entities")
    text = f"{entities}, {plural(len(graph.facts), 'fact', 'facts')}"
    if graph.facts and counts:
        hub = max(graph.entities, key=lambda entity: counts[entity.id])
        name = "".join(letter for letter in hub.name if letter.isprintable())
        text += f"; {name} has the most, {counts[hub.id]}"
    return f"{text}; {graph.n_more} more entities are left out" if graph.n_more else text


def plural(number: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else several}"


def table(graph: Neighbourhood) -> str:
    """Return entities and facts as HTML tables."""
    counts = fact_counts(graph)
    entities = [
        [one.name, one.type, str(counts[one.id]), show(one.attributes), show(sources(one.places))]
        for one in sorted(graph.entities, key=lambda one: -counts[one.id])
    ]
    facts = [
        [fact.fact, fact.relation, show(validity(fact)), show(sources(fact.places))]
        for fact in graph.facts[:MAX_ROWS]
    ]
    n_left_out = len(graph.facts) - MAX_ROWS
    more = f"<p>… and {plural(n_left_out, 'fact', 'facts')} more</p>" if n_left_out > 0 else ""
    return (
        grid(["entity", "type", "facts", "attributes", "source"], entities)
        + grid(["fact", "relation", "valid", "source"], facts)
        + more
    )
