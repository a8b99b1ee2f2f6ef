"""Extraction without a language model: what a document states by its form.

Headings, `**Key:** value`, lists, tables, endpoints and definitions become typed entities, their
attributes, and sentences with their lines. Plain prose yields its sections as passages, and the
sentences that name two entities. What kind of document this reads best, and what it makes of any
other, is in README.md and idioms.py.

A document is read by itself: the result depends on its own text only, so that a graph depends only
on which documents it holds.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ftlab_kit.graphs.extraction import claims, entities, sections
from ftlab_kit.graphs.extraction.entities import EntityIndex
from ftlab_kit.graphs.extraction.result import Chunk, Claim, Extract, Mention
from ftlab_kit.graphs.extraction.sections import Section
from ftlab_kit.graphs.extraction.wording import as_sentence, attribute_name
from ftlab_kit.graphs.loaders import Line, Text

__all__ = [
    "Chunk",
    "Claim",
    "Extract",
    "Mention",
    "as_sentence",
    "attribute_name",
    "chunk_of",
    "read",
]

MAX_CHUNK_CHARACTERS = 1200  # about what an embedder of 256 tokens reads
MAX_DATE_LINES = 40  # a document gives its date near its beginning
DATED = re.compile(
    r"\*\*(?:Last Updated|Updated|Date|Dated|As of|Version Date):?\*\*:?\s*(.+)$", re.I
)
DATE_FORMATS = (
    "%Y-%m-%d",
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d %b %Y",
    "%d.%m.%Y",
    "%Y/%m/%d",
)


def read(text: Text) -> Extract:
    """Return the chunks, claims and mentions of a document, and its date."""
    parsed = sections.read(text.lines)
    index = entities.read(parsed)
    extract = Extract(dated_at=_date(text.lines))
    for section in parsed:
        for chunk, lines in _chunks(section):
            extract.chunk_of_line |= dict.fromkeys(lines, len(extract.chunks))
            extract.chunks.append(chunk)
    extract.claims = _without_duplicates(claims.read(parsed, index))
    _add_mentions(extract, index)
    return extract


def chunk_of(extract: Extract, claim: Claim) -> int:
    """Return the number of the chunk with a claim's first line."""
    return extract.chunk_of_line[claim.first]


def _without_duplicates(stated: Iterable[Claim]) -> list[Claim]:
    """Return claims, each once for the lines that state it."""
    unique: dict[tuple[object, ...], Claim] = {}
    for claim in stated:
        key = (claim.source, claim.relation, claim.target, claim.sentence, claim.first)
        unique.setdefault(key, claim)
    return list(unique.values())


def _chunks(section: Section) -> list[tuple[Chunk, list[Line]]]:
    """Return a section in parts that are not too long, cut at empty lines where there are some."""
    parts: list[list[Line]] = [[]]
    length = 0
    for line in section.lines:
        is_break = not line.text.strip() and length > MAX_CHUNK_CHARACTERS / 2
        if parts[-1] and (length + len(line.text) > MAX_CHUNK_CHARACTERS or is_break):
            parts.append([])
            length = 0
        parts[-1].append(line)
        length += len(line.text) + 1
    title = " > ".join(section.path)
    chunks: list[tuple[Chunk, list[Line]]] = []
    for part in parts:
        text = "\n".join(line.text for line in part).strip()
        if text:
            chunks.append((Chunk(text, part[0], part[-1], title), part))
        elif chunks:
            chunks[-1][1].extend(part)
    return chunks


def _add_mentions(extract: Extract, index: EntityIndex) -> None:
    """Note which chunk mentions which entity: by a claim, or by its name."""
    for claim in extract.claims:
        number = chunk_of(extract, claim)
        extract.mentions |= {(number, claim.source), (number, claim.target)}
    claimed = {end for claim in extract.claims for end in (claim.source, claim.target)}
    for number, chunk in enumerate(extract.chunks):
        named = (entity for entity in index.named_in(chunk.text) if entity in claimed)
        extract.mentions |= {(number, entity) for entity in named}


def _date(lines: Sequence[Line]) -> datetime | None:
    """Return the date that a document gives itself, None if it gives none."""
    for line in lines[:MAX_DATE_LINES]:
        if match := DATED.search(line.text):
            for date_format in DATE_FORMATS:
                try:
                    return datetime.strptime(match[1].strip(), date_format).replace(tzinfo=UTC)
                except ValueError:
                    continue
    return None
