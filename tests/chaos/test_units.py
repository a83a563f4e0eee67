"""Tests of the units into which the proxy splits a connection."""

from __future__ import annotations

import json

import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.chaos.units import Frames, Lines, Splitter

LINE = json.dumps({"service": "Alpha", "attribute": "work", "args": ["t12#"], "uid": "1"}).encode()
EVENT = json.dumps({"result": [["n:Alpha:1:7#"], {}], "service": "Alpha", "uid": "notification"}).encode()


def frames(*, is_client: bool) -> bytes:
    """Return the head of HTTP and some frames."""
    sender = FrameProtocol(client=is_client, extensions=[])
    return (
        b"GET /msl HTTP/1.1\r\nHost: x\r\n\r\n"
        + sender.send_data(LINE.decode(), True)
        + sender._serialize_frame(Opcode.PING, b"!")
        + sender.send_data(EVENT.decode(), True)
        + sender.send_data("x" * 70_000, True)
    )


def split(splitter: Splitter, data: bytes, size: int):
    units = []
    for position in range(0, len(data), size):
        units += splitter.feed(data[position : position + size])
    return units


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_lines_are_split_and_nothing_is_lost(size):
    data = LINE + b"\r\n" + EVENT + b"\r\n" + b"half"
    splitter = Lines()
    units = split(splitter, data, size)
    assert [each.tokens for each in units] == [[12], []]
    assert [each.numbers for each in units] == [[], [("Alpha", 1, 7)]]
    assert [each.is_request for each in units] == [True, False]
    assert b"".join(each.data for each in units) + splitter.rest() == data


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("is_client", [True, False])
def test_frames_are_split_and_nothing_is_lost(is_client, size):
    data = frames(is_client=is_client)
    splitter = Frames(is_masked=is_client)
    units = split(splitter, data + b"\x81", size)
    assert [bool(each.text) for each in units] == [False, True, False, True, True]
    assert units[1].text == LINE
    assert units[3].numbers == [("Alpha", 1, 7)]
    assert b"".join(each.data for each in units) + splitter.rest() == data + b"\x81"


@pytest.mark.parametrize("splitter", [Lines(), Frames(is_masked=True), Frames(is_masked=False)])
def test_noise_is_a_unit_that_is_no_text(splitter):
    if isinstance(splitter, Frames):
        splitter.feed(b"GET / HTTP/1.1\r\n\r\n")
    [unit] = splitter.feed(splitter.noise())
    with pytest.raises(UnicodeDecodeError):
        unit.text.decode()
