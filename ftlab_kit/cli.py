"""The command line: `ftlab NOUN VERB`, made from the rooms' own verbs.

A verb's arguments become arguments, its keywords flags, its docstring the help, and a Config a flag
for every setting. Nothing is said twice, and no command can drift from its verb.

Exit codes: 0 done; 1 refused, failed or not found; 2 a wrong flag, setting or parameter.
Whatever a command shows, --json prints it as JSON.
"""

import functools
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

from ftlab_kit import (
    analytics,
    chats,
    checkpoints,
    configs,
    datasets,
    diagnostics,
    evaluators,
    graphs,
    models,
    notebooks,
    trainers,
)
from ftlab_kit.chats import ChatModel
from ftlab_kit.configs import Config, EvaluationConfig, Settings, describe
from ftlab_kit.errors import ConfigError, KitError
from ftlab_kit.records import (
    Card,
    DatasetVersion,
    Job,
    Model,
    Record,
    Rows,
    fields_of,
    plain,
    show,
)
from ftlab_kit.workspace import Workspace

NOUNS: dict[str, ModuleType] = {
    "dataset": datasets,
    "model": models,
    "config": configs,
    "job": trainers,
    "checkpoint": checkpoints,
    "evaluation": evaluators,
    "chat": chats,
    "graph": graphs,
    "analytics": analytics,
    "diagnostics": diagnostics,
    "notebook": notebooks,
}
# verbs whose answer can be a no: what is a yes
YES: dict[Any, Callable[[Any, dict[str, Any]], bool]] = {
    datasets.validate: lambda report, _: report.n_refused == 0,
    trainers.preflight: lambda checks, _: all(check.is_ok for check in checks),
    trainers.wait: lambda job, asked: (
        job.state == "completed" or job.step >= (asked["until_step"] or math.inf)
    ),
}
# verbs whose **settings are another kind's than a job's
KINDS: dict[Any, type[Settings]] = {
    evaluators.run: EvaluationConfig,
    evaluators.suite: EvaluationConfig,
}
SIMPLE = (bool, int, float, str, Path, datetime)
# from what typer parsed to what a verb takes
Reader = Callable[[typer.Context, dict[str, Any]], Any]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
# a pipe has no width; a table that was cut to 80 columns is of no use there
Out = Console(
    width=None if sys.stdout.isatty() else 200, markup=False, emoji=False, highlight=False
)


@app.callback()
def _open(
    context: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="FTLAB_WORKSPACE", help="Folder.")
    ] = Path("~/ftlab"),
) -> None:
    # opened on first use, so that --help of a command touches no disk
    context.obj = functools.cache(lambda: Workspace(workspace))


def _commands() -> None:
    """Give every noun a group, and every public verb of its room a command in it."""
    for noun, room in NOUNS.items():
        summary = (room.__doc__ or "").split("\n\n")[0]
        group = typer.Typer(no_args_is_help=True, help=" ".join(summary.split()))
        app.add_typer(group, name=noun)
        for name, verb in vars(room).items():
            is_own = inspect.isfunction(verb) and verb.__module__ == room.__name__
            if is_own and not name.startswith("_") and _can_be_typed(verb):
                group.command(name)(_command(verb))
    app.command("quickstart")(_command(notebooks.quickstart))


def _can_be_typed(verb: Callable[..., Any]) -> bool:
    """Return whether all that a verb wants can be typed; a bare record or a function can't.

    What a verb leaves open is closed at once in a shell, and so of no use there.
    """
    hints = typing.get_type_hints(verb)
    if hints.get("return") is ChatModel:
        return False
    wanted = [
        hints[name]
        for name, item in _signature(verb).parameters.items()
        if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD and name != "ws"
    ]
    kinds = [typing.get_args(hint) if isinstance(hint, UnionType) else (hint,) for hint in wanted]
    return not any(
        all(
            _origin(kind) is Callable or (inspect.isclass(kind) and issubclass(kind, Record))
            for kind in each
        )
        for each in kinds
    )


def _command(verb: Callable[..., Any]) -> Callable[..., None]:
    """Return a typer command that parses, calls one verb, and shows what it returns."""
    flags, readers = _flags(verb)
    takes = _signature(verb).parameters

    def command(context: typer.Context, as_json: bool, **given: Any) -> None:
        filled: dict[str, Any] = {}
        for name, read in readers.items():
            filled |= read(context, given) if name == "" else {name: read(context, given)}
        if "ws" in takes:
            filled["ws"] = context.obj()
        if "progress" in takes:
            filled["progress"] = _tell
        result = _call(verb, filled)
        _show(result, as_json)
        if verb in YES and not YES[verb](result, filled):
            raise typer.Exit(1)

    command.__doc__ = _said(verb)[""]
    command.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return command


