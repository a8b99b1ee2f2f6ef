"""What a version is like: measured once for its content, and judged by the documents' rules.

`look` measures what is slow and is kept in the store; `judge` turns it into points and advice.

The score is the sum of the parts that are known, out of what they could give, times 100:

    rows        20   all from 50 rows on, below that in proportion
    distinct    25   share of the rows that repeat no earlier one, exactly or nearly
    whole       15   share of the rows whose answers are not cut, and teach something at all
    private     15   1 less ten times the share of rows with personal data or keys
    apart       15   1 less ten times the share of rows that a held-out row repeats
    accepted    10   share of the lines that were not refused
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ftlab_kit.datasets import near_duplicates, pii, schema, splits, tokenized, version_store
from ftlab_kit.records import (
    DatasetVersion,
    DuplicatePair,
    Model,
    Outlier,
    Part,
    Personal,
    Quality,
    Rows,
    percent,
    show,
)
from ftlab_kit.workspace import Workspace, now

FEWEST, MOST = 50, 5000  # rows: "Recommended 50-5000 examples"
BETTER = 200
UNSURE = 0.5  # probability below which a language is not known
SAYS = 1000  # letters of a row that show its language
FAR = 3.5  # robust deviations from the median (Iglewicz and Hoaglin 1993)
PERCENTILES = {"least": 0, "5%": 5, "median": 50, "95%": 95, "most": 100}
Tell = Callable[..., None] | None


class Asked(NamedTuple):
    """What a look takes in beside the rows; the model is here, with its folder."""

    model: Model | None
    max_length: int | None
    held_out: DatasetVersion | None
    losses: bool


def look(ws: Workspace, version: DatasetVersion, asked: Asked, progress: Tell) -> dict[str, Any]:
    """Return what a version is like, as JSON can carry it; measured only if no one has before."""
    key = _key(version, asked)
    known = ws.store.get("qualities", key=key)
    if known is not None:
        return dict(known["facts"])
    tell = progress or (lambda *news: None)
    facts = _of_rows(version, tell)
    if asked.held_out is not None:
        tell("looking for rows of the held-out side")
        facts["leaks"] = repeated_in(version, asked.held_out)
    if asked.model is not None:
        facts |= _of_tokens(ws, version, asked, tell)
    ws.store.insert_new(
        "qualities",
        key=key,
        content_sha256=version.content_sha256,
        facts=facts,
        created_at=now(),
    )
    return facts


def _key(version: DatasetVersion, asked: Asked) -> str:
    """Return a name that is another one whenever something else might be found."""
    rules = [schema, tokenized, near_duplicates, pii, splits]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for module in rules:
        digest.update(Path(module.__file__ or "").read_bytes())
    model = asked.model
    tokens = tokenized.name(version, model.path) if model and model.path else ""
    other = asked.held_out.content_sha256 if asked.held_out else ""
    words = [version.content_sha256, tokens, asked.max_length, other, asked.losses]
    words += [model.id if model and asked.losses else ""]
    digest.update("|".join(map(str, words)).encode())
    return digest.hexdigest()


def _of_rows(version: DatasetVersion, tell: Callable[..., None]) -> dict[str, Any]:
    tell("looking for personal data")
    found = [
        (index, where, sight.kind, pii.masked(text[sight.start : sight.end]))
        for index, row in enumerate(version_store.rows(version))
        for where, text in schema.texts(row)
        for sight in pii.find(text)
    ]
    tell("telling languages")
    languages = _languages(version)
    tell("looking for rows that repeat others")
    return {"personal": found, "languages": languages, "duplicates": _duplicates(version)}


def _languages(version: DatasetVersion) -> dict[str, float]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=UNSURE)
    count = Counter(
        model.classify(splits.said(row)[:SAYS])[0] for row in version_store.rows(version)
    )
    named = {"und": "unknown", "zxx": "no language"}
    return {named.get(name, name): n / version.n_rows for name, n in count.most_common()}


def _duplicates(version: DatasetVersion) -> list[tuple[int, int, float]]:
    """Return rows that repeat an earlier one: equal ones first found by hash, then near ones."""
    seen: dict[bytes, int] = {}
    first, found = [], []
    for index, row in enumerate(version_store.rows(version)):
        of = seen.setdefault(hashlib.sha256(splits.said(row).encode()).digest(), index)
        if of == index:
            first.append(index)
        else:
            found.append((index, of, 1.0))
    alone = set(first)
    texts = (
        splits.said(row) for index, row in enumerate(version_store.rows(version)) if index in alone
    )
    found += [(first[pair.row], first[pair.of], pair.share) for pair in near_duplicates.near(texts)]
    return sorted(found)


def repeated_in(version: DatasetVersion, other: DatasetVersion) -> list[tuple[int, int, float]]:
    """Return rows that one of another version repeats: whole or nearly, or in its question."""
    questions: dict[str, int] = {}
    others = [*version_store.rows(other)]
    for index, row in enumerate(others):
        if schema.question(row):
            questions.setdefault(schema.question(row), index)
    n_others = len(others)
    texts = [splits.said(row) for row in others]
    found: dict[int, tuple[int, int, float]] = {}
    for index, row in enumerate(version_store.rows(version)):
        texts.append(splits.said(row))
        if (of := questions.get(schema.question(row))) is not None:
            found[index] = (index, of, 1.0)
    # the other's rows come first, so that a set with rows of both is known by one of them
    pairs = near_duplicates.near(texts)
    sets = near_duplicates.Sets(len(texts))
    shares: dict[int, float] = {}
    for pair in pairs:
        sets.unite(pair.row, pair.of)
        shares[pair.row] = pair.share
    for place in range(n_others, len(texts)):
        first, index = sets.first(place), place - n_others
        if first < n_others:
            found.setdefault(index, (index, first, shares.get(place, 1.0)))
    return sorted(found.values())


def _of_tokens(
    ws: Workspace, version: DatasetVersion, asked: Asked, tell: Callable[..., None]
) -> dict[str, Any]:
    assert asked.model is not None and asked.model.path is not None
    rows = tokenized.read(ws, version, asked.model.path, asked.max_length, progress=tell)
    whole = tokenized.read(ws, version, asked.model.path)
    facts: dict[str, Any] = {
        "lengths": whole.lengths.tolist(),
        "n_tokens": int(rows.lengths.sum()),
        "n_trained": int(rows.n_trained.sum()),
        "n_cut": int((rows.n_cut > 0).sum()),
        "n_untrained": int((rows.n_trained == 0).sum()),
    }
    if asked.losses:
        facts["losses"] = _losses(asked.model, rows, tell)
    return facts


def _losses(model: Model, rows: Any, tell: Callable[..., None]) -> list[float | None]:
    """Return the mean loss of each row's answers under the base model; None without any."""
    from ftlab_kit import device
    from ftlab_kit.lm import likelihood, loading

    assert model.path is not None
    loaded = loading.load(model.path).to(device.kind())
    pad = loading.tokenizer(model.path).pad_token_id
    sums = likelihood.nll(
        loaded, rows, pad_token_id=pad, progress=lambda now: tell(now.what, now.done, now.total)
    )
    return [
        total / int(count) if count else None
        for total, count in zip(sums, rows.n_trained, strict=True)
    ]


