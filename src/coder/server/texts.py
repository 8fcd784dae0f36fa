"""Texts of one person that others read, on terminals too."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line breaks, and signs that turn the direction of writing (Unicode's Bidi_Control)."""


def _in_a_line(text: str) -> str:
    if _UNSEEN.search(text):
        raise ValueError("Control characters are not allowed.")
    return text


Typed = Annotated[str, Field(max_length=256)]
"""What somebody types into a field; the rules for names and passwords say what it may be in detail."""

Line = Annotated[str, AfterValidator(_in_a_line)]
"""Text of one line in which every character is seen, or shapes one that is."""