def _signature(verb: Callable[..., Any]) -> inspect.Signature:
    """Return a verb's own signature, in which its settings are one `**settings`."""
    own: inspect.Signature | None = getattr(verb, "own_signature", None)
    return own or inspect.signature(verb)


def _call(verb: Callable[..., Any], filled: Mapping[str, Any]) -> Any:
    """Call a verb with its parameters by name; those that it takes in any number come in order."""
    ordered: list[Any] = []
    rest = dict(filled)
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

    The reader under '' reads what a verb takes as **settings.
    """
    hints, says = typing.get_type_hints(verb), _said(verb)
    by_name = inspect.Parameter.KEYWORD_ONLY
    flags = [inspect.Parameter("context", by_name, annotation=typer.Context)]
    readers: dict[str, Reader] = {}
    for name, item in _signature(verb).parameters.items():
        is_open = item.default is not item.empty and _is_of_records(hints[name])
        if name in ("ws", "progress") or _origin(hints[name]) is Callable or is_open:
            continue
        if _origin(hints[name]) is typing.Unpack:
            (wishes,) = typing.get_args(hints[name])
            flags += _wishes(wishes)
            readers[""] = functools.partial(_given, typing.get_type_hints(wishes))
        elif item.kind is item.VAR_KEYWORD:
            kind = KINDS.get(verb, Config)
            flags += _settings(kind)
            readers[""] = functools.partial(_given, kind.model_fields)
        elif hints[name] is Config:
            flags += [*_bases(), *_settings(Config)]
            readers[name] = _config
        else:
            flag, readers[name] = _flag(item, hints[name], says.get(name, ""))
            flags.append(flag)
    return [*flags, _option("as_json", bool, False, "Print JSON.", "--json")], readers


def _said(verb: Callable[..., Any]) -> dict[str, str]:
    """Return a docstring's first paragraph under '', and what it says of each argument."""
    text = inspect.getdoc(verb) or ""
    says = {"": " ".join(text.split("\n\n")[0].split())}
    block = re.search(r"Args:\n((?: {4}.*\n?|\n)+)", text)
    for entry in re.split(r"\n(?=\w)", textwrap.dedent(block[1])) if block else []:
        name, _, words = entry.partition(":")
        says[name.strip()] = " ".join(words.split())
    return says


def _flag(item: inspect.Parameter, hint: Any, words: str) -> tuple[inspect.Parameter, Reader]:
    """Return an argument or option for a verb's parameter, and how its value is read."""
    is_argument = item.kind is not item.KEYWORD_ONLY
    if _origin(hint) is Mapping:
        flag = _option(item.name, list[str] | None, None, "name=value; repeatable.", "-p")
        return flag, lambda _, given: dict(_pair(text) for text in given[item.name] or [])
    is_many = _origin(hint) is Sequence and item.default is item.empty
    if is_many or item.kind is item.VAR_POSITIONAL:
        texts: Any = Annotated[list[str], typer.Argument(help=words)]
        many = inspect.Parameter(item.name, item.KEYWORD_ONLY, annotation=texts)
        of = () if is_many else (hint,)
        return many, lambda _, given: _many(hint, given[item.name], *of)
    if _origin(hint) in (Sequence, tuple):
        default = ",".join(map(str, item.default))
        flag = _option(item.name, str, default, f"{words} With commas between.")
        return flag, lambda _, given: tuple(_many(hint, _parts(given[item.name])))
    choices = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    simple = [kind for kind in choices if kind in SIMPLE]
    is_number_too = len(simple) > 1 and int in simple or {DatasetVersion, Job, Model} & {*choices}
    kind: Any = next((kind for kind in (str, Path) if kind in simple), None) or simple[0]
    default = item.default
    if is_argument and default is item.empty:
        what = Annotated[kind, typer.Argument(help=words)]
        flag = inspect.Parameter(item.name, item.KEYWORD_ONLY, annotation=what)
    else:
        kind = kind | None if default is None else kind
        flag = _option(item.name, kind, default, words)

    def read(_: typer.Context, given: dict[str, Any]) -> Any:
        value = given[item.name]
        is_number = is_number_too and isinstance(value, str) and value.isdigit()
        return int(value) if is_number else value

    return flag, read


def _parts(text: str) -> list[str]:
    return text.split(",") if text else []


