"""The command line: `ftlab NOUN VERB`, made from the rooms' own verbs.

A verb's arguments become arguments, its keywords flags, its docstring the help, and a Config one
flag for each setting. Nothing is written twice, and no command can differ from its verb. A room is
imported when its noun is used, so that `ftlab --help` is quick and works in the smallest install.

Exit codes: 0 done; 1 refused, failed or not found; 2 a wrong flag, setting or parameter, or a part
of the kit that is not installed. With --json, every command prints what it shows as JSON.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import math
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from ftlab_kit import configs
from ftlab_kit.configs import Config, Settings, describe
from ftlab_kit.errors import ConfigError, KitError, MissingExtra
from ftlab_kit.records import (
    Card,
    DatasetVersion,
    Job,
    Model,
    Progress,
    Record,
    Rows,
    fields_of,
    plain,
    show,
)

NOUNS = {
    "dataset": "datasets",
    "model": "models",
    "config": "configs",
    "job": "trainers",
    "checkpoint": "checkpoints",
    "evaluation": "evaluators",
    "chat": "chats",
    "graph": "graphs",
    "analytics": "analytics",
    "diagnostics": "diagnostics",
    "notebook": "notebooks",
}
# commands whose answer can be a no, which exits with 1: what a yes is
IS_YES: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "dataset validate": lambda report, _: report.n_refused == 0,
    "job preflight": lambda checks, _: all(check.is_ok for check in checks),
    "job wait": lambda job, values: (
        job.state == "completed" or job.step >= (values["until_step"] or math.inf)
    ),
}
SIMPLE = (bool, int, float, str, Path, datetime)
# from the values that typer parsed to what a verb takes
Reader = Callable[[typer.Context, dict[str, Any]], Any]

# a pipe has no width, and a table cut to 80 columns would be useless there
Out = Console(
    width=None if sys.stdout.isatty() else 200, markup=False, emoji=False, highlight=False
)


class RoomCommands(TyperGroup):
    """The commands of one noun, made when they are used."""

    def __init__(self, noun: str) -> None:
        super().__init__(name=noun, help=_summary(NOUNS[noun]), no_args_is_help=True)
        self.noun = noun

    @functools.cached_property
    def verbs(self) -> dict[str, Callable[..., Any]]:
        """The room's verbs that can be typed, by name; the room is imported here."""
        room = importlib.import_module(f"ftlab_kit.{NOUNS[self.noun]}")
        return {name: verb for name, verb in _verbs(room).items() if _can_be_typed(verb)}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs."""
        return [*self.verbs]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a verb, None if there is no such verb."""
        verb = self.verbs.get(cmd_name)
        return None if verb is None else _command(verb, cmd_name, noun=self.noun)


class Commands(TyperGroup):
    """Every noun, and the quick start."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the nouns."""
        return [*NOUNS, "quickstart"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a noun's commands, or the quick start."""
        if cmd_name == "quickstart":
            return RoomCommands("notebook").get_command(ctx, "quickstart")
        return RoomCommands(cmd_name) if cmd_name in NOUNS else None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)


@app.callback()
def _open(
    context: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="FTLAB_WORKSPACE", help="Folder.")
    ] = Path("~/ftlab"),
) -> None:
    def opened() -> Any:
        from ftlab_kit.workspace import Workspace

        return Workspace(workspace)

    # opened on first use, so that --help of a command touches no disk
    context.obj = functools.cache(opened)


def _summary(room: str) -> str:
    """Return the first paragraph of a room's docstring, without importing the room."""
    spec = importlib.util.find_spec(f"ftlab_kit.{room}")
    source = Path(spec.origin).read_text() if spec and spec.origin else ""
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())


