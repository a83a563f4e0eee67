"""Tests of the page and the JavaScript client with a gateway and an msl-network 1.0.0 Manager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.reference import Manager, Process, free_port, start_manager

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

USERS = (("alice", "pw-a", True), ("bob", "pw-b", False))
IMPORT = "const network = await import(args[0] + 'msl-network.js'); const url = args[0].replace('http', 'ws') + 'msl';"
TOLD = "const told = (promise) => promise.then(String, (error) => [error.name, error.mayHaveRun, error.typeName ?? '']);"


@pytest.fixture(scope="module")
def manager(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = start_manager(tmp_path_factory.mktemp("reference"), users=USERS)
    try:
        manager.start_service("Echo")
        yield manager
    finally:
        manager.end()


@pytest.fixture(scope="module")
def gateway_url(manager: Manager) -> Iterator[str]:
    port = free_port()
    command = ["-m", "msl_network_trio", "gateway", "--manager", f"localhost:{manager.port}"]
    command += ["--listen", f"localhost:{port}", "--disable-tls", "--manager-disable-tls"]
    gateway = Process.start(command, manager.home, "Gateway running on")
    yield f"http://localhost:{port}/"
    gateway.end()


def test_the_page_shows_the_network_of_an_unmodified_manager(page, gateway_url):
    page.open(gateway_url)
    page.wait_for_state("connected")
    page.choose("Echo")
    assert page.call("add", "1, 2").splitlines()[-1] == "3"
    assert page.call("big_integer").splitlines()[-1] == str(2**200)
    assert page.call("nan").splitlines()[-1] == "[NaN, Infinity, -Infinity]"
    assert "RuntimeError: outer" in page.call("fail_in_two_lines")
    page.button("Watch").click()
    page.wait_for("document.querySelector('[aria-pressed=true]') !== null")
    page.call("notify", "'<b>now</b>', level=3")
    page.wait_for(
        """document.querySelector('.notifications code')?.textContent === '"<b>now</b>", level=3'"""
    )


def test_answers_without_a_uid_reach_the_requests_that_they_concern(page, gateway_url):
    page.open(gateway_url)
    result = page.run_async(
        IMPORT
        + TOLD
        + """
        const client = await network.connect(url, { username: "alice", password: "pw-a" });
        const echo = await client.link("Echo");
        const one = await told(client.request("Gone", "x"));
        const many = [...Array(8)].map(() => told(client.request("Gone", "x")));
        const others = [1, 2].map((number) => told(echo.add(number, 0)));
        const admin = told(client.request("Manager", "port"));
        const held = told(echo.add(3, 0));
        const again = told(client.request("Gone", "y"));
        const unknown = told(client.request("Manager", "nonsense"));
        const after = told(echo.add(4, 0));
        const results = {
          one, many: await Promise.all(many), others: await Promise.all(others), admin: await admin,
          held: await held, again: await again, unknown: await unknown, after: await after,
        };
        client.close();
        return results;
        """,
        gateway_url,
    )
    assert result["one"] == ["ServiceLost", False, ""]
    assert result["many"] == [["ServiceLost", True, ""]] * 8
    assert result["others"] == ["1", "2"]
    assert result["admin"].isdecimal()
    assert result["held"] == "3"
    assert result["again"][:1] == ["ServiceLost"]
    assert result["unknown"][:2] == ["ManagerError", True]
    assert result["after"] == "4"


def test_who_is_no_administrator_is_refused_and_stays_connected_and_a_wrong_password_ends_the_connection(
    page, gateway_url
):
    page.open(gateway_url)
    result = page.run_async(
        IMPORT
        + TOLD
        + """
        const bob = await network.connect(url, { username: "bob", password: "pw-b" });
        const refused = [await told(bob.request("Manager", "port")), await told(bob.request("Echo", "add", [1, 2]))];
        bob.close();
        const nobody = await network.connect(url, { ask: () => "" });
        const declined = [await told(nobody.request("Manager", "port")), await told(nobody.request("Echo", "add", [1, 2]))];
        nobody.close();
        const wrong = await network.connect(url, { username: "alice", password: "pw-x", reconnect: false });
        const ended = [await told(wrong.request("Manager", "port")), await told(wrong.request("Echo", "add", [1, 2]))];
        return { refused, declined, ended, state: wrong.state };
        """,
        gateway_url,
    )
    administrator = ["ManagerError", True, "ValueError"]
    assert result["refused"] == [administrator, "3"]
    assert result["declined"] == [administrator, "3"]
    assert result["ended"][0] == administrator
    assert result["ended"][1][0] == "ConnectionLost"


def test_a_service_that_dies_is_noticed_although_its_manager_says_nothing(page, gateway_url, manager):
    manager.start_service("Mortal")
    page.open(gateway_url)
    result = page.run_async(
        IMPORT
        + TOLD
        + """
        const client = await network.connect(url, { heartbeat: 0.3 });
        const mortal = await client.link("Mortal");
        const results = [await told(mortal.add(1, 1)), await told(mortal.die()), await told(client.request("Echo", "add", [1, 1]))];
        client.close();
        return results;
        """,
        gateway_url,
    )
    assert result == ["2", ["ServiceLost", True, ""], "2"]
