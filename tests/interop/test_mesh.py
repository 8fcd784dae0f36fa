"""Relays of this project and real ones in one region."""

import os
import re
import socket
import subprocess
import urllib.request

import pytest
from e2e.deployment import Deployment, wait_until

from interop.test_relay import answers, free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.fixture
def region(build_large, tmp_path):
    """Ours with plain HTTP and HTTPS, and a real one, each with a link to the other."""
    program = build_large("tailscale.com/cmd/derper")
    made = Deployment(tmp_path)
    (tmp_path / "mesh").write_text("0123456789abcdef" * 4)
    theirs = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
    try:
        made.start(
            "relay",
            *("relay", "--address", "127.0.0.1:0", "--tls-address", "127.0.0.1:0", "--stun-port", "-1"),
            *("--tls-self-signed", str(tmp_path / "tls"), "--hostname", "localhost"),
            *("--mesh-key-file", str(tmp_path / "mesh"), "--mesh-with", f"http://{theirs}"),
            *("--metrics-address", "127.0.0.1:0"),
        )
        wait_until("our relay", lambda: "Pin " in made.log("relay"))
        announced = dict(line.split(maxsplit=1) for line in made.log("relay").splitlines())
        plain, secure = announced["Relay"].split(", ")
        with (tmp_path / "derper.log").open("wb") as log:
            made.processes["derper"] = subprocess.Popen(
                [
                    *(program, "-a", theirs, "-http-port", "-1", "-stun=false", "-c", str(tmp_path / "key")),
                    *("-mesh-psk-file", str(tmp_path / "mesh")),
                    *("-mesh-with", f"localhost:{secure.rpartition(':')[2]}"),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"SSL_CERT_FILE": str(tmp_path / "tls" / "relay-cert.pem")},
            )
        wait_until("the real relay", lambda: answers(f"http://{theirs}/derp/probe"))
        yield announced["Metrics"], plain, theirs
    finally:
        made.close()


def metric(url: str, name: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(re.search(rf"^coder_edge_{name}(?:_total)? (\d+)$", answer.read().decode(), re.MULTILINE)[1])


def test_relays_of_both_makers_link_to_each_other(region):
    metrics, _, _ = region
    wait_until("our link to theirs", lambda: metric(metrics, "relay_links") == 1)
    wait_until("their link to ours", lambda: metric(metrics, "relay_clients") == 1)
