"""Any bytes, any JSON and any broken row become rows or problems, and nothing else happens."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.rows import look

# the fields of all formats, mixed with everything else
FIELDS = "messages role content from value prompt chosen rejected completion label text tools"
FIELDS += " conversations instruction input output question response system train weight tool_calls"
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", " ", "\ud800"])
)
KEYS = st.sampled_from(FIELDS.split()) | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner).map(lambda two: [{"role": "user", "content": two[0]}, two[1]])
    ),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.text(max_size=4),
    }
)
GOOD = st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=3).map(
    lambda pairs: {
        "messages": [
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    }
)
ROW = (
    GOOD
    | GOOD.map(lambda row: {**row, "id": 1, "tools": None})
    | st.fixed_dictionaries({"messages": st.lists(TURN, max_size=4) | ANYTHING})
    | st.fixed_dictionaries({"prompt": ANYTHING, "chosen": ANYTHING, "rejected": ANYTHING})
    | st.fixed_dictionaries({"prompt": ANYTHING, "completion": ANYTHING, "label": ANYTHING})
    | st.fixed_dictionaries({"conversations": ANYTHING, "tools": ANYTHING})
    | st.fixed_dictionaries({"instruction": ANYTHING, "output": ANYTHING})
    | ANYTHING
)
LINE = (
    ROW.map(lambda row: json.dumps(row).encode("utf-8", "surrogatepass"))
    | st.binary(max_size=60)
    | st.tuples(ROW, st.integers(0, 40), st.binary(max_size=2)).map(
        lambda parts: _broken(json.dumps(parts[0]).encode(), *parts[1:])
    )
)
FILES = st.lists(LINE, min_size=1, max_size=8).map(b"\n".join)
SEEN: Counter[str] = Counter()


def _broken(line: bytes, place: int, bytes_there: bytes) -> bytes:
    return line[:place] + bytes_there + line[place + 1 :]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_every_line_of_any_file_is_a_row_or_a_problem(tmp_path: Path, suffix: str):
    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.generate, Phase.shrink],
    )
    @given(FILES)
    def holds(data: bytes) -> None:
        path = tmp_path / f"rows.{suffix}"
        path.write_bytes(data)
        SEEN.update(dict(zip(("rows", "refused"), look(path), strict=True)))

    holds()
    assert SEEN["refused"] > 300 and SEEN["rows"] > 30


@pytest.mark.slow
def test_a_hundred_thousand_lines_are_rows_or_problems(tmp_path: Path):
    seen: Counter[str] = Counter()

    @settings(
        max_examples=40_000,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.generate],
    )
    @given(FILES, st.sampled_from(["jsonl", "json", "csv", "tsv"]))
    def holds(data: bytes, suffix: str) -> None:
        path = tmp_path / f"rows.{suffix}"
        path.write_bytes(data)
        seen.update(dict(zip(("rows", "refused"), look(path), strict=True)))

    holds()
    print(dict(seen))
    assert sum(seen.values()) >= 100_000 and seen["rows"] > 5000
