"""The command line of a Service."""

from __future__ import annotations

import inspect
import logging
import runpy
import sys

import pytest

from msl_network_trio import ConnectError, Service
from msl_network_trio.service import command
from msl_network_trio.service.filters import filter_service_start_kwargs

EXAMPLES = ["echo", "basic_math", "my_array", "heartbeat"]


class Thing(Service):
    """Does things."""


@pytest.fixture
def started(monkeypatch):
    """The arguments with which the Services were started."""
    calls = []
    monkeypatch.setattr(Service, "start", lambda self, **kwargs: calls.append((self, kwargs)))
    monkeypatch.setattr(logging, "basicConfig", lambda **kwargs: None)
    return calls


def test_without_arguments_the_defaults_are_those_of_start(started):
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(_original_start).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in {"read_limit", "heartbeat"}
    }
    command.main(Thing, "things", [])
    ((service, kwargs),) = started
    assert type(service) is Thing
    assert kwargs == defaults


_original_start = Service.start


def test_every_argument_reaches_the_service(started):
    command.main(
        Thing,
        "things",
        [
            "--host=lab-3",
            "--port=1234",
            "--name=T",
            "--timeout=2.5",
            "--disable-tls",
            "--cert-file=c.crt",
            "--auto-save",
            "--disable-hostname-check",
            "--username=u",
            "--password=p",
            "--password-manager=m",
            "--log-level=debug",
            "--no-reconnect",
        ],
        max_clients=3,
    )
    ((service, kwargs),) = started
    assert service.max_clients == 3
    assert kwargs == {
        "host": "lab-3",
        "port": 1234,
        "name": "T",
        "timeout": 2.5,
        "disable_tls": True,
        "cert_file": "c.crt",
        "auto_save": True,
        "assert_hostname": False,
        "username": "u",
        "password": "p",
        "password_manager": "m",
        "reconnect": False,
    }


@pytest.mark.parametrize("error", [ConnectError("nobody there"), ValueError("not both")])
def test_a_service_that_cannot_start_says_why_in_a_line(monkeypatch, error):
    def start(self, **kwargs):
        raise error

    monkeypatch.setattr(Service, "start", start)
    monkeypatch.setattr(logging, "basicConfig", lambda **kwargs: None)
    with pytest.raises(SystemExit) as caught:
        command.main(Thing, "things", [])
    assert caught.value.code == f"{type(error).__name__}: {error}"


def test_help_says_what_the_service_does(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(Thing, "my_lab.things", ["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: python -m my_lab.things")
    assert "Does things." in text
    assert "default: Thing" in text
    assert "default: 1875" in text


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_example_runs_as_a_module(started, monkeypatch, name):
    module = f"msl_network_trio.examples.{name}"
    monkeypatch.setattr(sys, "argv", [name, "--port", "1234", "--disable-tls"])
    runpy.run_module(module, run_name="__main__")
    ((service, kwargs),) = started
    assert type(service).__name__.lower() == name.replace("_", "")
    assert kwargs["port"] == 1234


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_pace_of_basic_math_can_be_chosen(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["basic_math", "--pace", "0.25"])
    runpy.run_module("msl_network_trio.examples.basic_math", run_name="__main__")
    assert started[0][0]._pace == 0.25


def test_only_what_start_takes_is_left():
    kwargs = filter_service_start_kwargs(port=1, name="x", self=3, key_file="k", log_level="INFO")
    assert kwargs == {"port": 1, "name": "x"}


def test_the_password_of_the_manager_has_two_names():
    assert filter_service_start_kwargs(auth_password="a") == {"password_manager": "a"}
    assert filter_service_start_kwargs(auth_password="a", password_manager="b") == {"password_manager": "b"}
