"""The card of a version, in Markdown: what it holds, where it comes from, how good it is."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ftlab_kit.records import DatasetVersion, Quality, percent, show

MAX_CHARS = 100  # of an argument


def markdown(lineage: Sequence[DatasetVersion], quality: Quality) -> str:
    """Return the card of a version.

    Args:
        lineage: The version, then its parents back to the first.
        quality: Of the version.
    """
    version = lineage[0]
    title = version.dataset if version.side == "all" else f"{version.dataset}, {version.side}"
    facts = "".join(f"| {name} | {value} |\n" for name, value in _facts(version, quality).items())
    origin = "".join(
        f"{number}. version {item.id}, {item.side}, {item.n_rows:,} rows: {_derivation(item)}\n"
        for number, item in enumerate(lineage, 1)
    )
    parts = "".join(
        f"| {part.name} | {show(part.points)} of {part.out_of:g} | {part.detail} |\n"
        for part in quality.parts
    )
    return (
        f"# {title}\n\n| | |\n|---|---|\n{facts}\n## Where it comes from\n\n{origin}\n"
        f"## Quality\n\n| part | points | detail |\n|---|---|---|\n{parts}\n"
        + "".join(f"- {advice}\n" for advice in quality.advice)
    )


def _facts(version: DatasetVersion, quality: Quality) -> dict[str, str]:
    languages = (f"{name} {percent(share)}" for name, share in quality.languages.items())
    kinds = Counter(match.kind for match in quality.personal)
    return {
        "rows": f"{version.n_rows:,} of kind {version.kind}; {version.n_refused:,} lines refused",
        "version": f"{version.id}, made {show(version.created_at)}",
        "content": f"SHA-256 `{version.content_sha256}`",
        "quality": f"{quality.score:.0f} of 100",
        "languages": ", ".join(languages),
        "personal data": ", ".join(f"{n} × {kind}" for kind, n in kinds.items()) or "none found",
    }


def _derivation(version: DatasetVersion) -> str:
    arguments = dict(version.derivation)
    verb = arguments.pop("verb", "added by an older kit")
    text = ", ".join(f"{name} {_short(value)}" for name, value in arguments.items())
    return f"{verb} ({text})" if text else verb


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) < MAX_CHARS else f"{text[: MAX_CHARS - 20]}…"
