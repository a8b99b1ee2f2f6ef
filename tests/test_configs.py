import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from ftlab_kit import Workspace, configs
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, Conflict, NotFound


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
        (
            {"learning_rat": 1e-4},
            "There is no setting 'learning_rat'. Did you mean 'learning_rate'?",
        ),
        ({"learning_rate": 0}, "expected greater than 0"),
        ({"learning_rate": float("nan")}, "expected a finite number"),
        ({"epochs": True}, "expected a number, not true or false"),
        ({"adapter": "dora"}, "expected 'lora' or 'none'"),
        ({"effective_batch": 8, "micro_batch": 3}, "expected a micro_batch that divides"),
        ({"effective_batch": 2.5}, "effective_batch is 2.5; expected"),
        ({"effective_batch": 8, "processes": 3}, "expected an effective_batch that is a multiple"),
        ({"method": "grpo", "effective_batch": 6}, "multiple of answers_per_prompt"),
        ({"method": "dpo", "packing": True}, "packing is set and method is 'dpo'; expected 'sft'"),
        ({"packing": True, "streaming": True}, "packing needs all rows first"),
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as refused:
        Config(**settings)
    assert message in str(refused.value)


def test_numbers_may_be_given_as_text():
    assert Config(learning_rate="3e-5").learning_rate == 3e-5


def test_a_config_is_frozen():
    with pytest.raises((ValidationError, ConfigError)):
        Config().epochs = 2


def test_but_changes_a_copy_and_checks_it():
    config = Config()
    assert config.but(epochs=1).epochs == 1
    assert config.epochs == 3
    with pytest.raises(ConfigError, match="epochs is -1"):
        config.but(epochs=-1)


def test_every_setting_has_help_and_is_live_or_not():
    for item in configs.settings():
        assert item["help"][0].isupper() or item["help"].startswith(item["choices"][0])
        assert not item["help"].endswith("."), item["name"]
        assert isinstance(item["live"], bool)


@pytest.mark.parametrize(
    ("n_rows", "name"),
    [
        (0, "dozens"),
        (199, "dozens"),
        (200, "hundreds"),
        (999, "hundreds"),
        (1000, "thousands"),
        (100_000, "thousands"),
    ],
)
def test_a_number_of_rows_stands_for_a_preset(n_rows: int, name: str):
    assert configs.preset(n_rows) == configs.preset(name)


@pytest.mark.parametrize(
    ("name", "epochs", "effective_batch", "learning_rate"),
    [("dozens", 5, 4, 5e-4), ("hundreds", 3, 8, 5e-4), ("thousands", 2, 32, 3e-4)],
)
def test_each_preset_has_its_values(
    name: str, epochs: float, effective_batch: int, learning_rate: float
):
    values = {"epochs": epochs, "effective_batch": effective_batch, "learning_rate": learning_rate}
    assert configs.preset(name) == Config(**values)
    assert configs.preset(name, epochs=1) == Config(**values).but(epochs=1)


def test_an_unknown_preset_is_refused_with_the_available_ones():
    with pytest.raises(NotFound, match="dozens, hundreds, thousands"):
        configs.preset("hundred")


def test_save_get_update_delete(ws: Workspace):
    configs.save(ws, "mine", Config(epochs=2))
    assert configs.update(ws, "mine", seed=7) == Config(epochs=2, seed=7)
    assert configs.list(ws) == {"mine": Config(epochs=2, seed=7)}
    configs.delete(ws, "mine")
    assert configs.list(ws) == {}


def test_a_name_can_be_taken_only_once(ws: Workspace):
    configs.save(ws, "mine", Config())
    with pytest.raises(Conflict, match="already"):
        configs.save(ws, "mine", Config())


def test_an_unknown_config_suggests_the_nearest(ws: Workspace):
    configs.save(ws, "mine", Config())
    with pytest.raises(NotFound, match="Did you mean 'mine'"):
        configs.get(ws, "mein")


def test_a_config_shows_units_and_help():
    shown = Config()._repr_html_()
    assert "learning_rate" in shown
    assert "steps" in shown


def test_a_verb_that_takes_settings_shows_plain_types_and_bounds():
    parameters = inspect.signature(configs.preset).parameters
    assert parameters["max_steps"].annotation == int | None
    assert parameters["learning_rate"].annotation is float
    doc = inspect.getdoc(configs.preset) or ""
    assert "learning_rate: Peak learning rate (above 0, at most 1)." in doc
    assert "epochs: Passes over the training rows (epochs; above 0, at most 1,000)." in doc
    assert "BeforeValidator" not in str(inspect.signature(configs.preset))


def test_every_group_of_settings_begins_with_a_setting():
    assert {*configs.GROUPS.values()} <= {*Config.model_fields}
    assert [*configs.GROUPS.values()][0] == [*Config.model_fields][0]
