"""Lines to frames and back, without any connection: whatever comes, in whatever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio.transport.frames import Frames
from tests.transport.websockets import frame

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=300))


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@given(LINES, st.lists(st.integers(1, 200), max_size=20), st.booleans())
def test_lines_come_out_as_they_went_in(lines, sizes, is_client):
    sender, receiver = Frames(is_client=is_client), Frames(is_client=not is_client)
    data = bytes(sender.pack([line.encode() for line in lines])) if lines else b""
    received = b"".join(receiver.feed(piece) for piece in in_pieces(data, sizes))
    assert received == "".join(f"{line}\n" for line in lines).encode()
    assert receiver.ending is None
    assert not receiver.has_unfinished


@given(st.lists(st.binary(max_size=300), max_size=10), st.booleans(), st.sampled_from([None, 50]))
def test_whatever_comes_is_a_line_or_the_end(chunks, is_client, read_limit):
    frames = Frames(is_client=is_client, read_limit=read_limit)
    for chunk in chunks:
        had_ended = frames.ending is not None
        lines = frames.feed(chunk)
        assert not (had_ended and lines)
        assert not lines or lines.endswith(b"\n")


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200), st.booleans()), max_size=10))
def test_whatever_frames_come_they_are_lines_or_the_end(parts):
    frames = Frames(is_client=False, read_limit=100)
    for first, payload, masked in parts:
        lines = frames.feed(frame(first & 0x7F, payload, final=first > 127, masked=masked))
        assert all(len(line) <= 100 for line in lines.split(b"\n"))


@pytest.mark.parametrize(
    ("text", "fits"), [("x" * 100, True), ("x" * 101, False), ("é" * 50, True), ("é" * 51, False)]
)
@pytest.mark.parametrize("parts", [1, 2])
def test_the_limit_of_a_message_is_in_bytes(text, fits, parts):
    frames = Frames(is_client=False, read_limit=100)
    data = text.encode()
    half = data[: len(data) // 2] if parts == 2 else b""
    sent = frame(TEXT, half, final=False) + frame(0, data[len(half) :]) if half else frame(TEXT, data)
    assert frames.feed(sent) == (data + b"\n" if fits else b"")
    assert (frames.ending is None) == fits
    if not fits:
        assert str(frames.ending) == (
            "the WebSocket was closed with code 1009 (message too big): a message has more than 100 bytes"
        )


def test_of_many_pings_the_last_one_is_to_be_answered():
    frames = Frames(is_client=False)
    assert frames.feed(frame(PING, b"1") + frame(PING, b"2") + frame(TEXT, b"x")) == b"x\n"
    assert frames.ping == b"2"


def test_nothing_is_read_behind_the_end():
    frames = Frames(is_client=False)
    data = frame(TEXT, b"before") + frame(CLOSE, (1000).to_bytes(2, "big")) + frame(TEXT, b"behind")
    assert frames.feed(data) == b"before\n"
    assert frames.feed(frame(TEXT, b"behind")) == b""
    assert frames.ending is not None
    assert frames.ending.is_normal
