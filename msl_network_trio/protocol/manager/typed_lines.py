"""Typed lines: requests in words instead of JSON, from a person at a program like ``openssl s_client``.

.. code-block:: text

    client Name                     the answer to the question for the identity
    identity                        the identity of the Manager
    link Echo                       link with a Service
    Echo echo 1 x=2                 a request: Service, attribute, arguments, keyword arguments
    "My Service" say "two words"    names and values with spaces
    disconnect                      or: exit

The syntax is that of msl-network 1.0.0, except that keyword arguments may be followed by positional ones, a
value may be a list or a dictionary with spaces in it, and the words above are whole words. The functions are
pure.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER

_MAX_BYTES = 4096
"""Maximum bytes of a typed line. A longer one was not typed, and is meant to be JSON."""

_MAX_ARGUMENTS = 100
"""Maximum number of arguments, each of which takes some 30 microseconds."""

_QUOTED = r'"[^"]*"|\'[^\']*\''
_NAME = re.compile(rf"\s*({_QUOTED}|\S+)")
_ARGUMENT = re.compile(rf"\s*(?:([^\W\d]\w*)\s*=\s*)?({_QUOTED}|\S+)")
_OPENING, _CLOSING = "[({", "])}"
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def typed(line: bytes) -> str | None:
    """Return the text of a typed line; None if it is none, but broken JSON or garbage."""
    if len(line) > _MAX_BYTES:
        return None
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text if text[:1] not in {"{", "["} and text.replace("\t", " ").isprintable() else None


def identity(text: str) -> dict[str, Any] | None:
    """Return the identity in a typed text; None if there is none."""
    word, _, name = text.partition(" ")
    if word.lower() != "client":
        return None
    name = " ".join(name.replace('"', "").split())
    return {"type": "client", "name": name or "Client"}


def request(text: str) -> dict[str, Any] | None:
    """Return the fields of the request in a typed text; None if there is none.

    The request has no uid, and so its answer has none.
    """
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    match word.lower():
        case "identity" if not rest:
            return _request(MANAGER, "identity", [], {})
        case "disconnect" | "exit" if not rest:
            return _request("self", DISCONNECT_REQUEST, [], {})
        case "link" if rest:
            return _request(MANAGER, "link", [_unquoted(rest)], {})
    if word == DISCONNECT_REQUEST:
        return _request("self", DISCONNECT_REQUEST, [], {})
    service = _NAME.match(text)
    attribute = _NAME.match(text, service.end()) if service else None
    if service is None or attribute is None:
        return None
    args, kwargs = _arguments(text[attribute.end() :])
    are_few = len(args) + len(kwargs) <= _MAX_ARGUMENTS
    return _request(_unquoted(service[1]), _unquoted(attribute[1]), args, kwargs) if are_few else None


def _request(service: str, attribute: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        "args": args,
        "attribute": attribute,
        "error": False,
        "kwargs": kwargs,
        "service": service,
        "uid": "",
    }


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    position = 0
    may_nest = True
    while len(args) + len(kwargs) <= _MAX_ARGUMENTS and (match := _ARGUMENT.match(text, position)):
        name, value = match.groups()
        position = match.end()
        if may_nest and value[0] in _OPENING:
            # After one without an end none is searched for again: a line of brackets would take long.
            end = _end_of_nested(text, match.start(2))
            may_nest = end > 0
            position = end or position
            value = text[match.start(2) : position]
        if name is None:
            args.append(_value(value))
        else:
            kwargs[name] = _value(value)
    return args, kwargs


def _end_of_nested(text: str, start: int) -> int:
    """Return the end of the list, tuple or dictionary that begins at an index; 0 if it does not end."""
    depth, quote = 0, ""
    for position in range(start, len(text)):
        character = text[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth == 0:
                return position + 1
    return 0


def _value(text: str) -> Any:
    """Return a value in the syntax of JSON or Python, or else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (json.loads, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            pass  # it is of another syntax, at last text
    return _unquoted(text)


def _literal(text: str) -> Any:
    """Return the value of a Python literal; raises as `ast.literal_eval`."""
    with warnings.catch_warnings():
        # Its writer is at the other end, and cannot see warnings about "1x" or a backslash.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text.replace('"', "")
