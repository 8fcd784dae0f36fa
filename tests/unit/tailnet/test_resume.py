"""Resume tokens."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from fakes.coordination import uid
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Misuse
from coder.tailnet.resume import KEY_SIZE, LIFETIME, REFRESH, InvalidResumeToken, ResumeTokens

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY, NEWER = bytes(range(KEY_SIZE)), bytes(range(100, 100 + KEY_SIZE))
TOKENS = ResumeTokens({"1": KEY}, "1")
PEER = uid(5)


def parts(token):
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_brings_the_peer_id_back():
    issued = TOKENS.issue(PEER, NOW)
    assert TOKENS.peer(issued.token.reveal(), NOW) == PEER
    assert (issued.refresh_in, issued.expires_at) == (REFRESH, NOW + LIFETIME)
    assert "eyJ" not in repr(issued)
    assert "1" in repr(TOKENS)
    assert KEY.hex() not in repr(TOKENS)


def test_a_token_is_a_signed_jws():
    header, claims = parts(TOKENS.issue(PEER, NOW).token.reveal())
    assert header == {"alg": "HS512", "kid": "1"}
    assert claims == {"sub": str(PEER), "exp": int((NOW + timedelta(hours=24)).timestamp())}


def test_a_token_ends_after_its_lifetime():
    token = TOKENS.issue(PEER, NOW).token.reveal()
    assert TOKENS.peer(token, NOW + LIFETIME - timedelta(seconds=1)) == PEER
    with pytest.raises(InvalidResumeToken, match="expired"):
        TOKENS.peer(token, NOW + LIFETIME)


def test_old_keys_read_and_new_ones_sign():
    token = TOKENS.issue(PEER, NOW).token.reveal()
    rolled = ResumeTokens({"1": KEY, "2": NEWER}, "2")
    assert rolled.peer(token, NOW) == PEER
    assert parts(rolled.issue(PEER, NOW).token.reveal())[0]["kid"] == "2"
    with pytest.raises(InvalidResumeToken):
        ResumeTokens({"2": NEWER}, "2").peer(token, NOW)
    with pytest.raises(InvalidResumeToken):
        ResumeTokens({"1": NEWER}, "1").peer(token, NOW)


def test_a_token_without_a_key_id_stands_for_nobody():
    assert TOKENS.peer(f"{encode({'alg': 'HS512'})}.{encode({'sub': str(PEER)})}.x", NOW) is None


def test_another_algorithm_is_not_trusted():
    header = encode({"alg": "none", "kid": "1"})
    claims = TOKENS.issue(PEER, NOW).token.reveal().split(".")[1]
    with pytest.raises(InvalidResumeToken):
        TOKENS.peer(f"{header}.{claims}.", NOW)


@pytest.mark.parametrize(
    "claims", [{}, {"sub": str(PEER)}, {"sub": 1, "exp": 9e9}, {"sub": "nobody", "exp": 9_999_999_999}, []]
)
def test_signed_nonsense_is_refused(claims):
    signed = f"{encode({'alg': 'HS512', 'kid': '1'})}.{encode(claims)}"
    signature = base64.urlsafe_b64encode(TOKENS._sign("1", signed)).rstrip(b"=").decode()
    with pytest.raises(InvalidResumeToken):
        TOKENS.peer(f"{signed}.{signature}", NOW)


def who(token):
    """The peer a token stands for, None for nobody or a refusal."""
    try:
        return TOKENS.peer(token, NOW)
    except InvalidResumeToken:
        return None


def test_no_changed_or_cut_token_stands_for_anybody():
    token = TOKENS.issue(PEER, NOW).token.reveal()
    assert who(token) == PEER
    for index in range(len(token)):
        assert who(token[:index]) is None
        for replacement in set("A.") - {token[index]}:
            assert who(token[:index] + replacement + token[index + 1 :]) is None


@given(st.text(max_size=40) | st.just("x" * 2000))
def test_garbage_is_refused(text):
    with pytest.raises(InvalidResumeToken):
        TOKENS.peer(text, NOW)


@pytest.mark.parametrize(("keys", "current"), [({}, "1"), ({"1": b"short"}, "1"), ({"1": KEY}, "2")])
def test_keys_have_their_size_and_one_is_current(keys, current):
    with pytest.raises(Misuse):
        ResumeTokens(keys, current)


def test_a_token_is_good_for_its_user_only():
    ann, bob = UUID(int=1), UUID(int=2)
    token = TOKENS.issue(PEER, NOW, ann).token.reveal()
    assert TOKENS.peer(token, NOW, ann) == PEER
    for other in (bob, None):
        with pytest.raises(InvalidResumeToken, match="another"):
            TOKENS.peer(token, NOW, other)
    with pytest.raises(InvalidResumeToken, match="another"):
        TOKENS.peer(TOKENS.issue(PEER, NOW).token.reveal(), NOW, ann)
