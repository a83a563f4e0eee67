"""Chromium, and networks for it to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.interop.reference import Manager, Process, free_port, start_manager

_SERVICES = Path(__file__).with_name("services.py")


@attrs.define
class Lab:
    """A Manager of ours with a port for WebSocket, and its Services."""

    home: Path
    options: dict[str, Any]
    websocket_port: int = attrs.field(factory=free_port)
    manager: Manager | None = None

    def start(self) -> Lab:
        """Start the Manager, or after its end another one at the same ports."""
        self.end()
        port = None if self.manager is None else self.manager.port
        self.manager = start_manager(
            self.home, ours=True, port=port, websocket_port=self.websocket_port, **self.options
        )
        return self

    @property
    def url(self) -> str:
        assert self.manager is not None
        return f"{'https' if self.manager.tls else 'http'}://localhost:{self.websocket_port}/"

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "msl"

    def start_service(self, name: str) -> Process:
        assert self.manager is not None
        process = Process.start(
            [str(_SERVICES), str(self.manager.port), name], self.home, "is connected to Manager"
        )
        self.manager.services.append(process)
        return process

    def end(self) -> None:
        if self.manager is not None:
            self.manager.end()


@pytest.fixture
def start_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Start a Manager that the test may treat as it likes."""
    labs: list[Lab] = []

    def start(**options: Any) -> Lab:
        labs.append(Lab(tmp_path / f"lab-{len(labs)}", options))
        return labs[-1].start()

    yield start
    for lab in labs:
        lab.end()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, which all tests share."""
    from tests.web.chromium import Page, start_chromium

    driver = start_chromium(tmp_path_factory.mktemp("chromium"))
    try:
        yield Page(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A Manager with a Service that tries to be taken for markup, which no test may end."""
    from tests.web.services import NAME

    lab = Lab(tmp_path_factory.mktemp("web-lab"), {})
    try:
        lab.start().start_service(NAME)
        yield lab
    finally:
        lab.end()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """The page; afterwards the browser must have had nothing to complain about."""
    yield browser
    complaints = browser.complaints()
    browser.driver.get("about:blank")
    assert complaints == []
