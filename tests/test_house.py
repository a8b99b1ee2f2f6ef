"""The house itself: order of rooms, faces, names, signatures, light import, the map, lint."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ftlab_kit"
MAP = PACKAGE / "README.md"
FILES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# from the top of the house to its ground; a room imports only what stands further down
LAYERS: list[str] = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
# names that don't say what a variable holds
EMPTY_NAMES = {"found", "known", "made", "said", "asked", "words", "wanted", "kept", "told"}
LIGHT_ROOMS = (
    "analytics",
    "chats",
    "cli",
    "datasets",
    "diagnostics",
    "evaluators",
    "graphs",
    "jobs",
    "lm",
    "models",
    "trainers",
    "widgets",
)


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git tracks, by pattern."""
    names = subprocess.check_output(["git", "ls-files", "--", *patterns], cwd=ROOT, text=True)
    return [ROOT / name for name in names.splitlines() if (ROOT / name).exists()]


def stdout_of(code: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)


# what other rooms build on, without verbs that a person calls
ROOMS_WITHOUT_A_ROW = {
    "cli",
    "device",
    "errors",
    "jobs",
    "lm",
    "metrics",
    "pictures",
    "records",
    "store",
    "workspace",
}


# the order of the rooms


def test_rooms_import_only_rooms_above_them_and_no_circle_exists():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout[-4000:]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ftlab_kit", cache_dir=None)


def imports_past_a_face(graph: grimp.ImportGraph) -> Iterator[str]:
    """Yield the imports of another room's file that its face does not name in `__all__`."""
    public: dict[str, set[str]] = {}
    for target in sorted(graph.modules):
        parts = target.split(".")
        if len(parts) < 3:
            continue
        room = parts[1]
        if room not in public:
            public[room] = set(getattr(importlib.import_module(f"ftlab_kit.{room}"), "__all__", ()))
        is_public = len(parts) == 3 and parts[2] in public[room]
        for importer in sorted(graph.find_modules_that_directly_import(target)):
            if importer.split(".")[1:2] != [room] and not is_public:
                yield f"{importer} imports {target}"


def test_inner_files_are_imported_from_inside_alone(graph: grimp.ImportGraph):
    assert [*imports_past_a_face(graph)] == []


def test_sql_stands_in_the_store_and_in_the_graphs_drivers(graph: grimp.ImportGraph):
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(("store", "graphs/drivers/")):
            text = path.read_text()
            assert not re.search(r"^\s*(import|from) (sqlite3|sqlalchemy)", text, re.M), place


def test_broad_excepts_say_why():
    for path in FILES:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"except( Exception| BaseException)?( as \w+)?:", line):
                around = "".join(lines[max(0, number - 1) : number + 2])
                assert "#" in around, f"{path}:{number + 1} catches everything and does not say why"


# names


def names_bound_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a file gives: variables, parameters, functions, fields, aliases."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, line
        elif isinstance(node, ast.arg):
            yield node.arg, line
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, line
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, line
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, line


def code_of(path: Path) -> str:
    """Return a file's code; of a notebook that of its cells."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("folder", ["ftlab_kit", "tests", "notebooks"])
def test_every_name_says_what_it_holds(folder: str):
    empty = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in tracked(f"{folder}/*.py", f"{folder}/*.ipynb")
        for name, line in names_bound_in(ast.parse(code_of(path)))
        if name.strip("_") in EMPTY_NAMES
    ]
    assert empty == []


def test_no_file_is_named_for_nothing_in_particular():
    vague = {"utils", "util", "helpers", "common", "core", "base", "manager", "service", "misc"}
    assert not {path.stem for path in FILES} & vague


# signatures


def verbs() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield room, name and function of every public verb: what a face defines and takes `ws`."""
    for room in sorted({*LAYERS} - ROOMS_WITHOUT_A_ROW):
        module = importlib.import_module(f"ftlab_kit.{room}")
        names = getattr(module, "__all__", None) or vars(module)
        for name in sorted(names):
            verb = getattr(module, name, None)
            is_public = inspect.isfunction(verb) and not name.startswith("_")
            if is_public and verb.__module__.startswith(f"ftlab_kit.{room}"):
                yield room, name, verb


VERBS = [*verbs()]
VERB_IDS = [f"{room}.{name}" for room, name, _ in VERBS]


@pytest.mark.parametrize(("room", "name", "verb"), VERBS, ids=VERB_IDS)
def test_every_option_of_a_verb_has_a_name_and_a_line_of_help(
    room: str, name: str, verb: Callable[..., Any]
):
    parameters = inspect.signature(verb).parameters.values()
    open_ended = [item.name for item in parameters if item.kind is item.VAR_KEYWORD]
    assert not open_ended, f"{room}.{name} takes **{open_ended}: Shift-Tab can't say what"
    options = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]
    doc = inspect.getdoc(verb) or ""
    missing = [option for option in options if not re.search(rf"^ +{option}: \S", doc, re.M)]
    assert not missing, f"{room}.{name}: no line in its docstring for {missing}"


