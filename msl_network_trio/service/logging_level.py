"""The logging level of this package, which clients can set in Services and Managers."""

# No "from __future__ import annotations": the signature is a part of the identity of every Service, and must
# read like that of msl-network.
import logging
from typing import Union

from msl_network_trio.arguments import whole
from msl_network_trio.logger import get_logger

PACKAGE = "msl_network_trio"
"""The name of the logger of this package."""

logger = get_logger(PACKAGE)


def set_logging_level(level: Union[str, int]) -> bool:  # noqa: UP007 - see above
    """Set the logging level of this package.

    Args:
        level: A number or a name; ``"20"`` is a number, too.

    Returns:
        Whether there is such a level; otherwise nothing changes.
    """
    try:
        number = _number_or_name(level) if isinstance(level, str) else whole("level", level, 0)
        logging.getLogger(PACKAGE).setLevel(number)
    except (ValueError, TypeError):
        logger.error("invalid logging level %r", level)  # noqa: TRY400 - the value says it all
        return False
    return True


def _number_or_name(text: str) -> Union[str, int]:  # noqa: UP007
    try:
        return int(text)
    except ValueError:
        return text.upper()