def _verbs(room: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return a room's own public functions by name."""
    return {
        name: verb
        for name, verb in vars(room).items()
        if inspect.isfunction(verb)
        and verb.__module__ == room.__name__
        and not name.startswith("_")
    }


def _can_be_typed(verb: Callable[..., Any]) -> bool:
    """Return whether a verb is of use in a shell.

    One that needs a bare record or a function can't be typed, and what a verb opens would be closed
    at once.
    """
    hints = typing.get_type_hints(verb)
    returned = hints.get("return")
    if hasattr(returned, "__enter__") and returned not in SIMPLE:
        return False
    required = [
        hints[name]
        for name, item in _signature(verb).parameters.items()
        if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD and name != "ws"
    ]
    return all(any(_is_typed(kind) for kind in _choices(hint)) for hint in required)


def _is_typed(kind: Any) -> bool:
    """Return whether a value of a kind can be written in a shell."""
    is_record = inspect.isclass(kind) and issubclass(kind, Record)
    return not is_record and kind is not Any and typing.get_origin(kind) is not Callable


def _command(verb: Callable[..., Any], name: str, *, noun: str) -> Any:
    """Return the command that parses, calls one verb, and shows what it returns."""
    flags, readers = _flags(verb)
    parameters = _signature(verb).parameters
    is_yes = IS_YES.get(f"{noun} {name}")

    def command(context: typer.Context, as_json: bool, **values: Any) -> None:
        arguments: dict[str, Any] = {}
        for key, read in readers.items():
            arguments |= read(context, values) if key == "" else {key: read(context, values)}
        if "ws" in parameters:
            arguments["ws"] = context.obj()
        if "progress" in parameters:
            arguments["progress"] = _show_progress
        result = _call(verb, arguments)
        _show(result, as_json)
        if is_yes and not is_yes(result, arguments):
            raise typer.Exit(1)

    command.__doc__ = _documentation(verb)[""]
    command.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(command)
    return typer.main.get_command(alone)


def _signature(verb: Callable[..., Any]) -> inspect.Signature:
    """Return a verb's own signature, in which its settings are one `**settings`."""
    own: inspect.Signature | None = getattr(verb, "own_signature", None)
    return own or inspect.signature(verb)


def _call(verb: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a verb with its parameters by name; those that it takes in any number come in order."""
    ordered: list[Any] = []
    rest = dict(arguments)
    kinds = {name: item.kind for name, item in _signature(verb).parameters.items()}
    if inspect.Parameter.VAR_POSITIONAL in kinds.values():
        for name, kind in kinds.items():
            if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                ordered.append(rest.pop(name))
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                ordered += rest.pop(name)
    return verb(*ordered, **rest)


def _flags(verb: Callable[..., Any]) -> tuple[list[inspect.Parameter], dict[str, Reader]]:
    """Return a command's arguments and flags, and how each of the verb's parameters is read.

    The reader under '' reads the settings that a verb takes.
    """
    hints, documented = typing.get_type_hints(verb), _documentation(verb)
    by_name = inspect.Parameter.KEYWORD_ONLY
    flags = [inspect.Parameter("context", by_name, annotation=typer.Context)]
    readers: dict[str, Reader] = {}
    for name, item in _signature(verb).parameters.items():
        is_optional = item.default is not item.empty
        if name in ("ws", "progress") or _origin(hints[name]) is Callable:
            continue
        if is_optional and _is_of_records(hints[name]):
            continue
        if item.kind is item.VAR_KEYWORD:
            settings = [*inspect.signature(verb).parameters.keys() - hints.keys()]
            kind = getattr(verb, "settings_kind", Config)
            flags += _settings(kind, settings or [*kind.model_fields])
            readers[""] = functools.partial(_given, settings or [*kind.model_fields])
        elif hints[name] is Config:
            flags += [*_bases(), *_settings(Config, [*Config.model_fields])]
            readers[name] = _config
        else:
            flag, readers[name] = _flag(item, hints[name], documented.get(name, ""))
            flags.append(flag)
    return [*flags, _option("as_json", bool, False, "Print JSON.", "--json")], readers


def _documentation(verb: Callable[..., Any]) -> dict[str, str]:
    """Return a docstring's first paragraph under '', and the help of each argument."""
    text = inspect.getdoc(verb) or ""
    documented = {"": " ".join(text.split("\n\n")[0].split())}
    block = re.search(r"Args:\n((?: {4}.*\n?|\n)+)", text)
    for entry in re.split(r"\n(?=\w)", textwrap.dedent(block[1])) if block else []:
        name, _, help_text = entry.partition(":")
        documented[name.strip()] = " ".join(help_text.split())
    return documented


def _flag(item: inspect.Parameter, hint: Any, help_text: str) -> tuple[inspect.Parameter, Reader]:
    """Return an argument or option for a verb's parameter, and how its value is read."""
    is_argument = item.kind is not item.KEYWORD_ONLY
    if _origin(hint) is Mapping:
        text = f"{help_text} As name=value; repeatable."
        flag = _option(item.name, list[str] | None, None, text.strip(), "-p")
        return flag, lambda _, values: dict(_pair(text) for text in values[item.name] or [])
    is_many = _origin(hint) is Sequence and item.default is item.empty
    if is_many or item.kind is item.VAR_POSITIONAL:
        texts: Any = Annotated[list[str], typer.Argument(help=help_text)]
        many = inspect.Parameter(item.name, item.KEYWORD_ONLY, annotation=texts)
        inner = typing.get_args(hint)[0] if is_many else hint
        return many, lambda _, values: _many(inner, values[item.name])
    if _origin(hint) in (Sequence, tuple):
        default = ",".join(map(str, item.default))
        flag = _option(item.name, str, default, f"{help_text} With commas between.")
        inner = typing.get_args(hint)[0]
        return flag, lambda _, values: tuple(_many(inner, _parts(values[item.name])))
    return _single(item, hint, help_text, is_argument=is_argument)


def _single(
    item: inspect.Parameter, hint: Any, help_text: str, *, is_argument: bool
) -> tuple[inspect.Parameter, Reader]:
    """Return an argument or option that takes one value, and how it is read."""
    choices = _choices(hint)
    simple = [kind for kind in choices if kind in SIMPLE]
    # a job or a version is typed by its number
    may_be_number = (len(simple) > 1 and int in simple) or {DatasetVersion, Job, Model} & {*choices}
    kind: Any = next((kind for kind in (str, Path) if kind in simple), None) or simple[0]
    if is_argument and item.default is item.empty:
        annotation = Annotated[kind, typer.Argument(help=help_text)]
        flag = inspect.Parameter(item.name, item.KEYWORD_ONLY, annotation=annotation)
    else:
        kind = kind | None if item.default is None else kind
        flag = _option(item.name, kind, item.default, help_text)

    def read(_: typer.Context, values: dict[str, Any]) -> Any:
        value = values[item.name]
        is_number = may_be_number and isinstance(value, str) and value.isdigit()
        return int(value) if is_number else value

    return flag, read


def _parts(text: str) -> list[str]:
    return text.split(",") if text else []


def _many(kind: Any, texts: list[str]) -> list[Any]:
    """Return texts as the items of a sequence of a kind, as numbers where it may hold numbers."""
    may_be_number = int in (kind, *typing.get_args(kind))
    return [int(text) if may_be_number and text.isdigit() else text for text in texts]


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _is_of_records(hint: Any) -> bool:
    """Return whether a parameter takes records in any number, which can't be typed."""
    inner = [kind for choice in _choices(hint) for kind in typing.get_args(choice)]
    return any(inspect.isclass(kind) and issubclass(kind, Record) for kind in inner)


def _origin(hint: Any) -> Any:
    return typing.get_origin(_choices(hint)[0])


def _option(name: str, kind: Any, default: Any, help_text: str, *flags: str) -> inspect.Parameter:
    shows_default = default is not None and not isinstance(default, bool)
    option = Annotated[kind, typer.Option(*flags, help=help_text, show_default=shows_default)]
    by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, by_name, default=default, annotation=option)


def _bases() -> Iterator[inspect.Parameter]:
    """Yield the flags for what a Config starts from."""
    presets = " or ".join(configs.PRESETS)
    yield _option("base", str | None, None, "Start from a saved config.", "--config")
    yield _option("preset", str | None, None, f"Start from a preset: {presets}.")


def _settings(kind: type[Settings], names: Sequence[str]) -> Iterator[inspect.Parameter]:
    """Yield a flag for each of the named settings."""
    for item in describe(kind):
        if item["name"] in names:
            unit = f" ({item['unit']})" if item["unit"] else ""
            text = f"{item['help']}{unit}. Default: {show(item['default'])}"
            yield _option(item["name"], str | None, None, text)


def _given(names: Iterable[str], _: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) not in (None, [])}


