import asyncio
import os
import resource
import select
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from fakes.told import around, running

from coder.agent.processes import Processes
from coder.agent.scripts import MAX_LOG_FILE, Outcome, Scripts
from coder.clock import FakeClock
from coder.wire.proto import agent_pb2 as pb

Timing = pb.Timing


def script(text, number=1, **fields):
    made = pb.WorkspaceAgentScript(
        id=bytes([number]) * 16, log_source_id=bytes([number + 100]) * 16, script=text, display_name=f"script {number}"
    )
    limit = fields.pop("limit", None)
    if limit is not None:
        made.timeout.FromTimedelta(timedelta(seconds=limit))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Bench:
    def __init__(self, place, *scripts, environment=None, log_directory=None):
        self.clock = FakeClock()
        self.lines = []
        self.timings = []
        self.printed = asyncio.Event()
        self.completed = asyncio.Event()
        self.processes = Processes(self.clock)
        self.place = place
        self.scripts = Scripts(
            scripts,
            around(place, **environment or {}),
            place / "scripts",
            processes=self.processes,
            clock=self.clock,
            put=self.put,
            completed=self.complete,
            log_directory=log_directory,
        )

    def put(self, source, text, level):
        self.lines.append((source.bytes[0] - 100, text, pb.Log.Level.Name(level)))
        self.printed.set()

    def complete(self, timing):
        self.timings.append(timing)
        self.completed.set()

    @property
    def texts(self):
        return [text for _, text, _ in self.lines]


async def test_start_scripts_run_with_the_manifests_surroundings_and_are_timed(tmp_path):
    bench = Bench(
        tmp_path,
        script('echo "$GREETING from $PWD"; echo oops >&2', run_on_start=True),
        script("echo never", 2, run_on_stop=True),
        environment={"GREETING": "hello"},
    )
    assert await bench.scripts.start() is Outcome.OK
    assert bench.lines == [(1, f"hello from {tmp_path}", "INFO"), (1, "oops", "INFO")]
    [timing] = bench.timings
    assert (timing.stage, timing.status, timing.exit_code) == (Timing.START, Timing.OK, 0)
    assert timing.script_id == bytes([1]) * 16
    assert timing.start.ToDatetime() <= timing.end.ToDatetime()


