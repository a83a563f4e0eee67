"""The fields of a line that a JSON decoder refuses: too deep, too long, or with values that it cannot hold.

An error has to go to the request that it is about, so the uid has to be found in a line that cannot be
decoded. What is nested in the fields of a line is left out here, without recursion and in constant memory;
what remains is decoded exactly. So a uid is found if, and only if, it is a field of the line itself, however
its name and its text are written, and whatever looks like one further down.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_STRUCTURE: Final = re.compile(rb'"|[\[{]++|[\]}]++').search
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL).match
_FLAT: Final = rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+'
_NESTED: Final = re.compile(
    rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"|\[%b\]|\{%b\})*+' % (_FLAT, _FLAT), re.DOTALL
).match
"""What is nested in a field and holds at most one more level, of which nothing need be known."""

_QUOTE: Final = ord('"')
_CLOSERS: Final = bytes.maketrans(b"[{", b"]}")

_MOST_DIGITS: Final = 600
"""The most digits of an integer; Python can be told to convert not more than 640."""


def _integer(text: str) -> int | list[None]:
    return int(text) if len(text) <= _MOST_DIGITS else []  # as if it were nested: it cannot be held


_decode: Final = json.JSONDecoder(parse_int=_integer).decode


class TopLevel:
    """Finds the fields of a line, of which the pieces may come one after the other.

    Args:
        most: Maximum bytes of all that is not nested in the fields; None: no limit.
        steps: Maximum number of brackets and strings to look at one by one, each of which takes some 0.5
            microseconds; None: no limit. What is nested in a field and is not deep takes no steps.
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
        """Return the fields that are text, numbers, booleans or null; None if this is no JSON object."""
        if self._failed or self._open or self._in_string:
            return None
        try:
            # What is no UTF-8 becomes surrogates, which are in no text that can be sent.
            text = self._kept.decode("utf-8", "surrogateescape")
            fields = _decode(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        return {name: value for name, value in fields.items() if not isinstance(value, list | dict)}

    def _skip_string(self, data: bytes | bytearray, position: int) -> int:
        """Return where a string ends, or as much of it as there is."""
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
            self._escaped = True  # a backslash, behind which the next piece begins
        return position + 1

    def _close(self, token: bytes) -> None:
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
        self._kept += data
        if self._most is not None and len(self._kept) > self._most:
            self._failed = True


def top_level(line: bytes, steps: int | None = None) -> dict[str, Any] | None:
    """Return the fields of a whole line; see `TopLevel`."""
    found = TopLevel(steps=steps)
    found.feed(line)
    return found.fields()


def is_unicode(text: str) -> bool:
    """Return whether a text can be sent: JSON may have halves of surrogate pairs, UTF-8 has none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
