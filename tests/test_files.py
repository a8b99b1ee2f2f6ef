"""Sources of rows: every kind of file, in bounded memory, and refusals of what holds no rows."""

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
from ftlab_kit.records import Problem, Progress

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
def test_every_file_format_gives_the_same_rows(ws: Workspace, tmp_path: Path, name: str):
    WRITERS[name](tmp_path / name)
    version = datasets.add(ws, tmp_path / name)
    frame = datasets.add(ws, pandas.DataFrame(ROWS), name="frame")
    assert version.content_sha256 == frame.content_sha256
    assert version.dataset == name.split(".")[0]
    assert version.derivation["format"] == "completion"


def test_a_folder_is_all_its_files_and_lists_the_skipped_ones(ws: Workspace, tmp_path: Path):
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
    with pytest.raises(InputError, match="links to a place outside the folder"):
        datasets.validate(tmp_path / "rows")


@pytest.mark.parametrize(
    ("head", "message"),
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
    # gzip writes the time, so that names made of the bytes would differ from run to run
    ids=["zip", "7z", "utf-16", "tar.gz", "zip.gz", "cut.gz", "not gzip", "not parquet"],
)
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, head: bytes, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(head)
    with pytest.raises(InputError, match=message):
        datasets.validate(path)


def test_a_folder_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="without any rows; expected files of: jsonl"):
        datasets.validate(tmp_path)


@pytest.mark.parametrize("name", ["../rows", "a/b", "", ".hidden", "a\nb", "x" * 300])
def test_a_name_that_could_be_a_path_is_refused(ws: Workspace, tmp_path: Path, name: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES)
    version = datasets.add(ws, path)
    with pytest.raises(InputError, match="can't be the name of a dataset"):
        datasets.merge(ws, [version], name=name)


def problems(tmp_path: Path, text: str | bytes, name: str = "rows.jsonl") -> tuple[Problem, ...]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return datasets.validate(path).problems


@pytest.mark.parametrize(
    ("line", "field", "got"),
    [
        (b'{"messages": "\xff"}', "line", "not UTF-8 (byte 0xff at position 14)"),
        (CHAT[:-1] + ', "a": NaN}', "line", "NaN or Infinity"),
        (CHAT[:-1] + ', "a": [1, -Infinity]}', "line", "NaN or Infinity"),
        (CHAT[:-1] + ', "a": 1e999}', "line", "not valid JSON"),
        (CHAT[:-1] + ', "id": 1, "id": 2}', "id", "a duplicate key"),
        (CHAT[:-1] + r', "id" : 1, "\u0069d":2}', "id", "a duplicate key"),
        (
            CHAT.replace('"content": "Ho"', '"content": "Ho", "content": "No"'),
            "content",
            "duplicate",
        ),
        (CHAT[:-1] + ', "a": "\\"\\u003a", "b": 1, "b": 2}', "b", "a duplicate key"),
        (CHAT[:-1] + ', "a": ' + "[" * 500 + "]" * 500 + "}", "line", "nested too deeply"),
        ("[" * 100_000, "line", "nested too deeply"),
        ('{"a":' * 100_000, "line", "nested too deeply"),
        (CHAT[:-1] + ', "a": "\\ud800"}', "line", "not valid JSON"),
        (CHAT + CHAT, "line", "not valid JSON"),
    ],
)
def test_invalid_json_is_refused(tmp_path: Path, line: str | bytes, field: str, got: str):
    raw = line if isinstance(line, bytes) else line.encode()
    (problem,) = problems(tmp_path, CHAT.encode() + b"\n" + raw + b"\n" + CHAT.encode())
    assert (problem.line, problem.field) == (2, field)
    assert got in problem.got


@pytest.mark.parametrize(
    "more", [' "a" : 1', '"a":"x\\" :"', '"a":"\\u0022:"', '"a":{"a":{"a":1}}']
)
def test_keys_that_only_look_duplicate_are_accepted(tmp_path: Path, more: str):
    assert not problems(tmp_path, f"{CHAT[:-1]},{more}}}")


def test_a_broken_array_is_reported_with_its_line(tmp_path: Path):
    whole = f"[\n{CHAT},\n\n{CHAT},\n"
    (problem,) = problems(tmp_path, whole + '{"messages": [}\n]', "rows.json")
    assert (problem.line, problem.field) == (5, "line")
    assert problem.got.endswith("; what comes after it was not read")
    (problem,) = problems(tmp_path, whole, "rows.json")
    assert (problem.line, problem.got) == (5, "no end")
    (problem,) = problems(tmp_path, f"{whole}{CHAT}]\n{CHAT}", "rows.json")
    assert (problem.line, problem.got) == (6, "more after the array")


