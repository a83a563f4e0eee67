"""URLs as hosts, arguments that contradict them, and valid paths and headers."""

from __future__ import annotations

import re

import pytest

from msl_network_trio import connect
from msl_network_trio.dialing.address import host_header
from msl_network_trio.dialing.settings import Settings
from msl_network_trio.exceptions import ConnectError


@pytest.mark.parametrize(
    ("url", "host", "port", "disable_tls", "path"),
    [
        ("wss://lab.example", "lab.example", 443, False, "/"),
        ("wss://lab.example/", "lab.example", 443, False, "/"),
        ("wss://lab.example/msl", "lab.example", 443, False, "/msl"),
        ("ws://lab-3:8875/x?y=1", "lab-3", 8875, True, "/x?y=1"),
        ("ws://lab-3", "lab-3", 80, True, "/"),
        ("WSS://Lab.Example:8875", "lab.example", 8875, False, "/"),
        ("wss://[::1]:8875/msl", "[::1]", 8875, False, "/msl"),
    ],
)
def test_a_url_sets_transport_tls_host_port_and_path(url, host, port, disable_tls, path):
    settings = Settings(host=url)
    assert (settings.host, settings.port, settings.disable_tls, settings.path) == (
        host,
        port,
        disable_tls,
        path,
    )
    assert settings.transport == "websocket"
    assert settings.manager == f"{host}:{port}"


@pytest.mark.parametrize(
    "same",
    [
        {"transport": "websocket"},
        {"port": 8875},
        {"path": "/msl"},
        {"disable_tls": True},
        {"auto_save": True},
        {"headers": {"X": "y"}},
    ],
    ids=str,
)
def test_an_argument_equal_to_the_url_is_no_contradiction(same):
    assert Settings(host="ws://lab:8875/msl", **same).port == 8875


@pytest.mark.parametrize(
    ("url", "argument", "value"),
    [
        ("wss://lab", "disable_tls", True),
        ("ws://lab", "cert_file", "lab.crt"),
        ("wss://lab", "port", 8875),
        ("wss://lab:8875", "port", 443),
        ("wss://lab/msl", "path", "/"),
        ("wss://lab/msl?x", "path", "/msl"),
    ],
)
def test_a_contradiction_is_named(url, argument, value):
    shown = re.escape(url.replace("?x", "?***"))
    with pytest.raises(ValueError, match=f"{shown}.*contradicts {argument}"):
        connect(host=url, **{argument: value})


async def test_a_function_that_connects_contradicts_a_url():
    with pytest.raises(ValueError, match="contradicts transport"):
        connect(host="wss://lab", transport=test_a_function_that_connects_contradicts_a_url)


@pytest.mark.parametrize(
    "url",
    [
        "http://lab",
        "https://lab",
        "tcp://lab",
        "wss://",
        "wss://:80",
        "wss://lab:x",
        "wss://a:b@lab",
        "wss://lab/#x",
        "://",
    ],
)
def test_invalid_urls_raise_value_error(url):
    with pytest.raises(ValueError, match="URL"):
        connect(host=url)


@pytest.mark.parametrize("path", ["", "msl", "/a b", "/\n", "/é", "/#x", "/\r\nX: y"])
def test_invalid_paths_raise_value_error(path):
    with pytest.raises(ValueError, match="path must"):
        connect(transport="websocket", path=path)


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a b": "x"},
        {"X": "a\r\nY: b"},
        {"X": "\0"},
        {"X": "\u2028"},
        {"X": " x"},
        {"Host": "x"},
        {"upgrade": "x"},
        {"Sec-WebSocket-Protocol": "x"},
    ],
    ids=str,
)
def test_invalid_headers_raise_an_error(headers):
    with pytest.raises(ValueError, match="header"):
        connect(transport="websocket", headers=headers)


@pytest.mark.parametrize("headers", [{"X": 1}, {1: "X"}, {"X": None}], ids=str)
def test_headers_are_texts(headers):
    with pytest.raises(TypeError, match="texts"):
        connect(transport="websocket", headers=headers)


@pytest.mark.parametrize("headers", [{}, {"X": ""}, {"X-Token": "a b\tc"}, {"X": "é"}], ids=str)
def test_headers_that_can_be_sent(headers):
    assert Settings(transport="websocket", headers=headers).headers == headers


@pytest.mark.parametrize(("name", "value"), [("path", "/msl"), ("headers", {"X": "y"})])
def test_path_and_headers_need_a_websocket(name, value):
    with pytest.raises(ValueError, match=f"{name} is for transport='websocket'"):
        connect(**{name: value})


def test_transport_is_one_that_there_is():
    with pytest.raises(ValueError, match="'tcp', 'websocket' or"):
        connect(transport="udp")


@pytest.mark.parametrize(
    ("host", "port", "has_tls", "header"),
    [
        ("lab", 8875, False, "lab:8875"),
        ("lab", 80, False, "lab"),
        ("lab", 80, True, "lab:80"),
        ("lab", 443, True, "lab"),
        ("::1", 8875, True, "[::1]:8875"),
        ("[::1]", 443, True, "[::1]"),
        ("müller.example", 8875, True, "xn--mller-kva.example:8875"),
        ("a" * 63, 8875, True, "a" * 63 + ":8875"),
    ],
)
def test_the_host_header(host, port, has_tls, header):
    assert host_header(host, port, has_tls=has_tls) == header


def test_a_host_that_cannot_be_one():
    with pytest.raises(ConnectError, match="cannot be the name of a host"):
        host_header("a" * 64, 80, has_tls=False)
