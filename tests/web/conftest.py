"""Fixtures: Chromium, and networks for its pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.interop.reference import Manager, Process, free_port, start_manager

_SERVICES = Path(__file__).with_name("services.py")


@attrs.define
class WebManager:
    """A Manager with a WebSocket port, and its Services."""

    home: Path
    options: dict[str, Any]
    websocket_port: int = attrs.field(factory=free_port)
    manager: Manager | None = None

    def start(self) -> WebManager:
        """Start a Manager; after a restart it has the same ports."""
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
def start_lab(tmp_path: Path) -> Iterator[Callable[..., WebManager]]:
    """Start a Manager for one test, which may stop it."""
    labs: list[WebManager] = []

    def start(**options: Any) -> WebManager:
        labs.append(WebManager(tmp_path / f"lab-{len(labs)}", options))
        return labs[-1].start()

    yield start
    for lab in labs:
        lab.end()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, shared by all tests."""
    from tests.web.chromium import Page, start_chromium

    driver = start_chromium(tmp_path_factory.mktemp("chromium"))
    try:
        yield Page(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebManager]:
    """A Manager with a Service whose texts look like markup; shared, so no test may stop it."""
    from tests.web.services import NAME

    lab = WebManager(tmp_path_factory.mktemp("web-lab"), {})
    try:
        lab.start().start_service(NAME)
        yield lab
    finally:
        lab.end()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """The page; fails if the browser has logged an error by the end of the test."""
    yield browser
    complaints = browser.complaints()
    browser.driver.get("about:blank")
    assert complaints == []
