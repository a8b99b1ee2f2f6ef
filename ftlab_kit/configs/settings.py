"""How settings are defined: default, bounds, unit and help in one field, and errors in sentences.

A class built on `Settings` is frozen; `but` returns a changed copy, checked like the original.
Forms, command-line flags and help are derived from its fields.
"""

import builtins
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ftlab_kit.errors import ConfigError, nearest


def _number(value: Any) -> Any:
    # papermill and shells pass 3e-5 on as text, which pydantic converts; but it also takes True
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Integer = Annotated[int, BeforeValidator(_number)]
Verb = TypeVar("Verb", bound=Callable[..., Any])


class _Unchanged:
    """The default of an option that leaves a setting unchanged; None can be a value itself."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = _Unchanged()


def setting(
    default: Any, description: str, *, unit: str = "", live: bool = False, **bounds: Any
) -> Any:
    """Return the field of a setting.

    Args:
        default: Its default.
        description: Its help, without a full stop.
        unit: The unit of its value.
        live: Whether it can be changed while a job runs.
        bounds: Bounds as pydantic's Field takes them: ge, gt, le, lt, min_length.
    """
    extra: dict[str, Any] = {"unit": unit, "live": live}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """A frozen set of settings that are checked one by one and together.

    Raises:
        ConfigError: An unknown key, a value out of bounds or of the wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_config_errors(cls, values: Any, handler: Any) -> Self:
        try:
            settings: Self = handler(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, cls)) from None
        for conflict in settings.conflicts():
            raise ConfigError(conflict)
        return settings

    def conflicts(self) -> Iterator[str]:
        """Yield a message for each conflict between settings that are valid on their own."""
        return iter(())

    def but(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, checked again."""
        return type(self)(**{**self.model_dump(), **changes})

    def _repr_html_(self) -> str:
        from ftlab_kit.records import CELL, show

        rows = "".join(
            f"<tr><th {CELL}>{item['name']}</th><td {CELL}>{show(getattr(self, item['name']))}</td>"
            f"<td {CELL}>{item['unit']}</td><td {CELL}>{item['help']}</td></tr>"
            for item in describe(type(self))
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


# bounds in a JSON schema: their name there, pydantic's own name for unions, and a phrase
BOUNDS = {
    "minimum": ("ge", "at least {:,}"),
    "exclusiveMinimum": ("gt", "above {:,}"),
    "maximum": ("le", "at most {:,}"),
    "exclusiveMaximum": ("lt", "below {:,}"),
}


def describe(kind: type[Settings]) -> builtins.list[dict[str, Any]]:
    """Return every setting of a class: name, default, unit, live, choices, bounds and help.

    `choices` holds all allowed values, None where others are possible; `bounds` is a phrase such as
    'above 0'; `live` is whether the setting can be changed while a job runs.
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
    """Return the bounds of a number as a phrase; '' where there are none."""
    alternatives = [schema, *schema.get("anyOf", ())]
    phrases = []
    for name, (short, phrase) in BOUNDS.items():
        values = [part[key] for part in alternatives for key in (name, short) if key in part]
        phrases += [phrase.format(value) for value in values[:1]]
    return ", ".join(phrases)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return a validation error as a sentence a setting: its value, what was expected, the fix."""
    invalid: dict[str, tuple[Any, builtins.list[str]]] = {}
    sentences = []
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else "config"
        if item["type"] == "extra_forbidden":
            sentences.append(
                f"There is no setting {name!r}.{nearest(name, kind.model_fields)} "
                "See all of them with: ftlab config settings."
            )
        else:
            expected = item["msg"].removeprefix("Value error, ")
            expected = expected.removeprefix("Input should be ")
            expected = expected.replace("a valid integer", "an integer").replace("a valid ", "a ")
            # a setting of a union type has an error for each of its types
            _, expectations = invalid.setdefault(name, (item["input"], []))
            expectations.append(expected.partition(", unable to parse")[0])
    for name, (value, expectations) in invalid.items():
        field = kind.model_fields.get(name)
        default = f" The default is {field.default!r}." if field else ""
        sentences.append(f"{name} is {value!r}; expected {' or '.join(expectations)}.{default}")
    return " ".join(sentences)


def takes_settings(
    kind: type[Settings], *, only_live: bool = False, has_defaults: bool = False
) -> Callable[[Verb], Verb]:
    """Return a decorator that names every setting in a verb's signature and docstring.

    The verb itself takes `**settings`; what Shift-Tab, `help` and the doors show instead is one
    keyword parameter for each setting, with its plain type, its bounds and its help.

    Args:
        kind: The settings, such as Config.
        only_live: Only those that can be changed while a job runs.
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
                annotation=plain_type(field.annotation),
            )
            for name, field in fields.items()
            if name not in taken
        ]
        # the doors that make flags from settings read these two
        verb.settings_kind, verb.own_signature = kind, signature  # type: ignore[attr-defined]
        verb.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        names = [option.name for option in options]
        verb.__doc__ = _with_settings(verb.__doc__ or "", rest.name, kind, names)
        return verb

    return decorate


def plain_type(annotation: Any) -> Any:
    """Return a type without validators and bounds: `int | None` for `Optional[Annotated[...]]`."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return reduce(or_, map(plain_type, get_args(annotation)))
    return annotation


def _with_settings(doc: str, rest: str, kind: type[Settings], names: Sequence[str]) -> str:
    """Return a docstring with a line for each setting in place of the one for `**rest`."""
    lines = doc.splitlines()
    described = {item["name"]: item for item in describe(kind)}
    entries = [f"        {name}: {_help_line(described[name])}" for name in names]
    for number, line in enumerate(lines):
        if line.startswith(f"        {rest}:"):
            end = number + 1
            while end < len(lines) and lines[end].startswith("         "):
                end += 1
            return "\n".join([*lines[:number], *entries, *lines[end:]])
    raise ValueError(f"The docstring of a verb that takes settings has no line '{rest}: ...'.")


def _help_line(item: dict[str, Any]) -> str:
    """Return a setting's help with its unit and bounds: 'Passes (epochs; above 0).'"""
    facts = "; ".join(fact for fact in (item["unit"], item["bounds"]) if fact)
    return f"{item['help']} ({facts})." if facts else f"{item['help']}."
