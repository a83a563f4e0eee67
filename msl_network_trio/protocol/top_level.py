"""Top-level fields of a line that a JSON decoder refuses: too deep, too long, or beyond its limits.

The uid of such a line is needed to answer or to fail its request. A scanner removes everything nested in the
fields, without recursion and in constant memory; the rest is decoded exactly. So a uid is found if, and only
if, it is a field of the line itself, whatever escapes it is written with, and whatever is nested in the line.

A `TopLevel` is used by one thread at a time; the functions are pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_STRUCTURE: Final = re.compile(rb'"|[\[{]++|[\]}]++').search
# Atomic groups, since possessive ones with alternatives match wrongly in Python before 3.11.5.
_STRING: Final = re.compile(rb'(?>(?:[^"\\]++|\\.)*)', re.DOTALL).match
_FLAT: Final = rb'(?>(?:[^"\[\]{}]++|"(?>(?:[^"\\]++|\\.)*)")*)'
_NESTED: Final = re.compile(
    rb'(?>(?:[^"\[\]{}]++|"(?>(?:[^"\\]++|\\.)*)"|\[%b\]|\{%b\})*)' % (_FLAT, _FLAT), re.DOTALL
).match
"""Matches nested values with at most one further level, which are skipped in one step."""

_QUOTE: Final = ord('"')
_CLOSERS: Final = bytes.maketrans(b"[{", b"]}")

_MOST_DIGITS: Final = 600
"""Maximum digits of an integer; the limit of Python can be as low as 640."""


def _integer(text: str) -> int | list[None]:
    """Decode an integer; one with too many digits is treated as a nested value."""
    return int(text) if len(text) <= _MOST_DIGITS else []


_decode: Final = json.JSONDecoder(parse_int=_integer).decode


class TopLevel:
    """A scanner for the top-level fields of a line, which may arrive in pieces.

    Args:
        most: Maximum bytes kept, of everything that is not nested in the fields; None: no limit.
        steps: Maximum number of brackets and strings scanned one by one, at 0.5 microseconds each; None: no
            limit. Nested values of at most two levels are skipped in one step.
    """

    def __init__(self, most: int | None = None, steps: int | None = None) -> None:
        self._most = most
        self._steps_left = steps
        self._kept = bytearray()
        self._open = bytearray()
        self._in_string = False
        self._escaped = False
        self._failed = False

    def feed(self, data: bytes | bytearray) -> None:
        """Add the next bytes of the line."""
        position, end = 0, len(data)
        while position < end and not self._failed:
            begin = position
            if self._steps_left is not None:
                self._steps_left -= 1
                self._failed = self._steps_left < 0
            if self._in_string:
                position = self._skip_string(data, position)
                self._keep(data[begin:position])
                continue
            if len(self._open) >= 2:
                skipped = _NESTED(data, position)
                assert skipped is not None
                begin = position = skipped.end()
            match = _STRUCTURE(data, position)
            if match is None:
                self._keep(data[begin:])
                return
            self._keep(data[begin : match.start()])
            position = match.end()
            token = match[0]
            if token == b'"':
                self._in_string = True
                self._keep(token)
            elif token[0] in b"[{":
                self._keep_bytes(token[: max(0, 2 - len(self._open))])
                self._open += token
            else:
                self._close(token)

    def fields(self) -> dict[str, Any] | None:
        """Return the fields that are text, numbers, booleans or null; None if the line is no JSON object."""
        if self._failed or self._open or self._in_string:
            return None
        try:
            # Invalid UTF-8 becomes lone surrogates, which no valid uid contains.
            text = self._kept.decode("utf-8", "surrogateescape")
            fields = _decode(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        return {name: value for name, value in fields.items() if not isinstance(value, list | dict)}

    def _skip_string(self, data: bytes | bytearray, position: int) -> int:
        """Return the position behind a string, or the end of the data if the string is incomplete."""
        if self._escaped:
            self._escaped = False
            return position + 1
        match = _STRING(data, position)
        assert match is not None
        position = match.end()
        if position == len(data):
            return position
        if data[position] == _QUOTE:
            self._in_string = False
        else:
            self._escaped = True  # the data ends with a backslash
        return position + 1

    def _close(self, token: bytes) -> None:
        """Process closing brackets."""
        count = len(token)
        if bytes(self._open[: -count - 1 : -1]).translate(_CLOSERS) != token:
            self._failed = True
            return
        del self._open[-count:]
        kept = min(count, max(0, 2 - len(self._open)))
        self._keep_bytes(token[count - kept :])

    def _keep(self, data: bytes | bytearray) -> None:
        """Keep bytes unless they are nested in a field."""
        if len(self._open) < 2:
            self._keep_bytes(data)

    def _keep_bytes(self, data: bytes | bytearray) -> None:
        """Keep bytes, up to the limit."""
        self._kept += data
        if self._most is not None and len(self._kept) > self._most:
            self._failed = True


def top_level(line: bytes, steps: int | None = None) -> dict[str, Any] | None:
    """Return the top-level fields of a whole line; None if it is no JSON object, or takes too many steps."""
    found = TopLevel(steps=steps)
    found.feed(line)
    return found.fields()


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8: decoded JSON may contain lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
