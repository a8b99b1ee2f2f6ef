"""Two evaluations of the same rows side by side: scores, and what each model answered."""

import html
from collections.abc import Sequence

from ftlab_kit.errors import InputError
from ftlab_kit.records import CELL, Evaluation, show
from ftlab_kit.widgets.front import Html


def comparison(before: Evaluation, after: Evaluation, *, n_samples: int = 3) -> Html:
    """Return the scores of two evaluations and their answers to the first rows.

    Raises:
        InputError: They scored different rows.
    """
    places = [(item.dataset_version_id, item.n_rows) for item in (before, after)]
    if places[0] != places[1]:
        raise InputError(
            f"Evaluation {before.id} scored {before.n_rows} rows of version "
            f"{before.dataset_version_id}, evaluation {after.id} {after.n_rows} of version "
            f"{after.dataset_version_id}; expected the same rows. Score both on the same version."
        )
    scores = [
        [_meaning(before, name), show(before.scores[name]), show(after.scores.get(name))]
        for name in before.scores
    ]
    answers = [
        [old.prompt, old.reference, old.answer, new.answer]
        for old, new in zip(before.samples[:n_samples], after.samples[:n_samples], strict=True)
    ]
    words = "; ".join(f"{name} {old} before, {new} after" for name, old, new in scores)
    return Html(
        _table(["score", before.target, after.target], scores)
        + _table(["asked", "reference", before.target, after.target], answers),
        words,
    )


def _meaning(evaluation: Evaluation, name: str) -> str:
    is_greater = evaluation.details[name]["greater_is_better"]
    return f"{name} ({'greater' if is_greater else 'less'} is better)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
