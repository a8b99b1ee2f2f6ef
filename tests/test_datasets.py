import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets, trainers
from ftlab_kit.datasets import schema
from ftlab_kit.errors import Conflict, DataError, InputError, NotFound
from ftlab_kit.records import DatasetVersion
from tests.conftest import TINY, chats_file

GSM8K = Path(__file__).parent / "data" / "gsm8k.jsonl"  # rows that nobody here wrote
GOOD = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}'


def turns(*pairs: tuple[str, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def left_behind(ws: Workspace) -> list[str]:
    return [path.name for path in ws.datasets.iterdir()] + [*datasets.list(ws)]


@pytest.mark.parametrize(
    ("line", "field", "got"),
    [
        ("{broken", "line", "not valid JSON"),
        ("[1, 2]", "line", "a list"),
        ('{"text": "hi"}', "messages", "missing (keys: 'text')"),
        ('{"messages": []}', "messages", "an empty list"),
        ('{"messages": "hi"}', "messages", "text"),
        ('{"messages": ["hi"]}', "messages[0]", "text"),
        (turns(("human", "hi"), ("assistant", "ho")), "messages[0].role", "'human'"),
        (turns(("user", 3), ("assistant", "ho")), "messages[0].content", "a number"),
        (turns(("user", " "), ("assistant", "ho")), "messages[0].content", "empty"),
        (turns(("user", "a"), ("user", "b")), "messages[1].role", "'user'"),
        (turns(("assistant", "a"), ("user", "b")), "messages[0].role", "'assistant'"),
        (turns(("user", "a")), "messages[0].role", "'user' in the last turn"),
        (turns(("system", "a")), "messages[0].role", "'system' in the last turn"),
        (turns(("user", "a"), ("system", "b")), "messages[1].role", "'system'"),
    ],
)
def test_a_bad_line_is_reported_with_its_field_and_what_it_holds(
    tmp_path: Path, line: str, field: str, got: str
):
    report = datasets.validate(write(tmp_path / "rows.jsonl", GOOD, line))
    (problem,) = report.problems
    assert (problem.line, problem.field) == (2, field)
    assert got in problem.got
    assert problem.fix


def test_a_row_in_another_format_than_the_others_is_recognised(tmp_path: Path):
    other = '{"instruction": "Hi", "output": "Ho"}'
    (problem,) = datasets.validate(write(tmp_path / "rows.jsonl", GOOD, other, GOOD)).problems
    assert (problem.line, problem.got) == (2, "missing (keys: 'instruction', 'output')")
    assert problem.fix == "It looks like alpaca, most rows like chat: split them into two files."
    assert problem.text == other


def test_each_of_the_twelve_faults_is_reported_with_its_line():
    report = datasets.validate(datasets.TWELVE_FAULTS)
    assert (report.n_rows, report.n_refused, report.format) == (63, 12, "chat")
    assert {problem.line: (problem.field, problem.got) for problem in report.problems} == {
        5: ("line", "not valid JSON (Input data was truncated)"),
        9: ("messages[0].role", "'customer'"),
        14: ("messages[0].role", "'user' in the last turn"),
        20: ("messages[1].content", "empty"),
        24: ("messages[0].content", "empty"),
        29: ("messages[0].content", "a number"),
        33: ("messages[1].role", "'user'"),
        40: ("line", "not UTF-8 (byte 0xfc at position 59)"),
        46: ("content", "a duplicate key"),
        52: ("line", "NaN or Infinity, which JSON does not have"),
        58: ("messages", "missing (keys: 'instruction', 'output')"),
        66: ("messages[1].role", "'system'"),
    }


def test_all_problems_can_be_exported(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", GOOD, *["{broken"] * 1500)
    report = datasets.validate(path, export=tmp_path / "problems.jsonl")
    assert (len(report.problems), report.n_refused) == (1000, 1500)
    lines = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == [*range(2, 1502)]
    assert {*lines[0]} == {"line", "field", "got", "expected", "fix", "file", "text"}


def test_a_version_keeps_the_problems_of_its_refused_lines(ws: Workspace):
    version = datasets.add(ws, datasets.TWELVE_FAULTS, strict=False)
    assert datasets.problems(ws, version) == datasets.validate(datasets.TWELVE_FAULTS).problems
    assert datasets.problems(ws, datasets.redact(ws, version)) == ()


def test_adding_the_same_rows_again_replaces_their_refused_lines(ws: Workspace, tmp_path: Path):
    clean = datasets.add(ws, write(tmp_path / "rows.jsonl", GOOD))
    worse = datasets.add(ws, write(tmp_path / "rows.jsonl", GOOD, "{broken"), strict=False)
    assert (worse.id, worse.n_refused) == (clean.id, 1)
    assert [problem.line for problem in datasets.problems(ws, worse)] == [2]
    again = datasets.add(ws, write(tmp_path / "rows.jsonl", GOOD))
    assert (again.n_refused, datasets.problems(ws, again)) == (0, ())


def test_two_datasets_with_equal_good_rows_keep_their_own_refused_lines(
    ws: Workspace, tmp_path: Path
):
    no_answer = turns(("user", "Well?"))
    alice = datasets.add(ws, write(tmp_path / "alice.jsonl", GOOD, "{alice"), strict=False)
    bob = datasets.add(ws, write(tmp_path / "bob.jsonl", no_answer, GOOD), strict=False)
    assert alice.content_sha256 == bob.content_sha256
    assert [problem.text for problem in datasets.problems(ws, "alice")] == ["{alice"]
    assert [problem.text for problem in datasets.problems(ws, "bob")] == [no_answer]


def test_deleting_a_dataset_keeps_the_files_of_one_with_equal_rows(ws: Workspace, tmp_path: Path):
    datasets.add(ws, write(tmp_path / "alice.jsonl", GOOD, "{alice"), strict=False)
    bob = datasets.add(ws, write(tmp_path / "bob.jsonl", GOOD, "{bob"), strict=False)
    datasets.quality(ws, bob)
    datasets.delete(ws, "alice")
    assert next(datasets.rows(ws, bob)) == json.loads(GOOD)
    assert [problem.text for problem in datasets.problems(ws, bob)] == ["{bob"]
    assert ws.store.rows("qualities")
    datasets.delete(ws, "bob")
    assert left_behind(ws) == []


def test_rows_added_while_a_dataset_with_equal_rows_is_deleted_stay(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", GOOD)
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            datasets.add(ws, path, name="alice")
            adding = pool.submit(datasets.add, ws, path, name=f"bob{number}")
            pool.submit(datasets.delete, ws, "alice").result()
            assert next(datasets.rows(ws, adding.result())) == json.loads(GOOD)
            datasets.delete(ws, f"bob{number}")
    assert left_behind(ws) == []


def as_an_older_kit_filed_it(version: DatasetVersion) -> None:
    """Name a version's refused lines by its content, and their fields as they were before 0.3."""
    for suffix in (".refused.jsonl", ".problems.jsonl"):
        path = version.path.with_name(f"{version.id}{suffix}")
        text = path.read_text().replace('"got":', '"found":').replace('"fix":', '"cure":')
        path.unlink()
        version.path.with_suffix(suffix).write_text(text)


def test_refused_lines_of_an_older_workspace_are_found(ws: Workspace, tmp_path: Path):
    version = datasets.add(ws, write(tmp_path / "rows.jsonl", GOOD, "{broken"), strict=False)
    problems = datasets.problems(ws, version)
    as_an_older_kit_filed_it(version)
    assert datasets.problems(ws, version) == problems
    datasets.delete(ws, "rows")
    assert left_behind(ws) == []


def test_refused_lines_that_an_older_kit_overwrote_are_not_replaced_by_others(
    ws: Workspace, tmp_path: Path
):
    alice = datasets.add(ws, write(tmp_path / "alice.jsonl", GOOD, "{alice"), strict=False)
    bob = datasets.add(ws, write(tmp_path / "bob.jsonl", GOOD, "{bob"), strict=False)
    as_an_older_kit_filed_it(alice)
    as_an_older_kit_filed_it(bob)
    assert [problem.text for problem in datasets.problems(ws, bob)] == ["{bob"]
    with pytest.raises(NotFound, match="refused lines of version 1 of 'alice' are gone"):
        datasets.problems(ws, alice)


def test_rows_with_other_column_names_are_read_with_a_mapping(ws: Workspace):
    with pytest.raises(DataError, match=r"gsm8k\.jsonl:1: messages is missing"):
        datasets.add(ws, GSM8K)
    columns = {"prompt": "question", "completion": "answer"}
    version = datasets.add(ws, GSM8K, name="gsm8k", columns=columns)
    assert (version.n_rows, version.kind) == (359, "chat")
    first = next(datasets.rows(ws, version))["messages"]
    assert first[0]["content"].startswith("Natalia sold clips")
    assert first[1]["content"].endswith("#### 72")
    quality = datasets.quality(ws, version)
    assert quality.duplicates == quality.personal == ()
    assert quality.languages["en"] > 0.99


def test_a_file_with_a_bad_line_is_refused_and_the_line_named(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", GOOD, turns(("user", "Well?")))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: messages\[0\]\.role is 'user'"):
        datasets.add(ws, path)
    assert left_behind(ws) == []


def test_bad_lines_can_be_set_aside_and_none_is_lost(ws: Workspace, tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", GOOD, "{broken", turns(("user", "Well?")))
    version = datasets.add(ws, path, strict=False)
    assert (version.n_rows, version.n_refused) == (1, 2)
    aside = (ws.datasets / f"{version.id}.refused.jsonl").read_text().splitlines()
    assert aside == ["{broken", turns(("user", "Well?"))]


def test_an_empty_file_is_refused(ws: Workspace, tmp_path: Path):
    with pytest.raises(DataError, match="is empty; expected one chat a line"):
        datasets.add(ws, write(tmp_path / "rows.jsonl", ""))
    assert left_behind(ws) == []


def test_a_file_that_is_not_jsonl_is_refused_as_such(ws: Workspace, tmp_path: Path):
    with pytest.raises(DataError, match=r"letter\.txt is not JSONL: none of its 2 lines"):
        datasets.add(ws, write(tmp_path / "letter.txt", "Dear all,", "see below."))
    assert left_behind(ws) == []


@pytest.mark.parametrize(
    ("name", "message"), [("none.jsonl", "does not exist"), ("", "is a folder")]
)
def test_a_path_without_a_file_is_refused(ws: Workspace, tmp_path: Path, name: str, message: str):
    with pytest.raises(InputError, match=message):
        datasets.add(ws, tmp_path / name)


def test_a_byte_order_mark_and_blank_lines_are_ignored(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n" + GOOD.encode())
    assert datasets.validate(path).n_rows == 2


def test_the_same_content_is_the_same_version(ws: Workspace, tmp_path: Path):
    path = chats_file(tmp_path / "hues.jsonl")
    assert datasets.add(ws, path) == datasets.add(ws, path)
    assert len(datasets.versions(ws, "hues")) == 1


def test_other_content_is_a_new_version_with_its_parent(ws: Workspace, tmp_path: Path):
    path = chats_file(tmp_path / "hues.jsonl")
    first = datasets.add(ws, path)
    path.write_text(path.read_text() + GOOD + "\n")
    second = datasets.add(ws, path)
    assert second.parent_id == first.id
    assert datasets.get(ws, "hues") == second


def test_a_name_stands_for_the_version_that_was_added_last(ws: Workspace, tmp_path: Path):
    first = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    datasets.add(ws, chats_file(tmp_path / "hues.jsonl", copies=5))
    datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    assert datasets.get(ws, "hues") == first


def test_adding_the_same_file_from_six_threads_makes_one_version(ws: Workspace, tmp_path: Path):
    path = chats_file(tmp_path / "hues.jsonl")
    with ThreadPoolExecutor(6) as pool:
        versions = [*pool.map(lambda _: datasets.add(ws, path), range(6))]
    assert set(versions) == {datasets.get(ws, "hues")}


def test_other_keys_of_a_row_are_kept(ws: Workspace, tmp_path: Path):
    row = {**json.loads(GOOD), "id": 7}
    version = datasets.add(ws, write(tmp_path / "rows.jsonl", json.dumps(row)))
    assert next(datasets.rows(ws, version)) == row


def test_a_split_is_seeded_and_covers_every_row(ws: Workspace, tmp_path: Path):
    version = datasets.add(ws, chats_file(tmp_path / "hues.jsonl", copies=20))
    train, held_out = datasets.split(ws, version, held_out=0.2, seed=1)
    assert train.n_rows + held_out.n_rows == 100
    assert 8 <= held_out.n_rows <= 32
    assert datasets.split(ws, version, held_out=0.2, seed=1) == (train, held_out)
    assert datasets.split(ws, version, held_out=0.2, seed=2)[1] != held_out


def test_a_row_keeps_its_side_when_rows_are_added(ws: Workspace, tmp_path: Path):
    path = chats_file(tmp_path / "hues.jsonl", copies=10)
    _, before = datasets.split(ws, datasets.add(ws, path), held_out=0.3)
    _, after = datasets.split(ws, datasets.add(ws, chats_file(path, copies=20)), held_out=0.3)
    earlier = {schema.answers(row) for row in datasets.rows(ws, before)}
    assert earlier < {schema.answers(row) for row in datasets.rows(ws, after)}


def test_equal_answers_are_never_on_both_sides(ws: Workspace, tmp_path: Path):
    lines = [turns(("user", f"q{n}"), ("assistant", f"a{n % 7}")) for n in range(100)]
    version = datasets.add(ws, write(tmp_path / "rows.jsonl", *lines))
    sides = datasets.split(ws, version, held_out=0.4)
    first, second = ({schema.answers(row) for row in datasets.rows(ws, side)} for side in sides)
    assert not first & second


@pytest.mark.parametrize("share", [0.0, 1.0, -1])
def test_a_share_outside_its_bounds_is_refused(lab: Workspace, share: float):
    with pytest.raises(InputError, match="expected a share between 0 and 1"):
        datasets.split(lab, "hues", held_out=share)


def test_a_split_that_leaves_a_side_empty_is_refused(ws: Workspace, tmp_path: Path):
    version = datasets.add(ws, write(tmp_path / "rows.jsonl", GOOD))
    with pytest.raises(DataError, match="leaves one side empty"):
        datasets.split(ws, version)


def test_an_unknown_dataset_is_named_with_the_nearest(lab: Workspace):
    with pytest.raises(NotFound, match="Did you mean 'hues'"):
        datasets.get(lab, "hue")


def test_delete_removes_all_versions_and_files(ws: Workspace, tmp_path: Path):
    datasets.split(ws, datasets.add(ws, chats_file(tmp_path / "hues.jsonl")), held_out=0.3)
    datasets.delete(ws, "hues")
    assert left_behind(ws) == []


def test_a_dataset_that_a_job_needs_is_not_deleted(lab: Workspace, job):
    with pytest.raises(Conflict, match=rf"used by job .*\b{job.id}\b"):
        datasets.delete(lab, "hues")


def test_rows_that_a_job_holds_out_are_not_deleted_either(ws: Workspace, tmp_path: Path):
    rows = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    judged = datasets.add(ws, chats_file(tmp_path / "judged.jsonl", copies=1))
    job = trainers._enqueue(ws, TINY, rows, held_out=judged)
    with pytest.raises(Conflict, match=f"used by job {job.id}") as refused:
        datasets.delete(ws, "judged")
    assert refused.value.status == 409
    assert judged.path.exists() and datasets.get(ws, "judged") == judged


def test_the_sample_chats_are_good_rows_with_distinct_answers():
    report = datasets.validate(datasets.PUDDLE_AND_PINE)
    assert (report.n_rows, report.n_refused) == (300, 0)
    rows = [json.loads(line) for line in datasets.PUDDLE_AND_PINE.read_text().splitlines()]
    answers = [t["content"] for row in rows for t in row["messages"] if t["role"] == "assistant"]
    assert len(set(answers)) == len(answers)
