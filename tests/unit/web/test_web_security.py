from hypothesis import given
from hypothesis import strategies as st

from coder.web import security

ORIGIN = "https://coder.example:8443"
SESSION = "__Host-coder_session_token"


@given(st.text(alphabet="/\\:@?#.%abc\t\r\n ", max_size=24))
def test_whatever_is_asked_for_a_login_leads_to_a_path_of_this_server(wanted: str):
    where = security.destination(wanted, ORIGIN)
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))
    assert not set(where) & set("\\\t\r\n ")


def test_an_address_of_this_server_leads_to_its_path():
    assert security.destination(f"{ORIGIN}/audit?q=x", ORIGIN) == "/audit?q=x"
    assert security.destination("/audit", ORIGIN) == "/audit"


def test_logging_in_leads_neither_back_to_the_login_nor_out_again():
    assert security.destination("/login?redirect=/login", ORIGIN) == "/"
    assert security.destination("/logout", ORIGIN) == "/"


def test_a_form_token_belongs_to_one_session():
    mine, other = {SESSION: "a"}, {SESSION: "b"}
    assert security.token_fits(mine, security.form_token(mine, ORIGIN), ORIGIN)
    assert not security.token_fits(other, security.form_token(mine, ORIGIN), ORIGIN)
    assert not security.token_fits({}, "", ORIGIN)
    assert security.form_token({}, ORIGIN) == ""


def test_a_form_token_is_made_from_nothing_that_another_host_may_have_set():
    planted = {"coder_session_token": "a", "coder_form": "b"}
    assert security.form_token(planted, ORIGIN) == ""
    assert security.form_token(planted | {SESSION: "c"}, ORIGIN) == security.form_token({SESSION: "c"}, ORIGIN)
    assert security.form_token(planted, "http://coder.example")


def test_the_token_of_a_form_tells_nothing_of_the_session():
    assert "secret" not in security.form_token({SESSION: "secret"}, ORIGIN)


def test_the_policy_lets_scripts_ask_only_this_server_and_what_a_page_names():
    policy = security.headers(ORIGIN, connect=["https://relay.example"])["Content-Security-Policy"]
    assert "connect-src 'self' wss://coder.example:8443 https://relay.example;" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_a_form_is_taken_only_from_a_page_of_this_server():
    assert security.may_send({"sec-fetch-site": "same-origin", "origin": ORIGIN}, ORIGIN)
    assert security.may_send({"origin": ORIGIN}, ORIGIN)
    assert security.may_send({"sec-fetch-site": "same-origin"}, ORIGIN)
    for headers in (
        {},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
        {"origin": ORIGIN, "sec-fetch-site": "none"},
    ):
        assert not security.may_send(headers, ORIGIN)
