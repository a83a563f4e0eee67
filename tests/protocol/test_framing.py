"""Bytes to lines, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msl_network_trio.protocol.framing import LineBuffer


def feed_in_pieces(data: bytes, sizes: list[int], limit: int | None = None) -> tuple[list[bytes], LineBuffer]:
    buffer = LineBuffer(limit)
    lines: list[bytes] = []
    position = 0
    for size in [*sizes, len(data)]:
        lines += buffer.feed(data[position : position + size])
        position += size
    return lines, buffer


@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=10),
    st.binary(max_size=10).filter(lambda rest: b"\n" not in rest),
    st.lists(st.integers(1, 7), max_size=60),
)
def test_lines_come_out_as_they_went_in_however_they_are_split(lines, rest, sizes):
    data = b"".join(line + b"\n" for line in lines) + rest
    received, buffer = feed_in_pieces(data, sizes)
    assert received == lines
    assert len(buffer) == len(rest)
    assert buffer.start == rest


def test_nothing_is_given_back_before_the_end_of_the_line():
    buffer = LineBuffer()
    assert buffer.feed(b"abc") == []
    assert buffer.feed(b"") == []
    assert buffer.feed(b"def\r") == []
    assert buffer.feed(b"\n") == [b"abcdef\r"]
    assert len(buffer) == 0


def test_only_new_bytes_are_searched_for_the_end_of_the_line():
    class Counted(bytes):
        searched = 0

        def rfind(self, *args: object) -> int:
            Counted.searched += len(self)
            return bytes.rfind(self, *args)

    buffer = LineBuffer()
    for _ in range(1000):
        buffer.feed(Counted(b"x" * 100))
    assert buffer.feed(Counted(b"\n")) == [b"x" * 100_000]
    assert Counted.searched == 100_001


def test_the_start_of_an_unfinished_line_is_short_however_long_the_line_is():
    buffer = LineBuffer()
    for _ in range(1000):
        buffer.feed(b"0123456789")
    assert buffer.start == b"0123456789" * 20


@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_a_line_of_just_the_limit_passes(end):
    buffer = LineBuffer(5)
    lines = buffer.feed(b"12345" + end)
    assert buffer.overflow is None
    assert lines == [b"12345", b"more"][: end.count(b"\n")]


@pytest.mark.parametrize("sizes", [[], [1] * 20, [3, 3, 3], [9]])
def test_a_line_over_the_limit_ends_it_and_what_came_before_is_still_given_back(sizes):
    lines, buffer = feed_in_pieces(b"abc\n123456789\nlater\n", sizes, limit=5)
    assert lines == [b"abc"]
    assert buffer.overflow is not None
    assert b"123456789".startswith(buffer.overflow)
    assert len(buffer.overflow) > 5


def test_behind_a_line_over_the_limit_nothing_is_kept():
    buffer = LineBuffer(10)
    for _ in range(100):
        assert buffer.feed(b"x" * 9) == []
    assert buffer.overflow == b"x" * 18
    assert len(buffer) == 0
    assert buffer.feed(b"a\nb\nc") == []
    assert len(buffer) == 0


def test_an_overlong_line_is_quoted_by_its_start_only():
    buffer = LineBuffer(10)
    assert buffer.feed(b"y" * 1_000_000 + b"\n") == []
    assert buffer.overflow == b"y" * 200


def test_a_limit_that_is_lifted_counts_from_then_on():
    buffer = LineBuffer(5)
    buffer.feed(b"12345")
    buffer.limit = None
    assert buffer.feed(b"6789\n") == [b"123456789"]
