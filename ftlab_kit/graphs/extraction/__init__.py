"""Structured extraction without a language model: what a document's form already says.

Headings, `**Key:** value`, lists, tables, endpoints and definition lists become typed things,
attributes and sentences, each with its lines. A document is read alone: what it yields depends on
its own text only, so that what a graph holds depends only on which documents it holds. Plain prose
yields its sections as passages, and sentences that name two known things.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ftlab_kit.graphs.extraction import claims, naming, sections
from ftlab_kit.graphs.extraction.naming import EntityIndex
from ftlab_kit.graphs.extraction.result import Chunk, Claim, Extract
from ftlab_kit.graphs.extraction.sections import Section
from ftlab_kit.graphs.loaders import Line, Text

LONGEST_CHUNK = 1200  # characters: about what an embedder of 256 tokens reads
DATED = re.compile(
    r"\*\*(?:Last Updated|Updated|Date|Dated|As of|Version Date):?\*\*:?\s*(.+)$", re.I
)
FORMS = ("%Y-%m-%d", "%B %d, %Y", "%b %d, %Y", "%d %B %Y", "%d %b %Y", "%d.%m.%Y", "%Y/%m/%d")


def read(text: Text) -> Extract:
    """Return what a document says."""
    found = sections.read(text.lines)
    who = naming.read(found)
    extract = Extract(dated_at=_date(text.lines))
    for section in found:
        for chunk, lines in _chunks(section):
            extract.at |= dict.fromkeys(lines, len(extract.chunks))
            extract.chunks.append(chunk)
    extract.claims = _once(claims.read(found, who))
    _mention(extract, who)
    return extract


def chunk_of(extract: Extract, claim: Claim) -> int:
    """Return the number of the chunk that a claim's first line stands in."""
    return extract.at[claim.first]


def _once(found: Iterable[Claim]) -> list[Claim]:
    """Return claims without those that say the same of the same lines."""
    seen: dict[tuple[object, ...], Claim] = {}
    for claim in found:
        key = (claim.source, claim.relation, claim.target, claim.sentence, claim.first)
        seen.setdefault(key, claim)
    return list(seen.values())


def _chunks(section: Section) -> list[tuple[Chunk, list[Line]]]:
    """Return a section in parts that are not too long, cut at empty lines where there are some."""
    parts: list[list[Line]] = [[]]
    length = 0
    for line in section.lines:
        is_break = not line.text.strip() and length > LONGEST_CHUNK / 2
        if parts[-1] and (length + len(line.text) > LONGEST_CHUNK or is_break):
            parts.append([])
            length = 0
        parts[-1].append(line)
        length += len(line.text) + 1
    name = " > ".join(section.path)
    made = []
    for part in parts:
        text = "\n".join(line.text for line in part).strip()
        if text:
            made.append((Chunk(text, part[0], part[-1], name), part))
        elif made:
            made[-1][1].extend(part)
    return made


def _mention(extract: Extract, who: EntityIndex) -> None:
    """Note which chunk mentions what: by a claim, or by name."""
    for claim in extract.claims:
        number = chunk_of(extract, claim)
        extract.mentions |= {(number, claim.source), (number, claim.target)}
    known = {end for claim in extract.claims for end in (claim.source, claim.target)}
    for number, chunk in enumerate(extract.chunks):
        extract.mentions |= {(number, thing) for thing in who.within(chunk.text) if thing in known}


def _date(lines: Sequence[Line]) -> datetime | None:
    """Return the date that a document bears near its beginning."""
    for line in lines[:40]:
        if found := DATED.search(line.text):
            for form in FORMS:
                try:
                    return datetime.strptime(found[1].strip(), form).replace(tzinfo=UTC)
                except ValueError:
                    continue
    return None
