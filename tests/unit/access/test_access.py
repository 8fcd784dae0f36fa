"""Names, passwords, tokens, sessions and limits: the rules themselves."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.access import limits, names, passwords, sessions, tokens

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("name", ["a", "A1", "a-b-c", "x" * 32])
def test_good_names(name: str):
    assert names.name_problem(name) is None


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "a_b", "a.b", "ä", "a\n", "x" * 33, " a"])
def test_bad_names(name: str):
    assert names.name_problem(name)


def test_me_is_nobodys_name():
    assert names.username_problem("ME")
    assert names.username_problem("mee") is None


@pytest.mark.parametrize(
    ("email", "good"), [("a@b", True), ("a", False), ("@b", False), ("a b@c", False), ("a@b@c", False)]
)
def test_addresses(email: str, good: bool):
    assert (names.email_problem(email) is None) == good


@pytest.mark.parametrize(
    "password", ["SomeSecurePassword!", "correct horse battery", "k3#Vq9!zL", "ä" * 1 + "Öx7?pQw2"]
)
def test_strong_passwords(password: str):
    assert passwords.password_problem(password) is None


@pytest.mark.parametrize("password", ["", "password", "12345678901234567890", "abcdefghijklmnopqrstuvwxyz", "a" * 64])
def test_weak_passwords(password: str):
    assert passwords.password_problem(password)


def test_length_is_counted_in_bytes():
    assert passwords.password_problem("kL9#" * 16) is None
    assert "64 bytes" in (passwords.password_problem("kL9#" * 16 + "x") or "")
    assert "64 bytes" in (passwords.password_problem("äÖ7?" * 11) or "")


def test_a_password_verifies_against_its_own_hash_only():
    stored = passwords.hash_password("correct horse battery")
    assert stored != passwords.hash_password("correct horse battery")
    assert passwords.verify_password(stored, "correct horse battery")
    assert not passwords.verify_password(stored, "correct horse batterz")
    assert not passwords.verify_password(stored, "x" * 65)
    assert not passwords.verify_password("not a hash", "correct horse battery")


def test_no_user_verifies_nothing_not_even_the_decoy():
    assert not passwords.verify_password(None, "the hash compared with when there is no such user")


def test_a_session_token_has_the_shape_that_clients_know():
    token = tokens.new_session_token()
    assert (len(token.id), len(token.secret)) == (10, 22)
    assert tokens.parse_session_token(token.text) == token
    assert token.secret not in repr(token)
    assert len(token.hashed) == 32


@given(st.text(max_size=40))
def test_any_text_is_a_token_or_a_named_fault(text: str):
    try:
        parsed = tokens.parse_session_token(text).text
    except tokens.TokenFormatError:
        parsed = None
    assert parsed in {None, text}


def test_every_truncation_of_a_token_is_refused():
    text = tokens.new_session_token().text
    for length in range(len(text)):
        with pytest.raises(tokens.TokenFormatError):
            tokens.parse_session_token(text[:length])


def test_agent_tokens_are_random_uuids_hashed_in_canonical_form():
    token = tokens.new_agent_token()
    assert token.version == 4
    assert token != tokens.new_agent_token()
    assert tokens.matches(tokens.hash_agent_token(token), tokens.hash_agent_token(type(token)(str(token).upper())))


def lease(**changes: object) -> sessions.Lease:
    values = {"expires_at": NOW + 24 * HOUR, "last_used": NOW, "lifetime": 24 * HOUR, "extends": True}
    return sessions.Lease(**(values | changes))


def test_a_session_ends_exactly_at_its_time():
    assert not sessions.is_expired(lease(), NOW + 24 * HOUR - timedelta(microseconds=1))
    assert sessions.is_expired(lease(), NOW + 24 * HOUR)


def test_use_is_noted_once_an_hour_and_extends():
    assert sessions.use(lease(), NOW + HOUR - timedelta(seconds=1)) is None
    assert sessions.use(lease(), NOW + HOUR) == sessions.Use(NOW + HOUR, NOW + 25 * HOUR)


def test_what_does_not_extend():
    kept = sessions.Use(NOW + HOUR, NOW + 24 * HOUR)
    assert sessions.use(lease(extends=False), NOW + HOUR) == kept
    assert sessions.use(lease(), NOW + HOUR, extend=False) == kept


def test_use_never_shortens_a_session():
    longer = lease(expires_at=NOW + 90 * HOUR)
    assert sessions.use(longer, NOW + HOUR) == sessions.Use(NOW + HOUR, NOW + 90 * HOUR)


def test_the_window_moves():
    window = limits.MovingWindow(limits.Limit(2, 60.0))
    assert [window.hit("a", now) for now in (0.0, 10.0)] == [0.0, 0.0]
    assert window.hit("a", 20.0) == 40.0
    assert window.hit("b", 20.0) == 0.0
    assert window.hit("a", 60.0) == 0.0
    assert window.hit("a", 60.0) == 10.0


def test_the_window_forgets_the_longest_unseen_subject_first():
    window = limits.MovingWindow(limits.Limit(1, 60.0), max_subjects=2)
    for subject in ("a", "b", "a", "c"):
        window.hit(subject, 0.0)
    assert window.hit("a", 1.0) == 59.0
    assert window.hit("b", 1.0) == 0.0


def test_logins_are_limited_by_address_over_all_accounts():
    logins = limits.LoginLimits(limits.Limit(2, 60.0))
    assert [logins.hit("1.1.1.1", account, 0.0) for account in ("a", "b", "c")] == [0.0, 0.0, 60.0]


def test_wrong_logins_of_one_source_do_not_lock_the_account_for_others():
    logins = limits.LoginLimits(both=limits.Limit(2, 60.0))
    assert [logins.hit("1.1.1.1", name, 0.0) for name in ("D", "d", "d")] == [0.0, 0.0, 60.0]
    assert logins.hit("2.2.2.2", "d", 0.0) == 0.0


def test_an_account_is_limited_over_all_addresses_together():
    logins = limits.LoginLimits(account=limits.Limit(2, 60.0))
    assert [logins.hit(address, "D", 0.0) for address in ("2.2.2.2", "3.3.3.3")] == [0.0, 0.0]
    assert logins.hit("4.4.4.4", "d", 15.0) == pytest.approx(15.0)


@pytest.mark.parametrize("kind", [limits.MovingWindow, limits.Pace])
def test_nothing_of_a_subject_is_kept_but_a_short_key(kind):
    limit = kind(limits.Limit(1, 60.0))
    assert limit.hit("x" * 1_000_000 + "\ud800", 0.0) == 0.0
    [kept] = [key for each in vars(limit).values() if isinstance(each, dict) for key in each]
    assert len(kept) == 16
    assert limit.hit("x" * 1_000_000 + "\ud800", 0.0) == 60.0


def test_asking_how_long_to_wait_counts_nothing():
    pace = limits.Pace(limits.Limit(1, 60.0))
    assert [pace.wait("a", 0.0), pace.wait("a", 0.0), pace.hit("a", 0.0)] == [0.0, 0.0, 0.0]
    assert pace.wait("a", 0.0) == pytest.approx(60.0)


def test_of_those_remembered_the_longest_unseen_is_forgotten_first():
    seen = limits.Remembered(max_subjects=2)
    for subject in ("a", "b", "a", "c"):
        seen.add(subject)
    assert [each in seen for each in "abc"] == [True, False, True]
    seen.discard("a")
    assert "a" not in seen


def test_a_pace_lets_a_burst_through_and_then_one_at_a_time():
    pace = limits.Pace(limits.Limit(3, 60.0))
    assert [pace.hit("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert pace.hit("a", 0.0) == pytest.approx(20.0)
    assert pace.hit("b", 0.0) == 0.0
    assert pace.hit("a", 19.0) == pytest.approx(1.0)
    assert pace.hit("a", 20.0) == 0.0
    assert pace.hit("a", 20.0) > 0
    assert [pace.hit("a", 1000.0) for _ in range(4)][:3] == [0.0, 0.0, 0.0]


def test_a_pace_forgets_the_longest_unseen():
    pace = limits.Pace(limits.Limit(1, 60.0), max_subjects=2)
    for subject in ("a", "b", "c"):
        assert pace.hit(subject, 0.0) == 0.0
    assert pace.hit("b", 0.0) > 0
    assert pace.hit("a", 0.0) == 0.0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("somewhere", "somewhere"),
    ],
)
def test_what_counts_as_one_source(address, expected):
    assert limits.source(address) == expected
