"""`coder relay`: a relay on its own, for regions beside the server's."""

import signal
import threading
from pathlib import Path
from typing import Any

import click

from coder.cli import output
from coder.cli.context import Globals
from coder.config import listen_address
from coder.errors import CoderError
from coder.ids import Secret

DEFAULT_PLAIN = "0.0.0.0:3340"
DEFAULT_TLS = "0.0.0.0:443"
CERTIFICATE_LOOK = 2.0
"""Seconds between looks at whether the certificate's files are of use."""
CERTIFICATE_RENEWED = "The certificate is in use as its files have it."


def _option(name: str, text: str, **more: Any) -> click.Option:
    env = f"CODER_RELAY_{name.upper().replace('-', '_')}"
    return click.Option([f"--{name}"], help=text, envvar=env, show_envvar=True, **more)


_HOST_PORT: dict[str, Any] = {"metavar": "HOST:PORT"}
_FILE: dict[str, Any] = {"metavar": "FILE"}
_BYTES: dict[str, Any] = {"metavar": "BYTES", "type": click.IntRange(1)}
_URL: dict[str, Any] = {"metavar": "URL"}

_OPTIONS = [
    _option(
        "address",
        f"Serve plain HTTP here, for instance behind a proxy. Without TLS the default is {DEFAULT_PLAIN}.",
        **_HOST_PORT,
    ),
    _option("tls-address", f"Serve HTTPS here. With a certificate the default is {DEFAULT_TLS}.", **_HOST_PORT),
    _option("tls-cert-file", "PEM: the certificate and its chain. Read again when it changes.", **_FILE),
    _option("tls-key-file", "PEM: the certificate's private key.", **_FILE),
    _option(
        "tls-self-signed",
        "Make a certificate, keep it in this directory, and print its pin for the DERP map.",
        metavar="DIR",
    ),
    _option(
        "hostname",
        "Name or address of this relay in a self-signed certificate; repeatable. Else localhost.",
        metavar="NAME",
        multiple=True,
    ),
    _option(
        "stun-port",
        "UDP port that answers STUN; 0 takes a free one, -1 none.",
        metavar="PORT",
        type=click.IntRange(-1, 65535),
        default=3478,
        show_default=True,
    ),
    _option("mesh-key-file", "File with the secret that the relays of this region share.", **_FILE),
    _option(
        "mesh-with",
        "Another relay of this region, such as https://relay2.example.com; repeatable.",
        multiple=True,
        **_URL,
    ),
    _option(
        "mesh-ca-file",
        "PEM of the only authorities for those relays' certificates. Else --ca-file and the system's.",
        **_FILE,
    ),
    _option(
        "mesh-cert-name",
        "Name, or sha256-raw:<hex>, that those certificates must carry instead of their host.",
        metavar="NAME",
    ),
    _option(
        "verify-url",
        "Ask here whether a client may stay: a POST of NodePublic and Source, answered by Allow true or false.",
        **_URL,
    ),
    _option("verify-url-fail-open", "Let clients stay while that URL cannot be asked.", is_flag=True),
    _option("rate-limit", "Bytes per second that each client may send. Else there is no limit.", **_BYTES),
    _option("rate-burst", "Bytes that it may send at once. Else those of one second.", **_BYTES),
    _option(
        "trusted-proxy", "Network whose X-Forwarded-For is believed; repeatable.", metavar="NETWORK", multiple=True
    ),
    _option("metrics-address", "Serve /healthz and /metrics here; keep it away from others.", **_HOST_PORT),
]


def _run(**flags: Any) -> None:
    from coder import descriptors
    from coder.dataplane.edge import Edge

    descriptors.raise_limit()
    settings, pin = _settings(flags)
    edge = Edge(settings)
    try:
        _announce(edge, pin)
        _until_stopped(edge, flags)
    finally:
        output.note("Stopping; clients are told to come back.")
        edge.close()


command = click.Command(
    "relay",
    callback=_run,
    params=[*_OPTIONS],
    help="Run a relay on its own, for a region of its own in the DERP map.\n\n"
    "Stops on SIGINT and SIGTERM, and tells its clients to come back. /healthz answers while it runs.",
)


