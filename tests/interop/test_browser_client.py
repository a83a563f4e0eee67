"""The JavaScript client in Node.js with a gateway, at both Managers, which are killed; see ``browser_client.mjs``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.interop.reference import start_manager
from tests.interop.test_websocket import start_gateway
from tests.web.test_modules import MODULES, node

pytestmark = [pytest.mark.interop, pytest.mark.slow]

_PROGRAM = Path(__file__).with_name("browser_client.mjs")
_FLAG = "--experimental-websocket"


@pytest.mark.parametrize("ours", [False, True], ids=["reference", "ours"])
def test_a_client_survives_its_manager_and_its_service(start, ours):
    program = node()
    if subprocess.run([program, _FLAG, "-e", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip("Node.js has no WebSocket")
    manager = start(ours=ours)
    _, port = start_gateway(manager)
    service = manager.start_service("Echo")
    restarted = None
    command = [program, "--no-warnings", _FLAG, str(_PROGRAM), str(MODULES), f"ws://localhost:{port}/msl"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for what in ("kill the Manager", "start the Manager", "restart the Service"):
            assert client.stdout.readline().strip() == what
            if what == "kill the Manager":
                manager.process.kill()
            elif what == "start the Manager":
                restarted = start_manager(manager.home, ours=ours, port=manager.port)
                service = restarted.start_service("Echo")
            else:
                service.kill()
                restarted.start_service("Echo")
            client.stdin.write("\n")
            client.stdin.flush()
        seen = json.loads(client.stdout.readline())
    finally:
        client.kill()
        client.communicate()
        if restarted is not None:
            restarted.end()
    assert seen == {
        "relinking": [True, 3, 0],  # a link that is requested again, while it is locked, changes nothing
        "refused": ["ServiceLost", False],
        "cut": ["ConnectionLost", True],
        "locked": ["LockLost", False],
        "waiting": 7,
        "orphaned": ["ServiceLost", True],
        "after": 11,
        "gaps": [1, 2],
    }
