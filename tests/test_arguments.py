"""Tests of number arguments of all public functions: numbers of NumPy are accepted, errors name the argument."""

from __future__ import annotations

import inspect
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import numpy as np
import pytest

from msl_network_trio import Service, arguments, connect, open_gateway, open_manager
from msl_network_trio.client.identities import describe
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.notifications import NotificationStream
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.examples.heartbeat import Heartbeat
from msl_network_trio.manager.logs import level_number, logging_to
from msl_network_trio.manager.settings import Limits, ManagerSettings
from msl_network_trio.service.logging_level import set_logging_level
from msl_network_trio.service.state import state_of
from tests.sync.manager import FakeManager

NUMBERS = [
    np.int64(4),
    np.int32(4),
    np.uint8(4),
    np.float16(4),
    np.float32(4),
    np.float64(4),
    np.longdouble(4),
    np.array(4),
    np.array(4.0),
    np.array([4])[0],
    4.0,
    Decimal(4),
    Fraction(4),
]

NOT_NUMBERS = [
    "4",
    b"4",
    True,
    np.True_,
    [4],
    4j,
    np.complex128(4),
    np.timedelta64(4, "ms"),
    np.array(4, dtype="m8[s]"),
    np.datetime64(4, "s"),
    np.ma.masked,
    np.ma.array(4, mask=True),
    np.array([4]),
    np.array([1, 2]),
    np.str_("4"),
    object(),
]


# ---- the rules ----


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_a_number_becomes_one_of_python(value):
    for convert in (arguments.number, arguments.seconds, arguments.interval, arguments.size):
        result = convert("x", value)
        assert type(result) in {int, float}
        assert result == 4
    assert type(arguments.whole("x", value, 1)) is type(arguments.port("x", value)) is int


@pytest.mark.parametrize("value", [*NOT_NUMBERS, None], ids=lambda value: repr(value).partition(" at 0x")[0])
def test_what_is_no_number_raises_an_error_that_names_the_argument(value):
    for convert in (arguments.number, arguments.seconds, arguments.interval, arguments.size):
        with pytest.raises(TypeError, match=r"^x must be a number"):
            convert("x", value)
    with pytest.raises(TypeError, match="^x must be a whole number, not"):
        arguments.whole("x", value, 1)


@pytest.mark.parametrize(
    ("convert", "value", "text"),
    [
        (arguments.seconds, -1, "x must be a number of seconds from 0, not -1"),
        (arguments.seconds, np.float32("nan"), "x must be a number of seconds from 0"),
        (arguments.interval, 0, "x must be more than 0 seconds, not 0"),
        (arguments.interval, math.nan, "x must be more than 0 seconds, not nan"),
        (arguments.size, 0, "x must be a number of bytes from 1, not 0"),
        (arguments.size, 1.5, "x must be a number of bytes from 1, not 1.5"),
        (arguments.size, math.nan, "x must be a number of bytes from 1, not nan"),
        (arguments.size, -math.inf, "x must be a number of bytes from 1, not -inf"),
        (arguments.port, 0, "x must be a number from 1 to 65535, not 0"),
        (arguments.port, np.int64(65536), "x must be a number from 1 to 65535, not"),
        (arguments.port, 1.5, "x must be a number from 1 to 65535, not 1.5"),
        (arguments.port, "http", "x must be a number from 1 to 65535, not 'http'"),
    ],
)
def test_a_number_out_of_range_is_a_value_error(convert, value, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        convert("x", value)


def test_infinity_is_a_number_of_seconds_and_of_bytes():
    for convert in (arguments.seconds, arguments.interval, arguments.size):
        assert convert("x", np.float32("inf")) == math.inf


def test_the_limits_of_a_whole_number_are_told():
    with pytest.raises(ValueError, match="^x must be a whole number from 1 to 5, not 6$"):
        arguments.whole("x", 6, 1, 5)
    with pytest.raises(ValueError, match="^x must be a whole number, not 1.5$"):
        arguments.whole("x", 1.5, -math.inf)


@pytest.mark.parametrize("value", ["1875", np.str_("1875"), " 1875 ", np.int64(1875), 1875.0])
def test_a_port_may_be_text(value):
    assert arguments.port("port", value) == 1875


def test_port_0_is_told_where_it_is_any_port():
    assert arguments.port("port", np.int8(0), 0) == 0
    with pytest.raises(
        ValueError, match="^port must be a number from 1 to 65535, or 0 for any free one, not -1$"
    ):
        arguments.port("port", -1, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (np.False_, False),
        (np.array(True), True),
        (0, False),
        (np.int64(1), True),
        (None, False),
    ],
)
def test_a_flag(value, expected):
    assert arguments.flag("x", value) is expected


