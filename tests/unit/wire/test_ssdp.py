"""SSDP: searches and answers, both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import Malformed
from coder.wire import ssdp
from coder.wire.ssdp import Found, Search

SEARCH = (
    b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: upnp:rootdevice\r\nUSN: uuid:1::upnp:rootdevice\r\nEXT:\r\n"
    b"SERVER: Debian/12 UPnP/1.1 MiniUPnPd/2.3.1\r\nlocation:http://192.168.1.1:5000/rootDesc.xml\r\n"
    b'OPT: "http://schemas.upnp.org/upnp/1/0/"; ns=01\r\n01-NLS: 1\r\n\r\n'
)
FOUND = Found(
    target="upnp:rootdevice",
    usn="uuid:1::upnp:rootdevice",
    location="http://192.168.1.1:5000/rootDesc.xml",
    server="Debian/12 UPnP/1.1 MiniUPnPd/2.3.1",
)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def test_a_search_is_written_as_the_architecture_says():
    search = Search(target="urn:schemas-upnp-org:device:InternetGatewayDevice:1", wait=1)
    assert ssdp.encode_search(search) == SEARCH
    assert ssdp.decode_search(SEARCH) == search


def test_a_recorded_answer_is_read():
    assert ssdp.decode_found(ANSWER) == FOUND
    assert ssdp.decode_found(ssdp.encode_found(FOUND)) == FOUND


@pytest.mark.parametrize(("decode", "data"), [(ssdp.decode_search, SEARCH), (ssdp.decode_found, ANSWER)])
def test_cut_off_anywhere_it_is_refused(decode, data):
    for size in range(len(data)):
        with pytest.raises(Malformed):
            decode(data[:size])


@pytest.mark.parametrize(
    "data",
    [
        ANSWER.replace(b"200", b"404"),
        ANSWER.replace(b"location:", b"elsewhere:"),
        ANSWER.replace(b"HTTP/1.1", b"RTSP/1.0"),
        ANSWER.replace(b"EXT:", b"EXT"),
        ANSWER[:-2] + b"X: " + b"y" * ssdp.MAX_SIZE + b"\r\n\r\n",
        ANSWER[:-2] + b"a:\r\n" * 100 + b"\r\n",
        SEARCH,
    ],
)
def test_what_is_no_answer(data):
    with pytest.raises(Malformed):
        ssdp.decode_found(data)


def test_a_notify_is_no_search():
    with pytest.raises(Malformed):
        ssdp.decode_search(SEARCH.replace(b"M-SEARCH", b"NOTIFY"))
    with pytest.raises(Malformed):
        ssdp.decode_search(SEARCH.replace(b"MX: 1", b"MX: x"))


def test_a_line_break_is_not_written():
    with pytest.raises(Malformed):
        ssdp.encode_search(Search(target="a\r\nX: y"))


@given(st.builds(Search, target=TEXT, host=TEXT, wait=st.none() | st.integers(0, 120)))
def test_any_search_survives(search):
    assert ssdp.decode_search(ssdp.encode_search(search)) == search


@given(st.builds(Found, target=TEXT, usn=TEXT, location=TEXT, server=TEXT))
def test_any_answer_survives(found):
    assert ssdp.decode_found(ssdp.encode_found(found)) == found


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda more: ANSWER[:40] + more + ANSWER[40:]))
def test_garbage_is_refused_or_read(data):
    for decode in (ssdp.decode_search, ssdp.decode_found):
        try:
            decode(data)
        except Malformed:
            continue
