"""Expiry reports and reload of the certificate that a running Manager uses."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from msl_network_trio.exceptions import CertificateError
from msl_network_trio.logger import get_logger
from msl_network_trio.manager.certificates import Shown, refusal, shown
from msl_network_trio.protocol.manager.event_log import emit

logger = get_logger(__name__)

_DAY: Final = 24 * 3600.0
"""Seconds."""

_REPORTS: Final = (30, 7, 1, 0)
"""Days before a certificate expires at which that is reported."""

_LOOK_EVERY: Final = 3600.0
"""Maximum number of seconds between looks at the clock, which may be set."""


@attrs.frozen
class Pair:
    """A certificate and its key, loaded."""

    context: ssl.SSLContext

    path: Path
    """The file of the certificate."""

    shown: Shown | None
    """What clients are shown; None: they accept nothing that could be shown."""


def load(make: Callable[[], tuple[ssl.SSLContext, Path]]) -> Pair:
    """Load key and certificate; blocking.

    Args:
        make: Calls `server_context`.

    Raises:
        CertificateError: They cannot be used.
    """
    context, path = make()
    return Pair(context, path, shown(context, path))


class CertificateInUse:
    """The certificate of a Manager that runs.

    Args:
        pair: It and its key.
        make: Calls `server_context` once more.
        use: Has connections secured with another context from then on.
        now: Returns the time in seconds since 1970.

    Attributes:
        pair: The certificate and its key.
    """

    def __init__(
        self,
        pair: Pair,
        make: Callable[[], tuple[ssl.SSLContext, Path]],
        use: Callable[[ssl.SSLContext], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.pair = pair
        self._make = make
        self._use = use
        self._now = now
        self._one_at_a_time = trio.Lock()
        self._changed = trio.Event()

    async def reload(self) -> dict[str, Any]:
        """Read key and certificate from their files again, and use them for new connections.

        Returns:
            The file of the ``certificate``, its SHA-256 ``fingerprint``, and when it ``expires`` (ISO 8601).

        Raises:
            CertificateError: They cannot be used; those that were in use stay so.
        """
        async with self._one_at_a_time:
            pair = await trio.to_thread.run_sync(self._load)
            self.pair = pair
            self._use(pair.context)
            self._changed.set()
        assert pair.shown is not None  # else it was refused
        logger.info("new connections are secured with the certificate %s", pair.shown.fingerprint)
        return {
            "certificate": str(pair.path),
            "fingerprint": pair.shown.fingerprint,
            "expires": _date(pair.shown.expires).isoformat(),
        }

    def _load(self) -> Pair:
        try:
            pair = load(self._make)
            if why := refusal(pair.context, pair.path):
                raise CertificateError(f"Clients would not accept the certificate {pair.path}: {why}.")
        except CertificateError as error:
            text = str(error).removesuffix(".")
            raise CertificateError(f"{text}. The certificate that is in use stays so.") from error
        return pair

    async def report_expiry(self) -> None:
        """Report 30, 7 and 1 days before the certificate expires, and when it has; for ever."""
        while True:
            self._changed = trio.Event()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._report_one)
                    await self._changed.wait()
                    scope.cancel()

    async def _report_one(self) -> None:
        if self.pair.shown is None:
            return  # it was warned of when it was loaded
        expires = self.pair.shown.expires
        # What has been missed was reported when the certificate was loaded.
        to_come = [days for days in _REPORTS if expires - days * _DAY > self._now()]
        while to_come:
            seconds = expires - to_come[0] * _DAY - self._now()
            if seconds > 0:
                await trio.sleep(min(seconds, _LOOK_EVERY))
                continue
            while to_come and expires - to_come[0] * _DAY <= self._now():  # the computer may have slept
                days = to_come.pop(0)
            self._report(days, expires)

    def _report(self, days: int, expires: float) -> None:
        path, date = self.pair.path, f"{_date(expires):%Y-%m-%d %H:%M} UTC"
        what = f"expires in {days} {'day' if days == 1 else 'days'}, on" if days else "has expired on"
        emit(
            logging.WARNING if days else logging.ERROR,
            "certificate_expires",
            "the certificate %s %s %s. Replace it, and have the Manager load the new one with the command "
            "certreload or the admin request reload_certificate",
            path,
            what,
            date,
            certificate=str(path),
            days=days,
            expires=_date(expires).isoformat(),
        )


def _date(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