def _config(context: typer.Context, values: dict[str, Any]) -> Config:
    changes = _given(Config.model_fields, context, values)
    if values["base"]:
        return configs.get(context.obj(), values["base"]).but(**changes)
    return configs.preset(values["preset"], **changes) if values["preset"] else Config(**changes)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"The parameter {text!r} has no '='; expected name=value.")
    return name, value


def _show_progress(progress: Progress) -> None:
    """Print on standard error how far a long verb has come."""
    print(progress, file=sys.stderr)


def _show(result: Any, as_json: bool) -> None:
    """Print what a verb returned: a record or several as a table, all else as it is."""
    if isinstance(result, Iterator):
        result = [*result] if as_json else _show_pieces(result)
    if as_json or isinstance(result, BaseModel) or (isinstance(result, dict) and result):
        print(json.dumps(plain(result), indent=2, default=BaseModel.model_dump))
    elif isinstance(result, Card):
        print(result)
    elif isinstance(result, Record):
        _show_record(result)
    elif isinstance(result, list | tuple) and result and isinstance(result[0], Record):
        names = fields_of(result[0])
        table = Table(*names, box=None)
        for row in result:
            table.add_row(*(show(getattr(row, name, None)) for name in names))
        Out.print(table)
    elif isinstance(result, list | tuple | dict):
        print("\n".join(json.dumps(plain(item)) for item in result) or "none")
    elif result is not None:
        print(result)


def _show_pieces(pieces: Iterator[Any]) -> list[Any] | None:
    """Return all that comes; print it at once and return None if it is pieces of one text."""
    first = next(pieces, None)
    if not isinstance(first, str):
        return [] if first is None else [first, *pieces]
    for piece in itertools.chain([first], pieces):
        print(piece, end="", flush=True)
    print()
    return None


def _show_record(record: Record) -> None:
    """Print a record as a table, and the records in it below."""
    parts = {item.name: getattr(record, item.name) for item in fields(record)}
    inner = {name: part for name, part in parts.items() if isinstance(part, Record | Rows)}
    table = Table(show_header=False, box=None)
    for name, value in record.as_dict().items():
        if name not in inner:
            table.add_row(name, show(value))
    Out.print(table)
    for name, part in inner.items():
        Out.print(f"\n{name}")
        _show(part, as_json=False)


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line; an error of the kit is printed as its one sentence."""
    try:
        app(args=[*arguments] if arguments is not None else None)
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | MissingExtra) else 1)


if __name__ == "__main__":
    main()
