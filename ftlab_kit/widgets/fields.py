"""A form made from settings: a field for each, with its bounds, unit and help beside it.

Numbers are entered as text and parsed by the settings themselves: 2e-4 stays 2e-4, an empty field
is None, and an error is the settings' own.
"""

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from ftlab_kit.configs import GROUPS, Settings, describe
from ftlab_kit.errors import ConfigError
from ftlab_kit.widgets.display import show_alert, show_status, work_around_ipykernel_7_4

LABEL = {"description_width": "165px"}
NARROW = {"width": "330px"}


class Fields(ipywidgets.VBox):  # type: ignore[misc]
    """Fields for some settings; `settings()` returns their values."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Show the settings' values.

        Args:
            settings: The first values, also of the settings that have no field here.
            names: The settings that get a field.
            changed: Called when a field has changed.
        """
        self._base, self._changed = settings, changed
        self.status = ipywidgets.HTML()
        descriptions = {item["name"]: item for item in describe(type(settings))}
        self.field = {name: _field(descriptions[name], getattr(settings, name)) for name in names}
        groups = {}
        for title, group in _grouped(names).items():
            lines = [[self.field[name], _beside(descriptions[name])] for name in group]
            groups[title] = ipywidgets.VBox([ipywidgets.HBox(line) for line in lines])
        pages = ipywidgets.Accordion([*groups.values()])
        pages.titles = [*groups]
        pages.selected_index = 0
        super().__init__([pages, self.status])
        for field in self.field.values():
            field.observe(self._check, "value")

    def settings(self) -> Settings:
        """Return the settings with the fields' values.

        Raises:
            ConfigError: A value is out of bounds or of the wrong type.
        """
        return self._base.but(**{name: _value(field) for name, field in self.field.items()})

    def show(self, settings: Settings) -> None:
        """Fill the fields with the values of these settings."""
        self._base = settings
        for name, field in self.field.items():
            field.value = _shown(field, getattr(settings, name))

    def _check(self, _: Any) -> None:
        """Show at once what is wrong with the fields' values."""
        try:
            self.settings()
        except ConfigError as error:
            show_alert(self.status, str(error))
        else:
            show_status(self.status, "")
        work_around_ipykernel_7_4(*self.field.values())
        self._changed()


def _field(item: dict[str, Any], value: Any) -> Any:
    style = {"description": item["name"], "style": LABEL, "tooltip": item["help"], "layout": NARROW}
    if item["choices"] == [False, True]:
        return ipywidgets.Checkbox(value, indent=True, **style)
    if item["choices"]:
        return ipywidgets.Dropdown(options=item["choices"], value=value, **style)
    return ipywidgets.Text("" if value is None else str(value), continuous_update=False, **style)


def _beside(item: dict[str, Any]) -> Any:
    """Return the unit, bounds and help beside a field."""
    limits = ", ".join(part for part in (item["unit"], item["bounds"]) if part)
    text = html.escape(item["help"])
    markup = f"<b>{html.escape(limits)}</b> {text}" if limits else text
    return ipywidgets.HTML(markup, layout=ipywidgets.Layout(flex="1 1 0%"))


def _value(field: Any) -> Any:
    if not isinstance(field, ipywidgets.Text):
        return field.value
    return field.value.strip() or None


def _shown(field: Any, value: Any) -> Any:
    return ("" if value is None else str(value)) if isinstance(field, ipywidgets.Text) else value


def _grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Return names by the title of the group that a config has them in."""
    from ftlab_kit.configs import Config

    titles = {first: title for title, first in GROUPS.items()}
    title, groups = "", dict[str, list[str]]()
    for name in Config.model_fields:
        title = titles.get(name, title)
        if name in names:
            groups.setdefault(title, []).append(name)
    return groups
