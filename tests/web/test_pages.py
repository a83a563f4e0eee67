"""Tests of the files that browsers can load."""

from __future__ import annotations

from importlib import resources

import pytest

from msl_network_trio.web.pages import find_page

FILES = sorted(
    file.name
    for file in resources.files("msl_network_trio.web").iterdir()
    if not file.name.endswith((".py", "__"))
)


def test_the_files_are_part_of_what_is_installed():
    assert {"index.html", "style.css", "icon.svg", "page.js", "msl-network.js", "exact-json.js"} <= set(FILES)


@pytest.mark.parametrize("path", ["/", "/index.html", "/?from=elsewhere"])
def test_the_root_is_the_page(path):
    page = find_page(path)
    assert page.content_type == "text/html; charset=utf-8"
    assert page.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_package_is_served(name):
    page = find_page(f"/{name}")
    assert page.body == (resources.files("msl_network_trio.web") / name).read_bytes()
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"


def test_pages_of_other_origins_may_load_the_client_and_nothing_else():
    for name in FILES:
        allowed = find_page(f"/{name}").headers.get("Access-Control-Allow-Origin")
        assert allowed == (
            "*"
            if name in {"msl-network.js", "exact-json.js", "errors.js", "link.js", "presence.js"}
            else None
        )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/pages.py",
        "/__init__.py",
        "/../pages.py",
        "//index.html",
        "/msl",
        "/index.html/",
        "/web/index.html",
        "/%69ndex.html",
        "/\0",
        "/INDEX.HTML",
    ],
)
def test_nothing_else_is_served(path):
    assert (find_page(path) is None) is (path not in {"", "/"})
