"""The quality of a version: measured once for its content, scored by the documents' rules.

`measure` does what is slow, and its facts are cached in the store; `report` turns them into points
and advice.

The score is the points of the parts that are known, in percent of what they could give:

    size        20   all from 50 rows on, in proportion below
    unique      25   share of the rows that repeat no earlier one, exactly or nearly
    complete    15   share of the rows whose answers are not cut and that train at least one token
    private     15   1 less ten times the share of rows with personal data or keys
    leak-free   15   1 less ten times the share of rows that a held-out row repeats
    accepted    10   share of the lines that were not refused
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ftlab_kit.datasets import near_duplicates, pii, schema, tokenized, version_store
from ftlab_kit.errors import InputError
from ftlab_kit.records import (
    DatasetVersion,
    DuplicatePair,
    Model,
    OnProgress,
    Outlier,
    Part,
    PersonalData,
    Progress,
    Quality,
    Rows,
)
from ftlab_kit.workspace import Workspace, now

# Raise it whenever `measure` gives other facts about the same rows than before: by a change here,
# in `schema`, `near_duplicates` or `pii`, or in a library below them. A golden test notices.
RULES = 1
MIN_ROWS, MAX_ROWS = 50, 5000  # "Recommended 50-5000 examples"
BETTER_ROWS = 200
MIN_LANGUAGE_CONFIDENCE = 0.5
LANGUAGE_CHARS = 1000  # of a row, enough to tell its language
MAX_DEVIATIONS = 3.5  # robust deviations from the median (Iglewicz and Hoaglin 1993)
PERCENTILES = {"min": 0, "5%": 5, "median": 50, "95%": 95, "max": 100}


class Scope(NamedTuple):
    """What is measured besides the rows themselves.

    The model, if any, has been pulled; `with_losses` runs it over every row.
    """

    model: Model | None
    max_length: int | None
    held_out: DatasetVersion | None
    with_losses: bool


def measure(
    ws: Workspace, version: DatasetVersion, scope: Scope, progress: OnProgress | None
) -> dict[str, Any]:
    """Return the facts about a version, as JSON can hold them; measured only if not cached."""
    key = _cache_key(version, scope)
    cached = ws.store.get("qualities", key=key)
    if cached is not None:
        return dict(cached["facts"])
    on_progress = progress or (lambda news: None)
    facts = _row_facts(version, on_progress)
    if scope.held_out is not None:
        on_progress(Progress("rows of the held-out side", 0, scope.held_out.n_rows))
        facts["leaks"] = repeated_in(version, scope.held_out)
    if scope.model is not None:
        facts |= _token_facts(ws, version, scope, on_progress)
    ws.store.insert_new(
        "qualities",
        key=key,
        content_sha256=version.content_sha256,
        facts=facts,
        created_at=now(),
    )
    return facts


def _cache_key(version: DatasetVersion, scope: Scope) -> str:
    """Return a key that differs whenever the facts might."""
    model, held_out = scope.model, scope.held_out
    parts = [
        RULES,
        version.content_sha256,
        tokenized.cache_name(version, model.path) if model and model.path else "",
        scope.max_length,
        held_out.content_sha256 if held_out else "",
        scope.with_losses,
        model.id if model and scope.with_losses else "",
    ]
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def _row_facts(version: DatasetVersion, on_progress: OnProgress) -> dict[str, Any]:
    n_rows = version.n_rows
    on_progress(Progress("rows searched for personal data", 0, n_rows))
    personal = [
        (index, field, match.kind, pii.masked(text[match.start : match.end]))
        for index, row in enumerate(version_store.rows(version))
        for field, text in schema.texts(row)
        for match in pii.find(text)
    ]
    on_progress(Progress("languages detected", 0, n_rows))
    languages = _languages(version)
    on_progress(Progress("rows compared", 0, n_rows))
    return {"personal": personal, "languages": languages, "duplicates": _duplicates(version)}


def _languages(version: DatasetVersion) -> dict[str, float]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=MIN_LANGUAGE_CONFIDENCE
    )
    counts = Counter(
        model.classify(schema.dialogue(row)[:LANGUAGE_CHARS])[0]
        for row in version_store.rows(version)
    )
    names = {"und": "unknown", "zxx": "no language"}
    return {names.get(code, code): n / version.n_rows for code, n in counts.most_common()}


def _duplicates(version: DatasetVersion) -> list[tuple[int, int, float]]:
    """Return rows that repeat an earlier one: equal ones by hash, then near ones."""
    first_with: dict[bytes, int] = {}
    distinct, duplicates = [], []
    for index, row in enumerate(version_store.rows(version)):
        digest = hashlib.sha256(schema.dialogue(row).encode()).digest()
        of = first_with.setdefault(digest, index)
        if of == index:
            distinct.append(index)
        else:
            duplicates.append((index, of, 1.0))
    is_distinct = set(distinct)
    texts = (
        schema.dialogue(row)
        for index, row in enumerate(version_store.rows(version))
        if index in is_distinct
    )
    duplicates += [
        (distinct[pair.row], distinct[pair.of], pair.share)
        for pair in near_duplicates.find_pairs(texts)
    ]
    return sorted(duplicates)


def repeated_in(version: DatasetVersion, other: DatasetVersion) -> list[tuple[int, int, float]]:
    """Return rows that another version repeats: whole, nearly, or in their question."""
    questions: dict[str, int] = {}
    others = [*version_store.rows(other)]
    for index, row in enumerate(others):
        if schema.question(row):
            questions.setdefault(schema.question(row), index)
    n_others = len(others)
    texts = [schema.dialogue(row) for row in others]
    repeated: dict[int, tuple[int, int, float]] = {}
    for index, row in enumerate(version_store.rows(version)):
        texts.append(schema.dialogue(row))
        if (of := questions.get(schema.question(row))) is not None:
            repeated[index] = (index, of, 1.0)
    # the other version's rows come first, so that a set with rows of both is named by one of them
    sets = near_duplicates.DisjointSets(len(texts))
    shares: dict[int, float] = {}
    for pair in near_duplicates.find_pairs(texts):
        sets.unite(pair.row, pair.of)
        shares[pair.row] = pair.share
    for place in range(n_others, len(texts)):
        first, index = sets.first(place), place - n_others
        if first < n_others:
            repeated.setdefault(index, (index, first, shares.get(place, 1.0)))
    return sorted(repeated.values())


def _token_facts(
    ws: Workspace, version: DatasetVersion, scope: Scope, on_progress: OnProgress
) -> dict[str, Any]:
    if scope.model is None or scope.model.path is None:
        raise InputError("Lengths in tokens need a model in the workspace. Pull it first.")
    rows = tokenized.read(ws, version, scope.model.path, scope.max_length, progress=on_progress)
    whole = tokenized.read(ws, version, scope.model.path)
    facts: dict[str, Any] = {
        "lengths": whole.lengths.tolist(),
        "n_tokens": int(rows.lengths.sum()),
        "n_trained": int(rows.n_trained.sum()),
        "n_cut": int((rows.n_cut > 0).sum()),
        "n_untrained": int((rows.n_trained == 0).sum()),
    }
    if scope.with_losses:
        facts["losses"] = _losses(scope.model, rows, on_progress)
    return facts


def _losses(model: Model, rows: tokenized.Encodings, on_progress: OnProgress) -> list[float | None]:
    """Return the mean loss of each row's answers under the base model; None without any."""
    from ftlab_kit import device
    from ftlab_kit.lm import likelihood, loading

    folder = model.path or Path()
    loaded = loading.load(folder).to(device.kind())
    pad = loading.tokenizer(folder).pad_token_id
    sums = likelihood.nll(loaded, rows, pad_token_id=pad, progress=on_progress)
    return [
        total / int(count) if count else None
        for total, count in zip(sums, rows.n_trained, strict=True)
    ]


