"""What a Service tells about itself."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from typing import Any

from msl_network_trio.logger import get_logger
from msl_network_trio.service.lookup import UNLISTED, is_public

logger = get_logger(__name__)


def describe_attributes(service: object, ignored: Collection[str]) -> dict[str, Any]:
    """Describe the public attributes of a Service as msl-network does.

    A warning is logged for each attribute that cannot be described; to ignore it silences that. Properties
    are evaluated, in the thread of the caller.

    Args:
        service: The Service.
        ignored: The names of attributes to leave out.

    Returns:
        For what can be called, the text of its signature; for anything else its value.
    """
    attributes = {}
    for name in dir(service):
        if name.startswith("_") or name in ignored or name in UNLISTED or not is_public(service, name):
            continue
        try:
            attributes[name] = _describe(getattr(service, name))
        except Exception as error:  # noqa: BLE001 - getattr() runs code of the user
            logger.warning("%s [attribute=%r]", error, name)
    return attributes


def _describe(value: Any) -> Any:
    try:
        return str(inspect.signature(value))
    except TypeError:
        # It cannot be called. What msl-network could not send is left out, as it does.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
