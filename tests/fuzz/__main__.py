"""Fuzzing with atheris, an hour by default: python -m tests.fuzz SECONDS (pip install atheris).

Guided by coverage, from the seeds below, over every file format. It prints its counts and stops at
the first input that breaks a promise.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import atheris
import pyarrow

with atheris.instrument_imports(include=["ftlab_kit.datasets"]):
    from ftlab_kit.datasets import files, formats, reader, schema  # noqa: F401

from tests.fuzz.rows import look

SUFFIXES = ("jsonl", "json", "csv", "tsv", "jsonl.gz", "jsonl.zst", "parquet")
SEEDS = (
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"a',
    '[{"instruction": "a", "input": "", "output": "b"}, {"instruction": 3}]',
    '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}',
    '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "completion": "b"}',
    'prompt,completion,label\n"a, b",c,true\nd,e\n',
    '{"text": "a", "text": NaN}\n{"question": "a", "response": "b", "system_prompt": null}',
    '{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}',
)
REPORT_EVERY = 10_000  # inputs
SEEN: Counter[str] = Counter()


def main() -> None:
    """Fuzz for the seconds given on the command line."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        for kind in range(len(SUFFIXES)):
            (corpus / f"{number}-{kind}").write_bytes(bytes([kind]) + seed.encode())
    paths = [folder / f"rows.{suffix}" for suffix in SUFFIXES]
    began = time.perf_counter()

    def test(data: bytes) -> None:
        path = paths[data[0] % len(paths)] if data else paths[0]
        packing = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        if packing and data[1:2] < b"\x80":  # otherwise it stays damaged
            data = data[:1] + bytes(pyarrow.compress(data[1:], packing, asbytes=True))
        path.write_bytes(data[1:])
        n_rows, n_refused = look(path)
        SEEN.update({"inputs": 1, "rows": n_rows, "refused": n_refused})
        if SEEN["inputs"] % REPORT_EVERY == 0:  # libFuzzer ends the process without notice
            minutes = (time.perf_counter() - began) / 60
            print(f"{minutes:.1f} min", dict(SEEN), flush=True)

    seconds = sys.argv[1] if len(sys.argv) > 1 else "3600"
    limits = [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=25", "-max_len=4096"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