def report(version: DatasetVersion, scope: Scope, facts: dict[str, Any]) -> Quality:
    """Return the quality of a version from its facts."""
    import numpy as np

    lengths = facts.get("lengths")
    n_tokens = facts.get("n_tokens")
    parts = _parts(version, facts)
    scored = [part for part in parts if part.points is not None]
    points = sum(part.points or 0.0 for part in scored)
    leaks, losses = facts.get("leaks"), facts.get("losses")
    return Quality(
        version=version,
        score=100 * points / sum(part.out_of for part in scored),
        parts=Rows(parts),
        advice=tuple(_advice(version, scope, facts)),
        model=scope.model.id if scope.model else None,
        max_length=scope.max_length,
        n_tokens=n_tokens,
        trained_share=facts["n_trained"] / n_tokens if n_tokens else None,
        n_cut=facts.get("n_cut"),
        n_untrained=facts.get("n_untrained"),
        percentiles={
            name: float(np.percentile(lengths, percent)) for name, percent in PERCENTILES.items()
        }
        if lengths
        else None,
        lengths=tuple(lengths) if lengths else None,
        duplicates=Rows(DuplicatePair(*pair) for pair in facts["duplicates"]),
        leaks=None if leaks is None else Rows(DuplicatePair(*pair) for pair in leaks),
        languages=facts["languages"],
        personal=Rows(PersonalData(*match) for match in facts["personal"]),
        outliers=None if losses is None else Rows(_outliers(losses)),
        losses=None if losses is None else tuple(loss for loss in losses if loss is not None),
    )


