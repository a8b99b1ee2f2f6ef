"""A form that is made from settings: a field each, with bounds, unit and help beside it.

Numbers are text that the settings read themselves, so that 2e-4 stays 2e-4 and an empty field is
None; whatever is wrong is said in the words of the settings.
"""

import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets

from ftlab_kit.configs import GROUPS
from ftlab_kit.configs.settings import Settings, described
from ftlab_kit.errors import ConfigError
from ftlab_kit.widgets.display import say, work_around_ipykernel_7_4

LABEL = {"description_width": "165px"}
NARROW = {"width": "330px"}


class Fields(ipywidgets.VBox):  # type: ignore[misc]
    """Fields for some settings; `settings()` is what they say."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Show the settings' values.

        Args:
            changed: Called when a field says something else.
        """
        self._base, self._changed = settings, changed
        self.said = ipywidgets.HTML()
        stated = {item["name"]: item for item in described(type(settings))}
        self.field = {name: _field(stated[name], getattr(settings, name)) for name in names}
        parts = [
            (title, [ipywidgets.HBox([self.field[name], _beside(stated[name])]) for name in group])
            for title, group in _grouped([*names])
        ]
        pages = ipywidgets.Accordion([ipywidgets.VBox(rows) for _, rows in parts])
        pages.titles = [title for title, _ in parts]
        pages.selected_index = 0
        super().__init__([pages, self.said])
        for field in self.field.values():
            field.observe(self._look, "value")

    def settings(self) -> Settings:
        """Return the settings as the fields say.

        Raises:
            ConfigError: A value out of bounds, or of another kind.
        """
        return self._base.but(**{name: _value(field) for name, field in self.field.items()})

    def show(self, settings: Settings) -> None:
        """Let the fields say these settings."""
        self._base = settings
        for name, field in self.field.items():
            field.value = _shown(field, getattr(settings, name))

    def _look(self, _: Any) -> None:
        """Say at once what is wrong with the fields as they are."""
        try:
            self.settings()
        except ConfigError as error:
            say(self.said, "alert", str(error))
        else:
            say(self.said, "status", "")
        work_around_ipykernel_7_4(*self.field.values())
        self._changed()


def _field(item: dict[str, Any], value: Any) -> Any:
    looks = {"description": item["name"], "style": LABEL, "tooltip": item["help"], "layout": NARROW}
    if item["choices"] == [False, True]:
        return ipywidgets.Checkbox(value, indent=True, **looks)
    if item["choices"]:
        return ipywidgets.Dropdown(options=item["choices"], value=value, **looks)
    return ipywidgets.Text("" if value is None else str(value), continuous_update=False, **looks)


def _beside(item: dict[str, Any]) -> Any:
    """Return unit, bounds and help as they stand beside a field."""
    facts = ", ".join(part for part in (item["unit"], item["bounds"]) if part)
    words = html.escape(item["help"])
    shown = f"<b>{html.escape(facts)}</b> {words}" if facts else words
    return ipywidgets.HTML(shown, layout=ipywidgets.Layout(flex="1 1 0%"))


def _value(field: Any) -> Any:
    if not isinstance(field, ipywidgets.Text):
        return field.value
    return field.value.strip() or None


def _shown(field: Any, value: Any) -> Any:
    return ("" if value is None else str(value)) if isinstance(field, ipywidgets.Text) else value


def _grouped(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield names in the groups that the settings stand in."""
    from ftlab_kit.configs import Config

    begins = {first: title for title, first in GROUPS.items()}
    title, found = "", dict[str, list[str]]()
    for name in Config.model_fields:
        title = begins.get(name, title)
        if name in names:
            found.setdefault(title, []).append(name)
    yield from found.items()