@pytest.mark.parametrize(
    "value",
    [
        "False",
        "",
        b"",
        [],
        np.array([True]),
        np.ma.masked,
        np.ma.array(True, mask=True),
        np.str_("no"),
        object(),
    ],
)
def test_what_is_no_flag_is_told(value):
    with pytest.raises(TypeError, match="^x must be True or False, not"):
        arguments.flag("x", value)


def test_a_file():
    assert [arguments.file("x", value) for value in (None, "a", Path("b"))] == [None, "a", Path("b")]
    with pytest.raises(TypeError, match="^x must be the path of a file, not 5 "):
        arguments.file("x", 5)


# ---- all public functions ----


def kinds(hints: dict[str, Any], kind: type) -> list[str]:
    return sorted(name for name, hint in hints.items() if kind in (get_args(hint) or (hint,)))


CLIENT = {name: value for name, value in get_type_hints(connect).items() if name != "transport"}
MANAGER = get_type_hints(ManagerSettings)
GATEWAY = {name: value for name, value in get_type_hints(open_gateway).items() if name != "return"}


def settings_of(function: Any, name: str, value: Any) -> Any:
    """Return the validated value of an argument."""
    return getattr(function(**{name: value})._settings, name)


NUMBERS_OF = [
    (function, name)
    for function, hints in ((connect, CLIENT), (open_manager, MANAGER), (open_gateway, GATEWAY))
    for kind in (int, float)
    for name in kinds(hints, kind)
]
FLAGS_OF = [
    (function, name)
    for function, hints in ((connect, CLIENT), (open_manager, MANAGER), (open_gateway, GATEWAY))
    for name in kinds(hints, bool)
    if name in inspect.signature(function).parameters
]


def test_all_of_them_are_found():
    assert {(connect, "timeout"), (connect, "read_limit"), (connect, "port")} <= set(NUMBERS_OF)
    assert {(open_manager, name) for name in Limits.__annotations__} <= set(NUMBERS_OF)
    assert {(open_manager, "drain"), (open_gateway, "stalled_after")} <= set(NUMBERS_OF)
    assert {(connect, "disable_tls"), (open_manager, "auth_login"), (open_gateway, "disable_tls")} <= set(
        FLAGS_OF
    )
    assert len(NUMBERS_OF) >= 25


@pytest.fixture
def closing():
    """Close an object that was created and is not used."""
    made: list[Any] = []
    yield made.append
    for each in made:
        each.close()


@pytest.mark.parametrize(("function", "name"), NUMBERS_OF)
@pytest.mark.parametrize("value", [np.int64(4), np.float32(4), np.array(4)], ids=repr)
def test_a_number_of_numpy_is_taken_by(function, name, value, closing):
    opening = function(**{name: value})
    if function is connect:
        closing(opening)
    taken = getattr(opening._settings, name)
    assert taken == 4
    assert type(taken) in {int, float}


@pytest.mark.parametrize(("function", "name"), NUMBERS_OF)
@pytest.mark.parametrize("value", ["4", True, np.timedelta64(4, "s"), np.ma.masked, [4]], ids=repr)
def test_what_is_no_number_is_refused_by(function, name, value):
    if isinstance(value, str) and "port" in name:
        value = "4.0"  # a port may be a string, but no fraction
    with pytest.raises(ValueError if value == "4.0" else TypeError, match=f"^{name} must be "):
        function(**{name: value})


@pytest.mark.parametrize(("function", "name"), FLAGS_OF)
def test_a_text_is_no_flag_for(function, name):
    with pytest.raises(TypeError, match=f"^{name} must be True(,| or) False.*, not 'False'"):
        function(**{name: "False"})


@pytest.mark.parametrize("function", [connect, open_manager, open_gateway])
def test_a_file_is_no_number_for(function):
    with pytest.raises(TypeError, match="^cert_file must be the path of a file, not 5"):
        function(cert_file=5)


def test_the_settings_have_converted_what_they_were_given():
    settings = Settings(
        timeout=np.float32(0.1), port=np.uint16(1875), read_limit=np.int64(5), disable_tls=np.True_
    )
    found = {
        name: value for name, value in attrs.asdict(settings).items() if type(value).__module__ == "numpy"
    }
    assert found == {}


