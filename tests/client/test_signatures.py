"""Signatures of remote methods: parsed from any text, and shown by RemoteMethod."""

import ast
import inspect
import keyword
import pydoc
import sys
import warnings
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msl_network_trio.client.link import Link
from msl_network_trio.client.link_state import LinkState
from msl_network_trio.client.mailboxes import Mailboxes
from msl_network_trio.client.remote_method import RemoteMethod
from msl_network_trio.client.signatures import parse_signature

# ---- signatures of Services written in Python ----


def nothing(): ...
def plain(x, y): ...
def defaults(x, y=1, z="a'b\"\\\n", n=None, t=(1, -2.5), d={"a": [True]}, e=()): ...  # noqa: B006
def positional_only(x, y=2, /): ...
def positional_and_more(x, /, y, z=3): ...
def all_optional(x=1, /, y=2): ...
def keyword_only(*, x, y=2, z): ...
def every_kind(a, b=1, /, c=2, *args, d, e=3, **kwargs): ...
def anything(*args, **kwargs): ...
def annotated(
    x: int, y: list[int] | None = None, *a: str, k: "float" = 1.5, **kw: dict[str, Any]
) -> float: ...
def returns(x) -> None: ...
def qualified(path: Path, where: "Path | None" = None) -> "list[Path]": ...
def numbers(a=10**30, b=-1, c=1e300, d=-0.0, e=2j, f=b"\x00\xff", g=True): ...
def unicode(größe=1, 温度="é\u2028"): ...  # noqa: N803, PLC2401


FUNCTIONS = [
    nothing,
    plain,
    defaults,
    positional_only,
    positional_and_more,
    all_optional,
    keyword_only,
    every_kind,
    anything,
    annotated,
    returns,
    qualified,
    numbers,
    unicode,
]


def annotation_text(annotation: Any) -> Any:
    """Return an annotation as inspect prints it in a signature."""
    if annotation is Parameter.empty:
        return Parameter.empty
    text = inspect.formatannotation(annotation)  # in quotes if it is a text
    return ast.unparse(ast.parse(text, mode="eval"))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_signature_of_a_python_function_is_parsed_back(function: Any):
    original = inspect.signature(function)
    parsed = parse_signature(str(original))
    assert parsed is not None
    assert list(parsed.parameters) == list(original.parameters)
    for name, parameter in original.parameters.items():
        ours = parsed.parameters[name]
        assert ours.kind == parameter.kind
        assert ours.annotation == annotation_text(parameter.annotation)
        assert repr(ours.default) == repr(parameter.default)
    assert parsed.return_annotation == annotation_text(original.return_annotation)


def test_a_parsed_signature_can_be_bound_and_printed():
    parsed = parse_signature("(a, b=1, /, c=2, *args, d, e=3, **kwargs)")
    assert parsed is not None
    assert parsed.bind(1, d=5, x=6).arguments == {"a": 1, "d": 5, "kwargs": {"x": 6}}
    assert str(parsed) == "(a, b=1, /, c=2, *args, d, e=3, **kwargs)"
    with pytest.raises(TypeError, match="missing a required"):
        parsed.bind()


@pytest.mark.parametrize(
    ("default", "value"),
    [
        ("time.time()", "time.time()"),
        ("Path", "Path"),
        ("{[]: 1}", "{[]: 1}"),
        ("a  +  b", "a + b"),
        ("{1, 2}", {1, 2}),
        ("1 + 2j", 1 + 2j),
        ("...", ...),
    ],
)
def test_a_default_is_the_value_of_a_literal_and_else_its_text(default: str, value: object):
    parsed = parse_signature(f"(x={default})")
    assert parsed is not None
    assert parsed.parameters["x"].default == value


def test_a_signature_may_have_several_lines():
    parsed = parse_signature("(\n    x: int,\n    y=2,  # two\n) -> float")
    assert parsed is not None
    assert str(parsed) == "(x: 'int', y=2) -> 'float'"


# ---- texts that are not signatures ----


