"""The description of a Service's attributes in its identity."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from typing import Any

from msl_network_trio.logger import get_logger
from msl_network_trio.service.lookup import UNLISTED, is_public

logger = get_logger(__name__)


def describe_attributes(service: object, ignored: Collection[str]) -> dict[str, Any]:
    """Return the public attributes of a Service as msl-network describes them.

    A warning is logged for each attribute that cannot be described, unless it is ignored. Properties are
    evaluated in the thread of the caller.

    Args:
        service: The Service.
        ignored: The names of attributes to leave out.

    Returns:
        By name, the signature of each callable as text, and the value of every other attribute.
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
        # It is not callable. As in msl-network, what the json module cannot encode is left out.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
