"""A server that speaks HTTPS itself, under an authority of its own."""

import contextlib
import http.client
import shutil
import socket
import ssl
from email.message import Message
from pathlib import Path

import pytest

from e2e.deployment import Deployment, sign_in, wait_until
from e2e.outside import Authority

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its authority with openssl"),
]


def answer(connection: http.client.HTTPConnection, path: str) -> tuple[int, Message]:
    with contextlib.closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as response:
            response.read()
            return response.status, response.headers


class Secure(Deployment):
    """A deployment whose server has HTTPS beside HTTP, and whose members know its authority."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.authority = Authority(place, "ours")

    def environment(self, **extra: str) -> dict[str, str]:
        return super().environment(**{"CODER_CA_FILE": str(self.authority.pem)} | extra)

    def healthy(self) -> bool:
        return self.url.startswith("https://") and self.ask("/healthz")[0] == http.client.OK

    def ask(self, path: str) -> tuple[int, Message]:
        """Status and headers of an answer over HTTPS, from a client that trusts that authority alone."""
        context = ssl.create_default_context(cafile=self.authority.pem)
        return answer(http.client.HTTPSConnection(self.url.removeprefix("https://"), context=context, timeout=30), path)

    def presented(self) -> str:
        """The certificate the server presents now."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        return ssl.get_server_certificate((host, int(port)))

    def names_for(self, asked: str) -> set[str]:
        """The DNS names of the certificate that a client gets who asks for this one."""
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        context = ssl.create_default_context(cafile=self.authority.pem)
        context.check_hostname = False
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=asked) as held,
        ):
            names = (held.getpeercert() or {}).get("subjectAltName", ())
            return {str(value) for kind, value in names if kind == "DNS"}


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    made = Secure(tmp_path_factory.mktemp("secure"))
    served = made.authority.certificate
    apps = made.authority.leaf("apps", "DNS:*.apps.example.com")
    try:
        made.start_server(
            "",
            *("--tls-enable", "--tls-address", "127.0.0.1:0", "--tls-cert-file", str(served)),
            *("--tls-key-file", str(served.with_suffix(".key")), "--tls-cert-file", str(apps)),
            *("--tls-key-file", str(apps.with_suffix(".key")), "--strict-transport-security", "60"),
        )
        sign_in(made)
        made.ok("create", "dev", "--output-token-file", str(made.place / "token"))
        made.start_agent()
        wait_until("the agent", lambda: made.agent_status() == "connected")
        yield made
    finally:
        made.close()


def test_a_workspace_is_reached_over_https_and_its_relay(secure):
    assert secure.url.startswith("https://")
    done = secure.run("--disable-direct-connections", "--verbose", "--prefer-region", "coder", "ping", "dev", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert "home: region 999 (coder)" in done.stderr
    assert "it was asked for" in done.stderr
    assert "home.chosen" in secure.log("agent")


def test_whoever_does_not_know_the_authority_is_told_what_to_do(secure):
    done = secure.run("list", CODER_CA_FILE="")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "--ca-file (CODER_CA_FILE)" in line


def test_browsers_are_told_to_come_over_https_and_plain_http_is_sent_on(secure):
    assert secure.ask("/api/v2/buildinfo")[1]["Strict-Transport-Security"] == "max-age=60"
    plain = secure.log("server").split("Listening")[1].split()[0].rstrip(",;")
    status, headers = answer(http.client.HTTPConnection(plain, timeout=30), "/api/v2/buildinfo")
    assert (status, headers["Location"]) == (307, f"{secure.url}/api/v2/buildinfo")
    assert "https://" in secure.run("login", f"http://{plain}").stderr


def test_a_renewed_certificate_is_presented_without_a_restart(secure):
    before, served = secure.presented(), secure.authority.certificate
    fresh = secure.authority.leaf("fresh", "DNS:localhost,IP:127.0.0.1")
    fresh.with_suffix(".key").replace(served.with_suffix(".key"))
    fresh.replace(served)
    wait_until("the new certificate", lambda: secure.presented() != before)
    secure.ok("list")


def test_each_name_has_its_certificate_and_a_broken_one_is_logged_and_not_used(secure):
    assert secure.names_for("code.apps.example.com") == {"*.apps.example.com"}
    assert "localhost" in secure.names_for("localhost") == secure.names_for("unknown.example.com")
    (secure.place / "ours-apps.pem").write_text("no certificate")
    wait_until("the line", lambda: "certificate.unusable" in secure.log("server"))
    [line] = [line for line in secure.log("server").splitlines() if "certificate.unusable" in line]
    assert "apps.pem" in line
    assert secure.names_for("code.apps.example.com") == {"*.apps.example.com"}
