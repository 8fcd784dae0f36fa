"""XML from strangers: what is read, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import boundedxml

BILLION = b"""<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><lolz>&b;</lolz>"""
OUTSIDE = b"""<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]><x>&file;</x>"""


def test_a_document_becomes_a_tree_without_namespaces():
    root = boundedxml.parse(
        b'<?xml version="1.0"?><a xmlns="u:x"><b n="1"> one </b><c:b xmlns:c="v">&lt;</c:b></a>\0\n'
    )
    assert root.name == "a"
    assert [one.text for one in root.walk()] == ["", "one", "<"]
    assert root.value("b") == "one"
    assert root.value("b", "none", "none") == ""


@pytest.mark.parametrize("document", [BILLION, OUTSIDE, b"<!DOCTYPE x><x/>", b'<!DOCTYPE x SYSTEM "http://a/"><x/>'])
def test_declarations_are_refused(document):
    with pytest.raises(Malformed, match="declares"):
        boundedxml.parse(document)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<a>",
        b"<a></b>",
        b"<a/><b/>",
        b"<a>&unknown;</a>",
        b"<a>" * 40 + b"</a>" * 40,
        b"<a>" + b"<b/>" * boundedxml.MAX_ELEMENTS + b"</a>",
        b"<a>" + b" " * boundedxml.MAX_SIZE + b"</a>",
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b'<?xml version="1.0" encoding="shift_jis"?><a/>',
        b"<a:b/>",
        b"\xff\xfe<\x00a",
        b"HTTP/1.1 404 Not Found",
    ],
)
def test_what_is_refused(document):
    with pytest.raises(Malformed):
        boundedxml.parse(document)


@given(st.binary(max_size=60), st.integers(0, 40))
def test_garbage_is_refused_or_read(garbage, place):
    document = b'<a xmlns="u"><b>text</b><c d="e"/></a>'
    try:
        boundedxml.parse(document[:place] + garbage + document[place:])
    except Malformed:
        return
