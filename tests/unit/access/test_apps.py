"""Names of apps, levels of sharing, tickets and codes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.access import app_names
from coder.access.app_names import Named, Port, Short
from coder.access.sharing import Level, admits, capped, may_ask
from coder.access.tickets import Code, Signer, Ticket
from coder.errors import Misuse

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "app_tickets.json").read_text())
NOW = datetime.fromtimestamp(VECTORS["tickets"][0]["now"], UTC)
KEYS = {name: bytes.fromhex(secret) for name, secret in VECTORS["keys"].items()}
WORKSPACE = UUID("0f36b1a5-1f6b-4a55-9d5c-8e7c6a3d2b10")
name = st.from_regex(r"\A[a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,2}\Z")


def test_labels_are_read():
    cases = {
        "8080--main--dev--alice": Named(app="8080", agent="main", workspace="dev", owner="alice"),
        "code--dev--alice": Named(app="code", agent="", workspace="dev", owner="alice"),
        "x---y---8080s--a-b--c-d--E-f": Named(app="8080s", agent="a-b", workspace="c-d", owner="E-f"),
        "8080--dev--alice": None,
        "code--alice": None,
        "a--b--c--d--e": None,
        "-a--b--c--d": None,
        "a_b--b--c--d": None,
        "": None,
    }
    for text, expected in cases.items():
        assert app_names.parse_label(text) == expected, text


def test_ports_are_told_from_slugs():
    cases = {
        "1": Port(1, tls=False),
        "65535s": Port(65535, tls=True),
        "65536": None,
        "08": None,
        "s": None,
        "80x": None,
    }
    for text, expected in cases.items():
        assert app_names.port(text) == expected, text


@given(name, name, name, name)
def test_every_label_fits_and_is_read_back(app: str, agent: str, workspace: str, owner: str):
    named = Named(app=app, agent=agent, workspace=workspace, owner=owner)
    text = app_names.label(named, WORKSPACE)
    assert len(text) <= app_names.MAX_LABEL
    found = app_names.parse_label(text)
    if isinstance(found, Named):
        assert found == named
    else:
        digest = app_names.digest(agent)
        assert found == Short(app=app_names.short_slug(app), workspace=WORKSPACE, agent=digest)


def test_the_longest_names_still_fit_a_label():
    named = Named(app="s" * 32, agent="a" * 32, workspace="w" * 32, owner="u" * 32)
    text = app_names.label(named, WORKSPACE)
    assert len(text) <= app_names.MAX_LABEL
    found = app_names.parse_label(text)
    assert isinstance(found, Short)
    assert (found.app, found.workspace) == (app_names.short_slug("s" * 32), WORKSPACE)


def test_wildcards():
    good = ["*.apps.example.com", "*--apps.example.com", "*-x.example.com", "*.apps.example.com:8443", "*.local"]
    bad = ["", "apps.example.com", "*", "*.", "a*.example.com", "https://*.x.com", "*.x.com/", "*.*.x.com", "*x.com"]
    assert [text for text in good if app_names.wildcard_problem(text)] == []
    assert [text for text in bad if not app_names.wildcard_problem(text)] == []
    assert app_names.wildcard_host("*.a.b", "https://c.d:8443") == "*.a.b:8443"
    assert app_names.wildcard_host("*.a.b:1", "https://c.d:8443") == "*.a.b:1"
    assert app_names.wildcard_host("", "https://c.d:8443") == ""
    assert app_names.label_of("X.A.b", "*.a.B:8443") == "x"
    for host in ("a.b", ".a.b", "x.y.a.b", "xa.b", ""):
        assert app_names.label_of(host, "*.a.b") is None, host
    assert app_names.label_of("x", "") is None


@given(st.sampled_from(Level), st.sampled_from(Level), st.sampled_from(Level))
def test_no_level_exceeds_a_ceiling(level: Level, one: Level, other: Level):
    found = capped(level, one, other)
    assert found.openness == min(level.openness, one.openness, other.openness)


def test_who_is_admitted():
    nobody, stranger = {"signed_in": False, "member": False, "connects": False}, {"signed_in": True, "member": False}
    rows = {Level.PUBLIC: (1, 1, 1, 1), Level.AUTHENTICATED: (0, 1, 1, 1), Level.ORGANIZATION: (0, 0, 1, 0)}
    for level, expected in {**rows, Level.OWNER: (0, 0, 0, 1)}.items():
        found = (
            admits(level, **nobody),
            admits(level, **stranger, connects=False),
            admits(level, signed_in=True, member=True, connects=False),
            admits(level, **stranger, connects=True),
        )
        assert found == tuple(map(bool, expected)), level


def test_foreign_pages_with_a_cookie_only_load():
    def asks(**changes: object) -> bool:
        facts = {"own_origin": False, "siblings": False, "by_cookie": True, "upgrade": False, "safe": True}
        return may_ask(level=Level.OWNER, **facts | changes)

    assert asks()
    assert not asks(upgrade=True)
    assert not asks(safe=False)
    for change in ("own_origin", "siblings"):
        assert asks(upgrade=True, **{change: True})
    assert asks(upgrade=True, by_cookie=False)


def test_tickets_are_what_the_edge_reads():
    for case in VECTORS["tickets"][:2]:
        claims = dict(case["claims"])
        issued = datetime.fromtimestamp(claims.pop("exp") - 60, UTC)
        signer = Signer(KEYS, "1" if "older" in case["name"] else "2")
        assert signer.ticket(Ticket(**claims), issued).reveal() == case["text"]


CODE = Code(id="a" * 10, user=WORKSPACE, parent="b" * 10, host="h.test", end=NOW + timedelta(hours=1))


def test_codes_are_for_one_host_and_one_minute():
    signer = Signer(KEYS, "2")
    text = signer.code(CODE, NOW).reveal()
    assert signer.read_code(text, "h.test", NOW + timedelta(seconds=59)) == CODE
    assert signer.read_code(text, "h.test", NOW + timedelta(seconds=60)) is None
    assert signer.read_code(text, "i.test", NOW) is None
    assert Signer({"1": KEYS["1"]}, "1").read_code(text, "h.test", NOW) is None
    assert Signer(KEYS, "1").read_code(text, "h.test", NOW) == CODE


@given(st.data())
def test_a_code_with_any_change_is_refused(data: st.DataObject):
    signer = Signer(KEYS, "2")
    text = signer.code(CODE, NOW).reveal()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda each: each != text[place]))
    assert signer.read_code(text[:place] + other + text[place + 1 :], "h.test", NOW) is None
    assert signer.read_code(text[:place], "h.test", NOW) is None


def test_tickets_are_no_codes_and_other_texts_neither():
    signer = Signer(KEYS, "2")
    for case in VECTORS["tickets"]:
        assert signer.read_code(case["text"], "h.test", NOW) is None
    for text in ("", ".", "..", "a.b.c", "x" * 9000, "é.é.é"):
        assert signer.read_code(text, "h.test", NOW) is None


def test_a_signer_needs_its_key_and_hides_it():
    with pytest.raises(Misuse):
        Signer({}, "1")
    assert repr(Signer(KEYS, "1")) == "Signer(current='1')"
