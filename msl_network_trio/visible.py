"""Escaping of control characters in texts of peers for terminals, logs and web pages.

Names, messages and certificates are chosen by peers, and could otherwise fake a line, clear the screen or
reverse the direction of the text. All code that displays such a text calls one of these functions; the stored
text is not changed. The functions have no state and may be called from any thread.
"""

from __future__ import annotations

import logging
import re
from typing import Final

_CONTROL: Final = "\x00-\x1f\x7f-\x9f"
_LINES: Final = "\u2028\u2029"
_DIRECTIONS: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SURROGATES: Final = "\ud800-\udfff"
"""Code points that are no characters and cannot be encoded in UTF-8."""

_INVISIBLE: Final = re.compile(f"[{_CONTROL}{_LINES}{_DIRECTIONS}{_SURROGATES}]")
_INVISIBLE_IN_LINES: Final = re.compile(f"(?!\n){_INVISIBLE.pattern}")
_INVISIBLE_IN_JSON: Final = re.compile(f"(?![\n\r\t]){_INVISIBLE.pattern}")


def visible(text: str) -> str:
    r"""Return a text as one line, with control characters escaped: ``\x1b`` for the escape character."""
    return text if text.isprintable() else _INVISIBLE.sub(_escape, text)


def visible_lines(text: str) -> str:
    r"""Return a text with control characters escaped, except line feeds (``\n``)."""
    return text if text.isprintable() else _INVISIBLE_IN_LINES.sub(_escape, text)


def visible_json(text: str) -> str:
    r"""Return a JSON text of the same value, with control characters in strings escaped (``\u001b``)."""
    return _INVISIBLE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


class VisibleFormatter(logging.Formatter):
    """Log formatter that escapes control characters, except the line feeds of tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return visible_lines(super().format(record))


def log_to_console(level: str | int, form: str, handler: logging.Handler | None = None) -> None:
    """Log to standard error unless the program has configured logging, like `logging.basicConfig`.

    Args:
        level: Minimum level of records.
        form: Format of records.
        handler: Handler that writes the records; None: a `logging.StreamHandler`.
    """
    if handler is None:
        handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
