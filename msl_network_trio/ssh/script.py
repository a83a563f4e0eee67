"""The end of the remote computer: the keyword arguments that `start_manager` has sent."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

OPTION: Final = "--kwargs"
"""The command-line option that the keyword arguments follow, as JSON."""

ON_STANDARD_INPUT: Final = "-"
"""Follows `OPTION` if the JSON is the first line of standard input, where no other user can read it."""


def parse_console_script_kwargs() -> dict[str, Any]:
    """Return the keyword arguments that `start_manager` was called with on another computer.

    To be called in the script whose path `start_manager` is given. The arguments are those for `run_forever`
    and `Service.start`; `filter_run_forever_kwargs` and `filter_service_start_kwargs` tell them apart, and
    `run_services` takes all of them.

    Returns:
        The keyword arguments; none if the script was not started by `start_manager`.

    Raises:
        ValueError: What follows ``--kwargs`` is no JSON object.
    """
    if OPTION not in sys.argv:
        return {}
    text = "".join(sys.argv[sys.argv.index(OPTION) + 1 :][:1])
    if text == ON_STANDARD_INPUT:
        text = sys.stdin.readline()
    try:
        kwargs = json.loads(text)
    except ValueError:
        kwargs = None
    if isinstance(kwargs, dict):
        return kwargs
    # Without a cause and without the text, which may have passwords in it.
    raise ValueError(f"{OPTION} must be followed by a JSON object, or by - and have one on standard input")
