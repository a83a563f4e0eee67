"""The part for the remote computer: reads the keyword arguments that `start_manager` sends."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

OPTION: Final = "--kwargs"
"""The command-line option that the keyword arguments follow, as JSON."""

ON_STANDARD_INPUT: Final = "-"
"""The value of `OPTION` if the JSON is the first line of standard input, which no other user can read."""


def parse_console_script_kwargs() -> dict[str, Any]:
    """Return the keyword arguments with which `start_manager` was called on another computer.

    The script that `start_manager` starts calls this. The arguments are those for `run_forever` and
    `Service.start`; `filter_run_forever_kwargs` and `filter_service_start_kwargs` separate them, and
    `run_services` takes all of them.

    Returns:
        The keyword arguments; none if the script was not started by `start_manager`.

    Raises:
        ValueError: ``--kwargs`` is not followed by a JSON object.
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
    # No cause and no JSON in the error, since they may contain passwords.
    raise ValueError(f"{OPTION} must be followed by a JSON object, or by - and have one on standard input")
