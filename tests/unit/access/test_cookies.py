"""Which cookies are believed."""

import pytest

from coder.access import cookies

HTTPS, HTTP = "https://coder.example.com", "http://coder.example.com:3000"
PLAIN, OURS = {"coder_session_token": "planted"}, {"__Host-coder_session_token": "own"}


@pytest.mark.parametrize(
    ("held", "headers", "url", "token"),
    [
        (PLAIN, {}, HTTPS, "planted"),
        (PLAIN, {"user-agent": "Go-http-client/1.1"}, HTTPS, "planted"),
        (PLAIN, {"user-agent": "Mozilla/5.0"}, HTTPS, ""),
        (PLAIN, {"sec-fetch-site": "same-site"}, HTTPS, ""),
        (PLAIN, {"origin": "null"}, HTTPS, ""),
        (PLAIN, {"user-agent": "Mozilla/5.0"}, HTTP, "planted"),
        (OURS, {"user-agent": "Mozilla/5.0"}, HTTPS, "own"),
        (OURS | PLAIN, {}, HTTPS, "own"),
        (OURS, {}, HTTP, ""),
        ({}, {}, HTTPS, ""),
    ],
)
def test_a_session_is_believed_from_who_can_only_have_it_from_us(held: dict, headers: dict, url: str, token: str):
    assert cookies.session(held, headers, url) == token


@pytest.mark.parametrize(
    ("url", "wildcard", "can"),
    [
        (HTTP, "*.coder.example.com", True),
        (HTTP, "*.apps.example.com:8080", True),
        (HTTP, "*-apps.EXAMPLE.com", True),
        (HTTP, "*.apps.example.org", False),
        (HTTP, "*.example-apps.com", False),
        (HTTP, "", False),
        (HTTPS, "*.coder.example.com", False),
        ("http://10.0.0.1:3000", "*.0.0.1", False),
        ("http://[::1]:3000", "*.apps.test", False),
        ("http://localhost:3000", "*.localhost", False),
    ],
)
def test_where_pages_of_apps_can_set_the_dashboards_cookies(url: str, wildcard: str, can: bool):
    assert cookies.can_be_planted(url, wildcard) is can