def test_every_verb_is_seen():
    assert len(VERBS) > 100


# a light start


def test_importing_the_kit_loads_nothing_heavy_and_is_quick():
    out = stdout_of(
        "import sys, time; began = time.process_time(); import ftlab_kit; "
        "print(time.process_time() - began); print(*sys.modules)"
    ).splitlines()
    assert float(out[0]) < 0.150
    heavy = {"torch", "transformers", "trl", "peft", "fastapi", "ipywidgets", "sqlalchemy"}
    assert not heavy & set(out[1].split())


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_importing_a_room_loads_no_torch_and_no_widgets(room: str):
    heavy = "{'torch', 'transformers', 'ipywidgets', 'graphiti_core', 'fastapi'}"
    assert (
        stdout_of(f"import sys, ftlab_kit.{room}; print({heavy} & {{*sys.modules}})").strip()
        == "set()"
    )


# the map


def rooms_of_the_map() -> dict[str, tuple[list[str], list[str]]]:
    """Return the map's table of rooms: the records and the verbs of each."""
    rooms = {}
    for line in MAP.read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \| (.*?) \| (.*?) \| .* \|$", line):
            records, names = (re.findall(r"`(\w+)`", part) for part in match.groups()[1:])
            rooms[match[1]] = (records, names)
    return rooms


def test_the_map_names_every_room_with_verbs():
    assert set(rooms_of_the_map()) == {room for room, _, _ in VERBS}


@pytest.mark.parametrize("room", sorted(rooms_of_the_map()))
def test_the_map_names_exactly_the_verbs_of_a_room(room: str):
    assert set(rooms_of_the_map()[room][1]) == {name for of, name, _ in VERBS if of == room}


def test_the_records_of_the_map_are_records():
    from ftlab_kit import configs, records

    for names, _ in rooms_of_the_map().values():
        for name in names:
            assert hasattr(records, name) or hasattr(configs, name), name


def test_the_map_draws_the_rooms_in_their_order():
    block = re.search(r"```\n(.*?)```", MAP.read_text(), re.S)
    assert block is not None
    drawn = re.findall(r"^(\w+)(?:\.py|/)", block[1], re.M)
    assert drawn == LAYERS[::-1]


@pytest.mark.parametrize("path", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_of_a_readme_is_dead(path: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if not re.match(r"https?:", target):
            assert (path.parent / target).exists(), target


def test_the_top_level_holds_what_was_decided_and_no_more():
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} == {
        "notebooks",
        "ftlab_kit",
        "tests",
        "environment.yml",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }


def test_packages_are_listed_once():
    conda = (ROOT / "environment.yml").read_text()
    assert "-e .[all]" in conda
    extras = PROJECT["project"]["optional-dependencies"]
    everything = [
        *PROJECT["project"]["dependencies"],
        *(name for extra in extras.values() for name in extra),
    ]
    names = {re.split(r"[<>=!~\[]", item)[0] for item in everything} - {"ftlab-kit"}
    assert not [name for name in names if f"- {name}" in conda]


def test_the_extra_named_all_holds_the_packages_that_were_asked_for():
    extras = PROJECT["project"]["optional-dependencies"]
    (bundle,) = extras["all"]
    parts = re.findall(r"\w+", bundle.partition("[")[2])
    assert set(parts) >= {"train", "notebook", "graph", "evaluate", "serve", "deploy", "postgres"}
    names = {re.split(r"[<>=!~\[]", item)[0] for part in parts for item in extras[part]}
    names |= {re.split(r"[<>=!~\[]", item)[0] for item in PROJECT["project"]["dependencies"]}
    assert names >= {
        "jupyterlab",
        "ipywidgets",
        "papermill",
        "torch",
        "transformers",
        "peft",
        "trl",
        "datasets",
        "wandb",
        "runpod",
        "neo4j",
        "graphiti-core",
    }


def test_a_missing_package_names_an_extra_that_brings_it():
    from ftlab_kit.errors import DISTRIBUTIONS, EXTRAS

    extras = PROJECT["project"]["optional-dependencies"]
    # what comes along with one of these packages
    indirect = {"IPython", "jinja2", "nbclient", "nbformat", "pandas", "psycopg_pool"}
    indirect |= {"tokenizers", "traitlets"}
    for package, extra in EXTRAS.items():
        names = {re.split(r"[<>=!~\[]", item)[0] for item in extras[extra]}
        assert DISTRIBUTIONS.get(package, package) in names or package in indirect, package


# lint


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_lint_and_types_hold(command: list[str]):
    check = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout
