"""Headless Chromium, and the actions of a user on the page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 90.0
"""Maximum seconds to wait for a change of the page, on a busy machine."""

_FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def start_chromium(profile: Path) -> WebDriver:
    """Start Chromium with a new profile."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium and its driver are not installed (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in [*_FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.accept_insecure_certs = True  # the certificates of the tests are self-signed
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    return webdriver.Chrome(options=options, service=service)


_CHOOSE = """
[...document.querySelectorAll("#services a")].find((link) =>
  link.querySelector(".name").textContent === arguments[0]).click();
"""

_UNFOLD = """
const [name] = args;
const summary = [...document.querySelectorAll(".method > summary")].find((summary) =>
  (summary.querySelector(".name") ?? summary).textContent === name);
const method = summary.parentElement;
if (!method.open) summary.click();
while (!method.querySelector("form")) await new Promise((resolve) => setTimeout(resolve, 10));
return method;
"""

_SUBMIT = """
const [method, typed] = arguments;
const field = [...method.querySelectorAll("input.mono")].at(-1);
if (typed !== null) field.value = typed;
if (typed !== null) field.dispatchEvent(new InputEvent("input", { bubbles: true }));
method.querySelector("button[type=submit]").click();
"""


@attrs.define
class Page:
    """The page of a network in a browser tab."""

    driver: WebDriver

    def open(self, url: str) -> None:
        self.driver.get("about:blank")  # else a change of the fragment would not reload the page
        self.driver.get(url)

    def run(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def run_async(self, script: str, *args: Any) -> Any:
        """Run JavaScript that may await, and return its result; an error is returned as its text."""
        wrapped = (
            "const [done, ...args] = [arguments[arguments.length - 1], ...arguments];"
            f"(async () => {{ {script} }})().then(done, (error) => done(`failed: ${{error.stack}}`))"
        )
        self.driver.set_script_timeout(PATIENCE)
        return self.driver.execute_async_script(wrapped, *args)

    def wait_for(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true, and return it."""
        text = f"waited for {condition}"
        return WebDriverWait(self.driver, PATIENCE, 0.05).until(
            lambda _: self.run(f"return ({condition})"), text
        )

    def wait_for_state(self, state: str) -> None:
        self.wait_for(f"document.getElementById('state').dataset.state === '{state}'")

    def choose(self, service: str) -> None:
        """Select a Service, and wait until its attributes are shown."""
        self.wait_for("document.querySelector('#services a') !== null")
        self.run(_CHOOSE, service)
        self.wait_for("document.querySelector('.method') !== null")

    def attribute(self, name: str) -> WebElement:
        """Unfold an attribute and return its text."""
        return self.run_async(_UNFOLD, name)

    def start_call(self, name: str, arguments: str | None = None) -> WebElement:
        method = self.attribute(name)
        self.run(_SUBMIT, method, arguments)
        return method

    def call(self, name: str, arguments: str | None = None) -> str:
        """Call an attribute and return the text of the result."""
        return self.outcome(self.start_call(name, arguments))

    def outcome(self, method: WebElement) -> str:
        """Wait for the result of a call."""
        script = "return arguments[0].querySelector('.outcome.done, .outcome.failed')?.innerText"
        return WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: self.run(script, method))

    def button(self, text: str) -> WebElement:
        return self.driver.find_element(By.XPATH, f"//button[normalize-space()='{text}']")

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def complaints(self) -> list[str]:
        """Return the browser's errors since the last call, without failed connections."""
        entries = self.driver.get_log("browser")
        return [
            entry["message"]
            for entry in entries
            if entry["level"] in {"WARNING", "SEVERE"} and "WebSocket connection to" not in entry["message"]
        ]
