"""Where rows come from: every kind of source, in bounded memory, and none that leads astray."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from pyarrow import parquet

from ftlab_kit import Workspace, datasets
from ftlab_kit.datasets import files, lines
from ftlab_kit.errors import DataError, InputError, Unavailable
from ftlab_kit.records import Problem, Report

ROWS = [{"prompt": f"What is {n}?", "completion": f'It is {n},\nof "course".'} for n in range(5)]
LINES = "\n".join(json.dumps(row) for row in ROWS) + "\n"
CHAT = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}'


def packed(name: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pyarrow.compress(LINES.encode(), name, asbytes=True))


def csv_text(separator: str) -> str:
    return pandas.DataFrame(ROWS).to_csv(index=False, sep=separator)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "rows.jsonl": lambda path: path.write_text(LINES),
    "rows.ndjson": lambda path: path.write_text("\n\n" + LINES.replace("\n", "\r\n")),
    "lines.json": lambda path: path.write_text(LINES),
    "array.json": lambda path: path.write_text(json.dumps(ROWS)),
    "pretty.json": lambda path: path.write_text(json.dumps(ROWS, indent=2) + "\n"),
    "one_by_one.json": lambda path: path.write_text(
        "\n".join(json.dumps(row, indent=1) for row in ROWS)
    ),
    "rows.csv": lambda path: path.write_text(csv_text(",")),
    "rows.tsv": lambda path: path.write_text("\ufeff" + csv_text("\t")),
    "rows.parquet": lambda path: parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "rows.jsonl.gz": packed("gzip"),
    "rows.jsonl.zst": packed("zstd"),
    "two_parts.jsonl.gz": lambda path: path.write_bytes(
        gzip.compress(LINES[:100].encode()) + gzip.compress(LINES[100:].encode())
    ),
    "rows.csv.gz": lambda path: path.write_bytes(gzip.compress(csv_text(",").encode())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_holds_the_same_rows(ws: Workspace, tmp_path: Path, name: str):
    WRITERS[name](tmp_path / name)
    version = datasets.add(ws, tmp_path / name)
    wanted = datasets.add(ws, pandas.DataFrame(ROWS), name="frame")
    assert version.content_sha256 == wanted.content_sha256
    assert version.dataset == name.split(".")[0]
    assert version.derivation["form"] == "completion"


def test_a_folder_is_all_its_files_and_says_what_it_leaves(ws: Workspace, tmp_path: Path):
    folder = tmp_path / "rows"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jsonl").write_text(LINES)
    (folder / "README.md").write_text("Rows.")
    (folder / "more" / "b.csv").write_text(csv_text(",") + "x\n")
    report = datasets.validate(folder)
    assert (report.n_rows, report.n_refused, report.skipped) == (10, 1, ("README.md",))
    (problem,) = report.problems
    assert (problem.file, problem.line, problem.got) == ("more/b.csv", 12, "1 cells")
    with pytest.raises(DataError, match=r"more/b\.csv:12: line is 1 cells"):
        datasets.add(ws, folder)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "secret.jsonl").write_text(LINES)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InputError, match="leads out of the folder"):
        datasets.validate(tmp_path / "rows")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PK\x03\x04....", "is a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("\ufeff{}".encode("utf-16"), "is UTF-16; expected UTF-8"),
        (gzip.compress(bytes(257) + b"ustar\x00" + bytes(300)), "is a tar archive"),
        (gzip.compress(b"PK\x03\x04"), "is a zip archive"),
        (gzip.compress(LINES.encode())[:-20], "can't be unpacked"),
        (b"\x1f\x8bnonsense", "can't be unpacked"),
        (b"PAR1nonsense", "can't be read as Parquet"),
    ],
)
def test_what_holds_no_rows_is_refused_in_words(tmp_path: Path, head: bytes, words: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(head)
    with pytest.raises(InputError, match=words):
        datasets.validate(path)


def test_a_folder_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="without any rows; expected files of: jsonl"):
        datasets.validate(tmp_path)


@pytest.mark.parametrize("name", ["../rows", "a/b", "", ".hidden", "a\nb", "x" * 300])
def test_a_name_that_could_be_a_path_is_refused(ws: Workspace, tmp_path: Path, name: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES)
    made = datasets.add(ws, path)
    with pytest.raises(InputError, match="can't be the name of a dataset"):
        datasets.merge(ws, [made], name=name)


def problems(tmp_path: Path, text: str | bytes, name: str = "rows.jsonl") -> tuple[Problem, ...]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return datasets.validate(path).problems


@pytest.mark.parametrize(
    ("line", "field", "found"),
    [
        (b'{"messages": "\xff"}', "line", "no UTF-8 (byte 0xff at place 14)"),
        (CHAT[:-1] + ', "a": NaN}', "line", "NaN or Infinity"),
        (CHAT[:-1] + ', "a": [1, -Infinity]}', "line", "NaN or Infinity"),
        (CHAT[:-1] + ', "a": 1e999}', "line", "no JSON"),
        (CHAT[:-1] + ', "id": 1, "id": 2}', "id", "a key that is there twice"),
        (CHAT[:-1] + r', "id" : 1, "\u0069d":2}', "id", "a key that is there twice"),
        (CHAT.replace('"content": "Ho"', '"content": "Ho", "content": "No"'), "content", "twice"),
        (CHAT[:-1] + ', "a": "\\"\\u003a", "b": 1, "b": 2}', "b", "a key that is there twice"),
        (CHAT[:-1] + ', "a": ' + "[" * 500 + "]" * 500 + "}", "line", "nested without end"),
        ("[" * 100_000, "line", "nested without end"),
        ('{"a":' * 100_000, "line", "nested without end"),
        (CHAT[:-1] + ', "a": "\\ud800"}', "line", "no JSON"),
        (CHAT + CHAT, "line", "no JSON"),
    ],
)
def test_what_json_does_not_have_is_refused(
    tmp_path: Path, line: str | bytes, field: str, found: str
):
    raw = line if isinstance(line, bytes) else line.encode()
    (problem,) = problems(tmp_path, CHAT.encode() + b"\n" + raw + b"\n" + CHAT.encode())
    assert (problem.line, problem.field) == (2, field)
    assert found in problem.got


@pytest.mark.parametrize(
    "more", [' "a" : 1', '"a":"x\\" :"', '"a":"\\u0022:"', '"a":{"a":{"a":1}}']
)
def test_keys_that_are_there_once_are_no_fault(tmp_path: Path, more: str):
    assert not problems(tmp_path, f"{CHAT[:-1]},{more}}}")


def test_what_breaks_an_array_is_named_with_its_line(tmp_path: Path):
    whole = f"[\n{CHAT},\n\n{CHAT},\n"
    (found,) = problems(tmp_path, whole + '{"messages": [}\n]', "rows.json")
    assert (found.line, found.field) == (5, "line")
    assert found.got.endswith("; what comes after it was not read")
    (found,) = problems(tmp_path, whole, "rows.json")
    assert (found.line, found.got) == (5, "no end")
    (found,) = problems(tmp_path, f"{whole}{CHAT}]\n{CHAT}", "rows.json")
    assert (found.line, found.got) == (6, "more after the array")


def test_values_that_are_longer_than_what_is_read_at_once_are_whole(tmp_path: Path):
    rows = [{"text": "word " * 500_000, "n": n} for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    found = [*files.source(tmp_path / "rows.json").lines()]
    assert [line.value for line in found] == rows
    assert [line.number for line in found] == [2, 6, 10]


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ('prompt,completion\na,b\nc\n"d\nd",e\n', 3, "1 cells"),
        ('prompt,completion\na,b\n"c\nc",d,e\n', 3, "3 cells"),
        ('prompt,completion\na,b\nc,"d"x\n', 3, "no row"),
        ('prompt,completion\na,b\nc,"d', 3, "no row"),
        ("prompt,completion,\na,b,\nc,d,e\n", 3, "a cell in a column without a name"),
        (b"prompt,completion\na,b\nc,\xff\n", 3, "no UTF-8"),
        ("prompt,completion\na,b\nc, \n", 3, "empty"),
    ],
)
def test_a_bad_row_of_a_table_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, found: str
):
    (problem,) = problems(tmp_path, text, "rows.csv")
    assert problem.line == line
    assert found in problem.got


def test_what_is_no_row_of_a_table_is_set_aside_as_it_was(ws: Workspace, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nc,"d"x\ne,f\n')
    version = datasets.add(ws, path, strict=False)
    assert (version.n_rows, version.n_refused) == (2, 1)
    assert (ws.datasets / f"{version.id}.refused.jsonl").read_text() == 'c,"d"x\n'


def test_objects_that_are_spread_over_lines_are_no_lines(tmp_path: Path):
    row = {**json.loads(CHAT), "tags": ["a", "b"], "n": 3}
    (tmp_path / "rows.json").write_text("\n".join(json.dumps(row, indent=1) for _ in range(2)))
    assert datasets.validate(tmp_path / "rows.json").n_rows == 2


def test_a_table_without_line_ends_takes_bounded_memory(tmp_path: Path):
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        file.write(b"prompt,completion\na,b\n")
        for _ in range(300):
            file.write(b"x" * 2**20)
    report, grown_mib = _validated_elsewhere(path)
    assert report["n_rows"] == 1 and report["n_refused"] > 0
    assert grown_mib < 200


def test_a_frame_of_mixed_kinds_is_refused_in_words():
    with pytest.raises(InputError, match="a column of mixed kinds"):
        datasets.validate(pandas.DataFrame({"text": ["a", 3]}))


def test_a_frame_with_gaps_and_times_is_read(ws: Workspace):
    frame = pandas.DataFrame({"text": ["a", "b"], "score": [1.0, None]})
    frame["at"] = pandas.Timestamp("2026-01-02")
    rows = [*datasets.rows(ws, datasets.add(ws, frame, name="frame"))]
    assert rows[1] == {"text": "b", "score": None, "at": "2026-01-02T00:00:00"}


def test_nulls_of_a_table_are_nothing(ws: Workspace, tmp_path: Path):
    turns = [{"role": "user", "content": "Hi", "weight": None}]
    turns += [{"role": "assistant", "content": "Ho", "weight": 1}]
    table = pyarrow.Table.from_pylist([{"messages": turns, "prompt": None, "chosen": None}])
    parquet.write_table(table, tmp_path / "rows.parquet")
    (row,) = datasets.rows(ws, datasets.add(ws, tmp_path / "rows.parquet"))
    assert row["messages"] == json.loads(CHAT)["messages"]


def test_a_line_without_end_takes_bounded_memory(tmp_path: Path):
    """In a process of its own, which counts its memory; 600 MB in one line."""
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(CHAT.encode() + b"\n")
        for _ in range(600):
            file.write(b"x" * 2**20)
        file.write(b"\n" + CHAT.encode())
    report, grown_mib = _validated_elsewhere(path)
    assert (report["n_rows"], report["n_refused"]) == (2, 1)
    assert report["problems"][0]["line"] == 2
    assert "longer than 8 MiB" in report["problems"][0]["got"]
    assert grown_mib < 200


def test_a_bomb_of_zeros_takes_bounded_memory(tmp_path: Path):
    path = tmp_path / "rows.jsonl.gz"
    packed_zeros = io.BytesIO()
    with gzip.GzipFile(fileobj=packed_zeros, mode="wb", compresslevel=1) as file:
        for _ in range(600):
            file.write(bytes(2**20))
    path.write_bytes(packed_zeros.getvalue())
    report, grown_mib = _validated_elsewhere(path)
    assert report["n_refused"] == 1
    assert grown_mib < 200


def _validated_elsewhere(path: Path) -> tuple[dict[str, Any], float]:
    code = (
        "import json, resource, sys; from ftlab_kit import datasets\n"
        "datasets.validate(sys.argv[2])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak(); report = datasets.validate(sys.argv[1])\n"
        "print(json.dumps([report.as_dict(), peak() - before]))"
    )
    small = path.with_name("small.jsonl")
    small.write_text(CHAT)
    command = [sys.executable, "-c", code, str(path), str(small)]
    found = json.loads(subprocess.check_output(command, text=True))
    return found[0], found[1]


def test_progress_tells_how_far_one_is(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text((CHAT + "\n") * 50_000)
    told: list[tuple[str, ...]] = []
    report: Report = datasets.validate(path, progress=lambda *news: told.append(news))
    assert report.n_rows == 50_000
    assert told[-1] == ("100%", "50,000 rows", "0 refused")
    blocks = [f"{block * lines.BLOCK / path.stat().st_size:.0%}" for block in range(3)]
    assert [line[0] for line in told[:3]] == blocks


def test_a_hub_that_can_not_be_reached_is_said_in_words():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(Unavailable, match="openai/gsm8k is no path here, and the hub"):
        datasets.validate("openai/gsm8k")


def test_rows_come_from_the_hub_by_name(tmp_path: Path):
    """The real client against a server on loopback that speaks the hub's own protocol."""
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    script = Path(__file__).parent / "hub_server.py"
    command = [sys.executable, str(script), str(tmp_path / "lab"), "rows"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, test, other, none = map(json.loads, done.stdout.splitlines())
    assert whole == ["rows", 5, "owner/rows"]
    assert test == ["rows", 2, "owner/rows:test"]
    assert other[0] == "NotFound" and "Should be one of ['train', 'test']" in other[1]
    assert none[0] == "NotFound" and "owner/none is neither a path here nor a dataset" in none[1]
