"""Who may come in by what a provider says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.access import names, oidc
from coder.access.oidc import NotLetInError, Policy, own_path, person, username_of

GOOD = {
    "sub": "s-1",
    "email": "Ann@Example.com",
    "email_verified": True,
    "preferred_username": "ann.b",
    "name": "Ann B",
}


def test_what_a_person_is_called_comes_from_the_claims():
    assert person(GOOD, Policy()) == oidc.Person("s-1", "Ann@Example.com", "ann-b", "Ann B")


@pytest.mark.parametrize("verified", [False, None, "true", "false", 1, "yes", [True]])
def test_only_true_itself_says_that_an_address_is_verified(verified):
    with pytest.raises(NotLetInError, match="not verified"):
        person(GOOD | {"email_verified": verified}, Policy())
    assert person(GOOD | {"email_verified": verified}, Policy(ignore_verified=True)).email == "Ann@Example.com"


def test_an_address_without_a_word_of_its_verification_does_not_count():
    claims = {name: value for name, value in GOOD.items() if name != "email_verified"}
    with pytest.raises(NotLetInError):
        person(claims, Policy())


@pytest.mark.parametrize(
    ("email", "inside"),
    [
        ("ann@example.com", True),
        ("ann@EXAMPLE.com", True),
        ("ann@evilexample.com", False),
        ("ann@example.com.evil.org", False),
        ("ann@sub.example.com", False),
    ],
)
def test_domains_are_compared_whole(email, inside):
    policy = Policy(domains=("@Example.com",))
    if inside:
        assert person(GOOD | {"email": email}, policy).email == email
    else:
        with pytest.raises(NotLetInError, match="not let in"):
            person(GOOD | {"email": email}, policy)


@pytest.mark.parametrize("email", [None, 7, "", "nobody", "a b@example.com", "ann@evil.org@example.com", ["a@b.c"]])
def test_what_is_no_address_is_refused(email):
    with pytest.raises(NotLetInError):
        person(GOOD | {"email": email}, Policy(domains=("example.com",)))


@pytest.mark.parametrize("subject", [None, "", 5, "x" * 256])
def test_a_person_needs_a_subject(subject):
    with pytest.raises(NotLetInError, match="subject"):
        person(GOOD | {"sub": subject}, Policy())


@given(st.text())
def test_any_text_becomes_a_name_that_is_one(text):
    assert names.username_problem(username_of(text)) is None


@pytest.mark.parametrize(("text", "name"), [("Ünal Öz", "Unal-Oz"), ("me", "user"), ("", "user"), ("a@b", "a")])
def test_names_made_of_others(text, name):
    assert username_of(text) == name


@pytest.mark.parametrize("path", ["/", "/workspaces", "/workspaces?a=b#c", "/@ann/dev"])
def test_paths_of_this_site_are_gone_on_to(path):
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "//evil.org",
            "/\\evil.org",
            "\\\\evil.org",
            "https://evil.org",
            "evil.org",
            "/a\\b",
            "/\t/evil.org",
            "/\n/e",
        ),
        *("javascript:alert(1)", "/é", "/" + "a" * 2000, " /a"),
    ],
)
def test_what_a_browser_could_take_for_another_site_is_not(path):
    assert own_path(path) == "/"
