import errno

import pytest

from ftlab_kit import errors


def tree(kind: type[errors.KitError]) -> list[type[errors.KitError]]:
    return [kind, *(item for child in kind.__subclasses__() for item in tree(child))]


def test_every_error_stands_in_the_drawing_with_its_status():
    drawing = errors.__doc__ or ""
    for kind in tree(errors.KitError):
        assert kind.__name__ in drawing
        if kind.__bases__[0] is errors.KitError:
            assert f"{kind.__name__} {kind.status}" in " ".join(drawing.split())


def test_nearest_names_the_known_word():
    assert errors.nearest("learning_rat", ["learning_rate", "epochs"]) == (
        " Did you mean 'learning_rate'?"
    )


def test_nearest_is_silent_when_nothing_is_near():
    assert errors.nearest("zzz", ["learning_rate"]) == ""


def test_a_full_disk_is_reported():
    with pytest.raises(errors.OutOfRoom, match="disk is full while writing the rows"):
        with errors.room_on_disk("the rows"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_another_system_error_passes_through():
    with pytest.raises(OSError, match="Input/output"), errors.room_on_disk("the rows"):
        raise OSError(errno.EIO, "Input/output error")
