"""Networks that let out little: what `coder netcheck` and `coder doctor` say of them; a workspace is reached anyway."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.deployment import Deployment, wait_until
from e2e.outside import Authority

from lab.deployment import NAMES, SEARCHED, Lab
from lab.topology import Host, Internet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its authorities with openssl"),
]

RELAYED = 3
BETWEEN = Path(__file__).with_name("between.py")
NGINX = """
daemon off; pid {place}/nginx.pid; error_log {place}/error.log; events {{}}
http {{
    access_log off; client_body_temp_path {place}/a; proxy_temp_path {place}/b; fastcgi_temp_path {place}/c;
    uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;
    map $http_upgrade $wanted {{ default close; websocket upgrade; }}
    map $http_upgrade $passed {{ default ""; websocket websocket; }}
    server {{
        listen 443 ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://{server}:3000; proxy_http_version 1.1; proxy_set_header Host $http_host;
            proxy_set_header Upgrade $passed; proxy_set_header Connection $wanted;
        }}
    }}
}}
"""
"""What many have in front of a server: WebSockets pass, no other upgrade does."""


class Secure(Lab):
    """A server with HTTPS on port 443, by an authority that every process knows."""

    def __init__(self, net: Internet, place: Path) -> None:
        super().__init__(net, place)
        self.url = f"https://{NAMES[0]}"
        self.ours, self.others = Authority(place, "ours"), Authority(place, "others")

    def environment(self, **extra: str) -> dict[str, str]:
        return super().environment(**{"CODER_CA_FILE": str(self.ours.pem)} | extra)

    def start_server(self) -> None:
        self.starts += 1
        certificate = self.ours.leaf("front", f"DNS:{NAMES[0]}")
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_suffix(".key")))
        flags = ("--tls-enable", "--tls-address", "[::]:443", "--tls-redirect-http-to-https=false", *files)
        Deployment.start_server(self, "", *flags)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Internet(NAMES) as net, Secure(net, tmp_path_factory.mktemp("out")) as made:
        made.agent("dev", net.host("agent"))
        yield made


def confined(lab: Secure, label: str, rule: str) -> Host:
    """A host that may send by this rule only."""
    host = lab.net.host(label)
    host.nft(
        f"table inet out {{\nchain out {{\ntype filter hook output priority 0; policy drop\n{rule} accept\n}}\n}}\n"
    )
    return host


def proxy(lab: Secure, label: str, *files: Path) -> str:
    """A proxy on the internet that leads to the server: `ip:port`."""
    host = lab.net.host(label)
    port, environment = "3000" if files else "443", lab.environment(PYTHONPATH=SEARCHED)
    process = host.popen(
        sys.executable, BETWEEN, lab.host.v4, port, *files,
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with contextlib.closing(process.stdout) as told:
        return f"{host.v4}:{int(told.readline())}"


def report(lab: Secure, place: Host, *flags: str, **environment: str):
    done = lab.run(*flags, "netcheck", place=place, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def verdict(lab: Secure, place: Host, *flags: str, **environment: str) -> tuple[int, str]:
    done = lab.run(*flags, "doctor", "dev", "-o", "json", place=place, **environment)
    diagnosis = json.loads(done.stdout)["diagnosis"]
    assert diagnosis is not None, done.stdout
    return done.returncode, diagnosis["verdict"]["code"]


def assert_relayed_without_udp(found, *, websocket: bool = False) -> None:
    """No UDP, and all the same a home with a latency, measured over HTTPS."""
    derp = found["derp"]
    assert (derp["netcheck"]["UDP"], derp["netcheck"]["PreferredDERP"]) == (False, 999), derp
    assert derp["netcheck"]["RegionLatency"]["999"] > 0
    [node] = derp["regions"]["999"]["node_reports"]
    assert (node["can_exchange_messages"], node["uses_websocket"]) == (True, websocket)
    assert node["stun"]["CanSTUN"] is False


def test_only_tcp_443(lab):
    place = confined(lab, "tcp-443", f"ip daddr {lab.host.v4} tcp dport 443")
    found = report(lab, place)
    assert_relayed_without_udp(found)
    assert found["proxies"] == []
    assert verdict(lab, place) == (RELAYED, "udp_blocked_client")


def test_only_a_proxy_that_knows_connect(lab):
    address = proxy(lab, "proxy")
    place = confined(lab, "proxied", f"ip daddr {address.rpartition(':')[0]} tcp dport {address.rpartition(':')[2]}")
    there = {"HTTPS_PROXY": f"http://{address}"}
    found = report(lab, place, **there)
    assert_relayed_without_udp(found)
    assert found["proxies"] == [address]
    assert verdict(lab, place, **there) == (RELAYED, "udp_blocked_client")


def test_a_proxy_that_looks_into_tls(lab):
    files = lab.others.leaf("looks", f"DNS:{NAMES[0]}")
    address = proxy(lab, "looks", files, files.with_suffix(".key"))
    place = confined(lab, "watched", f"ip daddr {address.rpartition(':')[0]} tcp dport {address.rpartition(':')[2]}")
    there = {"HTTPS_PROXY": f"http://{address}"}
    done = lab.run("netcheck", place=place, **there)
    assert done.returncode == 1
    assert "--ca-file (CODER_CA_FILE)" in done.stderr
    there["CODER_CA_FILE"] = str(lab.others.pem)
    assert_relayed_without_udp(report(lab, place, **there))
    assert verdict(lab, place, **there) == (RELAYED, "udp_blocked_client")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_an_nginx_that_refuses_the_upgrade(lab, tmp_path):
    front = lab.net.host("nginx")
    files = lab.ours.leaf("nginx", f"IP:{front.v4}")
    config = tmp_path / "nginx.conf"
    names = {"certificate": files, "key": files.with_suffix(".key"), "server": lab.host.v4}
    config.write_text(NGINX.format(place=tmp_path, **names))
    tmp_path.chmod(0o755)
    front.popen("nginx", "-c", config, "-e", tmp_path / "early.log", "-g", "user root;")
    wait_until("nginx", (tmp_path / "nginx.pid").exists)
    place = confined(lab, "fronted", f"ip daddr {front.v4} tcp dport 443")
    found = report(lab, place, "--url", f"https://{front.v4}")
    assert_relayed_without_udp(found, websocket=True)
    [node] = found["derp"]["regions"]["999"]["node_reports"]
    assert [warning["code"] for warning in node["warnings"]] == ["EDERP01"]
    assert "could be disallowing the use of 'Upgrade: derp'" in node["warnings"][0]["message"]
    assert verdict(lab, place, "--url", f"https://{front.v4}") == (RELAYED, "udp_blocked_client")
