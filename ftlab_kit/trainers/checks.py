"""What is looked at before a job may start: rows, tokens, processor, memory and disk."""

import shutil
from typing import Any

from ftlab_kit import datasets, device, models
from ftlab_kit.configs import Config
from ftlab_kit.datasets import chats
from ftlab_kit.errors import DataError, InputError
from ftlab_kit.models import tokens, weights
from ftlab_kit.records import Check, DatasetVersion, Rows
from ftlab_kit.workspace import Workspace

BLIND = 0.05  # share of rows without any trained token that is still borne
TOKENIZER_GIB = 0.01
CUT = 0.10  # share of rows whose answers are cut that is still borne


def encode(
    ws: Workspace, tokenizer: Any, version: DatasetVersion, max_length: int
) -> list[tokens.Encoded]:
    """Return the rows of a version as the trainer will see them."""
    return [
        tokens.encode(tokenizer, messages, max_length)
        for row in datasets.rows(ws, version)
        for messages in chats.sides(row)
    ]


def look(ws: Workspace, config: Config, version: DatasetVersion) -> Rows[Check]:
    """Return every check of a job with what was found; those that are not ok refuse it."""
    model = models.pull(ws, config.model)
    assert model.path is not None
    tokenizer = weights.tokenizer(model.path)
    refused = _of_kind(ws, version, config)
    if refused:
        return Rows([refused, *_of_machine(ws, config)])
    try:
        rows = encode(ws, tokenizer, version, min(config.max_length, model.context_tokens))
        found = [*_of_tokens(rows, config), _of_ends(rows, tokenizer)]
        longest = max(len(row.input_ids) for row in rows)
    except DataError as error:
        found = [Check("chat template", False, str(error), "")]
        longest = config.max_length
    return Rows([*found, *_of_machine(ws, config.but(max_length=max(8, longest)))])


def _of_kind(ws: Workspace, version: DatasetVersion, config: Config) -> Check | None:
    """Return a refusal of rows that the method can't learn from."""
    wanted = "preference" if config.method == "dpo" else "chat"
    kinds = [chats.kind(row) for row in datasets.rows(ws, version)]
    others = [line for line, kind in enumerate(kinds, 1) if kind != wanted]
    if not others:
        return None
    form = chats.PREFERENCE if wanted == "preference" else chats.FORM
    found = f"{len(others)} of {len(kinds)} rows, line {others[0]} first, are of another kind"
    cure = f"Method {config.method!r} learns from rows like {form}."
    return Check("kind of rows", False, found, cure)


def _of_tokens(rows: list[tokens.Encoded], config: Config) -> list[Check]:
    blind = sum(row.n_trained == 0 for row in rows)
    cut = sum(row.n_cut > 0 for row in rows)
    longest = max(len(row.input_ids) for row in rows)
    share = sum(row.n_trained for row in rows) / sum(len(row.input_ids) for row in rows)
    return [
        Check(
            "trained tokens",
            blind <= BLIND * len(rows),
            f"{blind} of {len(rows)} rows have none; {share:.0%} of the tokens are trained",
            f"Raise max_length above {config.max_length} tokens, or shorten the prompts.",
        ),
        Check(
            "whole answers",
            cut <= CUT * len(rows),
            f"{cut} of {len(rows)} rows are cut at {config.max_length} tokens",
            "Raise max_length, or split the long rows: a cut answer teaches never to end.",
        ),
        Check(
            "length",
            True,
            f"the longest row has {longest} tokens, all rows {sum(len(r.input_ids) for r in rows)}",
            "",
        ),
    ]


def _of_ends(rows: list[tokens.Encoded], tokenizer: Any) -> Check:
    endless = sum(not row.has_end and row.n_cut == 0 for row in rows)
    pad_is_end = tokenizer.pad_token_id == tokenizer.eos_token_id
    return Check(
        "end token",
        not endless and not pad_is_end,
        f"{endless} of {len(rows)} rows end without one; end {tokenizer.eos_token!r}, "
        f"padding {tokenizer.pad_token!r}",
        "Use a chat template that closes each answer with a special token, and pad with another.",
    )


def _of_machine(ws: Workspace, config: Config) -> list[Check]:
    try:
        found = device.precision(config.precision)
        precision = Check("precision", True, f"{found} on {device.kind()}", "")
    except InputError as error:
        found = "fp32"
        precision = Check("precision", False, str(error), "")
    dtype = weights.dtype(found, adapter=config.adapter)
    bytes_per_weight = 4 if dtype == "float32" else 2
    need = models.memory(ws, config, bytes_per_weight=bytes_per_weight)
    free = device.free_memory_gib()
    # a checkpoint holds what is trained with its two moments, and a tokenizer; one more is written
    # before one goes, and the best is kept besides
    disk = (config.keep_checkpoints + 2) * (need.trained_gib + TOKENIZER_GIB)
    room = shutil.disk_usage(ws.root).free / device.GIB
    return [
        precision,
        Check(
            "memory",
            need.total_gib <= free,
            f"about {need.total_gib:.1f} GiB of {free:.1f} GiB free on {device.kind()}",
            "Lower micro_batch or max_length, or set gradient_checkpointing=True.",
        ),
        Check(
            "disk",
            disk <= room,
            f"about {disk:.2g} GiB of {room:.2g} GiB free",
            "Free some space, or keep fewer checkpoints with keep_checkpoints.",
        ),
    ]