def test_values_longer_than_a_block_are_read_whole(tmp_path: Path):
    rows = [{"text": "word " * 500_000, "n": n} for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    lines_read = [*files.source(tmp_path / "rows.json").lines()]
    assert [line.value for line in lines_read] == rows
    assert [line.number for line in lines_read] == [2, 6, 10]


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ('prompt,completion\na,b\nc\n"d\nd",e\n', 3, "1 cells"),
        ('prompt,completion\na,b\n"c\nc",d,e\n', 3, "3 cells"),
        ('prompt,completion\na,b\nc,"d"x\n', 3, "not a valid row"),
        ('prompt,completion\na,b\nc,"d', 3, "not a valid row"),
        ("prompt,completion,\na,b,\nc,d,e\n", 3, "a cell in a column without a name"),
        (b"prompt,completion\na,b\nc,\xff\n", 3, "not UTF-8"),
        ("prompt,completion\na,b\nc, \n", 3, "empty"),
    ],
)
def test_a_bad_row_of_a_table_is_reported_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, got: str
):
    (problem,) = problems(tmp_path, text, "rows.csv")
    assert problem.line == line
    assert got in problem.got


def test_an_unreadable_table_row_is_set_aside_unchanged(ws: Workspace, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nc,"d"x\ne,f\n')
    version = datasets.add(ws, path, strict=False)
    assert (version.n_rows, version.n_refused) == (2, 1)
    assert (ws.datasets / f"{version.id}.refused.jsonl").read_text() == 'c,"d"x\n'


def test_objects_spread_over_several_lines_are_read(tmp_path: Path):
    row = {**json.loads(CHAT), "tags": ["a", "b"], "n": 3}
    (tmp_path / "rows.json").write_text("\n".join(json.dumps(row, indent=1) for _ in range(2)))
    assert datasets.validate(tmp_path / "rows.json").n_rows == 2


def test_a_table_without_line_ends_takes_bounded_memory(tmp_path: Path):
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        file.write(b"prompt,completion\na,b\n")
        for _ in range(300):
            file.write(b"x" * 2**20)
    report, grown_mib = _validated_in_a_process(path)
    assert report["n_rows"] == 1 and report["n_refused"] > 0
    assert grown_mib < 200


def test_a_frame_with_a_column_of_mixed_types_is_refused():
    with pytest.raises(InputError, match="a column of mixed types"):
        datasets.validate(pandas.DataFrame({"text": ["a", 3]}))


def test_a_frame_with_nulls_and_times_is_read(ws: Workspace):
    frame = pandas.DataFrame({"text": ["a", "b"], "score": [1.0, None]})
    frame["at"] = pandas.Timestamp("2026-01-02")
    rows = [*datasets.rows(ws, datasets.add(ws, frame, name="frame"))]
    assert rows[1] == {"text": "b", "score": None, "at": "2026-01-02T00:00:00"}


def test_nulls_of_a_table_are_ignored(ws: Workspace, tmp_path: Path):
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
    report, grown_mib = _validated_in_a_process(path)
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
    report, grown_mib = _validated_in_a_process(path)
    assert report["n_refused"] == 1
    assert grown_mib < 200


def _validated_in_a_process(path: Path) -> tuple[dict[str, Any], float]:
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
    report, grown_mib = json.loads(subprocess.check_output(command, text=True))
    return report, grown_mib


def test_progress_reports_the_percentage_that_was_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text((CHAT + "\n") * 50_000)
    reports: list[Progress] = []
    report = datasets.validate(path, progress=reports.append)
    assert report.n_rows == 50_000
    assert str(reports[-1]) == "percent read: 100 of 100 (50,000 rows, 0 refused)"
    size = path.stat().st_size
    percents = [round(100 * block * lines.BLOCK_BYTES / size) for block in range(3)]
    assert [item.done for item in reports[:3]] == percents


def test_a_hub_that_cannot_be_reached_is_named():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(Unavailable, match="openai/gsm8k is not a path here, and the hub"):
        datasets.validate("openai/gsm8k")


def test_rows_are_read_from_the_hub_by_name(tmp_path: Path):
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
