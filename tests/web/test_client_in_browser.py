"""Tests of the JavaScript client in Chromium, with a real Manager and a real Service."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.web.services import NAME

pytestmark = pytest.mark.timeout(180)

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "browser.md"

IMPORT = "const network = await import(args[0] + 'msl-network.js'); const [page, url, name] = args;"


def test_a_page_connects_links_calls_and_is_notified(page, lab):
    page.open(lab.url)
    result = page.run_async(
        IMPORT
        + """
        const client = await network.connect(url, { name: "Test" });
        const service = await client.link(name);
        const notified = new Promise((resolve) => service.onNotification(resolve));
        const identity = await client.identity();
        const results = await Promise.all([service.add(1, 2), service.request("add", [1], { y: 5 }), service.unit()]);
        const big = await service.same([2n ** 70n, NaN, -Infinity, 2 ** 64]);
        await service.notify(1, "now", null);
        const news = await notified;
        const before = client.name;
        client.close();
        return {
          results, news, before, client: Object.hasOwn(identity.clients, before), state: client.state,
          big: big.map(String), attributes: Object.keys(service.identity.attributes).includes("add"),
        };
        """,
        lab.url,
        lab.websocket_url,
        NAME,
    )
    assert result["results"] == [3, 6, "volt"]
    assert result["big"] == ["1180591620717411303424", "NaN", "-Infinity", "18446744073709552000"]
    assert result["news"] == {"service": NAME, "args": [0, "now", None], "kwargs": {}, "gap": None}
    assert result["before"].startswith("Test[")
    assert result["client"]
    assert result["attributes"]
    assert result["state"] == "closed"


def test_every_failure_reaches_the_call_that_it_concerns(page, lab):
    lab.start_service("Mortal")
    page.open(lab.url)
    result = page.run_async(
        IMPORT
        + """
        const client = await network.connect(url);
        const told = (promise) => promise.then(String, (error) => [error.name, error.mayHaveRun, error.typeName ?? ""]);
        const service = await client.link(name);
        const mortal = await client.link("Mortal");
        const failures = {
          raised: await told(service.fail("bad")),
          // A time that is longer than browsers can measure: it must not be over at once.
          patient: await Promise.race([
            told(service.request("hang", [], {}, { timeout: 1e9 })),
            new Promise((resolve) => setTimeout(resolve, 300, "waits")),
          ]),
          late: await told(service.request("hang", [], {}, { timeout: 0.1 })),
          unknown: await told(client.link("Nobody")),
          gone: await told(client.request("Nobody", "x")),
          admin: await told(client.request("Manager", "users_table")),
          json: await told(service.same(() => 1)),
        };
        const [hanging, dying] = [told(mortal.hang()), told(mortal.die())];
        Object.assign(failures, { hanging: await hanging, dying: await dying, alive: await told(service.add(1, 1)) });
        const open = told(service.hang());
        client.close();
        failures.closed = await open;
        failures.after = await told(service.add(1, 1));
        return failures;
        """,
        lab.url,
        lab.websocket_url,
        NAME,
    )
    assert result == {
        "raised": ["RemoteError", True, "ValueError"],
        "patient": "waits",
        "late": ["ReplyTimeout", True, ""],
        "unknown": ["ManagerError", True, "KeyError"],
        "gone": ["ServiceLost", False, ""],
        "admin": ["ManagerError", True, "ValueError"],
        "json": ["TypeError", None, ""],
        "hanging": ["ServiceLost", True, ""],
        "dying": ["ServiceLost", True, ""],
        "alive": "2",
        "closed": ["ConnectionLost", True, ""],
        "after": ["ConnectionLost", False, ""],
    }


def test_a_client_survives_a_manager_and_a_service_that_are_killed(page, start_lab):
    lab = start_lab()
    lab.start_service("Mortal")
    page.open(lab.url)
    page.run_async(
        IMPORT
        + """
        const client = (window.client = await network.connect(url, { requestTimeout: 60 }));
        const mortal = (window.mortal = await client.link("Mortal", { idempotent: ["add"] }));
        window.gaps = [];
        window.news = [];
        mortal.onGap(({ reason }) => window.gaps.push(reason));
        mortal.onNotification(({ args }) => window.news.push(args[0]));
        await mortal.acquireLock();
        """,
        lab.url,
        lab.websocket_url,
        NAME,
    )
    told = "const told = (promise) => promise.then((x) => x, (error) => [error.name, error.mayHaveRun]);"
    page.run(told + "window.open = told(window.mortal.hang());")
    lab.manager.process.kill()
    page.wait_for("window.client.state !== 'connected'")
    page.run(told + "window.locked = told(window.mortal.add(1, 2));")
    assert page.run_async("return window.open") == ["ConnectionLost", True]
    assert page.run_async("return window.locked") == ["LockLost", False]
    page.run_async("await window.mortal.releaseLock()")
    page.run("window.waiting = window.mortal.add(1, 2);")
    lab.start()
    lab.start_service("Mortal")
    assert page.run_async("return window.waiting") == 3
    page.wait_for("window.gaps.length === 1")
    page.run(
        "window.mortal.notify(1).catch(() => {}); window.open = window.mortal.die().catch(({ name }) => name)"
    )
    assert page.run_async("return window.open") == "ServiceLost"
    page.run("window.waiting = window.mortal.add(2, 2);")
    lab.start_service("Mortal")
    assert page.run_async("return window.waiting") == 4
    assert page.run("return [window.gaps.length, window.news]") == [2, [0]]
    page.run("window.client.close()")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def pages_of(folder: Path) -> Iterator[str]:
    """Serve a folder from another origin."""
    (folder / "favicon.ico").touch()  # browsers request it
    with ThreadingHTTPServer(("localhost", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_page_of_the_documentation_works_where_the_manager_allows_its_origin(page, start_lab, tmp_path):
    text = DOCUMENTATION.read_text(encoding="utf-8")
    [program] = re.findall(r"```html\n(.*?)```", text, re.DOTALL)
    with pages_of(tmp_path) as origin:
        lab = start_lab(websocket_origin=origin)
        lab.manager.start_example_of_ours("heartbeat")
        program = program.replace("wss://lab-3:8875/msl", lab.websocket_url)
        program = program.replace("https://lab-3:8875/", lab.url)
        assert "lab-3:8875" not in program
        (tmp_path / "dashboard.html").write_text(program, encoding="utf-8")
        page.open(f"{origin}/dashboard.html")
        page.wait_for("/^beat \\d+$/.test(document.getElementById('value').textContent)")


def test_a_page_of_another_origin_gets_the_module_and_no_connection(page, lab, tmp_path):
    (tmp_path / "elsewhere.html").write_text("<title>elsewhere</title>", encoding="utf-8")
    with pages_of(tmp_path) as origin:
        page.open(f"{origin}/elsewhere.html")
        script = (
            IMPORT
            + "return network.connect(url, { reconnect: false }).then(String, (error) => [error.name, error.message])"
        )
        name, message = page.run_async(script, lab.url, lab.websocket_url, NAME)
        assert name == "ConnectError"
        assert message.startswith(f"Cannot connect to {lab.websocket_url}: ")