async def test_a_command_has_the_limit_of_open_files_it_is_given_and_may_raise_it(tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    printed = []
    found = replace(around(tmp_path), open_files=200)
    ended = await Processes(FakeClock()).run(
        found.command('ulimit -Sn; ulimit -Hn; echo "$0" "$@"; exit 3'), found, printed.append
    )
    assert b"".join(printed).decode().split() == ["200", str(hard), "/bin/sh"]
    assert ended.code == 3
    missing = await Processes(FakeClock()).run(["/nowhere/sh"], found, printed.append)
    assert missing.problem == "No such file or directory"


async def test_the_worst_outcome_counts_and_says_so_in_the_log(tmp_path):
    bench = Bench(tmp_path, script("exit 3", 1, run_on_start=True), script("true", 2, run_on_start=True))
    assert await bench.scripts.start() is Outcome.ERROR
    assert bench.lines == [(1, "The script failed with exit code 3.", "ERROR")]
    assert {(one.script_id[0], one.status, one.exit_code) for one in bench.timings} == {
        (1, Timing.EXIT_FAILURE, 3), (2, Timing.OK, 0),
    }  # fmt: skip


async def test_a_script_that_takes_too_long_is_ended_with_its_children(tmp_path):
    bench = Bench(tmp_path, script("sleep 1000 & echo $!; wait", run_on_start=True, limit=30))
    async with running(bench.scripts.start()) as started:
        await bench.printed.wait()
        child = int(bench.texts[0])
        await bench.clock.advance(29)
        assert not started.done()
        await bench.clock.advance(1)
        assert await started is Outcome.TIMEOUT
    assert bench.timings[0].status == Timing.TIMED_OUT
    assert "longer than 30 s" in bench.texts[-1]
    assert await gone(child)


async def gone(process):
    """Whether a process ends now, or has: a signal is on its way for a moment."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], 20)
    finally:
        os.close(descriptor)
    return bool(ready)


def private(path):
    """Whether only its user may look there."""
    return oct(Path(path).stat().st_mode)[-3:] == "700"


async def test_cancelling_ends_the_script(tmp_path):
    bench = Bench(tmp_path, script("echo $$; exec sleep 1000", run_on_start=True))
    async with running(bench.scripts.start()):
        await bench.printed.wait()
    assert await gone(int(bench.texts[0]))


async def test_a_daemon_that_holds_the_output_is_read_on_and_delays_nothing_for_long(tmp_path):
    os.mkfifo(tmp_path / "go")
    bench = Bench(tmp_path, script("(read line < go; echo later $line) & echo $!", run_on_start=True))
    async with running(bench.scripts.start()) as started:
        while not started.done():
            await bench.clock.advance(1)
            await asyncio.sleep(0)
        assert await started is Outcome.OK
    assert bench.timings[0].status == Timing.PIPES_LEFT_OPEN
    bench.printed.clear()
    (tmp_path / "go").write_text("gator\n")
    await bench.printed.wait()
    assert bench.texts[-1] == "later gator"
    await bench.processes.close()


async def test_a_script_names_its_interpreter(tmp_path):
    bench = Bench(tmp_path, script('#!/usr/bin/env -S sh -e\nprintf "%s\\n" "$0"\nfalse\necho no', run_on_start=True))
    assert await bench.scripts.start() is Outcome.ERROR
    file = bench.texts[0]
    assert file.endswith("/script")
    assert private(file)
    assert "no" not in bench.texts


async def test_scripts_have_places_of_their_own(tmp_path):
    bench = Bench(tmp_path, script('echo "$CODER_SCRIPT_DATA_DIR"; echo "$CODER_SCRIPT_BIN_DIR"', run_on_start=True))
    await bench.scripts.start()
    assert bench.texts == [f"{tmp_path}/scripts/data/{UUID(bytes=bytes([101]) * 16)}", f"{tmp_path}/scripts/bin"]
    assert all(map(private, bench.texts))


async def test_what_cannot_be_started_says_why(tmp_path):
    bench = Bench(tmp_path, script("#!/no/such/program\n", run_on_start=True))
    assert await bench.scripts.start() is Outcome.ERROR
    assert "No such file" in bench.texts[0]


async def test_stop_scripts_have_a_bound_whatever_they_are_allowed(tmp_path):
    bench = Bench(
        tmp_path,
        script("trap 'echo end; exit' TERM; echo up; while :; do sleep 0.01; done", run_on_stop=True, limit=999999),
    )
    async with running(bench.scripts.stop()) as stopped:
        await bench.printed.wait()
        await bench.clock.advance(60)
        assert await stopped is Outcome.TIMEOUT
    assert bench.timings[0].stage == Timing.STOP


async def test_scripts_run_by_the_clock(tmp_path):
    bench = Bench(tmp_path, script("echo tick", cron="CRON_TZ=UTC 0 * * * *"))
    async with running(bench.scripts.by_the_clock()):
        for hour in (1, 2):
            bench.completed.clear()
            await bench.clock.advance(3600)
            await bench.completed.wait()
            assert len(bench.timings) == hour
    assert bench.texts == ["tick", "tick"]
    assert {timing.stage for timing in bench.timings} == {Timing.CRON}


async def test_a_schedule_that_is_none_is_told_in_the_scripts_log(tmp_path):
    bench = Bench(tmp_path, script("echo", cron="sometimes"))
    await bench.scripts.by_the_clock()
    [(_, text, level)] = bench.lines
    assert "by the clock" in text
    assert level == "ERROR"


@pytest.mark.parametrize("told", ["", "$WHERE/given.log"])
async def test_output_is_kept_on_the_machine_where_that_is_wanted(tmp_path, told):
    logs = tmp_path / "logs"
    logs.mkdir()
    bench = Bench(
        tmp_path, script("echo hello", run_on_start=True, log_path=told),
        environment={"WHERE": str(tmp_path)}, log_directory=logs,
    )  # fmt: skip
    await bench.scripts.start()
    file = tmp_path / "given.log" if told else logs / f"coder-script-{UUID(bytes=bytes([101]) * 16)}.log"
    assert file.read_text() == "hello\n"
    assert oct(file.stat().st_mode)[-3:] == "600"


async def test_a_log_file_does_not_grow_without_end_nor_follow_links(tmp_path):
    text = f"head -c {MAX_LOG_FILE + 1000} /dev/zero | tr '\\0' '\\n'"
    bench = Bench(tmp_path, script(text, run_on_start=True, log_path=str(tmp_path / "log")))
    await bench.scripts.start()
    assert (tmp_path / "log").stat().st_size == MAX_LOG_FILE
    (tmp_path / "log").unlink()
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    await bench.scripts.start()
    assert not (tmp_path / "victim").exists()


async def test_a_script_ended_by_a_signal(tmp_path):
    bench = Bench(tmp_path, script("kill -KILL $$", run_on_start=True))
    await bench.scripts.start()
    assert bench.timings[0].exit_code == 128 + signal.SIGKILL
