"""Phases of a peer's connection to a Manager, as pure state.

The handshake begins in `Phase.GREETING` and leads to `Phase.READY`. An administrator logs in while connected,
so some of the phases of the handshake occur again later; `Peer.kind` is set if the peer was admitted.

================  =====================================================  =====================================
phase             the Manager waits for                                  next phases
================  =====================================================  =====================================
``GREETING``      nothing: it has not asked anything yet                 ``PASSWORD``, ``USERNAME``,
                                                                         ``CHECK``, ``IDENTITY``
``PASSWORD``      the Manager's password                                 ``IDENTITY``
``USERNAME``      the name of a user                                     ``CHECK``, ``READY``
``USER_PASSWORD`` the password of that user                              ``CHECK``, ``USERNAME``, ``READY``
``IDENTITY``      the identity of the peer                               ``CHECK``, ``READY``
``CHECK``         the result of `ManagerProtocol.pending_check`          any but ``GREETING``, ``PASSWORD``
                                                                         and ``YIELDING``
``READY``         the next line of the peer                              ``USERNAME``, ``CHECK``, ``YIELDING``
``YIELDING``      the end of its turn, after a line that took long       ``READY``
``CLOSING``       nothing: the connection ends when all is written       none
================  =====================================================  =====================================

``CLOSING`` follows each of the others, too.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Phase(Enum):
    """The phase of a peer; the value is what the peer has to answer, as errors name it."""

    GREETING = "greeting"
    PASSWORD = "password"
    USERNAME = "username"
    USER_PASSWORD = "login password"
    IDENTITY = "identity"
    CHECK = "check"
    READY = "ready"
    YIELDING = "yielding"
    CLOSING = "closing"


TRANSITIONS: Final = {
    Phase.GREETING: {Phase.PASSWORD, Phase.USERNAME, Phase.CHECK, Phase.IDENTITY},
    Phase.PASSWORD: {Phase.IDENTITY},
    Phase.USERNAME: {Phase.CHECK, Phase.READY},
    Phase.USER_PASSWORD: {Phase.CHECK, Phase.USERNAME, Phase.READY},
    Phase.IDENTITY: {Phase.CHECK, Phase.READY},
    Phase.CHECK: {Phase.USERNAME, Phase.USER_PASSWORD, Phase.IDENTITY, Phase.READY},
    Phase.READY: {Phase.USERNAME, Phase.CHECK, Phase.YIELDING},
    Phase.YIELDING: {Phase.READY},
    Phase.CLOSING: set(),
}
"""The phases that follow each phase, besides `Phase.CLOSING`."""
