"""Conversion between lines and frames, without a connection: any data in any pieces."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio.transport import websocket_frames as frames_module
from msl_network_trio.transport.websocket_frames import IDLE_AT_ONCE, SHORT, SHORT_FRAMES, TURN, Frames
from tests.transport.websockets import frame

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
TOO_MANY = "code 1008 (policy violation): more than 100 pings, pongs or blank frames a second"

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=300))


def feed_all(frames: Frames, data: bytes) -> bytes:
    """Feed data in as many turns as needed."""
    lines = frames.feed(data)
    while frames.has_more:
        lines += frames.feed(b"")
    return lines


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@given(LINES, st.lists(st.integers(1, 200), max_size=20), st.booleans())
def test_lines_are_unchanged_by_frames(lines, sizes, is_client):
    sender, receiver = Frames(is_client=is_client), Frames(is_client=not is_client)
    data = bytes(sender.pack([line.encode() for line in lines])) if lines else b""
    received = b"".join(map(partial(feed_all, receiver), in_pieces(data, sizes)))
    assert received == "".join(f"{line}\n" for line in lines).encode()
    assert receiver.ending is None
    assert not receiver.has_unfinished


@given(st.lists(st.binary(max_size=300), max_size=10), st.booleans(), st.sampled_from([None, 50]))
def test_any_data_becomes_lines_or_the_end(chunks, is_client, read_limit):
    frames = Frames(is_client=is_client, read_limit=read_limit)
    for chunk in chunks:
        had_ended = frames.ending is not None
        lines = frames.feed(chunk)
        assert not (had_ended and lines)
        assert not lines or lines.endswith(b"\n")


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200), st.booleans()), max_size=10))
def test_any_frames_become_lines_or_the_end(parts):
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


def test_data_after_the_end_is_ignored():
    frames = Frames(is_client=False)
    data = frame(TEXT, b"before") + frame(CLOSE, (1000).to_bytes(2, "big")) + frame(TEXT, b"behind")
    assert frames.feed(data) == b"before\n"
    assert frames.feed(frame(TEXT, b"behind")) == b""
    assert frames.ending is not None
    assert frames.ending.is_normal


@pytest.mark.parametrize(
    ("repeated", "most"),
    [
        (frame(PING), TURN // SHORT_FRAMES),
        (frame(PONG), TURN // SHORT_FRAMES),
        (frame(0, final=False), TURN // SHORT_FRAMES),
        (frame(0, b"x", final=False), TURN // SHORT_FRAMES),
        (frame(TEXT), TURN // SHORT_FRAMES),
        (frame(TEXT, b"x" * (SHORT - 1)), TURN // SHORT_FRAMES),
        (frame(TEXT, b"x" * SHORT), TURN),
        (frame(PING, b"x" * SHORT), TURN),
    ],
    ids=[
        "pings",
        "pongs",
        "empty parts",
        "parts",
        "empty messages",
        "short messages",
        "messages",
        "long pings",
    ],
)
def test_a_turn_has_a_bounded_number_of_frames(repeated, most, monkeypatch):
    monkeypatch.setattr(frames_module, "IDLE_AT_ONCE", 1e9)
    frames = Frames(is_client=False)
    lines = feed_all(frames, frame(TEXT, b"begin", final=False) if repeated[0] == 0 else b"")
    lines += frames.feed(repeated * (2 * most + 1))
    turns = 1
    while frames.has_more:
        more = frames.feed(b"")
        assert more.count(b"\n") <= most
        lines += more
        turns += 1
    assert turns == 3
    assert lines.count(b"\n") == (2 * most + 1 if repeated[0] & 0xF == TEXT else 0)


@pytest.mark.parametrize(
    ("first", "repeated", "count"),
    [
        (b"", frame(PONG), 1),
        (b"", frame(PING), 1),
        (frame(TEXT, final=False), frame(0, final=False), 1),
        (frame(TEXT, b"begin", final=False), frame(0, final=False), 1),
        (b"", frame(TEXT), 1),
        (b"", frame(TEXT, b" "), 1),
        (b"", frame(TEXT, b"\n\t\r " * 100), 1),
        (frame(TEXT, final=False), frame(0, b" ", final=False), 1),
        (b"", frame(TEXT, final=False) + frame(0), 2),
        (b"", frame(PING, b"x" * 100) + frame(PONG) + frame(TEXT), 3),
    ],
    ids=[
        "pongs",
        "pings",
        "empty parts",
        "empty parts of a message",
        "empty messages",
        "blank messages",
        "long blank messages",
        "blank parts",
        "in parts",
        "mixed",
    ],
)
def test_too_many_frames_without_content_reject_the_peer(first, repeated, count):
    now = 0.0
    frames = Frames(is_client=False, clock=lambda: now)
    feed_all(frames, first)
    feed_all(frames, repeated * (IDLE_AT_ONCE // count - 1))
    assert frames.ending is None
    feed_all(frames, repeated * 3)
    assert TOO_MANY in str(frames.ending)
    assert not frames.has_more


@pytest.mark.parametrize("repeated", [frame(PONG), frame(PING), frame(TEXT)], ids=["pongs", "pings", "empty"])
def test_the_usual_number_of_pings_and_pongs_goes_on_for_ever(repeated):
    now = 0.0
    frames = Frames(is_client=False, clock=lambda: now)
    for _ in range(5000):
        now += 0.01
        feed_all(frames, repeated)
    assert frames.ending is None


def test_parts_of_messages_are_not_counted_however_small_they_are():
    frames = Frames(is_client=False, clock=lambda: 0.0)
    count = 2 * IDLE_AT_ONCE
    data = (
        frame(TEXT, b"x", final=False) + frame(0, b"y", final=False) + frame(0)
    )  # the last fragment may be empty
    assert feed_all(frames, data * count) == b"xy\n" * count
    assert frames.ending is None
