"""Where the screen of this machine is, and its cookie."""

import os
import socket
import struct

import pytest

from coder.cli import x11
from coder.errors import CoderError


def entry(family, address, display, name, cookie):
    parts = b"".join(struct.pack(">H", len(part)) + part for part in (address, display, name, cookie))
    return struct.pack(">H", family) + parts


HERE = os.fsencode(socket.gethostname())
FILE = b"".join(
    [
        entry(x11.LOCAL, b"elsewhere", b"0", x11.PROTOCOL, b"other"),
        entry(x11.LOCAL, HERE, b"1", x11.PROTOCOL, b"one"),
        entry(x11.LOCAL, HERE, b"0", b"XDM-AUTHORIZATION-1", b"xdm"),
        entry(x11.LOCAL, HERE, b"0", x11.PROTOCOL, b"zero"),
        entry(x11.EVERYWHERE, b"", b"7", x11.PROTOCOL, b"any"),
    ]
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (":0", ("/tmp/.X11-unix/X0", "", 0, 0, b"zero")),
        ("unix:1.2", ("/tmp/.X11-unix/X1", "", 0, 2, b"one")),
        ("localhost:10.0", (None, "localhost", 6010, 0, b"")),
        ("far.example:0", (None, "far.example", 6000, 0, b"other")),
        ("[::1]:7", (None, "::1", 6007, 0, b"any")),
        ("/private/launchd/org.xquartz:0", ("/private/launchd/org.xquartz:0", "", 0, 0, b"zero")),
    ],
)
def test_a_display_has_a_place_and_a_cookie(tmp_path, name, found):
    (tmp_path / "cookies").write_bytes(FILE)
    screen = x11.find({"DISPLAY": name, "XAUTHORITY": str(tmp_path / "cookies")})
    assert (screen.path, screen.host, screen.port, screen.screen, screen.cookie) == found
    assert "zero" not in repr(screen)


@pytest.mark.parametrize("name", ["", "nonsense", ":99999", ":x", "host"])
def test_what_names_no_screen_is_said_so(name):
    with pytest.raises(CoderError, match="DISPLAY"):
        x11.find({"DISPLAY": name})


def test_a_file_that_is_cut_short_or_missing_has_the_entries_it_has(tmp_path):
    whole = list(x11.entries(FILE))
    assert len(whole) == 5
    for end in range(len(FILE)):
        found = list(x11.entries(FILE[:end]))
        assert found == whole[: len(found)]
        assert len(found) < 5
    assert x11.find({"DISPLAY": ":0", "XAUTHORITY": str(tmp_path / "none")}).cookie == b""
