"""Encoding and decoding give what the standard library gives."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import sys
import uuid
from collections import OrderedDict, defaultdict, namedtuple

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.protocol import codec
from msl_network_trio.protocol.messages import UNSET
from tests.protocol.json_values import keys, same, standard, values

# ---- encoding ----


@given(values)
@example([math.nan, None, "null"])
@example({1: 1, "1": 2, None: 3, True: 4, 1.5: 5})
@example([2**63, 2**64, -(2**63) - 1, 10**400])
@example('\u2028\u2029\x00\x7f\ud7ff\U0001f600"\\')
@example([1e16, 1e-7, 5e-324, 1.7976931348623157e308, -0.0])
def test_encoding_means_what_the_standard_library_means(value):
    assert same(json.loads(codec.encode(value)), json.loads(standard(value)))


@given(values)
def test_an_encoded_value_is_one_line(value):
    line = codec.encode(value)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert b"\r" not in line


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": (math.nan, None)}]])
def test_nan_and_infinities_are_sent_as_bare_tokens(value):
    assert codec.encode(value).decode() == standard(value) + "\n"


@given(values)
@example(None)
@example([None])
@example([math.nan, None, "null"])
@example([2**63, 2**64, -(2**63) - 1, 10**400])
def test_a_part_of_a_line_is_encoded_as_the_line_would_be(value):
    assert codec.encode_value(value) + b"\n" == codec.encode(value)


@pytest.mark.parametrize(
    ("value", "error"), [({1}, TypeError), ([1, {2}], TypeError), ("\ud800", ValueError)]
)
def test_a_part_that_cannot_be_sent_is_an_error_without_a_past(value, error):
    with pytest.raises(error) as caught:
        codec.encode_value(value)
    assert caught.value.__context__ is None


def test_integers_of_any_size_keep_every_digit():
    assert codec.encode(10**300) == b"1" + b"0" * 300 + b"\n"


def test_text_is_sent_as_it_is():
    assert codec.encode("é\u2028") == '"é\u2028"\n'.encode()


class Color(enum.Enum):
    RED = "red"

    def to_json(self):
        return "not used: an Enum is its value"


class Level(enum.IntEnum):
    LOW = 1


class Unit(str, enum.Enum):
    VOLT = "V"


@pytest.mark.parametrize("companion", ["fast", None], ids=["fast path", "standard library's path"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Color.RED, "red"),
        (Level.LOW, 1),
        (Unit.VOLT, "V"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (namedtuple("Point", "x y")(1, 2), [1, 2]),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(0.1), float(np.float16(0.1))),
        (np.int8(-1), -1),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(10)[::3], [0, 3, 6, 9]),
        (np.array(5), 5),
        (np.array([]), []),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, "x", None], dtype=object), [1, "x", None]),
        ([np.float64(1.5)] * 3, [1.5] * 3),
    ],
    ids=repr,
)
def test_both_paths_send_the_same(value, expected, companion):
    # None is written as "null", which sends the whole value to the standard library.
    decoded = json.loads(codec.encode([companion, value]))
    assert same(decoded, [companion, expected])


def test_nan_in_an_array_survives():
    assert codec.encode(np.array([1.0, math.nan])) == b"[1.0, NaN]\n"


@dataclasses.dataclass
class Point:
    x: int


@attrs.define
class Kelvin:
    value: object

    def to_json(self):
        return {"K": self.value}


@dataclasses.dataclass
class Celsius:
    value: float

    def to_json(self):
        return [self.value, "C"]


class ListWithToJson(list):
    def to_json(self):
        raise AssertionError("the standard library does not ask a list")


@pytest.mark.parametrize("companion", ["fast", None])
def test_objects_with_to_json_are_replaced_by_its_result(companion):
    value = [companion, Kelvin(Kelvin(1)), Celsius(2.5), Kelvin(math.nan)]
    assert same(json.loads(codec.encode(value)), [companion, {"K": {"K": 1}}, [2.5, "C"], {"K": math.nan}])


def test_subclasses_of_builtins_are_not_asked_for_to_json():
    assert json.loads(codec.encode(ListWithToJson([1]))) == [1]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        bytearray(b"x"),
        memoryview(b"x"),
        1j,
        object(),
        Kelvin,
        Point(1),
        decimal.Decimal("1.5"),
        datetime.datetime(2026, 1, 1),
        datetime.date(2026, 1, 1),
        datetime.time(1),
        range(3),
        np.array([1j]),
        np.complex128(1j),
        np.datetime64("2026-01-01"),
        np.datetime64(1, "ns"),
        np.timedelta64(1, "ns"),
        np.array([b"bytes"]),
        np.longdouble(1),
        np.array([1], dtype=np.longdouble),
        np.array([(1, 2)], dtype="i4,i4"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],  # the same in every process that runs tests
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_has_no_json_form_raises_type_error(value, wrapped):
    with pytest.raises(TypeError, match="not JSON serializable"):
        codec.encode([None, value] if wrapped else value)


def test_the_type_that_cannot_be_sent_is_named():
    with pytest.raises(TypeError, match="^Object of type set is not JSON serializable$"):
        codec.encode({"a": [set()]})


@pytest.mark.parametrize("key", [(1, 2), b"x", object(), frozenset()])
def test_keys_without_a_json_form_raise_type_error(key):
    with pytest.raises(TypeError):
        codec.encode({key: 1})


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff"])
def test_a_lone_surrogate_raises_value_error(text):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        codec.encode({"a": text})


def test_a_value_that_contains_itself_raises_value_error():
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        codec.encode(value)


def test_a_value_nested_too_deeply_raises_value_error():
    value: list[object] = []
    for _ in range(sys.getrecursionlimit() * 100):
        value = [value]
    try:
        with pytest.raises(ValueError, match="nested too deeply"):
            codec.encode(value)
    finally:
        while value:  # otherwise freeing it would recurse as deeply
            value = value.pop()


def test_a_value_nested_deeper_than_the_fast_path_goes_is_still_sent():
    value: object = 1
    for _ in range(400):
        value = [value]
    assert codec.encode(value) == b"[" * 400 + b"1" + b"]" * 400 + b"\n"


def test_an_integer_with_too_many_digits_raises_value_error():
    with pytest.raises(ValueError, match="digits"):
        codec.encode(10**5000)


def test_what_to_json_raises_comes_out():
    class Broken:
        def to_json(self):
            raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match="broken"):
        codec.encode([Broken()])


def test_numpy_is_an_addition_that_works_when_it_is_not_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    assert codec.encode(Kelvin(1)) == b'{"K":1}\n'
    with pytest.raises(TypeError):
        codec.encode(np.arange(3))


def test_a_reply_has_the_fields_of_the_reference():
    line = codec.encode_reply("pw", "Manager[vm:1]")
    assert line.endswith(b"}\n")
    assert json.loads(line) == {"error": False, "requester": "Manager[vm:1]", "result": "pw", "uid": ""}


# ---- decoding ----


@given(values)
@example([math.nan, math.inf, -math.inf, 10**400, -0.0, 1e400])
@example("\ud800")
@example({"a": [None, True]})
@pytest.mark.parametrize("ascii_only", [True, False])
def test_decoding_gives_what_the_standard_library_gives(ascii_only, value):
    text = json.dumps({"result": value, "uid": "1"}, ensure_ascii=ascii_only)
    try:
        line = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate must be escaped on the wire
    assert same(codec.decode(line).result, json.loads(text)["result"])


@pytest.mark.parametrize(
    "number",
    [
        "-0",
        "-0.0",
        "1E5",
        "1e400",
        "-1e400",
        "18446744073709551616",
        "1" * 400,
        "0.1e-400",
        "NaN",
        "Infinity",
    ],
)
def test_every_number_is_read_as_the_standard_library_reads_it(number):
    line = f'{{"result":{number},"uid":"1"}}'
    assert same(codec.decode(line.encode()).result, json.loads(line)["result"])


def test_fields_of_a_reply_are_read():
    line = (
        b'{"error": true, "message": "KeyError: 1", "requester": "A[vm:1]", "result": null, '
        b'"traceback": ["a", "b"], "uid": "7"}\r'
    )
    message = codec.decode(line)
    assert (message.uid, message.error, message.message) == ("7", True, "KeyError: 1")
    assert (message.requester, message.traceback, message.result) == ("A[vm:1]", ["a", "b"], None)


def test_a_missing_result_differs_from_null():
    assert codec.decode(b'{"uid":"1"}').result is UNSET
    assert codec.decode(b'{"uid":"1","attribute":NaN}').result is UNSET
    assert codec.decode(b'{"uid":"1","result":null}').result is None


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        (b'{"uid": 7}', "uid", None),
        (b'{"uid": {"any": [1]}, "result": 1}', "uid", None),
        (b'{"error": 1}', "error", True),
        (b'{"error": null}', "error", False),
        (b'{"message": null}', "message", ""),
        (b'{"requester": 5}', "requester", None),
        (b'{"service": [], "uid": "a"}', "uid", "a"),
        (b'{"attribute": {}}', "attribute", None),
    ],
)
def test_fields_of_a_wrong_type_count_as_missing(line, field, value):
    assert getattr(codec.decode(line), field) == value


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r",
        b"   ",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"NaN",
        b"hello world",
        b"{",
        b'{"uid":"1"',
        b'{"uid":"1"} {}',
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        b'{"uid": "a\x01b"}',
        b"\x16\x03\x01\x00\xa5",
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_object_is_undecodable(line):
    with pytest.raises(codec.UndecodableLine) as caught:
        codec.decode(line)
    assert caught.value.uid is None


@pytest.mark.parametrize(
    "result",
    [b"1" * 5000, b"[" * 100_000 + b"]" * 100_000, b'"\xff"'],
    ids=["too many digits", "too deep", "not UTF-8"],
)
def test_the_uid_of_a_line_that_python_cannot_hold_is_found(result):
    with pytest.raises(codec.UndecodableLine) as caught:
        codec.decode(b'{"error":false,"result":' + result + b',"uid":"u7"}')
    assert caught.value.uid == "u7"


@pytest.mark.parametrize("uid", [b'"\\ud800"', b'["u"]', b"{}"])
def test_a_uid_that_cannot_be_sent_back_is_none(uid):
    with pytest.raises(codec.UndecodableLine) as caught:
        codec.decode_object(b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b',"uid":' + uid + b"}")
    assert caught.value.uid is None


@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoder_raise_another_error(line):
    try:
        codec.decode(line)
    except codec.UndecodableLine:
        pass


def test_the_fast_encoder_alone_would_have_changed_values():
    # The reason for the slow path; if this fails one day, codec.encode() can become simpler.
    assert orjson.dumps(math.nan) == b"null"


# ---- whole objects, masked values, errors ----


@given(st.dictionaries(keys, values, max_size=5))
def test_a_whole_line_is_decoded_as_the_standard_library_decodes_it(value):
    text = json.dumps(value)
    assert same(codec.decode_object(text.encode()), json.loads(text))


@pytest.mark.parametrize(
    ("line", "message", "uid"),
    [
        (b"", "JSONDecodeError", None),
        (b"[]", "a JSON object was expected, not list", None),
        (b'{"uid":"1","a":"\xff"}', "UnicodeDecodeError", "1"),
        (b'{"uid":"1","a":' + b"9" * 5000 + b"}", "ValueError: Exceeds the limit", "1"),
        (b'{"uid":1,"a":' + b"9" * 5000 + b"}", "ValueError: Exceeds the limit", None),
    ],
)
def test_a_whole_line_that_python_cannot_hold_is_undecodable(line, message, uid):
    with pytest.raises(codec.UndecodableLine) as caught:
        codec.decode_object(line)
    assert message in str(caught.value)
    assert caught.value.uid == uid
    assert caught.value.__cause__ is None


# ---- values of NumPy that have no form, and where they are ----


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked,
        np.ma.array([1, 2], mask=[False, True]),
        np.ma.array([1.0, 2.0], mask=[True, False]),
        np.ma.array([1.0, math.nan], mask=[True, False]),
        np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [0, 1]]),
        np.ma.array(5, mask=True),
        np.ma.array([True, False], mask=[0, 1]),
        np.ma.array(["a", "b"], mask=[0, 1]),
        np.ma.array([1, None], dtype=object, mask=[0, 1]),
        np.ma.masked_invalid([1.0, math.nan]),
        np.ma.array([(1, 2)], dtype="i4,i4", mask=[(0, 1)]),
        np.array([1, np.ma.masked], dtype=object),
        [1, np.ma.array([5], mask=[1])],
        {"a": (np.ma.masked,)},
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", ["fast", "exact"])
def test_masked_values_are_not_sent(value, path):
    # None makes the whole value take the exact path.
    with pytest.raises(TypeError, match="not JSON serializable: its dtype is "):
        codec.encode(value if path == "fast" else [None, value])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.ma.array([1, 2]), b"[1,2]\n"),
        (np.ma.array([1.0, 2.0], mask=[False, False]), b"[1.0,2.0]\n"),
        (np.ma.array(5), b"5\n"),
    ],
    ids=repr,
)
def test_masked_arrays_without_masked_values_are_sent(value, expected):
    assert codec.encode(value) == expected


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([1j]), "complex128"),
        (np.complex64(1j), "complex64"),
        (np.datetime64("NaT", "s"), r"datetime64\[s\]"),
        (np.array(["NaT"], dtype="M8[ns]"), r"datetime64\[ns\]"),
        (np.timedelta64(1, "ms"), r"timedelta64\[ms\]"),
        (np.array([(1, 2)], dtype=[("a", "i4"), ("b", "f8")]), r"\[\('a', '<i4'\), \('b', '<f8'\)\]"),
        (np.array([(1, 2)], dtype=[("mask", "i4"), ("b", "f8")]).view(np.recarray), "mask"),
        (np.array([b"x"]), r"\|S1"),
        (np.void(b"x"), r"\|V1"),
        (np.ma.array([1], mask=[True], dtype="int16"), "int16, and values of it are masked$"),
    ],
    ids=repr,
)
def test_the_error_of_a_numpy_value_names_its_dtype(value, dtype):
    name = type(value).__name__
    with pytest.raises(
        TypeError, match=f"^Object of type {name} is not JSON serializable: its dtype is .*{dtype}"
    ):
        codec.encode([value])


def test_an_error_that_no_single_argument_repeats_names_an_argument():
    class OnceBroken:
        calls = 0

        def to_json(self):
            self.calls += 1
            return np.complex64(1) if self.calls <= 2 else 1  # both the fast and the exact path call it

    with pytest.raises(TypeError, match=r"its dtype is complex64 \(an argument of 'set'\)$"):
        codec.encode_arguments((OnceBroken(),), "set")
