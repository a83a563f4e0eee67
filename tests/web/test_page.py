"""Tests of the page in Chromium, with a real Manager and a real Service."""

from __future__ import annotations

import time

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.web.chromium import PATIENCE
from tests.web.services import MARKUP, NAME

pytestmark = pytest.mark.timeout(180)  # a browser starts slowly on a busy machine

CONTRAST = """
const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const background = (element) => {
  for (; element; element = element.parentElement) {
    const color = numbers(getComputedStyle(element).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  throw new Error("transparent");
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if ((!isText && element.tagName !== "INPUT") || !element.checkVisibility() || element.disabled) continue;
  const [a, b] = [numbers(getComputedStyle(element).color), background(element)].map(luminance);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push([element.outerHTML.slice(0, 100), ratio]);
}
return poor;
"""

UNNAMED = """
const named = (element) => element.labels?.length || element.textContent.trim() || element.ariaLabel;
return [...document.querySelectorAll("input, button, a, summary, ol[tabindex]")]
  .filter((element) => !named(element)).map((element) => element.outerHTML);
"""


def test_a_person_calls_methods_and_sees_what_comes_of_it(page, lab):
    page.open(lab.url)
    page.wait_for_state("connected")
    page.choose(NAME)
    assert page.text("#manager").startswith("Manager[")
    assert "(this page)" in page.text("#clients")
    assert "add (x: float, y: float = 2) -> float" in page.text("#content")
    assert page.attribute("add").find_element(By.CSS_SELECTOR, "input.mono").get_attribute("placeholder") == (
        "x, y=2"
    )
    assert page.call("add", "1, y=2.5").splitlines()[-1] == "3.5"
    # Values that JSON.parse and JSON.stringify would change make the round trip.
    assert page.call("same", "[12345678901234567890, nan, -inf, None, 'é\"']").splitlines()[-1] == (
        '[12345678901234567890, NaN, -Infinity, null, "é\\""]'
    )
    assert (
        page.call("echo", "1.0, {'a': (True, )}, b=[]").splitlines()[-1] == '[[1, {"a": [true]}], {"b": []}]'
    )
    assert "volt" in page.call("unit")
    mistaken = page.start_call("add", "1, volt")
    assert "volt is no value" in mistaken.find_element(By.CLASS_NAME, "mistake").text
    field = mistaken.find_element(By.CSS_SELECTOR, "input.mono")
    assert field.get_attribute("aria-invalid") == "true"
    assert field == page.driver.switch_to.active_element


def test_what_a_service_raises_is_shown_with_its_traceback_folded(page, lab):
    page.open(lab.url)
    page.choose(NAME)
    assert "ValueError: too hot" in page.call("fail", "'too hot'")
    traceback = page.attribute("fail").find_element(By.CSS_SELECTOR, ".outcome details")
    assert "raise ValueError" not in traceback.text
    traceback.find_element(By.TAG_NAME, "summary").click()
    assert "raise ValueError(message)" in traceback.text
    late = page.attribute("hang")
    limit = late.find_element(By.CSS_SELECTOR, "input[type=number]")
    limit.clear()
    limit.send_keys("0.2")
    assert "No reply in 0.2 s" in page.call("hang")
    limit.clear()
    page.start_call("hang")
    page.button("Stop waiting").click()
    assert "may still execute the request" in page.outcome(late)
    other = page.attribute("Another attribute…")
    name = other.find_elements(By.CSS_SELECTOR, "input.mono")[0]
    name.send_keys("_private", Keys.ENTER)
    assert "PermissionError" in page.outcome(other)
    shown = page.call("text", "30000")
    assert "Show all 30,002 characters" in shown
    assert len(shown) < 21_000