def judge(version: DatasetVersion, asked: Asked, facts: dict[str, Any]) -> Quality:
    """Return the quality of a version from what was seen of it."""
    import numpy as np

    lengths = facts.get("lengths")
    n_tokens = facts.get("n_tokens")
    parts = _parts(version, facts)
    known = [part for part in parts if part.points is not None]
    points = sum(part.points or 0.0 for part in known)
    leaks, losses = facts.get("leaks"), facts.get("losses")
    return Quality(
        version=version,
        score=100 * points / sum(part.out_of for part in known),
        parts=Rows(parts),
        advice=tuple(_advice(version, asked, facts)),
        model=asked.model.id if asked.model else None,
        max_length=asked.max_length,
        n_tokens=n_tokens,
        trained_share=facts["n_trained"] / n_tokens if n_tokens else None,
        n_cut=facts.get("n_cut"),
        n_untrained=facts.get("n_untrained"),
        percentiles={
            name: float(np.percentile(lengths, place)) for name, place in PERCENTILES.items()
        }
        if lengths
        else None,
        lengths=tuple(lengths) if lengths else None,
        duplicates=Rows(DuplicatePair(*item) for item in facts["duplicates"]),
        leaks=None if leaks is None else Rows(DuplicatePair(*item) for item in leaks),
        languages=facts["languages"],
        personal=Rows(Personal(*item) for item in facts["personal"]),
        outliers=None if losses is None else Rows(_outliers(losses)),
        losses=None if losses is None else tuple(loss for loss in losses if loss is not None),
    )


