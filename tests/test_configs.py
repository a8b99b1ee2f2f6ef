import pytest
from pydantic import ValidationError

from ftlab_kit import Workspace, configs
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, Conflict, NotFound


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a number"),
        ({"learning_rat": 1e-4}, "'learning_rat' is no setting. Did you mean 'learning_rate'?"),
        ({"learning_rate": 0}, "expected greater than 0"),
        ({"learning_rate": float("nan")}, "expected a finite number"),
        ({"epochs": True}, "expected a number, not true or false"),
        ({"adapter": "dora"}, "expected 'lora' or 'none'"),
        ({"effective_batch": 8, "micro_batch": 3}, "expected a micro_batch that divides"),
        ({"effective_batch": 2.5}, "effective_batch is 2.5; expected"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(given: dict, words: str):
    with pytest.raises(ConfigError) as refused:
        Config(**given)
    assert words in str(refused.value)


def test_numbers_may_come_as_text():
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


def test_every_setting_has_help_and_says_whether_it_is_live():
    for item in configs.settings():
        assert item["help"], item["name"]
        assert isinstance(item["live"], bool)


@pytest.mark.parametrize(("rows", "name"), [(60, "dozens"), (300, "hundreds"), (4000, "thousands")])
def test_a_preset_fits_a_number_of_rows(rows: int, name: str):
    assert configs.preset(rows) == configs.preset(name)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(NotFound, match="dozens, hundreds, thousands"):
        configs.preset("hundred")


def test_save_get_update_delete(ws: Workspace):
    configs.save(ws, "mine", Config(epochs=2))
    assert configs.update(ws, "mine", seed=7) == Config(epochs=2, seed=7)
    assert configs.list(ws) == {"mine": Config(epochs=2, seed=7)}
    configs.delete(ws, "mine")
    assert configs.list(ws) == {}


def test_a_name_is_taken_once(ws: Workspace):
    configs.save(ws, "mine", Config())
    with pytest.raises(Conflict, match="already"):
        configs.save(ws, "mine", Config())


def test_a_config_that_is_not_there_is_named_with_the_nearest(ws: Workspace):
    configs.save(ws, "mine", Config())
    with pytest.raises(NotFound, match="Did you mean 'mine'"):
        configs.get(ws, "mein")


def test_a_config_shows_itself_with_units_and_help():
    shown = Config()._repr_html_()
    assert "learning_rate" in shown
    assert "steps" in shown