def test_nothing_of_the_network_becomes_markup_and_nothing_comes_from_elsewhere(page, lab):
    page.open(lab.url)
    page.choose(NAME)
    page.button("Watch").click()
    page.wait_for("document.querySelector('[aria-pressed=true]') !== null")
    assert MARKUP in page.call("same", f'"{_escaped(MARKUP)}"').replace("\\", "")
    assert MARKUP in page.call("fail", f'"{_escaped(MARKUP)}"')
    page.call("notify", f'1, "{_escaped(MARKUP)}", key="{_escaped(MARKUP)}"')
    page.wait_for("document.querySelector('.notifications time') !== null")
    assert MARKUP in page.text("#content .notifications").replace("\\", "")
    assert page.text("#content h2") == NAME
    assert f"{MARKUP} (value: Any)" in page.text("#content")
    assert MARKUP in page.call("markup").replace("\\", "")
    assert page.run("return window.hacked") is None
    assert page.run("return document.querySelectorAll('img, script').length") == 2  # the page's own
    loaded = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert all(name.startswith(lab.url) for name in loaded)


def _escaped(text: str) -> str:
    return text.replace('"', '\\"')


def test_a_service_that_sends_no_texts_where_texts_belong_is_shown_all_the_same(page, lab):
    page.open(lab.url)
    shown = page.run_async(
        """
        const { listedAttribute } = await import(args[0] + "method.js");
        const { RemoteError } = await import(args[0] + "msl-network.js");
        const failing = async () => { throw new RemoteError("odd", { traceback: [{ toString: 1 }, null, "line"] }); };
        const details = listedAttribute(failing, "<b>", "(");
        document.body.append(details);
        details.open = true;
        while (!details.querySelector("form")) await new Promise((resolve) => setTimeout(resolve, 10));
        details.querySelector("form").requestSubmit();
        while (!details.querySelector(".failed")) await new Promise((resolve) => setTimeout(resolve, 10));
        return details.querySelector(".failed details pre").textContent;
        """,
        lab.url,
    )
    assert shown == '{"toString": 1}\nnull\nline'


def test_control_characters_of_a_service_are_shown_escaped(page, lab):
    page.open(lab.url)
    shown = page.run_async(
        """
        const { listedAttribute } = await import(args[0] + "method.js");
        const { RemoteError } = await import(args[0] + "msl-network.js");
        const bad = "a\\x1b[2J\\u202eb\\x9b";
        const failing = async () => { throw new RemoteError(`${bad}\\nline`, { traceback: [bad, "line"] }); };
        const details = listedAttribute(failing, bad, `(${bad})`);
        document.body.append(details);
        details.open = true;
        while (!details.querySelector("form")) await new Promise((resolve) => setTimeout(resolve, 10));
        details.querySelector("form").requestSubmit();
        while (!details.querySelector(".failed")) await new Promise((resolve) => setTimeout(resolve, 10));
        return [details.textContent, details.outerHTML];
        """,
        lab.url,
    )
    for text in shown:
        assert text.count(r"a\x1b[2J\u202eb\x9b") >= 4
        assert set("\x1b\x9b\u202e").isdisjoint(text)


def test_notifications_are_shown_as_they_come_and_the_list_is_bounded(page, lab):
    page.open(lab.url)
    page.choose(NAME)
    page.button("Watch").click()
    page.wait_for("document.querySelector('[aria-pressed=true]') !== null")
    page.call("notify", "500, unit='V'")
    page.wait_for("document.querySelector('.notifications + p').textContent.startsWith('500 received')")
    items = page.run(
        "return [...document.querySelectorAll('.notifications li code')].map((each) => each.textContent)"
    )
    assert items == [f'{number}, unit="V"' for number in range(499, 299, -1)]
    assert page.text("#services .badge") == "500"
    page.button("Stop watching").click()
    page.wait_for("document.querySelector('[aria-pressed=true]') === null")
    page.call("notify", "1")
    page.button("Clear").click()
    assert "Watch to see the notifications" in page.text(".notifications")


