"""Blocks of lines are decoded as their lines would be, or not at all."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.blocks import decode_lines, split_notifications
from tests.protocol.json_values import same, values


@given(st.lists(values, max_size=5), st.sampled_from(["", "\r"]))
@example([1, math.nan, "\ud800"], "")
def test_a_block_is_decoded_as_its_lines_are(many, end):
    lines = [json.dumps({"result": value, "uid": "1"}).encode() for value in many]
    together = decode_lines(b"".join(line + end.encode() + b"\n" for line in lines))
    if together is not None:  # else they are decoded one by one
        assert len(together) == len(lines)
        for line, message in zip(lines, together, strict=True):
            assert same(message.result, codec.decode(line).result)
            assert message.uid == "1"


@pytest.mark.parametrize(
    "block",
    [
        b"\n",
        b"{}\n\n",
        b'{"uid":\n"1"}\n',
        b"{}\nnot JSON\n",
        b'{"result":NaN}\n',
        b"\xff\n",
        b"[]\n",
        b"[" * 99_999,
    ],
)
def test_a_block_with_an_unusual_line_is_not_decoded(block):
    assert decode_lines(block) is None


NOTIFIED = (
    b'{"error": false, "result": [[1, "a"], {"b": null}], "service": "Echo", "uid": "notification"}\r\n'
)
COMPACT = b'{"error":false,"result":[[2],{}],"service":"Other","uid":"notification"}\n'
REPLIED = b'{"error":false,"requester":"C","result":{"uid":5},"uid":"1"}\n'
TRICKY = REPLIED.replace(b"5", b'"notification"')


@pytest.mark.parametrize("rest", [b"", REPLIED, REPLIED * 3])
def test_notifications_at_the_start_of_a_block_are_split_off(rest):
    found, left = split_notifications(NOTIFIED + COMPACT + NOTIFIED + rest)
    assert left == rest
    assert [line.service for line in found] == ["Echo", "Other", "Echo"]
    assert [(line.result.args, line.result.kwargs) for line in found] == [
        ([1, "a"], {"b": None}),
        ([2], {}),
        ([1, "a"], {"b": None}),
    ]


@pytest.mark.parametrize(
    "block",
    [
        REPLIED,
        REPLIED + NOTIFIED,
        NOTIFIED + TRICKY,
        NOTIFIED + REPLIED + NOTIFIED,
        NOTIFIED + REPLIED * 20,  # too far from the end
        NOTIFIED.replace(b'"a"', b"NaN"),
        NOTIFIED.replace(b'"Echo"', b"null"),
        NOTIFIED.replace(b"}]", b"}, 3]"),
        NOTIFIED.replace(b'{"b": null}', b"[]"),
        NOTIFIED.replace(b"}\r\n", b', "more": 1}\n'),  # an unusual end
        NOTIFIED.replace(b'"a"', b'"\xff"'),
        NOTIFIED + b"\n" + NOTIFIED,
        NOTIFIED.replace(b", ", b",\n"),
        b'{"uid":"1","requester":"notification"}\n',
    ],
)
def test_notifications_among_other_lines_are_not_split_off(block):
    assert split_notifications(block) == ([], block)


@given(st.lists(st.sampled_from([NOTIFIED, COMPACT, REPLIED, TRICKY, b"{}\n", b"not JSON\n"])))
def test_no_line_is_lost_when_notifications_are_split_off(lines):
    found, rest = split_notifications(b"".join(lines))
    assert rest == b"".join(lines[len(found) :])
    for line, message in zip(lines, found, strict=False):
        assert [message.result.args, message.result.kwargs] == codec.decode(line).result
