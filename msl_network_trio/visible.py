"""Escaping of control characters in texts of peers, before a terminal, a log or a page shows them.

A peer that chooses a name, a message or a certificate could otherwise fake a line, clear the screen or
reverse the order of the text. Everything that shows such a text calls one of these functions; the text
itself is passed on as it came.
"""

from __future__ import annotations

import logging
import re
from typing import Final

_CONTROL: Final = "\x00-\x1f\x7f-\x9f"
_LINES: Final = "\u2028\u2029"
_DIRECTIONS: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SURROGATES: Final = "\ud800-\udfff"
"""They are no characters at all, and cannot be written anywhere."""

_INVISIBLE: Final = re.compile(f"[{_CONTROL}{_LINES}{_DIRECTIONS}{_SURROGATES}]")
_INVISIBLE_IN_LINES: Final = re.compile(f"(?!\n){_INVISIBLE.pattern}")
_INVISIBLE_IN_JSON: Final = re.compile(f"(?![\n\r\t]){_INVISIBLE.pattern}")


def visible(text: str) -> str:
    r"""Return a text as one line that shows all of it: ``\x1b`` for an escape character, for example."""
    return text if text.isprintable() else _INVISIBLE.sub(_escape, text)


def visible_lines(text: str) -> str:
    r"""Return a text that may have several lines; their ends (``\n``) stay, and nothing else does."""
    return text if text.isprintable() else _INVISIBLE_IN_LINES.sub(_escape, text)


def visible_json(text: str) -> str:
    r"""Return JSON with such characters escaped (``\u001b``): the same value, as only its texts have any."""
    return _INVISIBLE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


class VisibleFormatter(logging.Formatter):
    """Formats records of a log as text; tracebacks keep their lines, and nothing else gets through."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return visible_lines(super().format(record))


def log_to_console(level: str | int, form: str, handler: logging.Handler | None = None) -> None:
    """Log to standard error, if the program has not configured logging already; as `logging.basicConfig`.

    Args:
        level: From which level on.
        form: The format of a record.
        handler: Writes the records; None: `logging.StreamHandler`.
    """
    if handler is None:
        handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
