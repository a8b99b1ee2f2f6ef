"""A dataset version as tokens, made once: what training, preflight and perplexity read.

The cache is keyed by everything that decides the tokens: the bytes of the rows, the tokenizer with
its chat template, transformers' version, and RULES, the version of the kit's own rules. Whole rows
are cached and cut on reading, so that one pass over the rows serves every maximal length, and a
second job on the same rows tokenises nothing.

`encode` is the only way from a row to tokens, for the cache, a streaming
trainer and the token mask.

N: rows (two for a preference: with the chosen, then with the rejected answer), T: tokens of all
rows.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit.datasets import schema, version_store
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import room_on_disk
from ftlab_kit.lm import loading, tokens
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.records import DatasetVersion, OnProgress, Progress
from ftlab_kit.workspace import Workspace

# Raise it whenever the same rows and tokenizer give other tokens, labels or ends than before:
# by a change here, in `schema.conversations`, or in `lm.tokens`. A golden test notices.
RULES = 1
FACTS, IDS, IS_TRAINED = "facts.json", "ids.int32", "is_trained.bool"
REPORT_EVERY_ROWS = 1000


class Encodings(Sequence[Encoded]):
    """The rows of a version as tokens, cut to a length; each is read from disk on access.

    `end` and `pad` are the tokenizer's special tokens. For all rows, as arrays `(N,)`: `lengths` in
    tokens, and `n_trained`, `n_cut` and `has_end` as in Encoded.
    """

    def __init__(self, folder: Path, max_length: int | None) -> None:
        """Open a folder that `read` has written."""
        facts = json.loads((folder / FACTS).read_text())
        self.end, self.pad = str(facts["end"]), str(facts["pad"])
        self._ids = np.memmap(folder / IDS, np.int32, mode="r")  # (T,)
        self._is_trained = np.memmap(folder / IS_TRAINED, np.bool_, mode="r")  # (T,)
        self._starts = np.load(folder / "starts.npy")  # (N + 1,)
        self.has_end = np.load(folder / "has_end.npy")
        whole = np.diff(self._starts)
        self.lengths = np.minimum(whole, max_length) if max_length else whole
        self.n_trained = np.add.reduceat(self._is_trained, self._starts[:-1], dtype=np.int64)
        self.n_cut = np.zeros_like(whole)
        for row in np.flatnonzero(whole > self.lengths):
            end, next_start = self._starts[row] + self.lengths[row], self._starts[row + 1]
            self.n_cut[row] = np.count_nonzero(self._is_trained[end:next_start])
        self.n_trained -= self.n_cut

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = self._starts[:-1][index]
        span = slice(start, start + self.lengths[index])
        labels = np.where(self._is_trained[span], self._ids[span], IGNORED)
        return Encoded(
            input_ids=self._ids[span].tolist(),
            labels=labels.tolist(),
            n_cut=int(self.n_cut[index]),
            has_end=bool(self.has_end[index]),
        )


def read(
    ws: Workspace,
    version: DatasetVersion,
    model: Path,
    max_length: int | None = None,
    *,
    progress: OnProgress | None = None,
) -> Encodings:
    """Return the rows of a version as a model's tokens; tokenise them if they are not cached.

    Args:
        model: The folder with the model's tokenizer.
        max_length: Cut rows to this many tokens; None leaves them whole.
        progress: Called with the rows that are tokenised.

    Raises:
        DataError: The chat template refuses a row.
        DiskFull: Nothing is left behind.
    """
    folder = ws.tokens / cache_name(version, model)
    if not (folder / FACTS).exists():
        shutil.rmtree(folder, ignore_errors=True)  # a folder that someone removed files from
        _write(folder, loading.tokenizer(model), _reported(version, progress))
    return Encodings(folder, max_length)


def _reported(version: DatasetVersion, progress: OnProgress | None) -> Iterator[Row]:
    for done, row in enumerate(version_store.rows(version)):
        if progress and done % REPORT_EVERY_ROWS == 0:
            progress(Progress("rows tokenised", done, version.n_rows))
        yield row


def encode(tokenizer: Any, row: Row, max_length: int | None = None) -> list[Encoded]:
    """Return a row's tokens, one entry for each chat that it trains.

    Raises:
        DataError: The chat template refuses it.
    """
    if schema.kind(row) == "text":
        return [tokens.plain(tokenizer, row["text"], max_length)]
    return [
        tokens.encode(tokenizer, messages, max_length, tools=row.get("tools"))
        for messages in schema.conversations(row)
    ]


def cache_name(version: DatasetVersion, model: Path) -> str:
    """Return the name of the cached tokens, which differs whenever the tokens might."""
    with version.path.open("rb") as file:  # hashed as it is now, in case someone edited it
        rows = hashlib.file_digest(file, "sha256").hexdigest()
    rules = f"{RULES} {installed_version('transformers')} {tokens.fingerprint(model)}"
    return f"{rows}-{hashlib.sha256(rules.encode()).hexdigest()[:16]}"


def _write(folder: Path, tokenizer: Any, rows: Iterator[Row]) -> None:
    """Tokenise rows into a folder, which gets its name only once it is complete."""
    lengths, has_end = [0], []
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with room_on_disk(f"the tokens in {folder}"):
            partial.mkdir(parents=True)
            with (partial / IDS).open("wb") as ids, (partial / IS_TRAINED).open("wb") as trained:
                for row in rows:
                    for encoded in encode(tokenizer, row):
                        ids.write(np.asarray(encoded.input_ids, np.int32).tobytes())
                        trained.write(np.not_equal(encoded.labels, IGNORED).tobytes())
                        lengths.append(len(encoded.input_ids))
                        has_end.append(encoded.has_end)
            np.save(partial / "starts.npy", np.cumsum(lengths))
            np.save(partial / "has_end.npy", np.asarray(has_end, bool))
            facts = {"end": tokenizer.eos_token, "pad": tokenizer.pad_token}
            (partial / FACTS).write_text(json.dumps(facts))
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / FACTS).exists():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
