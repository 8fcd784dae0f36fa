import asyncio
import json
import os
import re
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from fakes.engine import DIRECT, RELAYED

from coder.cli import pulse
from coder.cli.options import AssignedFlags
from coder.clock import FakeClock
from coder.dataplane.engine import NodeStats, Pong
from coder.errors import TimedOut


class Peer:
    """Answers pings or does not; each that is not answered takes its time."""

    def __init__(self, clock):
        self.clock = clock
        self.there = True
        self.asked = 0

    async def ping(self):
        self.asked += 1
        if not self.there:
            await self.clock.sleep(5.0)
            raise TimedOut("no answer")


async def watched(*steps, lost=""):
    """Let a peer be there, or not, for so many seconds; return what was said."""
    clock, said = FakeClock(), []
    peer = Peer(clock)
    task = asyncio.ensure_future(pulse.tell_outages(peer.ping, clock, said.append, lost=lost))
    for there, seconds in steps:
        peer.there = there
        for _ in range(seconds):
            await clock.advance(1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return said, peer.asked


async def test_an_outage_is_told_once_when_it_is_over():
    said, _ = await watched((True, 20), (False, 60), (True, 30))
    [line] = said
    assert re.fullmatch(r"The connection is back after (5\d|1m\d*)s?\.", line), line


async def test_a_connection_that_answers_is_asked_seldom_and_told_nothing_of():
    said, asked = await watched((True, 100))
    assert said == []
    assert asked == 21


async def test_an_outage_can_be_told_while_it_lasts():
    said, _ = await watched((True, 20), (False, 60), (True, 30), lost="Gone.")
    assert said[0] == "Gone."
    assert len(said) == 2


async def test_one_lost_ping_is_no_outage():
    said, _ = await watched((False, 4), (True, 30))
    assert said == []


async def test_each_outage_is_told():
    said, _ = await watched((False, 30), (True, 30), (False, 30), (True, 30))
    assert len(said) == 2


def stats(sent=0, received=0):
    return NodeStats(rx_bytes=received, tx_bytes=sent, rx_packets=0, tx_packets=0)


class Connection:
    def __init__(self, pong):
        self.pong = pong
        self.counted = stats()
        self.node = SimpleNamespace(stats=lambda: self.counted)
        state = SimpleNamespace(home=999, latencies={"999-v4": 0.002, "999-v6": 0.001, "7-v4": 0.03})
        self.peering = SimpleNamespace(state=lambda: state)

    def region_name(self, region):
        return {999: "Coder Embedded Relay"}.get(region, f"region {region}")

    async def ping(self, patience):
        if self.pong is None:
            raise TimedOut("no answer")
        return self.pong


def test_figures_are_milliseconds_and_bytes_a_second():
    connection = Connection(None)
    found = pulse.figures(connection, Pong(latency=0.0123456, path=DIRECT), stats(100, 0), stats(600, 4000), 2.0)
    assert found == {
        "p2p": True,
        "latency": 12.346,
        "preferred_derp": "Coder Embedded Relay",
        "derp_latency": {"Coder Embedded Relay": 1.0, "region 7": 30.0},
        "upload_bytes_sec": 250,
        "download_bytes_sec": 2000,
        "using_coder_connect": False,
    }
    assert not pulse.figures(connection, Pong(latency=0.1, path=RELAYED), stats(), stats(), 1.0)["p2p"]


async def test_figures_are_kept_fresh_in_a_private_file_named_after_the_parent(tmp_path):
    clock, connection = FakeClock(), Connection(Pong(latency=0.001, path=DIRECT))
    task = asyncio.ensure_future(pulse.write_figures(connection, tmp_path, 5.0, clock))
    await clock.advance(0.0)
    [path] = tmp_path.iterdir()
    assert path.name == f"{os.getppid()}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["upload_bytes_sec"] == 0
    connection.counted = stats(5000)
    await clock.advance(5.0)
    assert json.loads(path.read_text())["upload_bytes_sec"] == 1000
    connection.pong = None
    await clock.advance(5.0)
    assert not task.done()
    task.cancel()


async def test_the_server_hears_each_minute_that_a_workspace_is_in_use_whatever_it_answers(monkeypatch):
    async def at_once(call):
        return call()

    def note(app):
        heard.append(app)
        raise TimedOut("no answer")

    monkeypatch.setattr(pulse, "in_thread", at_once)
    clock, heard = FakeClock(), []
    task = asyncio.ensure_future(pulse.tell_usage(note, "ssh", clock))
    for minute in range(3):
        await clock.advance(59.0)
        assert heard == ["ssh"] * (minute + 1)
        await clock.advance(1.0)
    task.cancel()


@pytest.mark.parametrize("stdio", [True, False])
def test_a_log_is_named_and_stamped_and_cannot_move_the_cursor(tmp_path, stdio):
    log = pulse.LogFile(tmp_path, stdio=stdio)
    log.write("path: \x1b[2J10.0.0.7")
    log.close()
    [path] = tmp_path.iterdir()
    parent = f"-{os.getppid()}" if stdio else ""
    assert re.fullmatch(rf"coder-ssh-\d{{8}}-\d{{6}}-[A-Za-z]{{5}}{parent}\.log", path.name)
    assert re.fullmatch(r"\S+T\S+ path: \?\[2J10\.0\.0\.7\n", path.read_text())


@click.command(cls=AssignedFlags, context_settings={"allow_interspersed_args": False})
@click.option("-q", "--quiet", is_flag=True)
@click.option("-n", "--name", default="")
@click.argument("words", nargs=-1)
def sample(quiet, name, words):
    click.echo(f"{quiet} {name} {' '.join(words)}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--quiet=true", "a"], "True  a"),
        (["--quiet=false", "a"], "False  a"),
        (["--quiet=1", "--name", "--quiet=0", "a"], "True --quiet=0 a"),
        (["--name=x", "--quiet", "a"], "True x a"),
        (["-n", "x", "-q", "a"], "True x a"),
        (["a", "--quiet=true"], "False  a --quiet=true"),
        (["--", "--quiet=true"], "False  --quiet=true"),
        (["-", "--quiet=true"], "False  - --quiet=true"),
    ],
)
def test_flags_may_be_assigned_before_the_first_word(arguments, expected):
    done = CliRunner().invoke(sample, arguments)
    assert done.output == expected + "\n"


def test_flags_may_be_assigned_behind_words_where_options_may_stand():
    mixed = AssignedFlags("mixed", params=sample.params, callback=sample.callback)
    for arguments, expected in (
        (["a", "--quiet=true", "b"], "True  a b"),
        (["a", "-n", "--quiet=true", "--", "--quiet=true"], "False --quiet=true a --quiet=true"),
    ):
        assert CliRunner().invoke(mixed, arguments).output == expected + "\n"


def test_a_flag_takes_no_other_value():
    assert CliRunner().invoke(sample, ["--quiet=perhaps"]).exit_code == 2
