"""What a Manager can be told, and what makes no sense."""

from __future__ import annotations

import pytest

from msl_network_trio.constants import PORT
from msl_network_trio.manager.server import open_manager
from msl_network_trio.manager.settings import MAX_BACKLOG, STALLED_AFTER, ManagerSettings


def test_the_defaults_are_those_of_open_manager():
    settings = ManagerSettings()
    assert open_manager()._settings == settings
    assert (settings.port, settings.host, settings.disable_tls, settings.read_limit) == (
        PORT,
        None,
        False,
        None,
    )
    assert (settings.max_backlog, settings.stalled_after) == (MAX_BACKLOG, STALLED_AFTER)


@pytest.mark.parametrize("port", [0, 1, 65535, "1875"])
def test_a_port_is_a_number(port):
    assert ManagerSettings(port=port).port == int(port)


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("port", -1, "port must be a number from 1 to 65535, or 0 for any free one, not -1"),
        ("port", 65536, "port must be"),
        ("port", "http", "invalid literal"),
        ("auth_password", "", "auth_password must not be empty"),
        ("read_limit", 0, "read_limit must be more than 0, not 0"),
        ("max_backlog", -1, "max_backlog must be more than 0"),
        ("stalled_after", 0, "stalled_after must be more than 0"),
        ("stalled_after", float("nan"), "stalled_after must be more than 0, not nan"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(argument, value, text):
    with pytest.raises(ValueError, match=text):
        open_manager(**{argument: value})


def test_passwords_are_not_shown():
    text = repr(ManagerSettings(auth_password="pw-1", key_file_password="pw-2"))
    assert "pw-" not in text
