"""A provider of logins: discovery, keys and tokens over HTTP, which says whatever a test wants it to say."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from joserfc import jwk, jwt

CLIENT, SECRET = "coder-test", "s3cret+with/signs"


class FakeProvider:
    """`claims` go into the next identity token, over those that a login needs; None takes one away."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.key = jwk.ECKey.generate_key("P-256", {"kid": "one"})
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "ES256", "kid": "one"}
        self.signing_key: Any = None
        self.published: list[Any] | None = None
        self.userinfo: dict[str, Any] = {}
        self.issuer_said: str | None = None
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.nonce = ""
        self.challenge = ""
        self.token: str | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(provider.get(urlsplit(self.path).path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                provider.asked.append((self.path, dict(parse_qsl(body)), dict(self.headers)))
                self._answer(provider.tokens())

            def _answer(self, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, path: str) -> Any:
        if path == "/keys":
            return {"keys": self.published if self.published is not None else [self.key.as_dict(private=False)]}
        if path == "/me":
            return self.userinfo
        return {
            "issuer": self.issuer_said or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/me",
            "jwks_uri": f"{self.url}/keys",
        }

    def authorized(self, location: str) -> dict[str, str]:
        """Take a browser's visit; returns the parameters it came with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.nonce, self.challenge = asked["nonce"], asked["code_challenge"]
        return asked

    def tokens(self) -> Any:
        usual = {"iss": self.url, "aud": CLIENT, "sub": "s-1", "iat": int(self.now), "exp": int(self.now) + 300}
        person = {"nonce": self.nonce, "email": "ann@example.com", "email_verified": True, "preferred_username": "ann"}
        claims = {name: value for name, value in (usual | person | self.claims).items() if value is not None}
        token = self.token or jwt.encode(
            self.header, claims, self.signing_key or self.key, algorithms=[self.header["alg"]]
        )
        return {"access_token": "access", "token_type": "Bearer", "id_token": token}
