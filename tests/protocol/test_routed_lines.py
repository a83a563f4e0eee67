"""A Manager forwards a line only if its receiver can decode it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.protocol import codec, routed_lines
from msl_network_trio.protocol.messages import NO_RESULT, UNSET
from msl_network_trio.protocol.routed_lines import decode_routed
from tests.protocol.json_values import values

ROUTED = {"uid": "", "service": "", "attribute": "", "requester": UNSET, "error": False, "result": NO_RESULT}
"""The fields of an empty object."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{}", {}),
        (b' {"uid" : "7" }\r', {"uid": "7"}),
        (
            b'{"service":"Echo","attribute":"add","args":[NaN],"uid":"1"}',
            {"service": "Echo", "attribute": "add", "uid": "1"},
        ),
        (
            b'{"service":"Echo","attribute":"add","args":[NaN],"uid":7}',
            {"service": "Echo", "attribute": "add", "uid": 7},
        ),
        (b'{"uid":null}', {"uid": None}),
        (b'{"uid":1.5}', {"uid": 1.5}),
        (b'{"uid":"\\ud83c\\udf89 \xc3\xa9"}', {"uid": "🎉 é"}),
        (b'{"requester":null}', {"requester": None}),
        (b'{"requester":"A[vm:1]"}', {"requester": "A[vm:1]"}),
        (b'{"requester":[1]}', {"requester": [1]}),
        (b'{"error":true}', {"error": True}),
        (b'{"error":1}', {"error": True}),
        (b'{"error":null}', {"error": False}),
        (b'{"uid":"1","uid":"2"}', {"uid": "2"}),
        (b'{"u\\u0069d":"1"}', {"uid": "1"}),
        (b'{"args":"\\ud800"}', {}),
        (b'{"args":' + b"9" * 5000 + b"}", {}),
        ('{"args":"\u2028日本語🎉"}'.encode(), {}),
    ],
)
def test_the_fields_by_which_a_line_is_forwarded_are_read(line, expected):
    routed = decode_routed(line)
    assert {name: getattr(routed, name) for name in ROUTED} == {**ROUTED, **expected}


LONG = b"1.5," * 40_000


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "Infinity", "NaN,Infinity,-Infinity,-1"])
@pytest.mark.parametrize(
    "fields",
    [
        b'"uid":"1"',
        b'"uid":7,"error":null',
        b'"uid":1.5,"service":"S"',
        b'"service":"E[ 1 ]","attribute":"a","requester":"C[vm:1]","error":true,"result":"NaN"',
        b'"uid":"1","uid":"2","error":1',
        b'"u\\u0069d":"\\ud83c\\udf89 \xc3\xa9","result":null',
        b'"requester":[1],"result":{"a":[Infinity]}',
        b'"kwargs":{"uid":"NaN","a":"-Infinity \\" NaN"},"args":"\\\\"',
    ],
)
def test_the_fields_of_a_large_line_with_nan_are_the_same_and_read_in_less_time(fields, number, monkeypatch):
    short = b'{"x":[' + number.encode() + b"]," + fields + b"}"
    expected = decode_routed(short)
    loads = []
    monkeypatch.setattr(
        codec.json, "loads", lambda text: loads.append(len(text)) or json.JSONDecoder().decode(text)
    )
    routed = decode_routed(short.replace(b'"x":[', b'"x":[' + LONG))
    for name in ("uid", "service", "attribute", "requester", "error"):
        assert getattr(routed, name) == getattr(expected, name)
    assert (routed.result is NO_RESULT) == (expected.result is NO_RESULT)
    assert all(size < 1000 for size in loads)


@pytest.mark.parametrize(
    "end",
    [
        b"NaN]",
        b"1NaN]}",
        b"-NaN]}",
        b"NaNNaN]}",
        b"NaN1]}",
        b"--Infinity]}",
        b"+Infinity]}",
        b"1Infinity]}",
        b"Infinity Infinity]}",
        b"NaN],NaN:1}",
        b"nan]}",
        b'NaN],"a":"\\NaN"}',
        b'NaN],"a":"\\uNaN0"}',
        b'NaN],"a":"\xff"}',
        b'"\\ud800"]}',
        b"NaN]}x",
        b"[" * 10_000 + b"]" * 10_000 + b"]}",
    ],
)
def test_an_invalid_large_line_is_refused_in_little_time(end, monkeypatch):
    monkeypatch.setattr(codec.json, "loads", lambda text: pytest.fail("the standard library takes long"))
    with pytest.raises(codec.UndecodableLine):
        decode_routed(b'{"uid":"1","args":[' + LONG + end)


@pytest.mark.parametrize(
    "field",
    [
        b'"uid":"NaN"',
        b'"uid":"[ ]"',
        b'"service":"Infinity"',
        b'"uid":"' + b"x" * 131_072 + b'"',
        b'"uid":NaN',
    ],
)
def test_ambiguous_fields_of_a_large_line_with_nan_make_it_undecodable(field):
    with pytest.raises(codec.UndecodableLine, match="a line of this length has"):
        decode_routed(b'{"args":[' + LONG + b"NaN]," + field + b"}")