def _parts(version: DatasetVersion, facts: dict[str, Any]) -> list[Part]:
    n_rows, n_lines = version.n_rows, version.n_rows + version.n_refused
    n_repeated, leaks = len(facts["duplicates"]), facts.get("leaks")
    n_equal = sum(share == 1.0 for _, _, share in facts["duplicates"])
    n_personal = len({row for row, *_ in facts["personal"]})
    n_encoded = len(facts["lengths"]) if "lengths" in facts else n_rows
    n_bad = facts["n_cut"] + facts["n_untrained"] if "n_cut" in facts else None
    return [
        _part("size", 20, min(1.0, n_rows / MIN_ROWS), f"{n_rows} rows"),
        _part(
            "unique",
            25,
            1 - n_repeated / n_rows,
            f"{n_equal} equal to an earlier row, {n_repeated - n_equal} nearly",
        ),
        _part("complete", 15, None, "not known without a model")
        if n_bad is None
        else _part(
            "complete",
            15,
            1 - n_bad / n_encoded,
            f"{facts['n_cut']} rows are cut, {facts['n_untrained']} have no trained token",
        ),
        _part(
            "private",
            15,
            1 - 10 * n_personal / n_rows,
            f"{n_personal} rows with personal data or keys",
        ),
        _part("leak-free", 15, None, "not known without a held-out side")
        if leaks is None
        else _part(
            "leak-free",
            15,
            1 - 10 * len(leaks) / n_rows,
            f"{len(leaks)} rows are repeated in the held-out side",
        ),
        _part(
            "accepted", 10, n_rows / n_lines, f"{version.n_refused} of {n_lines} lines were refused"
        ),
    ]


def _part(name: str, out_of: float, share: float | None, detail: str) -> Part:
    """Return a part of the score; a share below 0 counts as 0, None as not known."""
    return Part(name, None if share is None else out_of * max(0.0, share), out_of, detail)


def _advice(version: DatasetVersion, scope: Scope, facts: dict[str, Any]) -> list[str]:
    n_rows, name = version.n_rows, version.dataset
    languages = [code for code in facts["languages"] if code not in ("unknown", "no language")]
    cases = [
        (n_rows < MIN_ROWS, f"{n_rows} rows are few: {MIN_ROWS} or more are recommended"),
        (
            MIN_ROWS <= n_rows < BETTER_ROWS,
            f"{n_rows} rows can be enough; {BETTER_ROWS} to 1000 usually give better results",
        ),
        (
            n_rows > MAX_ROWS,
            f"{n_rows} rows are many: quality matters more than quantity, and {MIN_ROWS} to "
            f"{MAX_ROWS} good ones are recommended; take a part with datasets.sample",
        ),
        (
            facts["duplicates"],
            f"leave repeated rows out: datasets.filter(ws, {name!r}, without=quality.repeated)",
        ),
        (
            facts["personal"],
            f"check what looks personal, then remove it: datasets.redact(ws, {name!r})",
        ),
        (
            facts.get("leaks"),
            "held-out rows are also trained on: split again, or filter them out",
        ),
        (
            facts.get("n_cut"),
            f"raise max_length above {scope.max_length}, or split the long rows",
        ),
        (
            facts.get("n_untrained"),
            "some rows have no trained token at this length: leave them out",
        ),
        (
            len(languages) > 1,
            f"several languages ({', '.join(languages[:5])}): check that this is intended",
        ),
    ]
    return [advice for applies, advice in cases if applies]


def _outliers(losses: Sequence[float | None]) -> list[Outlier]:
    """Return rows whose loss is far from the median, in robust deviations."""
    import numpy as np

    values = np.array([np.nan if loss is None else loss for loss in losses])
    median = np.nanmedian(values)
    # the median absolute deviation, scaled to the standard deviation of a normal distribution
    deviation = np.nanmedian(np.abs(values - median)) / 0.6745
    if not deviation > 0:
        return []
    distance = (values - median) / deviation
    rows = sorted(
        np.flatnonzero(np.abs(distance) > MAX_DEVIATIONS), key=lambda row: -abs(distance[row])
    )
    return [Outlier(int(row), float(values[row]), float(distance[row])) for row in rows]
