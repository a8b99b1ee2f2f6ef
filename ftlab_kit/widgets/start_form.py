"""A form to start a job: model, rows, settings, an estimate, and then the job's live view."""

import html

import ipywidgets

from ftlab_kit import analytics, configs, datasets, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError
from ftlab_kit.records import CELL, DatasetVersion, Estimate, Job, show
from ftlab_kit.widgets.display import (
    button,
    show_alert,
    show_status,
    work_around_ipykernel_7_4,
)
from ftlab_kit.widgets.fields import LABEL, Fields
from ftlab_kit.widgets.job_state import duration
from ftlab_kit.widgets.live_view import TrainerView
from ftlab_kit.workspace import Workspace

SETTINGS = [name for name in Config.model_fields if name != "model"]  # the model has its own field
WIDE = {"width": "520px"}
GIVEN = "the given config"
NO_ROWS = "There are no rows yet. Add some with datasets.add(ws, path), then open the form again."


class StartForm(ipywidgets.VBox):  # type: ignore[misc]
    """Choose model, rows and settings, see what the job will take, and start it.

    Once the job is started, `job` holds it and the form becomes its live view.
    """

    def __init__(self, ws: Workspace, config: Config | None = None) -> None:
        """Offer the models, datasets and configs of the workspace.

        Args:
            config: The first settings; None takes a preset that suits the rows.
        """
        self._ws, self._given = ws, config
        self.job: Job | None = None
        self._versions = {
            version.id: version
            for dataset in datasets.list(ws)
            for version in datasets.versions(ws, dataset.name)
        }
        self._make_choices(config)
        self.fields = Fields(self._preset(), SETTINGS, changed=self._clear_estimate)
        self._status, self._estimate = ipywidgets.HTML(), ipywidgets.HTML()
        line = self._status
        estimating = "Estimate memory, time and cost; starts nothing"
        self.estimate = button("Estimate", estimating, self._show_estimate, line)
        self.start = button("Start", "Check everything once more and start", self._start, line)
        self.start.button_style = "primary"
        choices = [self.model, self.dataset, self.held_out, self.preset, self.price]
        buttons = ipywidgets.HBox([self.estimate, self.start, self._status])
        super().__init__([*choices, self.fields, buttons, self._estimate])
        self._follow_choices()
        if not self._versions:
            self.start.disabled = self.estimate.disabled = True
            show_alert(self._status, NO_ROWS)

    def _make_choices(self, config: Config | None) -> None:
        style = {"style": LABEL, "layout": WIDE}
        chat_models = [item.id for item in models.list(self._ws) if item.family != "BERT"]
        model = config.model if config else Config().model
        self.model = ipywidgets.Dropdown(
            options=[*dict.fromkeys([*chat_models, model])],
            value=model,
            description="model",
            **style,
        )
        newest = self._newest_first()
        train = {_name(item): item.id for item in newest if item.side != "held_out"}
        held_out = {"none": None, **{_name(item): item.id for item in newest}}
        self.dataset = ipywidgets.Dropdown(options=train, description="dataset", **style)
        self.held_out = ipywidgets.Dropdown(options=held_out, description="held out", **style)
        self.held_out.value = self._other_side()
        presets = [GIVEN] if config else []
        presets += [*configs.PRESETS, *configs.list(self._ws)]
        self.preset = ipywidgets.Dropdown(options=presets, description="preset", **style)
        self.price = ipywidgets.Text(
            placeholder="US dollars per hour of this machine; empty if not known",
            description="price",
            continuous_update=False,
            **style,
        )
        if not config and self.dataset.value is not None:
            self.preset.value = _preset_for(self._versions[self.dataset.value].n_rows)

    def _follow_choices(self) -> None:
        self.dataset.observe(lambda _: self._take_rows(), "value")
        self.preset.observe(lambda _: self.fields.show(self._preset()), "value")
        for field in (self.model, self.held_out, self.price):
            field.observe(lambda _: self._clear_estimate(), "value")

    def _newest_first(self) -> list[DatasetVersion]:
        return sorted(self._versions.values(), key=lambda version: -version.id)

    def _take_rows(self) -> None:
        """Choose the other side of the split as held out, and a preset that suits the rows."""
        self.held_out.value = self._other_side()
        if self._given is None:
            self.preset.value = _preset_for(self._versions[self.dataset.value].n_rows)
        self._clear_estimate()

    def _other_side(self) -> int | None:
        """Return the held-out side of the split that the chosen rows are the train side of."""
        chosen = self._versions.get(self.dataset.value)
        if chosen is None or chosen.side != "train":
            return None
        sides = (
            item.id
            for item in self._newest_first()
            if item.side == "held_out" and item.parent_id == chosen.parent_id
        )
        return next(sides, None)

    def _preset(self) -> Config:
        name = self.preset.value
        if name == GIVEN and self._given:
            return self._given
        saved = configs.list(self._ws)
        return saved[name] if name in saved else configs.preset(name)

    def config(self) -> Config:
        """Return the settings of the form.

        Raises:
            ConfigError: A value is out of bounds or of the wrong type.
        """
        settings = self.fields.settings()
        return Config(**{**settings.model_dump(), "model": self.model.value})

    def _clear_estimate(self) -> None:
        """Remove an estimate that was made for other settings."""
        self._estimate.value = ""
        work_around_ipykernel_7_4(
            self.estimate, self.start, self.model, self.dataset, self.held_out, self.preset
        )

    def _show_estimate(self) -> str:
        config = self.config()
        show_status(self._status, "estimating …")
        estimate = analytics.estimate(
            self._ws,
            config,
            self.dataset.value,
            held_out=self.held_out.value,
            usd_per_hour=self._price(),
        )
        self._estimate.value = _estimate_table(estimate)
        return "estimated; nothing was started"

    def _price(self) -> float | None:
        text = self.price.value.strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise ConfigError(
                f"price is {text!r}; expected US dollars per hour, such as 1.5. Correct it, or "
                "leave it empty."
            ) from None

    def _start(self) -> None:
        if self.job is not None:
            return  # a second click
        config = self.config()
        models.pull(
            self._ws,
            config.model,
            progress=lambda progress: show_status(self._status, str(progress)),
        )
        show_status(self._status, "checking rows, tokens and machine …")
        self.job = trainers.start(
            self._ws, config, self.dataset.value, held_out=self.held_out.value
        )
        self.children = (TrainerView(self._ws, self.job),)


