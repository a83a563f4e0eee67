"""Framing gives the same lines, in whatever pieces the bytes arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio.protocol.blocks import BlockBuffer
from msl_network_trio.protocol.framing import LineBuffer


def feed_block(buffer: BlockBuffer, data: bytes) -> list[bytes]:
    """Return the lines of a block, which must be those of `LineBuffer.feed`."""
    *lines, rest = buffer.feed_block(data).split(b"\n")
    assert rest == b""
    return lines


FEEDS = pytest.mark.parametrize("feed", [LineBuffer.feed, feed_block])


def feed_in_pieces(
    feed: Callable[[LineBuffer, bytes], list[bytes]],
    data: bytes,
    sizes: list[int],
    limit: int | None = None,
) -> tuple[list[bytes], LineBuffer]:
    buffer = BlockBuffer(limit)
    lines: list[bytes] = []
    position = 0
    for size in [*sizes, len(data)]:
        lines += feed(buffer, data[position : position + size])
        position += size
    return lines, buffer


@FEEDS
@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=10),
    st.binary(max_size=10).filter(lambda rest: b"\n" not in rest),
    st.lists(st.integers(1, 7), max_size=60),
)
def test_lines_come_out_as_they_went_in_however_they_are_split(feed, lines, rest, sizes):
    data = b"".join(line + b"\n" for line in lines) + rest
    received, buffer = feed_in_pieces(feed, data, sizes)
    assert received == lines
    assert len(buffer) == len(rest)
    assert buffer.start == rest


@FEEDS
def test_nothing_is_given_back_before_the_end_of_the_line(feed):
    buffer = BlockBuffer()
    assert feed(buffer, b"abc") == []
    assert feed(buffer, b"") == []
    assert feed(buffer, b"def\r") == []
    assert feed(buffer, b"\n") == [b"abcdef\r"]
    assert len(buffer) == 0


@FEEDS
def test_only_new_bytes_are_searched_for_the_end_of_the_line(feed):
    class Counted(bytes):
        searched = 0

        def rfind(self, *args: object) -> int:
            Counted.searched += len(self)
            return bytes.rfind(self, *args)

    buffer = BlockBuffer()
    for _ in range(1000):
        feed(buffer, Counted(b"x" * 100))
    assert feed(buffer, Counted(b"\n")) == [b"x" * 100_000]
    assert Counted.searched == 100_001


@FEEDS
def test_the_start_of_an_unfinished_line_is_short_however_long_the_line_is(feed):
    buffer = BlockBuffer()
    for _ in range(1000):
        feed(buffer, b"0123456789")
    assert buffer.start == b"0123456789" * 20


@FEEDS
@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_a_line_of_just_the_limit_passes(feed, end):
    buffer = BlockBuffer(5)
    lines = feed(buffer, b"12345" + end)
    assert buffer.overflow is None
    assert lines == [b"12345", b"more"][: end.count(b"\n")]


@FEEDS
@pytest.mark.parametrize("sizes", [[], [1] * 20, [3, 3, 3], [9]])
def test_a_line_over_the_limit_ends_it_and_what_came_before_is_still_given_back(feed, sizes):
    lines, buffer = feed_in_pieces(feed, b"abc\n123456789\nlater\n", sizes, limit=5)
    assert lines == [b"abc"]
    assert buffer.overflow is not None
    assert b"123456789".startswith(buffer.overflow)
    assert len(buffer.overflow) > 5


@FEEDS
def test_behind_a_line_over_the_limit_nothing_is_kept(feed):
    buffer = BlockBuffer(10)
    for _ in range(100):
        assert feed(buffer, b"x" * 9) == []
    assert buffer.overflow == b"x" * 18
    assert len(buffer) == 0
    assert feed(buffer, b"a\nb\nc") == []
    assert len(buffer) == 0


@FEEDS
def test_an_overlong_line_is_quoted_by_its_start_only(feed):
    buffer = BlockBuffer(10)
    assert feed(buffer, b"y" * 1_000_000 + b"\n") == []
    assert buffer.overflow == b"y" * 200


@FEEDS
def test_a_limit_that_is_lifted_counts_from_then_on(feed):
    buffer = BlockBuffer(5)
    feed(buffer, b"12345")
    buffer.limit = None
    assert feed(buffer, b"6789\n") == [b"123456789"]


def test_what_comes_in_small_pieces_is_kept_in_few():
    """Each piece has a fixed cost: a line in single bytes must not take forty times its length."""
    buffer = BlockBuffer()
    for number in range(300_000):
        assert buffer.feed(b"%d" % (number % 10)) == []
        if number % 50_000 == 0:
            assert buffer.feed(b"x" * 2000) == []
    assert len(buffer._chunks) < 30
    assert len(buffer) == buffer.size == 312_000
    expected = b"".join(b"%d" % (n % 10) + (b"x" * 2000 if n % 50_000 == 0 else b"") for n in range(300_000))
    assert buffer.feed(b"\n") == [expected]
    assert buffer.size == 0


def test_what_is_not_complete_can_be_forgotten():
    buffer = BlockBuffer()
    buffer.feed(b"begin")
    buffer.clear()
    assert buffer.size == 0
    assert buffer.feed(b"line\n") == [b"line"]
