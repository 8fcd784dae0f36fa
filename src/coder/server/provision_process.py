"""The `process` kind: the server starts agents as processes of its own user, to try things out.

They outlive the server, so that its restart ends nobody's session; a file says which process it was.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from coder import descriptors
from coder.access.templates import ProcessSettings
from coder.clock import Clock
from coder.ids import Secret
from coder.server.provision import STOP_PATIENCE, AgentJob, Job, ProvisionError, others, settings_of
from coder.server.provision_commands import LONGEST_LINE, inherited, readable, run, to_the_end

_LOOK_EVERY = 0.05
# A child of the shell, not of ours: it is nobody's to wait for, whichever server started it.
_START = """cd -- "$1" || exit; [ "$2" = - ] || ulimit -Sn "$2"; shift 2
[ ! -e agent.log ] || mv -f agent.log agent.log.old
"$@" </dev/null >agent.log 2>&1 & echo $!"""
_ABOUT_OURSELVES = ("SHELL", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


class ProcessProvisioner:
    """Starts agents as processes."""

    def __init__(
        self,
        clock: Clock,
        command: tuple[str, ...] = (sys.executable, "-m", "coder.cli.start", "agent"),
        *,
        ca_file: str = "",
    ) -> None:
        self._clock = clock
        self._command = command
        # The agents trust whom the server trusts, however it was told; they start in a directory of their own.
        self._trust = {"CODER_CA_FILE": str(Path(ca_file).absolute())} if ca_file else {}

    async def start(self, job: Job, agents: tuple[AgentJob, ...]) -> None:
        """Start a process for each agent."""
        settings = settings_of(job, ProcessSettings)
        home = Path(settings.directory) if settings.directory else job.state / "home"
        await self._end(job, others(job, agents))
        for agent in agents:
            await to_the_end(self._start(job, agent, home))  # else there might be a process that nobody knows of

    async def _start(self, job: Job, agent: AgentJob, home: Path) -> None:
        place = _place(job, agent.name)
        try:
            for directory in (place, home):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_private(place / "token", agent.token)
        except OSError as fault:
            raise ProvisionError(
                f"{fault.filename}: {fault.strerror}", remedy="Let the server write to its state directory."
            ) from None
        environment = inherited(*_ABOUT_OURSELVES) | self._trust
        environment |= {
            "HOME": str(home),
            "CODER_AGENT_URL": job.access_url,
            "CODER_AGENT_TOKEN_FILE": str(place / "token"),
            "CODER_CONFIG_DIR": str(place / "config"),
            "CODER_AGENT_LOG_DIR": str(place),
            "CODER_AGENT_SCRIPT_DATA_DIR": str(place / "scripts"),
        }
        limit = descriptors.inherited() or "-"  # the agent gives its users what it is given
        shell = ("/bin/sh", "-c", _START, "sh", str(place), str(limit), *self._command)
        _, printed = await run(shell, say=lambda _line: None, environment=environment, secrets=[agent.token])
        number = int(printed.split()[-1])
        made = place / "process.json.new"
        made.write_text(json.dumps({"pid": number, "born": _born(number)}))
        made.replace(place / "process.json")
        job.say(f"The agent {agent.name} runs as process {number}; its log is {place / 'agent.log'}.")

    async def stop(self, job: Job) -> None:
        """End the processes: politely, and after a while by force."""
        await self._end(job)

    async def _end(self, job: Job, kept: frozenset[str] = frozenset()) -> None:
        known = [name for name in _known(job) if name not in kept]
        running = [(name, pid) for name in known if (pid := _running(_place(job, name))) is not None]
        for _, pid in running:
            _signal(pid, signal.SIGTERM)
        until = self._clock.monotonic() + STOP_PATIENCE
        for name, pid in running:
            while _running(_place(job, name)) is not None and self._clock.monotonic() < until:
                await self._clock.sleep(_LOOK_EVERY)
            if _running(_place(job, name)) is not None:
                job.say(f"The agent {name} does not end by itself and is killed.")
                _signal(pid, signal.SIGKILL)
        for name in known:
            for file in ("token", "process.json"):
                (_place(job, name) / file).unlink(missing_ok=True)

    async def delete(self, job: Job) -> None:
        """End the processes and remove the workspace's directory; a directory that the template names stays."""
        await self.stop(job)
        try:
            await asyncio.to_thread(shutil.rmtree, job.state)
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise ProvisionError(
                f"{fault.filename}: {fault.strerror}", remedy="Remove it, then delete again."
            ) from None

    async def running(self, job: Job) -> frozenset[str]:
        """Return the agents whose processes run."""
        return frozenset(name for name in job.agents if _running(_place(job, name)) is not None)

    async def last_words(self, job: Job, agent: str) -> str:
        """Return the last line of its log."""
        try:
            with (_place(job, agent) / "agent.log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LONGEST_LINE))
                lines = log.read().splitlines()
        except OSError:
            return ""
        return readable(lines[-1]) if lines else ""


def _place(job: Job, agent: str) -> Path:
    """Return the directory of what the server keeps of an agent; its sessions' home is another one."""
    return job.state / "agents" / agent


def _known(job: Job) -> list[str]:
    """Return the agents that have a process noted, also those that the template does not list any more."""
    return sorted(file.parent.name for file in job.state.glob("agents/*/process.json"))


def _running(place: Path) -> int | None:
    """Return the number of an agent's process while it runs; a later process of that number is another one."""
    try:
        noted = json.loads((place / "process.json").read_text())
        number, born = int(noted["pid"]), str(noted["born"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return number if born and _born(number) == born else None


def _born(number: int) -> str:
    """Return when a process was born, in words that no other process of that number has; empty: there is none."""
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self").exists():
            return ""
        with suppress(OSError):
            os.kill(number, 0)
            return "unknown"  # systems without /proc
        return ""
    return "" if state in "ZX" else fields[18]  # field 22 of proc_pid_stat(5): ticks since boot


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):
        group = os.getpgid(pid)
        os.killpg(group, number) if group != os.getpgid(0) else os.kill(pid, number)


def _write_private(file: Path, secret: Secret) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secret.reveal() + "\n")
