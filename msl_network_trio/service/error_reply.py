"""Replies to requests that fail: they are logged, and the traceback shows the frames of the user only."""

from __future__ import annotations

from typing import Final

from msl_network_trio.asyncio_advice import explain
from msl_network_trio.logger import get_logger
from msl_network_trio.protocol.incoming_requests import IncomingRequest, requester_of
from msl_network_trio.protocol.service_lines import encode_error, sendable_error
from msl_network_trio.visible import visible

logger = get_logger(__name__)

_INTERNAL: Final = ("msl_network_trio.service.", "msl_network_trio.protocol.", "trio.", "outcome.", "json.")
"""Prefixes of the modules whose frames are left out of the traceback above those of a method."""


def error_reply(request: IncomingRequest, error: BaseException) -> bytes:
    """Log that a request failed, and return the encoded reply. Can be called in any thread.

    Args:
        request: The request.
        error: The exception of its method, or of encoding what the method returned.
    """
    advice = explain(error)
    text = visible(sendable_error(error, advice))
    logger.error("%r, requested by %s: %s", request.attribute, requester_of(request), text)
    return encode_error(request, error, without=_INTERNAL, advice=advice)
