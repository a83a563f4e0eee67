"""The top-level fields of lines that decoders refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.protocol.top_level import TopLevel, is_unicode, top_level

NAMES = st.one_of(st.sampled_from(["uid", "args", "", '"', "\\", "]", "{"]), st.text(max_size=4))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), NAMES)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4))
)


def in_pieces(line: bytes, size: int) -> dict[str, Any] | None:
    found = TopLevel()
    for at in range(0, len(line), size):
        found.feed(line[at : at + size])
    return found.fields()


@given(
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.integers(1, 9),
)
@example({"\\": '\\"', "a": ['\\"', {"]": "]"}]}, False, None, 1)
def test_it_finds_what_the_decoder_finds(fields, ascii_only, indent, size):
    line = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "backslashreplace")
    flat = {name: value for name, value in json.loads(line).items() if not isinstance(value, list | dict)}
    assert top_level(line) == flat
    assert in_pieces(line, size) == flat


@given(st.text('{}[]",:\\1a ', max_size=30), st.integers(1, 9))
def test_what_is_no_object_at_its_top_has_no_fields(text, size):
    try:
        is_object = isinstance(json.loads(text), dict)
    except ValueError:
        is_object = None  # unknown, because of nested values
    found = top_level(text.encode())
    assert in_pieces(text.encode(), size) == found
    if is_object is not None:
        assert (found is not None) is is_object


DEPTH = 300_000


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"uid":', b"}"), (b'[ {"]":', b"} ]"), (b'["[",', b"]")]
)
@pytest.mark.parametrize("size", [7, 1 << 30])
def test_no_depth_is_too_deep(opening, closing, size):
    line = b'{"args":%b1%b,"uid":"u"} ' % (opening * (DEPTH // 10), closing * (DEPTH // 10))
    assert in_pieces(line, size) == {"uid": "u"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"[]",
        b'{"uid":"u"',
        b'{"uid":"u',
        b'{"uid":"u"}}',
        b'{"uid":"u"}{}',
        b'{"uid":"u"]',
        b'{"a":[[1}],"uid":"u"}',
        b'{"a":[[1},"uid":"u"}',
        b'{"a":[] [],"uid":"u"}',
        b'{"a":,"uid":"u"}',
        b"\xef\xbb\xbf{}",
        b"}",
    ],
)
def test_a_line_that_is_no_object_has_no_fields(line):
    assert top_level(line) is None
    assert in_pieces(line, 1) is None


def test_of_a_name_that_comes_twice_the_last_one_counts():
    assert top_level(b'{"uid":"a","uid":"b"}') == {"uid": "b"}
    assert top_level(b'{"uid":"a","uid":["b"]}') == {}


def test_values_that_python_does_not_hold_are_as_if_they_were_nested():
    digits = b"1" * 700
    assert top_level(b'{"a":%b,"b":-%b,"c":%b,"uid":"u"}' % (digits, digits, digits[:600])) == {
        "c": int(digits[:600]),
        "uid": "u",
    }


def test_text_that_is_no_utf_8_cannot_be_sent():
    fields = top_level(b'{"a":"\xff","b":"\\ud800","uid":"\xc3\xa4"}')
    assert fields is not None
    assert {name: is_unicode(value) for name, value in fields.items()} == {
        "a": False,
        "b": False,
        "uid": True,
    }


@pytest.mark.parametrize(("most", "found"), [(20, False), (21, True)])
def test_what_is_kept_is_limited(most, found):
    fields = TopLevel(most)
    for piece in (b'{"args":["', b"x" * 100, b'"],"uid"', b':"u"}'):
        fields.feed(piece)
    assert (fields.fields() == {"uid": "u"}) is found