def test_it_can_be_read_and_operated_by_everybody(page, lab):
    chrome = page.driver.execute_cdp_cmd
    page.open(lab.url)
    page.choose(NAME)
    for name, arguments in [("add", "1"), ("fail", "'x'"), ("same", "volt"), ("unit", None)]:
        page.start_call(name, arguments)
    page.outcome(page.attribute("fail"))
    page.attribute("Another attribute…")
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            chrome("Emulation.setEmulatedMedia", {"features": features})
            assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
            assert page.run(CONTRAST) == []
        for width, height in [(390, 844), (1280, 900)]:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            chrome("Emulation.setDeviceMetricsOverride", metrics)
            assert page.run("return innerWidth") == width
            assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        chrome("Emulation.clearDeviceMetricsOverride", {})
        chrome("Emulation.setEmulatedMedia", {"features": []})
    assert page.run(UNNAMED) == []


def test_a_keyboard_is_enough(page, lab):
    page.open(lab.url)
    page.wait_for("document.querySelector('#services a') !== null")

    def press(*keys):
        page.driver.switch_to.active_element.send_keys(*keys)

    def focused():
        return page.driver.switch_to.active_element

    page.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert focused().text == "Skip to the Service"
    press(Keys.TAB)
    press(Keys.ENTER)
    page.wait_for("document.querySelector('.method') !== null && document.activeElement.id === 'content'")
    while not focused().text.startswith("add "):
        press(Keys.TAB)
    press(Keys.ENTER)
    page.wait_for("document.querySelector('.method[open] form') !== null")
    press(Keys.TAB)
    press("40, 2", Keys.ENTER)
    page.wait_for("document.querySelector('.outcome.done pre')?.textContent === '42'")
    # Screen readers announce it.
    assert (
        page.run("return document.querySelector('.method[open] [role=status]').textContent") == "Number: 42"
    )


def test_it_comes_back_when_the_manager_does_and_goes_on_watching(page, start_lab):
    lab = start_lab()
    lab.start_service("Echo")
    page.open(lab.url)
    page.choose("Echo")
    page.button("Watch").click()
    page.wait_for("document.querySelector('[aria-pressed=true]') !== null")
    hanging = page.start_call("hang")
    lab.manager.process.kill()
    page.wait_for_state("lost")
    assert "Echo.hang may have been executed" in page.outcome(hanging)
    assert "Trying again" in page.text("#trouble") or "Connect" in page.text("#trouble")
    lab.start()
    lab.start_service("Echo")
    page.wait_for_state("connected")
    assert not page.driver.find_element(By.ID, "trouble").is_displayed()
    page.wait_for("document.querySelector('#services .about').textContent !== 'has gone'")
    # The page relinks when the Service has reconnected.
    deadline = time.monotonic() + PATIENCE
    while page.text("#services .badge") == "0" and time.monotonic() < deadline:
        page.call("notify", "1")
    assert page.text("#services .badge") != "0"
    assert "s without notifications: Lost ws" in page.text("#content .notifications")


def test_the_password_of_the_manager_is_asked_for_also_over_tls(page, start_lab):
    lab = start_lab(auth_password="secret", tls=True)

    def answer(*keys):
        page.wait_for("document.getElementById('login').open")
        assert "asks for its password" in page.text("#login")
        page.driver.find_element(By.ID, "login-answer").send_keys(*keys)

    page.open(lab.url)
    answer("wrong", Keys.ENTER)
    page.wait_for_state("closed")
    assert "Wrong Manager password" in page.text("#trouble")
    page.button("Connect").click()
    answer(Keys.ESCAPE)
    page.wait_for_state("closed")
    assert "requires an answer to its question" in page.text("#trouble")
    page.button("Connect").click()
    answer("secret", Keys.ENTER)
    page.wait_for_state("connected")
    assert "No Service is connected" in page.text("nav")
    assert page.text("#address") == lab.websocket_url
    assert lab.websocket_url.startswith("wss:")


def test_a_question_goes_with_the_connection(page, start_lab):
    lab = start_lab(auth_password="secret")
    page.open(lab.url)
    page.wait_for("document.getElementById('login').open")
    lab.manager.process.kill()
    page.wait_for("!document.getElementById('login').open")
    lab.options = {}
    lab.start()
    page.wait_for_state("connected")
    lab.manager.process.kill()
    page.wait_for_state("lost")
    assert "question" not in page.text("#trouble")
