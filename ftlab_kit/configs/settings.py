"""How settings are stated: default, bounds, unit and help in the field, errors in words.

What is built on `Settings` is frozen; `but` returns a changed one, checked like the first. Forms,
command-line flags and help are derived from its fields.
"""

import builtins
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ftlab_kit.errors import ConfigError, nearest


def _number(value: Any) -> Any:
    # papermill and shells hand 3e-5 on as text, and pydantic would take " 3e-5" but also True
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    return value


Real = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number)]
Verb = TypeVar("Verb", bound=Callable[..., Any])


class _Unchanged:
    """The default of an option that leaves a setting as it is; None would be a value of its own."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = _Unchanged()


def setting(default: Any, text: str, *, unit: str = "", live: bool = False, **bounds: Any) -> Any:
    """Return a settings field; `live` marks what may change while a job runs."""
    extra: dict[str, Any] = {"unit": unit, "live": live}
    return Field(default, description=text, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """A frozen set of settings that are checked one by one and together.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: Any, handler: Any) -> Self:
        try:
            found: Self = handler(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, cls)) from None
        for problem in found.conflicts():
            raise ConfigError(problem)
        return found

    def conflicts(self) -> Iterator[str]:
        """Yield, for settings that are fine alone but not together, what is and what to do."""
        return iter(())

    def but(self, **changes: Any) -> Self:
        """Return these settings with some changed, checked again."""
        return type(self)(**{**self.model_dump(), **changes})

    def _repr_html_(self) -> str:
        from ftlab_kit.records import CELL, show

        rows = "".join(
            f"<tr><th {CELL}>{item['name']}</th><td {CELL}>{show(getattr(self, item['name']))}</td>"
            f"<td {CELL}>{item['unit']}</td><td {CELL}>{item['help']}</td></tr>"
            for item in described(type(self))
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


# what a schema calls a bound, under a setting that may be empty too, and how people say it
BOUNDS = {
    "minimum": ("ge", "at least {:,}"),
    "exclusiveMinimum": ("gt", "above {:,}"),
    "maximum": ("le", "at most {:,}"),
    "exclusiveMaximum": ("lt", "below {:,}"),
}


def described(kind: type[Settings]) -> builtins.list[dict[str, Any]]:
    """Return every setting with default, unit, whether it is live, bounds and help.

    `choices` are all that it may be, None where it is free; `bounds` are words, such as 'above 0'.
    """
    schema = kind.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "default": field.default,
            "unit": schema[name]["unit"],
            "live": schema[name]["live"],
            "choices": [False, True] if field.annotation is bool else schema[name].get("enum"),
            "bounds": _bounds(schema[name]),
            "help": field.description,
        }
        for name, field in kind.model_fields.items()
    ]


def _bounds(schema: dict[str, Any]) -> str:
    """Return in words between what a number must lie."""
    kinds = [schema, *schema.get("anyOf", ())]
    said = []
    for name, (short, words) in BOUNDS.items():
        found = [kind[key] for kind in kinds for key in (name, short) if key in kind]
        said += [words.format(value) for value in found[:1]]
    return ", ".join(said)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return a validation error as one sentence a setting: what is, what was expected, the cure."""
    found: dict[str, tuple[Any, builtins.list[str]]] = {}
    sentences = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else "config"
        if item["type"] == "extra_forbidden":
            sentences.append(
                f"{name!r} is no setting.{nearest(name, kind.model_fields)} "
                "All settings: ftlab config settings."
            )
        else:
            expected = item["msg"].removeprefix("Value error, ")
            expected = expected.removeprefix("Input should be ").replace("a valid ", "a ")
            # a setting that may be of two kinds has an error for each
            _, expectations = found.setdefault(name, (item["input"], []))
            expectations.append(expected.partition(", unable to parse")[0])
    for name, (value, expectations) in found.items():
        field = kind.model_fields.get(name)
        default = f" The default is {field.default!r}." if field else ""
        sentences.append(f"{name} is {value!r}; expected {' or '.join(expectations)}.{default}")
    return " ".join(sentences)


def takes_settings(
    kind: type[Settings], *, only_live: bool = False, has_defaults: bool = False
) -> Callable[[Verb], Verb]:
    """Return a decorator that names every setting in a verb's signature and docstring.

    The verb itself takes `**settings`; what Shift-Tab, `help` and the doors see instead is one
    keyword parameter for each setting, with its type and its help, stated once in the field.

    Args:
        kind: The settings, such as Config.
        only_live: Only those that may change while a job runs.
        has_defaults: The verb starts from the settings' own defaults; otherwise a setting that is
            not given stays unchanged.
    """
    fields = {
        name: field
        for name, field in kind.model_fields.items()
        if not only_live or (field.json_schema_extra or {}).get("live")  # type: ignore[union-attr]
    }

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        *named, rest = signature.parameters.values()
        taken = {item.name for item in named}
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default if has_defaults else UNCHANGED,
                annotation=field.annotation,
            )
            for name, field in fields.items()
            if name not in taken
        ]
        # the doors that make flags from settings ask for these two
        verb.settings_kind, verb.own_signature = kind, signature  # type: ignore[attr-defined]
        verb.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        verb.__doc__ = _with_settings(
            verb.__doc__ or "", rest.name, kind, [o.name for o in options]
        )
        return verb

    return decorate


def _with_settings(doc: str, rest: str, kind: type[Settings], names: builtins.list[str]) -> str:
    """Return a docstring with a line for each setting in place of the one for `**rest`."""
    lines = doc.splitlines()
    item_of = {item["name"]: item for item in described(kind)}
    entries = []
    for name in names:
        unit = f" ({item_of[name]['unit']})" if item_of[name]["unit"] else ""
        entries.append(f"        {name}: {item_of[name]['help']}{unit}.")
    for number, line in enumerate(lines):
        if line.startswith(f"        {rest}:"):
            end = number + 1
            while end < len(lines) and lines[end].startswith("         "):
                end += 1
            return "\n".join([*lines[:number], *entries, *lines[end:]])
    raise ValueError(f"The docstring of a verb that takes settings has no line '{rest}: ...'.")
