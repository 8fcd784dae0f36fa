"""The lab's NATs are the kinds they are said to be."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from lab.netns import FILES, Namespace, clean, command, why_not
from lab.topology import ADDRESS, BLOCKED, EASY, HAIRPIN, HARD, ROUTED, Host, Internet

REASON = why_not()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

SOCKET = """
import ast, socket, sys
family = socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
sock.bind(("", int(sys.argv[2])))
sock.settimeout(0.3)
print("ready", flush=True)
for line in sys.stdin:
    to = ast.literal_eval(line)
    try:
        if to:
            answer = sock.sendto(b"x", to)
        else:
            answer = sock.recvfrom(100)[1][:2]
    except OSError:
        answer = None
    print(repr(answer), flush=True)
"""


class Socket:
    """A UDP socket inside a namespace."""

    def __init__(self, place: Namespace, port: int = 5000, family: int = 4) -> None:
        self.process = place.popen(
            *("python3", "-c", SOCKET, family, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def _do(self, what: object) -> str:
        self.process.stdin.write(f"{what!r}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def send(self, host: str, port: int = 5000) -> None:
        self._do((host, port))

    def heard(self) -> tuple[str, int] | None:
        """Where the next packet came from; None if none comes."""
        answer = self._do(None)
        return None if answer == "None" else tuple(answer.strip("()").replace("'", "").split(", "))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def sockets(*places: tuple[Host, int]) -> Iterator[list[Socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Socket(*place))) for place in places]


@pytest.fixture
def net():
    with Internet() as made:
        yield made


def outside(inner: Socket, outer: Socket, host: Host) -> str:
    """The port under which a host outside sees the inner socket."""
    inner.send(host.v4)
    seen = outer.heard()
    assert seen is not None
    return seen[1]


@pytest.mark.parametrize(
    ("nat", "same_port", "other_port_gets_in"),
    [(EASY, True, False), (ADDRESS, True, True), (HARD, False, False)],
    ids=["easy", "address", "hard"],
)
def test_mapping_and_filtering(net, nat, same_port, other_port_gets_in):
    one, two = net.host("one"), net.host("two")
    router = net.router("home", nat)
    alice = router.host("alice")
    with sockets((alice, 5000), (one, 5000), (one, 5001), (two, 5000)) as (inner, outer, beside, stranger):
        stranger.send(router.v4)  # unasked: must not be let in, nor cost the socket its port
        assert inner.heard() is None
        mapped = outside(inner, outer, one)
        outer.send(router.v4, int(mapped))
        assert inner.heard() == (one.v4, "5000")
        beside.send(router.v4, int(mapped))
        assert (inner.heard() is not None) == other_port_gets_in
        stranger.send(router.v4, int(mapped))
        assert inner.heard() is None
        assert (outside(inner, stranger, two) == mapped) == same_port


@pytest.mark.parametrize(("nat", "reached"), [(HAIRPIN, True), (ADDRESS, False)], ids=["with", "without"])
def test_hairpin_between_isolated_hosts(net, nat, reached):
    one, router = net.host("one"), net.router("home", nat)
    alice, bob = router.host("alice", isolated=True), router.host("bob", isolated=True)
    with sockets((alice, 5000), (bob, 6000), (one, 5000)) as (left, right, outer):
        assert outside(left, outer, one) == "5000"
        assert outside(right, outer, one) == "6000"
        left.send(bob.v4, 6000)
        assert right.heard() is None
        left.send(router.v4, 6000)
        assert right.heard() == ((router.v4, "5000") if reached else None)
        if reached:
            right.send(router.v4, 5000)
            assert left.heard() == (router.v4, "6000")


def test_a_nat_behind_a_nat_keeps_the_port(net):
    one = net.host("one")
    inside = net.router("cgn", EASY, lan="100.64.0").router("home", EASY).host("alice")
    with sockets((inside, 5000), (one, 5000)) as (inner, outer):
        assert outside(inner, outer, one) == "5000"


def test_blocked_udp_is_blocked(net):
    one, alice = net.host("one"), net.router("home", BLOCKED).host("alice")
    with sockets((alice, 5000), (one, 5000)) as (inner, outer):
        inner.send(one.v4)
        assert outer.heard() is None


def test_ipv6_is_filtered_by_state_and_not_translated(net):
    one = net.host("one", v6=True)
    alice = net.router("home", ROUTED, v4=False, v6=True).host("alice")
    with contextlib.closing(Socket(alice, family=6)) as inner, contextlib.closing(Socket(one, family=6)) as outer:
        outer.send(alice.v6)
        assert inner.heard() is None
        inner.send(one.v6)
        assert outer.heard() == (alice.v6, "5000")
        outer.send(alice.v6)
        assert inner.heard() == (one.v6, "5000")


def test_the_link_program_joins_two_namespaces_and_obeys(net):
    one, slow = net.host("one"), net.host("slow", link=["seed=3", "delay 5ms"])
    with sockets((slow, 5000), (one, 5000)) as (left, right):
        left.send(one.v4)
        assert right.heard() == (slow.v4, "5000")
        slow.uplink.tell("down")
        left.send(one.v4)
        assert right.heard() is None
        counters = slow.uplink.stats()["ab"]
        assert counters["down"] >= 1
        assert counters["arrived"] == counters["delivered"] + counters["down"]
        with pytest.raises(ValueError, match="loss 7"):
            slow.uplink.tell("loss 7")


def test_nothing_is_left_behind(net):
    alice = net.router("home").host("alice")
    process = alice.popen("sleep", "1000")
    net.__exit__()
    assert process.wait(10) != 0
    assert not alice.path.exists()


def test_what_a_killed_process_left_is_removed(monkeypatch):
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: int(ended.stdout))
        left = Namespace("left")
        left.file("hosts", "127.0.0.1 localhost\n")
    with subprocess.Popen(left.inside("cat"), stdin=subprocess.PIPE) as process:
        while str(process.pid) not in command("ip", "netns", "pids", left.name).split():
            assert process.poll() is None
        clean()
        assert process.wait(10) != 0
    assert not left.path.exists()
    assert not (FILES / left.name).exists()
