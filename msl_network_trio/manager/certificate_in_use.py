"""Expiry reports and reload of the certificate of a running Manager.

Files are read in worker threads, everything else runs in the Trio thread.
"""

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
from msl_network_trio.manager.certificates import PresentedCertificate, presented_certificate, refusal
from msl_network_trio.protocol.manager.event_log import emit

logger = get_logger(__name__)

_DAY: Final = 24 * 3600.0
"""Seconds of a day."""

_REPORTS: Final = (30, 7, 1, 0)
"""Days before the expiry at which it is reported."""

_CLOCK_CHECK_INTERVAL: Final = 3600.0
"""Maximum seconds between two checks of the clock, which may be adjusted."""


@attrs.frozen
class LoadedCertificate:
    """A certificate and its key, loaded from their files."""

    context: ssl.SSLContext

    path: Path
    """The file of the certificate."""

    presented: PresentedCertificate | None
    """The certificate that clients receive; None if they would not accept it."""


def load(make: Callable[[], tuple[ssl.SSLContext, Path]]) -> LoadedCertificate:
    """Load key and certificate; blocking.

    Args:
        make: Calls `server_context`.

    Raises:
        CertificateError: They cannot be used.
    """
    context, path = make()
    return LoadedCertificate(context, path, presented_certificate(context, path))


class CertificateInUse:
    """The certificate of a running Manager.

    Args:
        loaded: The certificate and its key.
        make: Calls `server_context` to load them again.
        use: Sets the context for new connections.
        now: Returns the time in seconds since the epoch.

    Attributes:
        loaded: The certificate and its key.
    """

    def __init__(
        self,
        loaded: LoadedCertificate,
        make: Callable[[], tuple[ssl.SSLContext, Path]],
        use: Callable[[ssl.SSLContext], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.loaded = loaded
        self._make = make
        self._use = use
        self._now = now
        self._reload_lock = trio.Lock()
        self._changed = trio.Event()

    async def reload(self) -> dict[str, Any]:
        """Load key and certificate again and use them for new connections.

        Returns:
            ``certificate``: the path of its file; ``fingerprint``: SHA-256; ``expires``: end of validity
            (ISO 8601).

        Raises:
            CertificateError: They cannot be used; the current ones remain in use.
        """
        async with self._reload_lock:
            loaded = await trio.to_thread.run_sync(self._load)
            self.loaded = loaded
            self._use(loaded.context)
            self._changed.set()
        assert loaded.presented is not None  # else _load() has raised an error
        logger.info("new connections are secured with the certificate %s", loaded.presented.fingerprint)
        return {
            "certificate": str(loaded.path),
            "fingerprint": loaded.presented.fingerprint,
            "expires": _date(loaded.presented.expires).isoformat(),
        }

    def _load(self) -> LoadedCertificate:
        try:
            loaded = load(self._make)
            if why := refusal(loaded.context, loaded.path):
                raise CertificateError(f"Clients would not accept the certificate {loaded.path}: {why}.")
        except CertificateError as error:
            text = str(error).removesuffix(".")
            raise CertificateError(f"{text}. The certificate in use remains.") from error
        return loaded

    async def report_expiry(self) -> None:
        """Report the expiry 30, 7 and 1 days before it and when it is reached; runs until cancelled."""
        while True:
            self._changed = trio.Event()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._report_one)
                    await self._changed.wait()
                    scope.cancel()

    async def _report_one(self) -> None:
        if self.loaded.presented is None:
            return  # loading has logged a warning
        expires = self.loaded.presented.expires
        # Loading has reported earlier ones.
        to_come = [days for days in _REPORTS if expires - days * _DAY > self._now()]
        while to_come:
            seconds = expires - to_come[0] * _DAY - self._now()
            if seconds > 0:
                await trio.sleep(min(seconds, _CLOCK_CHECK_INTERVAL))
                continue
            while (
                to_come and expires - to_come[0] * _DAY <= self._now()
            ):  # more than one after a suspend of the computer
                days = to_come.pop(0)
            self._report(days, expires)

    def _report(self, days: int, expires: float) -> None:
        path, date = self.loaded.path, f"{_date(expires):%Y-%m-%d %H:%M} UTC"
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
