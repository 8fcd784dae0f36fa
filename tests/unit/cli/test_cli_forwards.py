import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.cli.forwards import Forward, parse
from coder.errors import Malformed

PORT = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", [(None, 8080, 8080)]),
        ("8080:80", [(None, 8080, 80)]),
        ("127.0.0.2:8080", [("127.0.0.2", 8080, 8080)]),
        ("0.0.0.0:8080:80", [("0.0.0.0", 8080, 80)]),
        ("[::1]:8080", [("::1", 8080, 8080)]),
        ("[0:0::1]:8080:80", [("::1", 8080, 80)]),
        ("10-12:20-22", [(None, 10, 20), (None, 11, 21), (None, 12, 22)]),
        ("10-11", [(None, 10, 10), (None, 11, 11)]),
        ("10-10:7", [(None, 10, 7)]),
        ("1,2:3, [::]:1", [(None, 1, 1), (None, 2, 3), ("::", 1, 1)]),
        ("65535", [(None, 65535, 65535)]),
    ],
)
def test_a_text_is_the_ports_it_names(text, expected):
    assert parse("tcp", [text]) == [Forward("tcp", *one) for one in expected]


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "x", "0", "65536", "1:0", "1:65536", "1-", "-1", "2-1", "1-2:1-3", "1-2:5", "1:2:3", "localhost:1:2",
        "[::1:80", "::1:80", "[g::]:1:2", "[1.2.3.4]:1", "1.2.3:1", "256.0.0.1:1", "[fe80::1%eth0]:1", "1:2-1", "1 2",
        "\u0661", "9" * 100_000, "1\n2",
    ],
)  # fmt: skip
def test_what_is_no_port_is_refused(text):
    with pytest.raises(Malformed):
        parse("tcp", [text])


@pytest.mark.parametrize("values", [["1", "1:2"], ["1-3,3"], ["127.0.0.1:1", "1"], ["[::1]:1,[0::1]:1:9"]])
def test_one_port_cannot_listen_twice(values):
    with pytest.raises(Malformed, match="is specified twice"):
        parse("tcp", values)


def test_the_words_of_a_doubled_port_are_those_that_programs_look_for():
    with pytest.raises(Malformed, match=r"^local tcp host:127\.0\.0\.1 port:8080 is specified twice$"):
        parse("tcp", ["8080", "8080:80"])


@given(
    bind=st.none() | st.ip_addresses().map(str),
    first=PORT,
    remote=PORT,
    count=st.integers(1, 50),
    network=st.sampled_from(["tcp", "udp"]),
)
def test_a_range_is_as_many_single_ports(bind, first, remote, count, network):
    count = min(count, 65536 - first, 65536 - remote)
    before = "" if bind is None else f"[{bind}]:" if ":" in bind else f"{bind}:"
    whole = parse(network, [f"{before}{first}-{first + count - 1}:{remote}-{remote + count - 1}"])
    assert whole == parse(network, [f"{before}{first + n}:{remote + n}" for n in range(count)])
    assert [forward.remote - forward.local for forward in whole] == [remote - first] * count


@given(st.text(alphabet="0123456789:-.,[]af \n", max_size=40))
def test_any_text_is_ports_or_a_refusal(text):
    try:
        made = parse("tcp", [text])
    except Malformed:
        return
    assert all(1 <= one.local <= 65535 and 1 <= one.remote <= 65535 for one in made)
