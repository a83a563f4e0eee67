"""The page on operation says of every limit, event and field of the status what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msl_network_trio.manager.settings import Limits

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operation.md"


def test_every_limit_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    for name in Limits.__annotations__:
        assert f"`--{name.replace('_', '-')}`" in text


def test_every_event_is_on_the_page():
    import msl_network_trio

    package = Path(msl_network_trio.__file__).parent
    text = PAGE.read_text(encoding="utf-8")
    events = set()
    for path in [*package.glob("protocol/**/*.py"), *package.glob("manager/*.py")]:
        source = path.read_text(encoding="utf-8")
        events |= set(re.findall(r'logging\.[A-Z]+,\s*"([a-z_]+)"', source))
    assert len(events) > 10
    for event in events:
        assert f"`{event}`" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"((?:    .*)?\n)*    \[Install\]\n    .*\n", text)[0]
    unit = re.sub(r"(?m)^    ", "", block).replace("/opt/msl/bin/python", sys.executable)
    assert "ExecStart=" in unit
    path = tmp_path / "msl-manager.service"
    path.write_text(unit.replace("User=msl\n", ""))  # who is not on this computer
    told = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=50
    )
    assert (told.returncode, [line for line in told.stderr.splitlines() if path.name in line]) == (0, [])
