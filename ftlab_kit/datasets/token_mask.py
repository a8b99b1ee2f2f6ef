"""A row through a trainer's eyes: which tokens are trained, context, ends, or cut away."""

from pathlib import Path

from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import InputError
from ftlab_kit.lm import loading
from ftlab_kit.lm.tokens import IGNORED
from ftlab_kit.records import DatasetVersion, Mask, Model, Rows, Token
from ftlab_kit.workspace import Workspace

SIDES = {"preference": ("chosen", "rejected")}


def mask(
    ws: Workspace, version: DatasetVersion, model: Model, *, row: int, side: str, length: int
) -> Mask:
    """Return a row's tokens with their roles, read from where the trainer reads them.

    Raises:
        InputError: There is no such row or side.
    """
    if not 0 <= row < version.n_rows:
        raise InputError(f"row is {row}; expected 0 to {version.n_rows - 1}.")
    names = SIDES.get(version.kind, ())
    if names and side not in names:
        raise InputError(f"side is {side!r}; expected one of {', '.join(names)}.")
    place = row * len(names) + names.index(side) if names else row
    folder = Path(model.path or "")
    tokenizer = loading.tokenizer(folder)
    cut = tokenized.read(ws, version, folder, length)
    whole = tokenized.read(ws, version, folder)[place]
    special = set(tokenizer.all_special_ids)
    tokens = []
    for at, (token, label) in enumerate(zip(whole.input_ids, whole.labels, strict=True)):
        role = "context" if label == IGNORED else "end" if token in special else "trained"
        role = role if at < cut.lengths[place] else "cut"
        tokens.append(Token(token, tokenizer.decode([token]), role))
    return Mask(
        version=version,
        model=model.id,
        row=row,
        side=side if names else None,
        max_length=length,
        n_trained=int(cut.n_trained[place]),
        n_cut=int(cut.n_cut[place]),
        tokens=Rows(tokens),
    )
