"""The `docker` kind: each agent in a container of its own, started with the `docker` command.

The token travels as a file that is copied into the container before it starts: no argument and no `docker inspect`
shows it.
"""

import io
import tarfile
from collections.abc import Iterable

from coder.access.templates import DockerSettings
from coder.clock import Clock
from coder.ids import Secret
from coder.server.provision import (
    STOP_PATIENCE,
    AgentJob,
    Job,
    ProvisionError,
    Say,
    others,
    require_reachable,
    settings_of,
)
from coder.server.provision_commands import inherited, run

_TOKEN_DIRECTORY, _TOKEN_FILE = ".coder-agent", ".coder-agent/token"
_REACHES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "SSH_AUTH_SOCK")
_SETTLES = 1.0
"""Seconds in which a container ends that has no such program."""
_ALIVE = ("running", "restarting", "paused")
_REMEDY = "Check that the server may use docker: run 'docker info' as its user."

_CREATE_REMEDY = (
    "Check the template's image and its other settings, and that 'docker info' works for the server's user."
)
_REACH_REMEDY = "Give the template an access_url that containers can reach, or 'host' as its network."
_IMAGE_REMEDY = "The image must have the program that the template names: 'coder agent' unless told otherwise."


class DockerProvisioner:
    """Starts agents in containers."""

    def __init__(self, clock: Clock, program: str = "docker") -> None:
        self._clock = clock
        self._program = program

    async def start(self, job: Job, agents: tuple[AgentJob, ...]) -> None:
        """Make and start a container for each agent."""
        settings = settings_of(job, DockerSettings)
        if settings.network != "host":
            require_reachable(settings.access_url or job.access_url, "containers", _REACH_REMEDY)
        await self._end(job, others(job, agents))
        for agent in agents:
            name = _container(job, agent.name)
            await self._docker(job.say, *_create(job, agent.name, settings), remedy=_CREATE_REMEDY)
            archive, secrets = _archive(agent.token), [agent.token]
            await self._docker(job.say, "cp", "-", f"{name}:/", stdin=archive, secrets=secrets)
            await self._docker(job.say, "start", name, secrets=secrets)
        await self._clock.sleep(_SETTLES)
        for agent in agents:
            name = _container(job, agent.name)
            await self._require_alive(job, agent.name)
            job.say(f"The agent {agent.name} runs in the container {name}.")

    async def _require_alive(self, job: Job, agent: str) -> None:
        """Raise ProvisionError when docker had to restart a container already."""
        inspect = ("inspect", "--format", "{{.RestartCount}} {{.State.Running}}", _container(job, agent))
        if await self._docker(lambda _line: None, *inspect) != "0 true":
            words = await self.last_words(job, agent) or "it said nothing"
            raise ProvisionError(f"the container of {agent} ended at once: {words}", remedy=_IMAGE_REMEDY)

    async def stop(self, job: Job) -> None:
        """End and remove the containers."""
        await self._end(job)

    async def _end(self, job: Job, kept: frozenset[str] = frozenset()) -> None:
        there, left = await self._containers(job), {_container(job, name) for name in kept}
        for name in sorted(set(there) - left):
            await self._docker(job.say, "stop", "-t", f"{STOP_PATIENCE:.0f}", name)
            await self._docker(job.say, "rm", "--force", name)

    async def delete(self, job: Job) -> None:
        """End and remove the containers, and the volume."""
        await self.stop(job)
        await self._docker(job.say, "volume", "rm", "--force", _volume(job))

    async def running(self, job: Job) -> frozenset[str]:
        """Return the agents whose containers run, or are to by what docker itself sees to."""
        states = [word for state in _ALIVE for word in ("--filter", f"status={state}")]
        there = await self._containers(job, *states)
        return frozenset(name for name in job.agents if _container(job, name) in there)

    async def last_words(self, job: Job, agent: str) -> str:
        """Return the last line of the container's log."""
        return await self._docker(lambda _line: None, "logs", "--tail", "1", _container(job, agent))

    async def _containers(self, job: Job, *filters: str) -> list[str]:
        label = f"label=coder.workspace={job.workspace_id}"
        listing = ("ps", "--all", "--filter", label, *filters, "--format", "{{.Names}}")
        return (await self._docker(lambda _line: None, *listing)).split()

    async def _docker(
        self,
        say: Say,
        *arguments: str,
        stdin: bytes = b"",
        secrets: Iterable[Secret] = (),
        remedy: str = _REMEDY,
    ) -> str:
        _, printed = await run(
            (self._program, *arguments),
            say=say,
            environment=inherited(*_REACHES),
            stdin=stdin,
            secrets=secrets,
            remedy=remedy,
        )
        return printed


def _container(job: Job, agent: str) -> str:
    return f"coder-{job.workspace_id}-{agent}"


def _volume(job: Job) -> str:
    return f"coder-{job.workspace_id}"


def _create(job: Job, agent: str, settings: DockerSettings) -> list[str]:
    """Return the arguments that make a container: no more than it needs, and nothing secret."""
    arguments = ["create", "--init", "--name", _container(job, agent), "--hostname", agent]
    arguments += ["--label", f"coder.workspace={job.workspace_id}", "--restart", "unless-stopped"]
    arguments += ["--pull", settings.pull]
    arguments += ["--env", f"CODER_AGENT_URL={settings.access_url or job.access_url}"]
    arguments += ["--env", f"CODER_AGENT_TOKEN_FILE=/{_TOKEN_FILE}"]
    if not settings.allow_sudo:
        arguments += ["--security-opt", "no-new-privileges"]
    if settings.network:
        arguments += ["--network", settings.network]
    if settings.volume:
        arguments += ["--mount", f"type=volume,source={_volume(job)},target={settings.volume}"]
    if settings.cpus:
        arguments += ["--cpus", f"{settings.cpus:g}"]
    if settings.memory_mb:
        arguments += ["--memory", f"{settings.memory_mb}m"]
    return [*arguments, "--", settings.image, *settings.command]


def _archive(token: Secret) -> bytes:
    """Return a tar archive with the token's file, which all in the container may read: they act as its agent anyway."""
    packed, text = io.BytesIO(), token.reveal().encode() + b"\n"
    with tarfile.open(fileobj=packed, mode="w") as archive:
        directory = tarfile.TarInfo(_TOKEN_DIRECTORY)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        file = tarfile.TarInfo(_TOKEN_FILE)
        file.size, file.mode = len(text), 0o444
        archive.addfile(file, io.BytesIO(text))
    return packed.getvalue()
