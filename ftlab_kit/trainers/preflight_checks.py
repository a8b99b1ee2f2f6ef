"""What is looked at before a job may start: rows, tokens, processor, memory and disk."""

import shutil

from ftlab_kit import device, models
from ftlab_kit.configs import Config
from ftlab_kit.datasets import schema, tokenized
from ftlab_kit.datasets.tokenized import Encodings
from ftlab_kit.errors import DataError, InputError
from ftlab_kit.lm import adapters
from ftlab_kit.records import Check, DatasetVersion, Rows
from ftlab_kit.workspace import Workspace

BLIND = 0.05  # share of rows without any trained token that is still borne
TOKENIZER_GIB = 0.01
LEARNS_FROM = {"sft": ("chat", "text"), "dpo": ("preference",), "grpo": ("chat",)}
CUT = 0.10  # share of rows whose answers are cut that is still borne


def look(ws: Workspace, config: Config, version: DatasetVersion) -> Rows[Check]:
    """Return every check of a job with what was found; those that are not ok refuse it."""
    model = models.pull(ws, config.model)
    assert model.path is not None
    refused = _of_kind(version, config)
    if refused:
        return Rows([refused, *_of_machine(ws, config)])
    try:
        length = min(config.max_length, model.context_tokens)
        rows = tokenized.read(ws, version, model.path, length)
        found = [*_of_tokens(rows, config), _of_ends(rows)]
        longest = int(rows.lengths.max())
    except DataError as error:
        found = [Check("chat template", False, str(error), "")]
        longest = config.max_length
    return Rows([*found, *_of_machine(ws, config.but(max_length=max(8, longest)))])


def _of_kind(version: DatasetVersion, config: Config) -> Check | None:
    """Return a refusal of rows that the method can't learn from."""
    wanted = LEARNS_FROM[config.method]
    if version.kind in wanted:
        return None
    form = schema.PREFERENCE_EXAMPLE if "preference" in wanted else schema.CHAT_EXAMPLE
    cure = f"Method {config.method!r} learns from rows like {form}."
    return Check("kind of rows", False, f"rows of kind {version.kind}", cure)


def _of_tokens(rows: Encodings, config: Config) -> list[Check]:
    blind, cut = (rows.n_trained == 0).sum(), (rows.n_cut > 0).sum()
    longest, total = rows.lengths.max(), rows.lengths.sum()
    share = rows.n_trained.sum() / total
    return [
        Check(
            "trained tokens",
            bool(blind <= BLIND * len(rows)),
            f"{blind} of {len(rows)} rows have none; {share:.0%} of the tokens are trained",
            f"Raise max_length above {config.max_length} tokens, or shorten the prompts.",
        ),
        Check(
            "whole answers",
            bool(cut <= CUT * len(rows)),
            f"{cut} of {len(rows)} rows are cut at {config.max_length} tokens",
            "Raise max_length, or split the long rows: a cut answer teaches never to end.",
        ),
        Check(
            "length",
            True,
            f"the longest row has {longest} tokens, all rows {total}",
            "",
        ),
    ]


def _of_ends(rows: Encodings) -> Check:
    endless = (~rows.has_end & (rows.n_cut == 0)).sum()
    return Check(
        "end token",
        not endless and rows.pad != rows.end,
        f"{endless} of {len(rows)} rows end without one; end {rows.end!r}, padding {rows.pad!r}",
        "Use a chat template that closes each answer with a special token, and pad with another.",
    )


def _of_machine(ws: Workspace, config: Config) -> list[Check]:
    try:
        found = config.training_precision()
        precision = Check("precision", True, f"{found} on {device.kind()}", "")
    except InputError as error:
        found = "fp32"
        precision = Check("precision", False, str(error), "")
    dtype = adapters.weight_dtype(found, adapter=config.adapter)
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
