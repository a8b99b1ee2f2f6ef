"""A row as a trainer sees it: which tokens are trained, context, ends of answers, or cut."""

from pathlib import Path

from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import InputError
from ftlab_kit.lm import loading
from ftlab_kit.lm.tokens import IGNORED
from ftlab_kit.records import DatasetVersion, Mask, Model, Rows, Token
from ftlab_kit.workspace import Workspace

SIDES = {"preference": ("chosen", "rejected")}


def mask(
    ws: Workspace,
    version: DatasetVersion,
    model: Model,
    *,
    row: int,
    side: str,
    max_length: int,
) -> Mask:
    """Return a row's tokens with their roles, read from the same cache as the trainer's.

    Raises:
        InputError: There is no such row or side.
    """
    if not 0 <= row < version.n_rows:
        raise InputError(f"row is {row}; expected 0 to {version.n_rows - 1}.")
    sides = SIDES.get(version.kind, ())
    if sides and side not in sides:
        raise InputError(f"side is {side!r}; expected one of {', '.join(sides)}.")
    index = row * len(sides) + sides.index(side) if sides else row
    folder = Path(model.path or "")
    tokenizer = loading.tokenizer(folder)
    cut = tokenized.read(ws, version, folder, max_length)
    whole = tokenized.read(ws, version, folder)[index]
    special = set(tokenizer.all_special_ids)
    tokens = []
    for position, (token, label) in enumerate(zip(whole.input_ids, whole.labels, strict=True)):
        role = "context" if label == IGNORED else "end" if token in special else "trained"
        role = role if position < cut.lengths[index] else "cut"
        tokens.append(Token(token, tokenizer.decode([token]), role))
    return Mask(
        version=version,
        model=model.id,
        row=row,
        side=side if sides else None,
        max_length=max_length,
        n_trained=int(cut.n_trained[index]),
        n_cut=int(cut.n_cut[index]),
        tokens=Rows(tokens),
    )