def _settings(flags: dict[str, Any]) -> tuple[Any, str]:
    """Return the edge's settings, and the pin of a self-signed certificate. Raises CoderError for what cannot be."""
    from coder.dataplane.edge import EdgeSettings, certificate_pin, read_setting

    certificate, pin = _certificate(flags), ""
    if flags["tls_self_signed"]:
        pin = certificate_pin(read_setting(certificate[0])) if certificate else ""
    plain = flags["address"] or (None if certificate else DEFAULT_PLAIN)
    secure = flags["tls_address"] or (DEFAULT_TLS if certificate else None)
    if secure and not certificate:
        raise CoderError("--tls-address needs a certificate", remedy="Add --tls-cert-file, or --tls-self-signed DIR.")
    mesh_key = _mesh_key(flags)
    rate = flags["rate_limit"]
    settings = EdgeSettings(
        listen=_addresses(plain, "address"),
        listen_tls=_addresses(secure, "tls-address"),
        listen_metrics=_addresses(flags["metrics_address"], "metrics-address"),
        certificates=(certificate,) if certificate else (),
        upstream=None,
        stun=_stun(flags["stun_port"]),
        trusted_proxies=flags["trusted_proxy"],
        mesh_key=mesh_key,
        mesh=flags["mesh_with"],
        mesh_roots=read_setting(flags["mesh_ca_file"]) if flags["mesh_ca_file"] else None,
        mesh_name=flags["mesh_cert_name"],
        outbound=_outbound(),
        rate_limit=(rate, max(flags["rate_burst"] or rate, 1 << 16)) if rate else None,
        require_announced=bool(flags["verify_url"]),
    )
    return settings, pin


def _outbound() -> Any:
    """Return the rules for outgoing connections that were given before the command."""
    from coder.outbound import Outbound

    given = click.get_current_context().find_object(Globals)
    return Outbound() if given is None else given.outbound


def _certificate(flags: dict[str, Any]) -> tuple[str, str] | None:
    files = flags["tls_cert_file"], flags["tls_key_file"]
    if flags["tls_self_signed"]:
        if any(files):
            raise CoderError("--tls-self-signed makes a certificate of its own", remedy="Leave --tls-cert-file away.")
        return _self_signed(Path(flags["tls_self_signed"]), flags["hostname"] or ("localhost",))
    if all(files):
        return files
    if any(files):
        raise CoderError("a certificate needs its key", remedy="Give --tls-cert-file and --tls-key-file.")
    return None


def _self_signed(directory: Path, names: tuple[str, ...]) -> tuple[str, str]:
    """Return the certificate and key kept in a directory; they are made once, so that the pin stays."""
    from coder.dataplane.edge import self_signed

    certificate, key = directory / "relay-cert.pem", directory / "relay-key.pem"
    if not (certificate.exists() and key.exists()):
        directory.mkdir(parents=True, exist_ok=True)
        made, made_key = self_signed(names)
        key.touch(0o600)
        key.chmod(0o600)
        key.write_text(made_key)
        certificate.write_text(made)
    return str(certificate), str(key)


def _mesh_key(flags: dict[str, Any]) -> Secret | None:
    from coder.dataplane import edge

    if not flags["mesh_key_file"]:
        if flags["mesh_with"]:
            raise CoderError("--mesh-with needs the region's secret", remedy="Give --mesh-key-file.")
        return None
    return edge.mesh_key(flags["mesh_key_file"])


def _addresses(address: str | None, flag: str) -> tuple[str, ...]:
    return (listen_address(address, flag),) if address else ()


def _stun(port: int) -> tuple[str, ...]:
    import socket

    if port < 0:
        return ()
    both = socket.has_dualstack_ipv6()
    return (f"[::]:{port}" if both else f"0.0.0.0:{port}",)


def _announce(edge: Any, pin: str) -> None:
    lines = [f"Relay       {', '.join(edge.addresses)}"]
    if edge.stun_ports:
        lines.append(f"STUN        UDP {', '.join(map(str, edge.stun_ports))}")
    if edge.metrics_addresses:
        lines.append(f"Metrics     {', '.join(f'http://{address}/metrics' for address in edge.metrics_addresses)}")
    lines.append(f"Key         {edge.relay_key}")
    if pin:
        lines.append(f'Pin         "CertName": "{pin}" in this node of the DERP map')
    output.out("\n".join(lines))


def _until_stopped(edge: Any, flags: dict[str, Any]) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if flags["verify_url"]:
        from coder.cli.relay_verify import Verifier, ask_url

        if not flags["verify_url"].startswith(("http://", "https://")):
            raise CoderError(f"--verify-url: {flags['verify_url']!r} is no URL", remedy="Start it with https://.")
        verifier = Verifier(edge, ask_url(flags["verify_url"], _outbound()), fail_open=flags["verify_url_fail_open"])
        threading.Thread(target=verifier.run, args=(stop,), name="verify").start()
    told, links = None, dict[str, str]()
    while not stop.wait(CERTIFICATE_LOOK):
        if (problem := edge.certificate_problem) != told:
            output.note(f"{problem}; the certificate from before stays in use." if problem else CERTIFICATE_RENEWED)
            told = problem
        before, links = links, edge.mesh_problems
        for url, problem in sorted(links.items()):
            if before.get(url) != problem:
                output.note(f"No link to {url}: {problem}")
        for url in sorted(before.keys() - links.keys()):
            output.note(f"The link to {url} is there.")