PIECES = st.sampled_from(
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "-",
        "1",
        "1.5",
        "e4",
        '"',
        "\\",
        "\\u",
        "\\ud800",
        "d83d",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        " ",
        "[ ]",
        "null",
        "true",
        '"uid":',
        '"error":',
        '"service":',
        '"result":',
        '"a":',
        '"b"',
        "é",
        "\t",
        "\x00",
    ]
)


@given(
    st.lists(PIECES, max_size=12),
    st.sampled_from(["{%s}", '{"x":[%s]}', '{"x":[%s],"uid":"1"}', '{"uid":%s}']),
)
@example(["NaN", "Infinity"], '{"x":[%s]}')
@example(['"a":', '"', "\\", '"', "NaN", '"'], "{%s}")
def test_a_large_line_has_no_field_that_exact_decoding_does_not_find(pieces, around):
    line = (around % "".join(pieces)).encode()
    try:
        routed = routed_lines._route_large(line)
    except codec.UndecodableLine:
        return
    exact = routed_lines._route_exactly(line)  # raises if it is no line
    for name in ("uid", "service", "attribute", "requester", "error"):
        assert getattr(routed, name) == getattr(exact, name)
    assert (routed.result is NO_RESULT) == (exact.result is NO_RESULT)


@pytest.mark.parametrize("uid", [b'"1"', b"1"], ids=["fast path", "standard library's path"])
@pytest.mark.parametrize("result", [b"null", b"NaN", b'{"a":[1]}', b'""', b"false"])
def test_a_line_with_any_result_has_one(uid, result):
    assert decode_routed(b'{"uid":' + uid + b',"result":' + result + b"}").result is not NO_RESULT
    assert decode_routed(b'{"uid":' + uid + b"}").result is NO_RESULT


@pytest.mark.parametrize(
    ("line", "message", "uid"),
    [
        (b"", "an empty line", None),
        (b" \t\r", "an empty line", None),
        (b"[]", "a JSON object was expected, not list", None),
        (b"null", "not NoneType", None),
        (b'{"uid":"1"', "JSONDecodeError", None),
        (b'{"uid":"1"} {}', "JSONDecodeError", None),
        (b'{"uid":"1","args":[1,]}', "JSONDecodeError", None),
        (b'{"uid":"1","args":[01]}', "JSONDecodeError", None),
        (b'{"uid":"1","args":"\x01"}', "JSONDecodeError", None),
        (b'{"uid":"1","args":"\\x"}', "JSONDecodeError", None),
        (b'{"uid":"1","args":"\xff"}', "UnicodeDecodeError", "1"),
        (b'{"uid":"1","args":"\xed\xa0\x80"}', "UnicodeDecodeError", "1"),
        (b'\xef\xbb\xbf{"uid":"1"}', "JSONDecodeError", None),
        (b'{"uid":1,"args":' + b"9" * 5000 + b"}", "ValueError: Exceeds the limit", None),
        (b'{"uid":[]}', "a uid is text", None),
        (b'{"uid":{}}', "a uid is text", None),
        (b'{"uid":"\\ud800"}', "a uid is text", None),
        (b'{"uid":"1","service":5}', 'the "service" of a line is text, not int', "1"),
        (b'{"uid":"1","service":null}', 'the "service" of a line is text, not NoneType', "1"),
        (b'{"uid":2,"attribute":[]}', 'the "attribute" of a line is text, not list', 2),
        (b"[" * 100_000, "RecursionError", None),
    ],
)
def test_a_line_that_cannot_be_forwarded_is_undecodable_and_its_uid_is_found_if_possible(line, message, uid):
    with pytest.raises(codec.UndecodableLine) as caught:
        decode_routed(line)
    assert message in str(caught.value)
    assert caught.value.uid == uid


json_pieces = st.sampled_from(
    [
        *'{}[],:"10-+.eE\\ \t\x01\x0b\xa0é/\x7f\0',
        "null",
        "true",
        "NaN",
        "Infinity",
        "-Infinity",
        "\\u12",
        "\\ud800",
    ]
)


@given(st.lists(json_pieces, max_size=8).map("".join))
@example("[1,]")
@example("01")
@example("1.")
@example('"\x01"')
@example('"\\x"')
@example("nul")
def test_the_receiver_of_a_forwarded_line_can_decode_it(piece):
    line = f'{{"service":"Echo","attribute":"e","args":{piece},"uid":"1"}}'.encode()
    try:
        routed = decode_routed(line)
    except codec.UndecodableLine:
        return
    fields = json.loads(line)
    assert (routed.service, routed.attribute, routed.uid) == (
        fields["service"],
        fields["attribute"],
        fields["uid"],
    )


@given(values)
def test_manager_and_receiver_read_the_same_fields(value):
    line = json.dumps({"service": "Echo", "attribute": "é", "args": value, "uid": "1", "result": value})
    routed = decode_routed(line.encode())
    assert (routed.service, routed.attribute, routed.uid) == ("Echo", "é", "1")
    assert routed.result is not NO_RESULT


@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoder_raise_another_error(line):
    try:
        decode_routed(line)
    except codec.UndecodableLine:
        pass