@pytest.mark.parametrize("name", ["max_clients", "max_workers"])
def test_numbers_of_a_service(name):
    service = Service(**{name: np.int64(3)})
    taken = service.max_clients if name == "max_clients" else state_of(service).max_workers
    assert taken == 3
    assert type(taken) is int
    for value in ("3", True, np.ma.masked):
        with pytest.raises(TypeError, match=f"^{name} must be a whole number"):
            Service(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        Service(**{name: 1.5})


@pytest.mark.parametrize("value", [0, -1, np.int8(-5), -0.0])
def test_no_most_of_clients(value):
    assert Service(max_clients=value).max_clients == -1


async def test_a_heart_rate():
    heart = Heartbeat()
    await heart.set_heart_rate(np.float32(4))
    assert type(heart._interval) is float
    assert heart._interval == 0.25
    for value in ("4", True, None):
        with pytest.raises(TypeError, match="^beats_per_second must be a number"):
            await heart.set_heart_rate(value)


def test_the_size_of_a_buffer():
    mailboxes = Mailboxes()
    for value in (np.int64(5), np.float32("inf")):
        NotificationStream("Echo", set(), mailboxes, value)
    with pytest.raises(TypeError, match="^max_buffer_size must be a number, not '5'"):
        NotificationStream("Echo", set(), mailboxes, "5")


def test_an_indent():
    identity = {"hostname": "h", "port": 1, "clients": {"c": {}}, "services": {}}
    assert describe(identity, np.int64(1)).splitlines()[2] == " c"
    with pytest.raises(TypeError, match="^indent must be a whole number, not '1'"):
        describe(identity, "1")


def test_levels_of_the_log(caplog, tmp_path):
    assert level_number(np.int64(10)) == 10
    with pytest.raises(TypeError, match="^log_level must be a whole number"):
        level_number(True)
    with (
        pytest.raises(TypeError, match="^log_keep must be a whole number"),
        logging_to("INFO", tmp_path / "x", keep="1"),
    ):
        pass
    caplog.set_level("INFO", "msl_network_trio")  # caplog restores it
    assert set_logging_level(np.int64(30))
    assert not set_logging_level(True)


def test_the_timeout_of_a_call(link, client):
    for timeout in (np.int64(5), np.float32(5), np.array(5)):
        assert link.add(1, 2, timeout=timeout) == 3
        assert link.add(1, 2, timeout=timeout, asynchronous=True).result(timeout) == 3
        assert client.identities(timeout=timeout)
        with link.acquire_lock(timeout=timeout):
            pass
    for timeout in ("5", True, np.timedelta64(5, "ms"), np.ma.masked):
        for call in (
            lambda: link.add(1, 2, timeout=timeout),
            lambda: link.add(1, 2, timeout=timeout, asynchronous=True),
            lambda: link.add(1, 2, asynchronous=True).result(timeout),
            lambda: client.identities(timeout=timeout),
            lambda: client.link("Echo", timeout=timeout),
            lambda: link.acquire_lock(timeout=timeout),
            lambda: link.unlink(timeout=timeout),
            lambda: client.admin_request("x", timeout=timeout),
            lambda: client.disconnect(timeout=timeout),
        ):
            with pytest.raises(TypeError, match="^timeout must be a number"):
                call()
    assert link.add(1, 2) == 3


def test_the_flags_of_a_call(link, client):
    for flag in (True, np.True_, 1):
        assert link.add(1, 2, asynchronous=flag).result(5) == 3
        assert isinstance(client.identities(as_string=flag), str)
        with link.acquire_lock(shared=flag):
            pass
        with link.acquire_lock(wait=flag):
            pass
    for name, call in (
        ("asynchronous", lambda: link.add(1, 2, asynchronous="False")),
        ("as_string", lambda: client.identities(as_string="False")),
        ("shared", lambda: link.acquire_lock("False")),
        ("wait", lambda: link.acquire_lock(wait="False")),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be True(,| or) False.*, not 'False'"):
            call()


@pytest.fixture
def manager():
    manager = FakeManager()
    yield manager
    manager.close()


@pytest.fixture
def client(manager):
    from msl_network_trio import sync

    with sync.connect(**manager.arguments()) as client:
        yield client


@pytest.fixture
def link(client):
    return client.link("Echo")
