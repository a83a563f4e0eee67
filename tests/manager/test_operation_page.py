"""The page on operation says of every limit, event and field of the status what there is."""

from __future__ import annotations

import re
from pathlib import Path

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
    for path in [*package.glob("protocol/*.py"), *package.glob("manager/*.py")]:
        source = path.read_text(encoding="utf-8")
        events |= set(re.findall(r'logging\.[A-Z]+,\s*"([a-z_]+)"', source))
    assert len(events) > 10
    for event in events:
        assert f"`{event}`" in text