@pytest.mark.parametrize(
    "text",
    [
        None,
        42,
        ["(x)"],
        b"(x)",
        "",
        "x",
        " (x)",
        "42",
        "(",
        "()()",
        "(x, y",
        "(int x, double y)",
        "(x: int) -> ",
        "(x=1, y)",
        "(1)",
        "(x.y)",
        "(*)",
        "(x\0)",
        "(x='\ud800')",
        "(x=<object object at 0x7f0e8c5b4d90>)",
        "(x=" + "(" * 300 + ")" * 300 + ")",
        "(x=" + "9" * 5000 + ")",
        "(x): pass #",
        "(x): return 1 #",
        "(x): 5 #",
        "(x): ...\nimport os\ndef other()",
        "(x): ...; import os #",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_is_no_signature_of_python_is_none(text: object):
    assert parse_signature(text) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(x, x)", id="the same name twice"),
        pytest.param("(x, *x)", id="the same name twice, of other kinds"),
        pytest.param("(\U0001d41d\U0001d41e\U0001d41f)", id="a keyword in mathematical letters"),
        pytest.param("(x=" + "+".join(["a"] * 600) + ")", id="a long sum"),
        pytest.param("(x: " + ".".join(["a"] * 600) + ")", id="a long chain"),
        pytest.param("(x) -> a" + "[0]" * 600, id="a long subscript"),
        pytest.param("(x=" + "-" * 600 + "1)", id="many signs"),
        pytest.param("(x: 0x" + "f" * 5000 + ")", id="a large number in an annotation"),
        pytest.param("(x=f(0x" + "f" * 5000 + "))", id="a large number in a default"),
    ],
)
def test_what_the_parser_takes_and_a_signature_does_not_is_none_or_a_signature(text: str):
    assert isinstance(parse_signature(text), Signature | None)


@pytest.mark.parametrize("text", ["(x='\\d')", "(x=1if 2 else 3)", "(x=0x1for y in z)"])
def test_no_warning_is_given_about_the_code_of_others(text: str):
    with warnings.catch_warnings(record=True) as given_warnings:
        warnings.simplefilter("always")
        parse_signature(text)
    assert [str(warning.message) for warning in given_warnings] == []


SIGNATURE_LETTERS = "(),*/=:->xyz01 '\"[]{}.\\#\n\t@|;~àf"
TOKENS = [
    "x",
    "y",
    "z",
    "*",
    "**",
    "/",
    ",",
    "=",
    ":",
    "->",
    "(",
    ")",
    "[",
    "]",
    "1",
    "'a'",
    "None",
    "int",
    " ",
    ".",
]


