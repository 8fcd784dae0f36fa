"""Passwords: which are good enough, and how they are stored.

Strength is estimated as length times the bits of the alphabets used, and must reach 52 bits. A character that only
repeats or continues the two before it (`aaa`, `abc`, `321`) counts nothing. The upper bound is 64 bytes: the clients of
this protocol allow no more, and it bounds the work a login can ask for.
"""

import math

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_BITS = 52.0
MAX_BYTES = 64

# Argon2id after RFC 9106, second recommended option but with 19 MiB, so that a burst of logins fits a small machine.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_ALPHABETS = ((str.islower, 26), (str.isupper, 26), (str.isdecimal, 10))
_OTHER = 33

_DECOY = _HASHER.hash("the hash compared with when there is no such user")


def strength(password: str) -> float:
    """Estimate a password's strength in bits."""
    alphabet = sum(size for belongs, size in _ALPHABETS if any(belongs(c) for c in password))
    if any(not any(belongs(c) for belongs, _ in _ALPHABETS) for c in password):
        alphabet += _OTHER
    return math.log2(alphabet) * _effective_length(password) if alphabet else 0.0


def _effective_length(password: str) -> int:
    count = min(2, len(password))
    for before, middle, last in zip(password, password[1:], password[2:], strict=False):
        step = ord(last) - ord(middle)
        if not (step == ord(middle) - ord(before) and abs(step) <= 1):
            count += 1
    return count


def password_problem(password: str) -> str | None:
    """Say what is wrong with a new password, or None."""
    if len(password.encode()) > MAX_BYTES:
        return f"A password has at most {MAX_BYTES} bytes."
    if strength(password) < MIN_BITS:
        return "The password is too easy to guess: make it longer, or mix letters, digits and other characters."
    return None


def hash_password(password: str) -> str:
    """Return the text to store. Takes tens of milliseconds."""
    return _HASHER.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Compare a password with the stored text, in the same time whether there is one (None or empty: none) or not."""
    if len(password.encode(errors="replace")) > MAX_BYTES:
        password = ""
    try:
        return _HASHER.verify(stored or _DECOY, password) and bool(stored)
    except (VerificationError, InvalidHashError):
        return False
