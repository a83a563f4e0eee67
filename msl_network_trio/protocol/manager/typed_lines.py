"""What a person types who is connected by a program like ``openssl s_client``: words instead of JSON.

.. code-block:: text

    client Name                     who is there, when the Manager asks for the identity
    identity                        who is connected to the Manager
    link Echo                       link with a Service
    Echo echo 1 x=2                 a request: Service, attribute, arguments, keyword arguments
    "My Service" say "two words"    names and values with spaces
    disconnect                      or: exit

As msl-network 1.0.0 has it, with these differences: keyword arguments may be followed by positional ones, a
value may be a list or a dictionary with spaces in it, and the words above are whole words.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from msl_network_trio.constants import DISCONNECT_REQUEST, MANAGER

_LONGEST = 4096
"""How many bytes somebody may type in a line. What is longer was not typed, and is meant to be JSON."""

_MOST = 100
"""How many arguments somebody may type; to read one takes some 30 microseconds."""

_QUOTED = r'"[^"]*"|\'[^\']*\''
_NAME = re.compile(rf"\s*({_QUOTED}|\S+)")
_ARGUMENT = re.compile(rf"\s*(?:([^\W\d]\w*)\s*=\s*)?({_QUOTED}|\S+)")
_OPENING, _CLOSING = "[({", "])}"
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def typed(line: bytes) -> str | None:
    """Return what somebody has typed, or None if the line is no such thing: broken JSON, or garbage."""
    if len(line) > _LONGEST:
        return None
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text if text[:1] not in {"{", "["} and text.replace("\t", " ").isprintable() else None


def identity(text: str) -> dict[str, Any] | None:
    """Return the identity that was typed, None if that was none."""
    word, _, name = text.partition(" ")
    if word.lower() != "client":
        return None
    name = " ".join(name.replace('"', "").split())
    return {"type": "client", "name": name or "Client"}


def request(text: str) -> dict[str, Any] | None:
    """Return the fields of the request that was typed, None if that was none.

    Its answer has no uid, as a person has none to give.
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
    are_few = len(args) + len(kwargs) <= _MOST
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
    while len(args) + len(kwargs) <= _MOST and (match := _ARGUMENT.match(text, position)):
        name, value = match.groups()
        position = match.end()
        if may_nest and value[0] in _OPENING:
            # Where one has no end none is looked for again: that would take long for a line of brackets.
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
    """Return where a list, tuple or dictionary ends that begins here; 0 if it does not end."""
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
    """Return a value: as JSON or Python writes it, or else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for read in (json.loads, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            pass  # then it is something else, in the end text
    return _unquoted(text)


def _literal(text: str) -> Any:
    """Return the value that Python writes like this. Raises as `ast.literal_eval`."""
    with warnings.catch_warnings():
        # Somebody else has written it, and cannot see what Python says of "1x" or of a backslash.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text.replace('"', "")
