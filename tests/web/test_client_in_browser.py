"""The client for web pages in Chromium, with a real Manager and a real Service, as a page would use it."""

from __future__ import annotations

from tests.web.services import NAME

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
    assert result["news"] == {"service": NAME, "args": [0, "now", None], "kwargs": {}}
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