def _parts(version: DatasetVersion, facts: dict[str, Any]) -> list[Part]:
    n_rows, n_refused = version.n_rows, version.n_refused
    n_repeated, leaks = len(facts["duplicates"]), facts.get("leaks")
    n_equal = sum(share == 1.0 for _, _, share in facts["duplicates"])
    n_private = len({row for row, *_ in facts["personal"]})
    n_lines = n_rows + n_refused
    n_sides = len(facts["lengths"]) if "lengths" in facts else n_rows
    n_bad = facts["n_cut"] + facts["n_untrained"] if "n_cut" in facts else None
    whole = None if n_bad is None else max(0.0, 1 - n_bad / n_sides)
    apart = None if leaks is None else max(0.0, 1 - 10 * len(leaks) / n_rows)
    found = {
        "rows": (20, min(1.0, n_rows / FEWEST), f"{n_rows} rows"),
        "distinct": (
            25,
            1 - n_repeated / n_rows,
            f"{n_equal} equal to an earlier row, {n_repeated - n_equal} nearly",
        ),
        "whole": (
            15,
            whole,
            "not known without a model"
            if n_bad is None
            else f"{facts['n_cut']} rows are cut, {facts['n_untrained']} teach nothing",
        ),
        "private": (
            15,
            max(0.0, 1 - 10 * n_private / n_rows),
            f"{n_private} rows with personal data or keys",
        ),
        "apart": (
            15,
            apart,
            "not known without held_out"
            if leaks is None
            else f"{len(leaks)} rows are repeated in the held-out version",
        ),
        "accepted": (10, n_rows / n_lines, f"{n_refused} of {n_lines} lines were refused"),
    }
    return [
        Part(name, None if share is None else out_of * share, out_of, words)
        for name, (out_of, share, words) in found.items()
    ]


def _advice(version: DatasetVersion, asked: Asked, facts: dict[str, Any]) -> list[str]:
    n_rows, name = version.n_rows, version.dataset
    languages = [item for item in facts["languages"] if item not in ("unknown", "no language")]
    cases = [
        (n_rows < FEWEST, f"{n_rows} rows are few: {FEWEST} or more are recommended"),
        (
            FEWEST <= n_rows < BETTER,
            f"{n_rows} rows can do; {BETTER} to 1000 bring better results",
        ),
        (
            n_rows > MOST,
            f"{n_rows} rows are many: quality counts more than quantity, and {FEWEST} to {MOST} "
            "good ones are recommended; look at a part with datasets.sample",
        ),
        (
            facts["duplicates"],
            f"leave repeated rows out: datasets.filter(ws, {name!r}, without=quality.repeated)",
        ),
        (
            facts["personal"],
            f"look at what seems personal, and take it out: datasets.redact(ws, {name!r})",
        ),
        (facts.get("leaks"), "held-out rows are learnt from: split again, or filter them out"),
        (facts.get("n_cut"), f"raise max_length above {asked.max_length}, or part the long rows"),
        (facts.get("n_untrained"), "some rows teach nothing at this length: leave them out"),
        (len(languages) > 1, f"several languages ({', '.join(languages[:5])}): meant so?"),
    ]
    return [words for is_so, words in cases if is_so]


def _outliers(losses: Sequence[float | None]) -> list[Outlier]:
    """Return rows whose loss lies far from the median, in robust deviations."""
    import numpy as np

    values = np.array([np.nan if loss is None else loss for loss in losses])
    middle = np.nanmedian(values)
    spread = np.nanmedian(np.abs(values - middle)) / 0.6745
    if not spread > 0:
        return []
    far = (values - middle) / spread
    rows = sorted(np.flatnonzero(np.abs(far) > FAR), key=lambda row: -abs(far[row]))
    return [Outlier(int(row), float(values[row]), float(far[row])) for row in rows]


def card(line: Sequence[DatasetVersion], quality: Quality) -> str:
    """Return the card of a version in Markdown.

    Args:
        line: The version, then what it was made from, back to the first.
    """
    version = line[0]
    title = version.dataset if version.side == "all" else f"{version.dataset}, {version.side}"
    facts = {
        "rows": f"{version.n_rows:,} of kind {version.kind}; {version.n_refused:,} lines refused",
        "version": f"{version.id}, made {show(version.created_at)}",
        "content": f"SHA-256 `{version.content_sha256}`",
        "quality": f"{quality.score:.0f} of 100",
        "languages": ", ".join(
            f"{name} {percent(share)}" for name, share in quality.languages.items()
        ),
        "personal data": ", ".join(
            f"{count} × {kind}" for kind, count in Counter(p.kind for p in quality.personal).items()
        )
        or "none found",
    }
    head = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    came = "".join(
        f"{place}. version {item.id}, {item.side}, {item.n_rows:,} rows: {_made(item)}\n"
        for place, item in enumerate(line, 1)
    )
    parts = "".join(
        f"| {part.name} | {show(part.points)} of {part.out_of:g} | {part.got} |\n"
        for part in quality.parts
    )
    return (
        f"# {title}\n\n| | |\n|---|---|\n{head}\n## Where it comes from\n\n{came}\n"
        f"## What it is like\n\n| part | points | found |\n|---|---|---|\n{parts}\n"
        + "".join(f"- {words}\n" for words in quality.advice)
    )


def _made(version: DatasetVersion) -> str:
    made = dict(version.derivation)
    verb = made.pop("verb", "added by an older kit")
    how = ", ".join(f"{name} {_short(value)}" for name, value in made.items())
    return f"{verb} ({how})" if how else verb


def _short(value: Any) -> str:
    said = show(value)
    return said if len(said) < 100 else f"{said[:80]}…"