def _many(hint: Any, texts: list[str], inner: Any = None) -> list[Any]:
    """Return the items of a sequence, as numbers where it may hold such."""
    inner = inner or typing.get_args(hint)[0]
    takes_numbers = int in (inner, *typing.get_args(inner))
    return [int(text) if takes_numbers and text.isdigit() else text for text in texts]


def _is_of_records(hint: Any) -> bool:
    """Return whether a parameter takes records in any number, which can't be typed."""
    choices = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    inner = [kind for choice in choices for kind in typing.get_args(choice)]
    return any(inspect.isclass(kind) and issubclass(kind, Record) for kind in inner)


def _origin(hint: Any) -> Any:
    choices = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return typing.get_origin(choices[0])


def _option(name: str, kind: Any, default: Any, words: str, *flags: str) -> inspect.Parameter:
    shown = default is not None and not isinstance(default, bool)
    option = Annotated[kind, typer.Option(*flags, help=words, show_default=shown)]
    by_name = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, by_name, default=default, annotation=option)


def _bases() -> Iterator[inspect.Parameter]:
    """Yield the flags for what a Config starts from."""
    presets = " or ".join(configs.PRESETS)
    yield _option("base", str | None, None, "Start from a saved config.", "--config")
    yield _option("preset", str | None, None, f"Start from a preset: {presets}.")


def _settings(kind: type[Settings]) -> Iterator[inspect.Parameter]:
    """Yield a flag for every setting of a kind."""
    for item in describe(kind):
        unit = f" ({item['unit']})" if item["unit"] else ""
        words = f"{item['help']}{unit}. Default: {show(item['default'])}"
        yield _option(item["name"], str | None, None, words)


def _wishes(kind: Any) -> Iterator[inspect.Parameter]:
    """Yield a flag for every key of a TypedDict whose types say what they are for."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        of, words = typing.get_args(hint)
        if typing.get_origin(of) is Callable:
            continue
        many = typing.get_origin(of) is tuple
        yield _option(name, (list[str] if many else of) | None, None, words)


def _given(names: Iterable[str], _: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in names if given.get(name) not in (None, [])}


def _config(context: typer.Context, given: dict[str, Any]) -> Config:
    changes = _given(Config.model_fields, context, given)
    if given["base"]:
        return configs.get(context.obj(), given["base"]).but(**changes)
    return configs.preset(given["preset"], **changes) if given["preset"] else Config(**changes)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"The parameter {text!r} has no '='; expected name=value.")
    return name, value


def _tell(*news: Any) -> None:
    """Say on standard error how far a long verb is."""
    if isinstance(news[0], Job):
        job = news[0]
        words = f"job {job.id} {job.state} step {job.step} of {show(job.total_steps)}"
    else:
        words = "  ".join(
            f"{item:.1f} s" if isinstance(item, float) else str(item) for item in news
        )
    print(words, file=sys.stderr)


def _show(found: Any, as_json: bool) -> None:
    """Print what a verb returned: a record or many as a table, all else as it is."""
    if isinstance(found, Iterator):
        found = [*found] if as_json else _told(found)
    if as_json or isinstance(found, BaseModel) or (isinstance(found, dict) and found):
        print(json.dumps(plain(found), indent=2, default=BaseModel.model_dump))
    elif isinstance(found, Card):
        print(found)
    elif isinstance(found, Record):
        _show_record(found)
    elif isinstance(found, list | tuple) and found and isinstance(found[0], Record):
        names = fields_of(found[0])
        table = Table(*names, box=None)
        for row in found:
            table.add_row(*(show(getattr(row, name, None)) for name in names))
        Out.print(table)
    elif isinstance(found, list | tuple | dict):
        print("\n".join(json.dumps(plain(item)) for item in found) or "none")
    elif found is not None:
        print(found)


def _told(found: Iterator[Any]) -> list[Any] | None:
    """Return what comes; print it at once and return None where it is pieces of one text."""
    first = next(found, None)
    if not isinstance(first, str):
        return [] if first is None else [first, *found]
    for piece in itertools.chain([first], found):
        print(piece, end="", flush=True)
    print()
    return None


def _show_record(found: Record) -> None:
    """Print a record as a table, and the records in it below."""
    parts = {item.name: getattr(found, item.name) for item in fields(found)}
    inner = {name: part for name, part in parts.items() if isinstance(part, Record | Rows)}
    table = Table(show_header=False, box=None)
    for name, value in found.as_dict().items():
        if name not in inner:
            table.add_row(name, show(value))
    Out.print(table)
    for name, part in inner.items():
        Out.print(f"\n{name}")
        _show(part, as_json=False)


_commands()


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line; say an error of the kit in its own words."""
    try:
        app(args=[*arguments] if arguments is not None else None)
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
