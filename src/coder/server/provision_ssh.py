"""The `ssh` kind: the server starts agents on a host with OpenSSH's client. The token travels on standard input."""

import shlex
from collections.abc import Iterable

from coder.access.templates import SshSettings
from coder.ids import Secret
from coder.server.provision import STOP_PATIENCE, AgentJob, Job, Say, is_loopback, require_reachable, settings_of
from coder.server.provision_commands import inherited, run, to_the_end

_REMEDY = "Check the template's host, user, key and known hosts: sign in with them from the server once."
_PATIENCE = 120.0
_NOT_RUNNING = 3

# The host's shell gets these as one word: `d` is the agent's directory there.
_FUNCTIONS = """set -eu
umask 077
ours() {
  p=$(cat "$d/pid" 2>/dev/null) || return 1
  kill -0 "$p" 2>/dev/null || return 1
  [ ! -e "/proc/$p/environ" ] || grep -qF "CODER_AGENT_TOKEN_FILE=$d/token" "/proc/$p/environ" 2>/dev/null
}
end() { kill "-$1" -- "-$p" 2>/dev/null || kill "-$1" "$p" 2>/dev/null || :; }
stop() {
  if ours; then
    end TERM
    n=0
    while ours && [ "$n" -lt PATIENCE ]; do sleep 1; n=$((n + 1)); done
    if ours; then end KILL; fi
  fi
  rm -f "$d/token" "$d/pid"
}
"""
_FUNCTIONS = _FUNCTIONS.replace("PATIENCE", f"{STOP_PATIENCE:.0f}")
_START = """stop
mkdir -p "$d"
cat >"$d/token"
command -v "$1" >/dev/null || { echo "there is no program $1 here" >&2; exit 1; }
s=$(command -v setsid || :)
CODER_AGENT_URL=$url CODER_AGENT_TOKEN_FILE=$d/token nohup $s "$@" >"$d/log" 2>&1 </dev/null &
echo $! >"$d/pid"
"""


class SshProvisioner:
    """Starts agents on hosts."""

    def __init__(self, program: str = "ssh") -> None:
        self._program = program

    async def start(self, job: Job, agents: tuple[AgentJob, ...]) -> None:
        """Start a process for each agent on the host, in place of the one that is there."""
        settings = settings_of(job, SshSettings)
        url = settings.access_url or job.access_url
        if not is_loopback(settings.host):
            require_reachable(url, f"the host {settings.host}", "Give the template an access_url that it can reach.")
        for agent in agents:
            script = f"url={shlex.quote(url)}\nset -- {shlex.join(settings.command)}\n{_START}"
            stdin = agent.token.reveal().encode() + b"\n"
            script = _script(job, agent.name, script)
            # What has begun there ends there: a stop that follows must not come before it.
            await to_the_end(self._ssh(settings, job.say, script, stdin=stdin, secrets=[agent.token]))
            job.say(f"The agent {agent.name} runs on {settings.host}; its log is {_directory(job, agent.name)}/log.")

    async def stop(self, job: Job) -> None:
        """End the processes."""
        await self._each(job, "stop\n")

    async def delete(self, job: Job) -> None:
        """End the processes and remove what was written for them."""
        await self._each(job, 'stop\nrm -rf "$d"\n')

    async def running(self, job: Job) -> frozenset[str]:
        """Return the agents whose processes run."""
        settings, found = settings_of(job, SshSettings), set()
        for name in job.agents:
            script = _script(job, name, f"ours || exit {_NOT_RUNNING}\n")
            status, _ = await self._ssh(settings, lambda _line: None, script, accept=(0, _NOT_RUNNING))
            if status == 0:
                found.add(name)
        return frozenset(found)

    async def last_words(self, job: Job, agent: str) -> str:
        """Return the last line of its log on the host."""
        script = _script(job, agent, 'tail -n 1 "$d/log" 2>/dev/null || :\n')
        _, printed = await self._ssh(settings_of(job, SshSettings), lambda _line: None, script)
        return printed

    async def _each(self, job: Job, script: str) -> None:
        settings = settings_of(job, SshSettings)
        for name in job.agents:
            await self._ssh(settings, job.say, _script(job, name, script))

    async def _ssh(
        self,
        settings: SshSettings,
        say: Say,
        script: str,
        *,
        stdin: bytes = b"",
        secrets: Iterable[Secret] = (),
        accept: Iterable[int] = (0,),
    ) -> tuple[int, str]:
        return await run(
            (self._program, *_arguments(settings), f"exec /bin/sh -c {shlex.quote(script)}"),
            say=say,
            environment=inherited(),
            stdin=stdin,
            secrets=secrets,
            remedy=_REMEDY,
            accept=accept,
            patience=_PATIENCE,
        )


def _directory(job: Job, agent: str) -> str:
    return f"~/.local/state/coder-agents/{job.workspace_id}/{agent}"


def _script(job: Job, agent: str, script: str) -> str:
    return f'd="$HOME/{_directory(job, agent)[2:]}"\n{_FUNCTIONS}{script}'


def _arguments(settings: SshSettings) -> list[str]:
    """Return the client's arguments: one key, one list of hosts, no questions, nothing of ours lent to the host."""
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": settings.known_hosts_file,
        "GlobalKnownHostsFile": "none",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
        "LogLevel": "ERROR",
    }
    arguments = ["-F", "none", "-T", "-i", settings.identity_file, "-p", str(settings.port), "-l", settings.user]
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    return [*arguments, "--", settings.host]
