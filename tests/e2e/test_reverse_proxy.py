"""Each documented reverse proxy, its configuration taken from the page and started: connections are made through it."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.deployment import Deployment, sign_in, wait_until
from e2e.outside import Authority

pytestmark = pytest.mark.e2e
PAGES = Path(__file__).parents[2] / "docs" / "how-to" / "reverse-proxy"
NGINX = "pid {place}/nginx.pid; error_log {place}/error.log; events {{}} http {{ access_log off; {config} }}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return chosen.getsockname()[1]


def configuration(name: str, place: Path, *, front: int, back: int) -> str:
    """The page's own text, but for what must differ here: ports, files, the name."""
    block = re.search(rf"```{name}\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    assert block, f"{name}.md has no configuration"
    text = block[1].replace("127.0.0.1:3000", f"127.0.0.1:{back}").replace("/etc/ssl/", f"{place}/")
    text = text.replace("https://coder.example.com:443, https://*.apps.example.com:443", f"https://127.0.0.1:{front}")
    for before, after in (("listen 443 ", f"listen 127.0.0.1:{front} "), ("bind :443 ", f"bind 127.0.0.1:{front} ")):
        text = text.replace(before, after)
    assert str(front) in text
    return text.replace("coder.example.com *.apps.example.com", "127.0.0.1")


def command(name: str, place: Path, text: str) -> list[str]:
    path = place / f"{name}.conf"
    path.write_text(NGINX.format(place=place, config=text) if name == "nginx" else text)
    return {
        "nginx": ["nginx", "-c", str(path), "-g", "daemon off;"],
        "haproxy": ["haproxy", "-db", "-f", str(path)],
        "caddy": ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"],
    }[name]


@pytest.fixture(params=["nginx", "haproxy", "caddy"])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    name = request.param
    if shutil.which(name) is None and not Path(f"/usr/sbin/{name}").exists():
        pytest.skip(f"needs {name}")
    authority = Authority(tmp_path, "authority")
    leaf = authority.leaf("coder", "IP:127.0.0.1")
    shutil.copy(leaf.with_suffix(".key"), tmp_path / "coder.key")
    both = leaf.read_text() + (leaf.with_suffix(".key").read_text() if name == "haproxy" else "")
    (tmp_path / "coder.pem").write_text(both)
    deployment, front, back = Deployment(tmp_path), free_port(), free_port()
    deployment.address, deployment.url = f"127.0.0.1:{back}", f"http://127.0.0.1:{back}"
    deployment.settings = {"CODER_CA_FILE": str(authority.pem)}
    where = ("--access-url", f"https://127.0.0.1:{front}", "--proxy-trusted-origins", "127.0.0.1/32")
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin", "HOME": str(tmp_path)}
    with (tmp_path / "proxy.log").open("w") as log:
        text = configuration(name, tmp_path, front=front, back=back)
        proxy = subprocess.Popen(command(name, tmp_path, text), env=environment, stdout=log, stderr=log)
    try:
        deployment.start(
            "server",
            *("server", "--http-address", deployment.address, "--state-dir", str(tmp_path / "state")),
            *("--derp-server-stun-port", "0", *where),
        )
        wait_until("the server", deployment.healthy)
        deployment.url = f"https://127.0.0.1:{front}"
        wait_until(name, lambda: listens(front))
        yield deployment
    finally:
        proxy.terminate()  # killed, nginx would leave its workers behind
        proxy.wait()
        deployment.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_users_and_workspaces_meet_through_it(behind: Deployment):
    sign_in(behind)
    behind.ok("create", "dev", "--output-token-file", str(behind.place / "token"))
    behind.start("agent", "agent", CODER_AGENT_URL=behind.url, CODER_AGENT_TOKEN_FILE=str(behind.place / "token"))
    wait_until("the agent", lambda: '"connected"' in behind.ok("show", "dev", "-o", "json"))
    assert behind.ok("ssh", "dev", "echo", "through").strip() == "through"
    moved = json.loads(behind.ok("--disable-direct-connections", "speedtest", "dev", "-t", "1s", "-o", "json"))
    assert moved["overall"]["throughput_mbits"] > 0
    table = behind.ok("netcheck", "-o", "table")
    assert "by HTTP upgrade" in table, table
    assert "by WebSocket" not in table, table
