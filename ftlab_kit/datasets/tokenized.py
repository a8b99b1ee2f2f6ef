"""A dataset version as tokens, made once: what training, preflight and perplexity read.

Kept under what decides it: the bytes of the rows, the files of tokenizer and template, and the rule
that says what is trained. Whole rows are kept and cut when they are read, so that one pass over the
rows serves every maximal length; the second start of a job tokenises nothing.

N: rows (two for a preference: with the better answer, then with the worse), T: tokens of all rows.

`encode` is the one way from a row to tokens: a trainer that streams, the cache, and the mask lens.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from ftlab_kit.datasets import schema, version_store
from ftlab_kit.datasets.schema import Row
from ftlab_kit.errors import room_on_disk
from ftlab_kit.lm import loading, tokens
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.records import DatasetVersion
from ftlab_kit.workspace import Workspace

FACTS, IDS, IS_TRAINED = "facts.json", "ids.int32", "is_trained.bool"
TOLD_EVERY = 1000  # rows
# what a tokenizer is made of, in the folder of its model
MADE_OF = ("tokenizer*", "special_tokens_map.json", "chat_template*", "added_tokens.json", "vocab*")


class Encodings(Sequence[Encoded]):
    """The rows of a version as tokens, cut to a length; read from the disk when they are asked for.

    `end` and `pad` are the tokenizer's tokens of these names. Of each row, as arrays `(N,)`:
    `lengths` in tokens, `n_trained` and `n_cut` as in Encoded, and `has_end`.
    """

    def __init__(self, folder: Path, max_length: int | None) -> None:
        """Open what `read` has made."""
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
            end, after = self._starts[row] + self.lengths[row], self._starts[row + 1]
            self.n_cut[row] = np.count_nonzero(self._is_trained[end:after])
        self.n_trained -= self.n_cut

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = self._starts[:-1][index]
        part = slice(start, start + self.lengths[index])
        labels = np.where(self._is_trained[part], self._ids[part], IGNORED)
        return Encoded(
            input_ids=self._ids[part].tolist(),
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
    progress: Callable[..., None] | None = None,
) -> Encodings:
    """Return the rows of a version as a model's tokens; tokenise them if no one has before.

    Args:
        model: The folder with the model's tokenizer.
        max_length: Rows are cut to so many tokens; None leaves them whole.
        progress: Called with rows done and rows in all, while they are tokenised.

    Raises:
        DataError: The chat template refuses a row.
        DiskFull: Nothing of it is kept.
    """
    folder = ws.tokens / name(version, model)
    if not (folder / FACTS).exists():
        shutil.rmtree(folder, ignore_errors=True)  # of which someone has taken a part away
        _write(folder, loading.tokenizer(model), _told(version, progress))
    return Encodings(folder, max_length)


def _told(version: DatasetVersion, progress: Callable[..., None] | None) -> Iterator[Row]:
    for done, row in enumerate(version_store.rows(version)):
        if progress and done % TOLD_EVERY == 0:
            progress("rows as tokens", done, version.n_rows)
        yield row


def encode(tokenizer: Any, row: Row, max_length: int | None = None) -> list[Encoded]:
    """Return a row's tokens, for each of its sides.

    Raises:
        DataError: The chat template refuses it.
    """
    if schema.kind(row) == "text":
        return [tokens.plain(tokenizer, row["text"], max_length)]
    return [
        tokens.encode(tokenizer, messages, max_length, tools=row.get("tools"))
        for messages in schema.conversations(row)
    ]


def name(version: DatasetVersion, model: Path) -> str:
    """Return a name that is another one whenever the tokens might be others."""
    parts = sorted(path for pattern in MADE_OF for path in model.glob(pattern))
    rules = [Path(module.__file__ or "") for module in (tokens, schema, loading)]
    rules.append(Path(__file__))
    digest = hashlib.sha256(installed("transformers").encode())
    for path in (*parts, *rules):
        digest.update(path.name.encode() + _sha256(path))
    # of the file as it is: whoever has changed it gets other tokens
    return f"{_sha256(version.path).hex()}-{digest.hexdigest()[:16]}"


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _write(folder: Path, tokenizer: Any, rows: Iterator[Row]) -> None:
    """Tokenise rows into a folder, which has its name only when it is whole."""
    lengths, has_end = [0], []
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with room_on_disk(f"the tokens in {folder}"):
            partial.mkdir(parents=True)
            with (partial / IDS).open("wb") as ids, (partial / IS_TRAINED).open("wb") as trained:
                for row in rows:
                    for found in encode(tokenizer, row):
                        ids.write(np.asarray(found.input_ids, np.int32).tobytes())
                        trained.write(np.not_equal(found.labels, IGNORED).tobytes())
                        lengths.append(len(found.input_ids))
                        has_end.append(found.has_end)
            np.save(partial / "starts.npy", np.cumsum(lengths))
            np.save(partial / "has_end.npy", np.asarray(has_end, bool))
            facts = {"end": tokenizer.eos_token, "pad": tokenizer.pad_token}
            (partial / FACTS).write_text(json.dumps(facts))
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / FACTS).exists():  # else someone was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
