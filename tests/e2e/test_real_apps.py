"""Programs that people run in workspaces, through their apps' hosts. Each is skipped where it is not installed.

`jupyter-lab` and `vite` are looked for in PATH; after `npm install vite` that is `node_modules/.bin`.
"""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from e2e.deployment import PATIENCE, wait_until
from e2e.services import free_ports
from e2e.test_apps import nothing_left_open, site

__all__ = ["nothing_left_open", "site"]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def started(*command: str, place) -> Iterator[None]:
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def websocket(site, port: int, path: str, **options):
    raw = socket.create_connection((site.address, int(site.port)))
    headers = {"Coder-Session-Token": site.token, "Origin": f"http://{site.host(port)}"}
    with connect(f"ws://{site.host(port)}{path}", sock=raw, additional_headers=headers, **options) as opened:
        yield opened


def test_a_notebook_runs_code(site, tmp_path):
    (port,) = free_ports()
    off = ("--ServerApp.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True", "--allow-root")
    host = ("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.allow_remote_access=True")
    with started(program("jupyter-lab"), "--no-browser", *off, *host, place=tmp_path):
        wait_until("JupyterLab", lambda: site.ask(port, "/api/status").status == 200)
        assert b"jupyter-config-data" in site.ask(port, "/lab").read()
        origin = f"http://{site.host(port)}"
        kernel = json.loads(site.ask(port, "/api/kernels", method="POST", body="{}", Origin=origin).read())["id"]
        with websocket(site, port, f"/api/kernels/{kernel}/channels") as channels:
            header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "username": "u"}
            content = {"code": "print(6 * 7)", "silent": False, "store_history": False, "allow_stdin": False}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            channels.send(json.dumps(message))
            told = (json.loads(channels.recv(PATIENCE)) for _ in range(100))
            stream = next(each for each in told if each["header"]["msg_type"] == "stream")
        assert stream["content"]["text"] == "42\n"


def test_a_dev_server_reloads_what_is_edited(site, tmp_path):
    (port,) = free_ports()
    (tmp_path / "index.html").write_text('<script type="module" src="/main.js"></script>')
    (tmp_path / "main.js").write_text("import.meta.hot.accept(); console.log(1)")
    (tmp_path / "vite.config.mjs").write_text('export default { server: { allowedHosts: [".apps.test"] } }')
    address = ("--host", "127.0.0.1", "--port", str(port), "--strictPort")
    with started(program("vite"), *address, place=tmp_path):
        wait_until("Vite", lambda: site.ask(port).status == 200)
        assert b"/@vite/client" in site.ask(port).read()
        assert b"console.log(1)" in site.ask(port, "/main.js").read()
        token = re.search(rb'wsToken = "([^"]+)"', site.ask(port, "/@vite/client").read())[1].decode()
        with websocket(site, port, f"/?token={token}", subprotocols=["vite-hmr"]) as hot:
            assert json.loads(hot.recv(PATIENCE)) == {"type": "connected"}
            (tmp_path / "main.js").write_text("import.meta.hot.accept(); console.log(2)")
            update = json.loads(hot.recv(PATIENCE))
        assert (update["type"], update["updates"][0]["path"]) == ("update", "/main.js")
        assert b"console.log(2)" in site.ask(port, "/main.js").read()