@given(
    st.one_of(
        st.text(),
        st.text().map("({})".format),
        st.text(SIGNATURE_LETTERS, max_size=40).map("({})".format),
        st.lists(st.sampled_from(TOKENS), max_size=25).map("".join).map("({})".format),
        st.lists(st.sampled_from(TOKENS), max_size=10).map("".join).map("(x) -> {}".format),
    )
)
@example("()")
@example("(x) -> int")
def test_no_text_makes_it_raise(text: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(parse_signature(text), Signature | None)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_nothing_that_an_identity_may_hold_makes_it_raise(value: object):
    assert isinstance(parse_signature(value), Signature | None)


NAMES = st.from_regex(r"[a-z_][a-z_0-9]{0,8}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name)
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)  # which Python prints as names
VALUES = st.none() | st.booleans() | st.integers() | FLOATS | st.text() | st.binary()


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    names = draw(st.lists(NAMES, unique=True, max_size=8))
    kinds = sorted(draw(st.lists(st.sampled_from(list(inspect._ParameterKind)), min_size=8, max_size=8)))
    parameters: list[Parameter] = []
    optional = False
    for name, kind in zip(names, kinds, strict=False):
        if kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
            if not any(kind is parameter.kind for parameter in parameters):
                parameters.append(Parameter(name, kind))
            continue
        has_default = draw(st.booleans()) or (optional and kind is not Parameter.KEYWORD_ONLY)
        optional = optional or has_default
        parameters.append(Parameter(name, kind, default=draw(VALUES) if has_default else Parameter.empty))
    return Signature(parameters)


@given(signatures())
def test_every_signature_is_parsed_back(signature: Signature):
    text = str(signature)
    parsed = parse_signature(text)
    if any(
        parameter.default in {float("inf"), float("-inf")}
        for parameter in signature.parameters.values()
        if isinstance(parameter.default, float)
    ):
        return  # Python prints them as names
    assert parsed is not None
    assert parsed.parameters == signature.parameters
    assert str(parsed) == text


# ---- nothing of it is executed ----


@pytest.mark.parametrize(
    "text",
    [
        "(x=effect())",
        "(x: effect())",
        "(x) -> effect()",
        "(x=[effect() for y in (1,)])",
        "(x=(lambda: effect())())",
        "(x=f'{effect()}')",
        "(x=(y := effect()))",
        "(x={**effect()})",
        "(x): ...\neffect()\ndef other()",
        "(x): effect() #",
        "(x=print(__import__('os').system('effect')))",
    ],
)
def test_nothing_is_evaluated(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def effect() -> None:
        pytest.fail("a text that a Service sent was executed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.effect", effect, raising=False)
    monkeypatch.setattr("os.system", lambda _: effect())
    modules = set(sys.modules)
    parsed = parse_signature(text)
    if parsed is not None:
        str(parsed)
        repr(parsed)
    assert not list(tmp_path.iterdir())
    assert set(sys.modules) == modules


def test_a_call_in_a_default_has_no_effect_and_is_shown_as_its_text(tmp_path: Path):
    created = tmp_path / "created"
    parsed = parse_signature(f"(x=open({str(created)!r}, 'w'))")
    assert parsed is not None
    assert parsed.parameters["x"].default == f"open({str(created)!r}, 'w')"
    assert not created.exists()


# ---- RemoteMethod ----


IDENTITY = {
    "attributes": {
        "add": "(x: float, y=2) -> float",
        "nothing": "()",
        "const": 42,
        "text": "a text",
        "foreign": "(double x, double y)",
        "listed": [1, 2],
    },
    "address": "vm:1234",
}


@pytest.fixture
def link() -> Link:
    session = SimpleNamespace(
        connection=SimpleNamespace(requests=None),
        locks=SimpleNamespace(without_lock=lambda _: None),
        mailboxes=Mailboxes(),
        persistent_requests=lambda *_: None,
        settings=SimpleNamespace(manager="localhost:1875"),
    )
    return Link(LinkState(session, "Echo", IDENTITY))  # type: ignore[arg-type]


def test_a_method_has_the_signature_that_the_identity_tells(link: Link):
    signature = inspect.signature(link.add)
    assert str(signature) == "(x: 'float', y=2) -> 'float'"
    assert signature.parameters["y"].default == 2
    assert str(inspect.signature(link.nothing)) == "()"


def test_a_method_has_a_name_a_repr_and_a_doc(link: Link):
    assert isinstance(link.add, RemoteMethod)
    assert link.add.__name__ == "add"
    assert repr(link.add) == "<Echo.add(x: float, y=2) -> float>"
    assert link.add.__doc__ == "<Echo.add(x: float, y=2) -> float>, requested from a Service of MSL-Network."
    assert inspect.getdoc(link.add) == link.add.__doc__
    assert "add" in pydoc.render_doc(link.add)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("const", "<Echo.const = 42>"),
        ("listed", "<Echo.listed = [1, 2]>"),
        ("foreign", "<Echo.foreign(double x, double y)>"),
        ("hidden", "<Echo.hidden>"),
    ],
)
def test_an_attribute_without_a_signature_takes_anything(link: Link, name: str, shown: str):
    method = getattr(link, name)
    assert not hasattr(method, "__signature__")
    parameters = inspect.signature(method).parameters
    assert list(parameters) == [
        "args",
        "timeout",
        "asynchronous",
        "kwargs",
    ]  # these two are not the Service's
    assert parameters["args"].kind == Parameter.VAR_POSITIONAL
    assert parameters["kwargs"].kind == Parameter.VAR_KEYWORD
    assert repr(method) == shown
    assert method.__doc__.startswith(shown)
    assert method.__name__ == name


def test_a_constant_that_is_a_text_is_shown_as_one(link: Link):
    assert repr(link.text) == "<Echo.text = 'a text'>"


def test_asking_for_a_signature_of_what_no_signature_can_be_does_not_raise(link: Link):
    identity = {"attributes": {"odd": "(x, x)"}, "address": "vm:1234"}
    other = Link(LinkState(link._state.session, "Echo", identity))
    assert not hasattr(other.odd, "__signature__")
    assert next(iter(inspect.signature(other.odd).parameters)) == "args"


def test_a_broken_link_still_shows_its_methods(link: Link):
    add = link.add
    link._state.session = None
    assert str(inspect.signature(add)) == "(x: 'float', y=2) -> 'float'"
    assert repr(add) == "<Echo.add(x: float, y=2) -> float>"
