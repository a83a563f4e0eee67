"""Tests of the settings of a Manager, and of invalid ones."""

from __future__ import annotations

import inspect

import attrs
import pytest

from msl_network_trio.constants import PORT
from msl_network_trio.manager.opening import open_manager
from msl_network_trio.manager.settings import Limits, ManagerSettings


def test_the_defaults_are_those_of_open_manager():
    settings = ManagerSettings()
    assert open_manager()._settings == settings
    assert (settings.port, settings.host, settings.disable_tls) == (PORT, None, False)


def test_every_limit_has_a_default_and_says_in_its_description_which():
    fields = {field.name: field.default for field in attrs.fields(ManagerSettings)}
    source = inspect.getsource(Limits)
    for name in Limits.__annotations__:
        description = source.partition(f"    {name}: ")[2].partition("\n\n")[0]
        default = fields[name]
        shown = "256 MiB" if default == 256 * 1024**2 else f"{default:,}".removesuffix(".0")
        assert f"({shown})" in description


@pytest.mark.parametrize("name", sorted(Limits.__annotations__))
def test_every_limit_is_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        open_manager(**{name: -1})


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


def test_a_password_that_is_no_text_is_an_error_that_does_not_show_it():
    with pytest.raises(TypeError, match="auth_password must be text or None, not int") as raised:
        ManagerSettings(auth_password=271828)
    assert "271828" not in str(raised.value)