def _name(version: DatasetVersion) -> str:
    return f"{version.dataset}, {version.side}, {version.n_rows} rows (version {version.id})"


def _preset_for(n_rows: int) -> str:
    """Return the name of the preset for a number of rows."""
    return next(name for name in configs.PRESETS if configs.preset(name) == configs.preset(n_rows))


def _estimate_table(estimate: Estimate) -> str:
    """Return an estimate as a table; an alert where there is too little memory."""
    is_enough = estimate.memory_gib <= estimate.free_memory_gib
    time = None if estimate.seconds is None else f"about {duration(estimate.seconds)}"
    cost = None if estimate.cost_usd is None else f"about {estimate.cost_usd:.2g} US dollars"
    basis = "about" if estimate.n_tokens else "at full row length"
    memory = f"{basis} {estimate.memory_gib:.1f} GiB of {estimate.free_memory_gib:.1f} GiB free"
    figures = {
        "steps": f"{estimate.n_steps:,}",
        "tokens": show(None) if estimate.n_tokens is None else f"{estimate.n_tokens:,}",
        "memory": memory if is_enough else f"{memory}: too much",
        "time": show(time),
        "cost": show(cost),
        "speed": f"{show(estimate.tokens_per_s)} tokens/s: {estimate.basis}",
    }
    rows = "".join(
        f"<tr><th {CELL}>{name}</th><td {CELL}>{html.escape(text)}</td></tr>"
        for name, text in figures.items()
    )
    role = "status" if is_enough else "alert"
    return f'<div role="{role}"><table><caption>what it will take</caption>{rows}</table></div>'
