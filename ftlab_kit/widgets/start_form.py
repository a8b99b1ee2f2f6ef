"""A form to start a job: model, rows, settings; what it will take; and then its live view."""

import html

import ipywidgets

from ftlab_kit import analytics, configs, datasets, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError
from ftlab_kit.records import CELL, DatasetVersion, Estimate, Job, show
from ftlab_kit.widgets.display import button, say, work_around_ipykernel_7_4
from ftlab_kit.widgets.fields import LABEL, Fields
from ftlab_kit.widgets.live_view import TrainerView, duration
from ftlab_kit.workspace import Workspace

CHOSEN = [name for name in Config.model_fields if name != "model"]  # the model has its own field
WIDE = {"width": "520px"}
GIVEN = "as given"


class StartForm(ipywidgets.VBox):  # type: ignore[misc]
    """Choose model, rows and settings, see what the job will take, and start it.

    Once started the form becomes the job's live view; `job` is the job then.
    """

    def __init__(self, ws: Workspace, config: Config | None = None) -> None:
        """Offer what there is in the workspace."""
        self._ws, self._given = ws, config
        self.job: Job | None = None
        self._versions = {
            version.id: version
            for found in datasets.list(ws)
            for version in datasets.versions(ws, found.name)
        }
        self._make_choices(config)
        self.fields = Fields(self._preset(), CHOSEN, changed=self._forget)
        self._said, self._will_take = ipywidgets.HTML(), ipywidgets.HTML()
        said = self._said
        self.estimate = button("Estimate", "Reckon memory, time and cost", self._reckon, said)
        self.start = button("Start", "Look at everything once more and start", self._start, said)
        self.start.button_style = "primary"
        choices = [self.model, self.dataset, self.held_out, self.preset, self.price]
        buttons = ipywidgets.HBox([self.estimate, self.start, self._said])
        super().__init__([*choices, self.fields, buttons, self._will_take])
        self._follow_choices()
        if not self._versions:
            self.start.disabled = self.estimate.disabled = True
            say(self._said, "alert", "There are no rows yet. Add some with datasets.add(ws, path).")

    def _make_choices(self, config: Config | None) -> None:
        looks = {"style": LABEL, "layout": WIDE}
        chats = [item.id for item in models.list(self._ws) if item.family != "BERT"]
        named = config.model if config else Config().model
        self.model = ipywidgets.Dropdown(
            options=[*dict.fromkeys([*chats, named])], value=named, description="model", **looks
        )
        learnt = {_named(item): item.id for item in self._newest() if item.side != "held_out"}
        judged = {"none": None, **{_named(item): item.id for item in self._newest()}}
        self.dataset = ipywidgets.Dropdown(options=learnt, description="dataset", **looks)
        self.held_out = ipywidgets.Dropdown(options=judged, description="held out", **looks)
        self.held_out.value = self._other_side()
        presets = [GIVEN] if config else []
        presets += [*configs.PRESETS, *configs.list(self._ws)]
        self.preset = ipywidgets.Dropdown(options=presets, description="settings of", **looks)
        self.price = ipywidgets.Text(
            placeholder="US dollars an hour of this machine; empty: not known",
            description="price",
            continuous_update=False,
            **looks,
        )
        if not config and self.dataset.value is not None:
            self.preset.value = _fitting(self._versions[self.dataset.value].n_rows)

    def _follow_choices(self) -> None:
        self.dataset.observe(lambda _: self._take_rows(), "value")
        self.preset.observe(lambda _: self.fields.show(self._preset()), "value")
        for field in (self.model, self.held_out, self.price):
            field.observe(lambda _: self._forget(), "value")

    def _newest(self) -> list[DatasetVersion]:
        return sorted(self._versions.values(), key=lambda version: -version.id)

    def _take_rows(self) -> None:
        """Take the other side of a split for the held-out rows, and a preset that fits."""
        self.held_out.value = self._other_side()
        if self._given is None:
            self.preset.value = _fitting(self._versions[self.dataset.value].n_rows)
        self._forget()

    def _other_side(self) -> int | None:
        chosen = self._versions.get(self.dataset.value)
        sides = [
            item.id
            for item in self._newest()
            if chosen and item.side == "held_out" and item.parent_id == chosen.parent_id
        ]
        return sides[0] if sides and chosen and chosen.side == "train" else None

    def _preset(self) -> Config:
        name = self.preset.value
        if name == GIVEN and self._given:
            return self._given
        saved = configs.list(self._ws)
        return saved[name] if name in saved else configs.preset(name)

    def config(self) -> Config:
        """Return the settings as the form says.

        Raises:
            ConfigError: A value out of bounds, or of another kind.
        """
        found = self.fields.settings()
        assert isinstance(found, Config)
        return found.but(model=self.model.value)

    def _forget(self) -> None:
        """What was reckoned was for other settings."""
        self._will_take.value = ""
        work_around_ipykernel_7_4(
            self.estimate, self.start, self.model, self.dataset, self.held_out, self.preset
        )

    def _reckon(self) -> str:
        config = self.config()
        say(self._said, "status", "reckoning")
        found = analytics.estimate(
            self._ws,
            config,
            self.dataset.value,
            held_out=self.held_out.value,
            usd_per_hour=self._price(),
        )
        self._will_take.value = _estimate(found)
        return "reckoned; it starts nothing"

    def _price(self) -> float | None:
        text = self.price.value.strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise ConfigError(
                f"price is {text!r}; expected US dollars an hour, such as 1.5. Or leave it empty."
            ) from None

    def _start(self) -> None:
        if self.job is not None:
            return  # a second click
        config = self.config()
        models.pull(
            self._ws, config.model, progress=lambda *news: say(self._said, "status", str(news[0]))
        )
        say(self._said, "status", "looking at rows, tokens and machine")
        self.job = trainers.start(
            self._ws, config, self.dataset.value, held_out=self.held_out.value
        )
        self.children = (TrainerView(self._ws, self.job),)


def _named(version: DatasetVersion) -> str:
    return f"{version.dataset}, {version.side}, {version.n_rows} rows (version {version.id})"


def _fitting(n_rows: int) -> str:
    """Return the name of the preset for a number of rows."""
    return next(name for name in configs.PRESETS if configs.preset(name) == configs.preset(n_rows))


def _estimate(found: Estimate) -> str:
    """Return an estimate as a table, an alert where the memory does not suffice."""
    is_enough = found.memory_gib <= found.free_memory_gib
    time = None if found.seconds is None else f"about {duration(found.seconds)}"
    cost = None if found.cost_usd is None else f"about {found.cost_usd:.2g} US dollars"
    most = "about" if found.n_tokens else "with rows of the greatest length"
    memory = f"{most} {found.memory_gib:.1f} GiB of {found.free_memory_gib:.1f} GiB free"
    facts = {
        "steps": f"{found.n_steps:,}",
        "tokens": "–" if found.n_tokens is None else f"{found.n_tokens:,}",
        "memory": memory if is_enough else f"{memory}: too much",
        "time": show(time),
        "cost": show(cost),
        "speed": f"{show(found.tokens_per_s)} tokens/s: {found.basis}",
    }
    rows = "".join(
        f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(words)}</td></tr>"
        for name, words in facts.items()
    )
    role = "status" if is_enough else "alert"
    return f'<div role="{role}"><table><caption>what it will take</caption>{rows}</table></div>'
