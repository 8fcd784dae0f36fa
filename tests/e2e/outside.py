"""What may stand between us and a server, on loopback: authorities, TLS that asks for certificates, proxies."""

import base64
import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.server import Server, unix_serve

from coder.dataplane.edge import Edge, EdgeSettings
from coder.ids import Secret

NAME = "relay.test"
"""A name that no resolver knows: only a proxy leads there."""
MESH_KEY = Secret("what the relays of this region share")
MAP = (
    '{"Regions": {"1": {"RegionID": 1, "RegionCode": "x", "Nodes": [{"Name": "1a", "RegionID": 1, "HostName": "x"}]}}}'
)
_CONFIG = "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = {name}\n[v3]\n{extensions}\n"


class Authority:
    """Signs certificates; its own lies in `pem`."""

    def __init__(self, place: Path, name: str) -> None:
        self.place, self.name = place, name
        self.pem = place / f"{name}.pem"
        self._make(self.pem, "basicConstraints = critical,CA:TRUE\nkeyUsage = keyCertSign\n")
        self.own = self.leaf("client", "DNS:client.test")
        served = self.leaf("server", f"DNS:{NAME},DNS:localhost,IP:127.0.0.1,IP:::1")
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(served, served.with_suffix(".key"))
        self.certificate = served

    def leaf(self, name: str, names: str) -> Path:
        path = self.place / f"{self.name}-{name}.pem"
        signer = ("-CA", str(self.pem), "-CAkey", str(self.pem.with_suffix(".key")))
        self._make(path, f"basicConstraints = critical,CA:FALSE\nsubjectAltName = {names}\n", *signer)
        return path

    def asking(self) -> ssl.SSLContext:
        """TLS that lets in only those with a certificate of this authority."""
        served = self.certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(served, served.with_suffix(".key"))
        context.load_verify_locations(self.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _make(self, path: Path, extensions: str, *more: str) -> None:
        config = path.with_suffix(".conf")
        config.write_text(_CONFIG.format(name=f"{self.name} {path.stem}", extensions=extensions))
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
        out = ("-extensions", "v3", "-keyout", str(path.with_suffix(".key")), "-out", str(path))
        subprocess.run(
            ["openssl", "req", "-x509", *curve, "-days", "2", "-config", str(config), *out, *more],
            check=True,
            capture_output=True,
        )


@contextmanager
def backend(place: Path) -> Iterator[tuple[str, int]]:
    """A server without TLS that has all four: API, coordination, relay and DERP map."""
    with unix_serve(list, str(place / "app.sock"), process_request=_answer) as app:
        serving = threading.Thread(target=app.serve_forever)
        serving.start()
        edge = Edge(EdgeSettings(listen=("127.0.0.1:0",), upstream=str(place / "app.sock"), mesh_key=MESH_KEY))
        try:
            yield "127.0.0.1", int(edge.addresses[0].rpartition(":")[2])
        finally:
            edge.close()
            _end(app, serving)


def _answer(connection, request):
    if request.path == "/coordinate":
        return None
    answer = connection.respond(200, MAP if request.path == "/map" else '{"version": "v1"}')
    del answer.headers["Content-Type"]
    answer.headers["Content-Type"] = "application/json"
    return answer


def _end(app: Server, serving: threading.Thread) -> None:
    app.shutdown()
    serving.join()


class Between(socketserver.ThreadingTCPServer):
    """TLS in front of the backend, or an HTTP proxy on the way to it that knows CONNECT.

    `tls` ends the client's TLS here. With `proxy` a CONNECT comes first, whose target is noted and otherwise ignored:
    what follows goes to `to`. `login` is what the proxy wants to hear, `user:password`; `outer` is TLS with the proxy
    itself.
    """

    daemon_threads = True

    def __init__(
        self,
        to: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        proxy: bool = False,
        login: str | None = None,
        outer: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Between)
        self.to, self.tls, self.proxy, self.login = to, tls, proxy, login
        self.outer = outer
        self.targets: list[str] = []
        self.heads: list[bytes] = []
        """What each connection began with, as far as it came in one piece."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, request, client_address) -> None:
        """Clients that are refused, or refuse, are what some tests are about."""

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        super().__exit__(*exception)


class _Between(socketserver.BaseRequestHandler):
    server: Between

    def handle(self) -> None:
        client: socket.socket = self.request
        if self.server.outer is not None:
            client = self.server.outer.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            try:
                client.do_handshake()
            except OSError:
                self._refuse(client)
                return
        if self.server.proxy and not self._connect(client):
            self._refuse(client)
            return
        if self.server.tls is not None:
            client = self.server.tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            try:
                client.do_handshake()
            except OSError:
                self._refuse(client)
                return
        with client, socket.create_connection(self.server.to) as there:
            back = threading.Thread(target=_copy, args=(there, client, None), daemon=True)
            back.start()
            _copy(client, there, self.server.heads)
            back.join()

    @staticmethod
    def _refuse(client: socket.socket) -> None:
        """Close so that the alert arrives: what is unread at a close takes back what was sent."""
        with contextlib.suppress(OSError), client:
            client.shutdown(socket.SHUT_WR)
            while socket.socket.recv(client, 1 << 16):
                pass

    def _connect(self, client: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            if not byte:
                return False
            head += byte
        lines = head.decode().splitlines()
        self.server.targets.append(lines[0].split()[1])
        if self.server.login is not None:
            expected = f"Proxy-Authorization: Basic {base64.b64encode(self.server.login.encode()).decode()}"
            if expected.lower() not in [line.lower() for line in lines]:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return False
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return True


def _copy(source: socket.socket, to: socket.socket, heads: list[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            if heads is not None:
                heads.append(chunk)
                heads = None
            to.sendall(chunk)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)
