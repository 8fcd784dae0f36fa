"""Requests that came to the wrong address, and what browsers are told about HTTPS."""

from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from coder import config
from coder.server.transport import Transport

URL = "https://coder.example.com"
TLS = {"tls_enable": "true", "tls_cert_file": "/c.pem", "tls_key_file": "/k.pem"}


async def ask(url: str, flags: dict[str, str], access_url: str = URL) -> httpx2.Response:
    settings = config.load(flags=flags, environ={})
    app: Any = Transport(PlainTextResponse("here"), settings, access_url)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app)) as client:
        return await client.get(url)


@pytest.mark.parametrize(
    ("flags", "url", "to"),
    [
        (TLS, "http://10.0.0.1:3000/api/v2/users/me?q=a%20b", f"{URL}/api/v2/users/me?q=a%20b"),
        (TLS, "http://10.0.0.1//evil.example/x", f"{URL}/evil.example/x"),
        (TLS, "https://10.0.0.1/x", None),
        (TLS, "http://10.0.0.1/healthz", None),
        (TLS | {"tls_redirect_http_to_https": "false"}, "http://10.0.0.1/x", None),
        ({}, "http://10.0.0.1/x", None),
        ({"redirect_to_access_url": "true"}, "https://10.0.0.1/x", f"{URL}/x"),
        ({"redirect_to_access_url": "true"}, "http://coder.example.com/x", f"{URL}/x"),
        ({"redirect_to_access_url": "true"}, "https://coder.example.com/x", None),
    ],
)
async def test_where_a_request_is_sent(flags: dict[str, str], url: str, to: str | None):
    answer = await ask(url, flags)
    assert (answer.status_code, answer.headers.get("location")) == ((200, None) if to is None else (307, to))


async def test_plain_http_stays_where_the_access_url_is_plain_too():
    assert (await ask("http://10.0.0.1/x", TLS, "http://10.0.0.1:3000")).status_code == 200


async def test_browsers_are_told_over_https_only_and_only_if_asked():
    strict = {"strict_transport_security": "3600", "strict_transport_security_options": "includeSubDomains,preload"}
    name, value = "strict-transport-security", "max-age=3600; includeSubDomains; preload"
    assert (await ask(f"{URL}/x", strict)).headers[name] == value
    assert name not in (await ask("http://coder.example.com/x", strict)).headers
    assert name not in (await ask(f"{URL}/x", {})).headers


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"tls_enable": "true"}, "a --tls-cert-file and its --tls-key-file"),
        (TLS | {"tls_cert_file": "/c.pem,/d.pem"}, "as often, in the same order"),
        (TLS | {"tls_address": "nowhere"}, "--tls-address: expected host:port"),
        (TLS | {"tls_min_version": "tls10"}, "tls12, tls13"),
        (TLS | {"strict_transport_security": "-1"}, "0 or more"),
        (TLS | {"strict_transport_security_options": "always"}, "neither includeSubDomains nor preload"),
    ],
)
def test_settings_that_make_no_sense(flags: dict[str, str], words: str):
    with pytest.raises(config.ConfigError, match=words):
        config.load(flags=flags, environ={})
