"""What is checked before a job may start: rows, tokens, processor, memory and disk."""

import shutil

from ftlab_kit import device, models
from ftlab_kit.configs import Config
from ftlab_kit.datasets import schema, tokenized
from ftlab_kit.datasets.tokenized import Encodings
from ftlab_kit.errors import DataError, InputError, NotFound
from ftlab_kit.lm import adapters
from ftlab_kit.records import Check, DatasetVersion, Rows
from ftlab_kit.workspace import Workspace

MAX_UNTRAINED = 0.05  # largest share of rows without a trained token
MAX_CUT = 0.10  # largest share of rows whose answers are cut
TOKENIZER_GIB = 0.01
KINDS_OF_ROWS = {"sft": ("chat", "text"), "dpo": ("preference",), "grpo": ("chat",)}


def look(ws: Workspace, config: Config, version: DatasetVersion) -> Rows[Check]:
    """Return the result of every check of a job; one that is not ok refuses the job."""
    model = models.pull(ws, config.model)
    if model.path is None:
        raise NotFound(
            f"Model {config.model} has no files here; expected a model that can be trained. "
            "Choose one of models.list(ws)."
        )
    refusal = _kind_of_rows(version, config)
    if refusal:
        return Rows([refusal, *_machine(ws, config)])
    try:
        length = min(config.max_length, model.context_tokens)
        rows = tokenized.read(ws, version, model.path, length)
        checks = [*_tokens(rows, config), _end_tokens(rows)]
        longest = int(rows.lengths.max())
    except DataError as error:
        checks = [Check("chat template", False, str(error), "")]
        longest = config.max_length
    return Rows([*checks, *_machine(ws, config.but(max_length=max(8, longest)))])


def _kind_of_rows(version: DatasetVersion, config: Config) -> Check | None:
    """Return a refusal of rows that the method can't train on."""
    kinds = KINDS_OF_ROWS[config.method]
    if version.kind in kinds:
        return None
    form = schema.PREFERENCE_EXAMPLE if "preference" in kinds else schema.CHAT_EXAMPLE
    fix = f"Method {config.method!r} trains on rows like {form}."
    return Check("kind of rows", False, f"rows of kind {version.kind}", fix)


def _tokens(rows: Encodings, config: Config) -> list[Check]:
    n_untrained, n_cut = (rows.n_trained == 0).sum(), (rows.n_cut > 0).sum()
    longest, total = rows.lengths.max(), rows.lengths.sum()
    share = rows.n_trained.sum() / total
    return [
        Check(
            "trained tokens",
            bool(n_untrained <= MAX_UNTRAINED * len(rows)),
            f"{n_untrained} of {len(rows)} rows have none; {share:.0%} of the tokens are trained",
            f"Raise max_length above {config.max_length} tokens, or shorten the prompts.",
        ),
        Check(
            "whole answers",
            bool(n_cut <= MAX_CUT * len(rows)),
            f"{n_cut} of {len(rows)} rows are cut at {config.max_length} tokens",
            "Raise max_length, or split the long rows: cut answers teach a model never to end.",
        ),
        Check(
            "length",
            True,
            f"the longest row has {longest} tokens, all rows {total}",
            "",
        ),
    ]


def _end_tokens(rows: Encodings) -> Check:
    n_endless = (~rows.has_end & (rows.n_cut == 0)).sum()
    return Check(
        "end token",
        not n_endless and rows.pad != rows.end,
        f"{n_endless} of {len(rows)} rows end without one; end {rows.end!r}, padding {rows.pad!r}",
        "Use a chat template that closes each answer with a special token, and pad with another.",
    )


def _machine(ws: Workspace, config: Config) -> list[Check]:
    try:
        precision = config.training_precision()
        precision_check = Check("precision", True, f"{precision} on {device.kind()}", "")
    except InputError as error:
        precision = "fp32"
        precision_check = Check("precision", False, str(error), "")
    dtype = adapters.weight_dtype(precision, adapter=config.adapter)
    bytes_per_weight = 4 if dtype == "float32" else 2
    memory = models.memory(ws, config, bytes_per_weight=bytes_per_weight)
    free_gib = device.free_memory_gib()
    # a checkpoint holds the trained weights, their two moments and a tokenizer; a new one is
    # written before an old one is removed, and the best one is kept too
    disk_gib = (config.keep_checkpoints + 2) * (memory.trained_gib + TOKENIZER_GIB)
    free_disk_gib = shutil.disk_usage(ws.root).free / device.GIB
    return [
        precision_check,
        Check(
            "memory",
            memory.total_gib <= free_gib,
            f"about {memory.total_gib:.1f} GiB of {free_gib:.1f} GiB free on {device.kind()}",
            "Lower micro_batch or max_length, or set gradient_checkpointing=True.",
        ),
        Check(
            "disk",
            disk_gib <= free_disk_gib,
            f"about {disk_gib:.2g} GiB of {free_disk_gib:.2g} GiB free",
            "Free some space, or keep fewer checkpoints with keep_checkpoints.",
        ),
    ]
