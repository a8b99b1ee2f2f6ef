"""What a part of a graph says: facts between two entities as links, counts, and words for all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ftlab_kit.records import Citation, Entity, Fact, Neighbourhood, show
from ftlab_kit.records.shown import grid

ROWS = 60  # facts of a table


@dataclass(frozen=True)
class Link:
    """All facts between two entities; it points to where one of them points."""

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
        return spoken(names[0]) if len(names) == 1 else f"{len(names)} relations"

    @property
    def message(self) -> str:
        """What its facts say, a line each."""
        return "\n".join(f"{fact.fact} {held(fact)}".strip() for fact in self.facts)


def spoken(relation: str) -> str:
    """Return a relation's name as words."""
    return relation.replace("_", " ").lower()


def held(fact: Fact) -> str:
    """Return since and until when a fact holds, as far as that is known."""
    return span(fact.valid_at, fact.invalid_at)


def span(start: datetime | None, end: datetime | None) -> str:
    """Return two dates as people say them; nothing where neither is known."""
    parts = [f"from {start:%Y-%m-%d}"] if start else []
    return " ".join([*parts, f"until {end:%Y-%m-%d}"] if end else parts)


def cited(places: Sequence[Citation]) -> str:
    """Return where something is said."""
    return ", ".join(map(str, places))


def ends(found: Neighbourhood) -> dict[str, tuple[str, ...]]:
    """Return the entities that each fact is about, by their ids: one, two or, left out, none."""
    known = {entity.name: entity.id for entity in reversed(found.entities)}
    known |= {entity.id: entity.id for entity in found.entities}
    sides = {fact.id: [known.get(fact.source), known.get(fact.target)] for fact in found.facts}
    return {key: tuple(dict.fromkeys(filter(None, pair))) for key, pair in sides.items()}


def counts(found: Neighbourhood) -> Counter[str]:
    """Return how many facts each entity has, by its id."""
    counted = Counter({entity.id: 0 for entity in found.entities})
    counted.update(one for pair in ends(found).values() for one in pair)
    return counted


def links(found: Neighbourhood) -> list[Link]:
    """Return the facts between two entities, those between the same two as one link."""
    pairs: dict[tuple[str, ...], list[tuple[str, Fact]]] = {}
    sides = ends(found)
    for fact in found.facts:
        if len(sides[fact.id]) == 2:
            pair = tuple(sorted(sides[fact.id]))
            pairs.setdefault(pair, []).append((sides[fact.id][0], fact))
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
    """Return the types of entities, the one with the most first."""
    counted = Counter(entity.type for entity in entities)
    return sorted(counted, key=lambda name: (-counted[name], name))


def alt(found: Neighbourhood) -> str:
    """Return what the picture says, made from its data."""
    counted = counts(found)
    said = f"{many(len(found.entities), 'entity', 'entities')}, "
    said += many(len(found.facts), "fact", "facts")
    if found.facts and counted:
        most = max(found.entities, key=lambda entity: counted[entity.id])
        name = "".join(letter for letter in most.name if letter.isprintable())
        said += f"; {name} has the most, {counted[most.id]}"
    return f"{said}; {found.n_more} more entities are left out" if found.n_more else said


def many(number: int, one: str, several: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else several}"


def table(found: Neighbourhood) -> str:
    """Return entities and facts as tables."""
    counted = counts(found)
    entities = [
        [one.name, one.type, str(counted[one.id]), show(one.attributes), show(cited(one.places))]
        for one in sorted(found.entities, key=lambda one: -counted[one.id])
    ]
    facts = [
        [fact.fact, fact.relation, show(held(fact)), show(cited(fact.places))]
        for fact in found.facts[:ROWS]
    ]
    left = len(found.facts) - ROWS
    more = f"<p>… and {many(left, 'fact', 'facts')} more</p>" if left > 0 else ""
    return (
        grid(["entity", "type", "facts", "attributes", "said in"], entities)
        + grid(["fact", "relation", "holds", "said in"], facts)
        + more
    )
