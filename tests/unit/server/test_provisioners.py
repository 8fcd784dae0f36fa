"""What provisioners tell the programs they run; small scripts stand in for these, but the shell and ssh's are real."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from coder.access.templates import DockerSettings, ProcessSettings, SshSettings
from coder.clock import FakeClock, SystemClock
from coder.ids import Secret
from coder.server.provision import AgentJob, Job, ProvisionError
from coder.server.provision_commands import run
from coder.server.provision_docker import DockerProvisioner
from coder.server.provision_process import ProcessProvisioner
from coder.server.provision_ssh import SshProvisioner

TOKEN = Secret("9f0c8a52-0000-4000-8000-5ec4e7000000")
AGENTS = (AgentJob("main", TOKEN),)
WORKSPACE = UUID("11111111-1111-4111-8111-111111111111")
PLAIN = {"PATH": os.environ["PATH"]}


def job(tmp_path: Path, settings: object, said: list[str]) -> Job:
    return Job(
        workspace_id=WORKSPACE,
        agents=("main",),
        settings=settings,
        access_url="https://coder.test",
        state=tmp_path / "state",
        say=said.append,
    )


class Hurried(FakeClock):
    """A clock of which every sleep is over at once."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], str]:
    """Make a program that notes its arguments and its input, then does what is given."""

    def make(does: str) -> str:
        program = tmp_path / "program"
        program.write_text(
            f'#!/bin/sh\nfor each; do printf "%s\\n" "$each"; done >>{tmp_path}/arguments\n'
            f"echo == >>{tmp_path}/arguments\ncat >>{tmp_path}/input\n{does}\n"
        )
        program.chmod(0o755)
        return str(program)

    return make


async def test_a_container_is_made_with_what_the_template_says_and_the_token_in_no_argument(tmp_path, stand_in):
    said: list[str] = []
    settings = DockerSettings(image="ubuntu:24.04", volume="/home/coder", cpus=1.5, memory_mb=512, network="lab")
    docker = DockerProvisioner(Hurried(), stand_in('[ "$1" = inspect ] && echo 0 true; true'))
    await docker.start(job(tmp_path, settings, said), AGENTS)
    arguments = (tmp_path / "arguments").read_text()
    _listing, create, copy, start, _look, _ = arguments.split("\n==\n")
    assert create.splitlines()[:3] == ["create", "--init", "--name"]
    for wanted in (
        "no-new-privileges",
        f"type=volume,source=coder-{WORKSPACE},target=/home/coder",
        "1.5",
        "512m",
        "lab",
    ):
        assert wanted in create.splitlines()
    assert create.splitlines()[-3:] == ["ubuntu:24.04", "coder", "agent"]
    assert copy.splitlines() == ["cp", "-", f"coder-{WORKSPACE}-main:/"]
    assert start.splitlines() == ["start", f"coder-{WORKSPACE}-main"]
    assert TOKEN.reveal() not in arguments + "".join(said)
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "input").read_bytes())) as archive:
        assert archive.extractfile(".coder-agent/token").read() == TOKEN.reveal().encode() + b"\n"


async def test_a_container_that_ends_at_once_is_a_failure_that_says_why(tmp_path, stand_in):
    says = '[ "$1" = inspect ] && echo 3 false; [ "$1" = logs ] && echo "exec coder failed"; true'
    docker = DockerProvisioner(Hurried(), stand_in(says))
    with pytest.raises(ProvisionError, match="main ended at once: exec coder failed") as failed:
        await docker.start(job(tmp_path, DockerSettings(image="x"), []), AGENTS)
    assert "The image must have the program" in failed.value.remedy


@pytest.mark.parametrize("url", ["http://127.0.0.1:3000", "https://[::1]", "http://localhost:7080"])
async def test_agents_elsewhere_are_not_sent_to_this_machines_own_address(tmp_path, stand_in, url):
    docker = DockerProvisioner(Hurried(), stand_in('[ "$1" = inspect ] && echo 0 true; true'))
    bridged, host = DockerSettings(image="x"), DockerSettings(image="x", network="host")
    there = DockerSettings(image="x", access_url="http://172.17.0.1:3000")
    with pytest.raises(ProvisionError, match="containers cannot reach the server at") as failed:
        await docker.start(replace(job(tmp_path, bridged, []), access_url=url), AGENTS)
    assert "access_url" in failed.value.remedy
    assert not (tmp_path / "arguments").exists()
    for settings in (host, there):
        await docker.start(replace(job(tmp_path, settings, []), access_url=url), AGENTS)
    with pytest.raises(ProvisionError, match=r"host host\.test cannot reach"):
        await SshProvisioner(stand_in("")).start(
            replace(job(tmp_path, ssh_settings(tmp_path), []), access_url=url), AGENTS
        )


async def test_what_runs_is_found_by_its_label_and_stopped(tmp_path, stand_in):
    name = f"coder-{WORKSPACE}-main"
    docker = DockerProvisioner(Hurried(), stand_in(f'[ "$1" = ps ] && echo {name}; true'))
    wanted = job(tmp_path, DockerSettings(image="x"), [])
    assert await docker.running(wanted) == {"main"}
    await docker.delete(wanted)
    assert f"stop\n-t\n15\n{name}\n" in (tmp_path / "arguments").read_text()
    assert f"volume\nrm\n--force\ncoder-{WORKSPACE}\n" in (tmp_path / "arguments").read_text()


async def test_a_program_that_fails_is_told_by_its_last_line_without_secrets(tmp_path, stand_in):
    said: list[str] = []
    docker = DockerProvisioner(Hurried(), stand_in(f'echo "no \\033[2Jaccess {TOKEN.reveal()}"; [ "$1" != cp ]'))
    with pytest.raises(ProvisionError, match=r"no .*access <redacted>") as failed:
        await docker.start(job(tmp_path, DockerSettings(image="x"), said), AGENTS)
    assert "docker info" in failed.value.remedy
    assert "\x1b" not in str(failed.value) + "".join(said)


async def test_a_program_that_is_not_there_is_named():
    with pytest.raises(ProvisionError, match="cannot be run") as failed:
        await run(("/nowhere/docker",), say=print, environment={})
    assert failed.value.remedy == "Install /nowhere/docker."


async def test_a_program_that_takes_too_long_is_ended():
    with pytest.raises(ProvisionError, match="longer than"):
        await run(("/bin/sh", "-c", "exec sleep 1000"), say=print, environment=PLAIN, patience=0.05)


async def test_a_process_runs_until_it_is_stopped(tmp_path):
    said: list[str] = []
    wanted = job(tmp_path, ProcessSettings(), said)
    provisioner = ProcessProvisioner(SystemClock(), ("/bin/sh", "-c", "env; exec sleep 1000"))
    await provisioner.start(wanted, AGENTS)
    try:
        assert await provisioner.running(wanted) == {"main"}
        assert await ProcessProvisioner(SystemClock()).running(wanted), "another server finds it"
        token = wanted.state / "agents" / "main" / "token"
        assert (token.read_text().strip(), token.stat().st_mode & 0o777) == (TOKEN.reveal(), 0o600)
        assert TOKEN.reveal() not in "".join(said)
        (token.parent / "agent.log").write_text("first\nlast \x1b[2Jwords\n")
        assert await provisioner.last_words(wanted, "main") == "last ?[2Jwords"
    finally:
        await provisioner.stop(wanted)
    assert not await provisioner.running(wanted)
    assert await provisioner.last_words(wanted, "other") == ""
    assert not token.exists()
    await provisioner.delete(wanted)
    assert not wanted.state.exists()
    await provisioner.delete(wanted)


async def test_a_process_trusts_the_authorities_of_the_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = job(tmp_path, ProcessSettings(), [])
    provisioner = ProcessProvisioner(SystemClock(), ("/bin/sh", "-c", "exec sleep 1000"), ca_file="ca.pem")
    await provisioner.start(wanted, AGENTS)
    try:
        number = str(json.loads((wanted.state / "agents" / "main" / "process.json").read_text())["pid"])
        assert f"CODER_CA_FILE={tmp_path}/ca.pem" in place_of(number).read_text().split("\0")
    finally:
        await provisioner.stop(wanted)


def place_of(number: str) -> Path:
    return Path("/proc") / number / "environ"


async def test_a_process_gets_none_of_the_servers_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("CODER_OIDC_CLIENT_SECRET", "hush")
    wanted = job(tmp_path, ProcessSettings(), [])
    provisioner = ProcessProvisioner(SystemClock(), ("/bin/sh", "-c", "exec sleep 1000"))
    await provisioner.start(wanted, AGENTS)
    try:
        number = (wanted.state / "agents" / "main" / "process.json").read_text().split('"pid": ')[1].split(",")[0]
        environment = place_of(number).read_text()
    finally:
        await provisioner.stop(wanted)
    assert "hush" not in environment
    assert "CODER_AGENT_URL=https://coder.test" in environment


def ssh_settings(tmp_path: Path, *command: str) -> SshSettings:
    files = {"identity_file": str(tmp_path / "key"), "known_hosts_file": str(tmp_path / "hosts")}
    return SshSettings(host="host.test", port=2222, user="me", command=command or ("coder", "agent"), **files)


async def test_a_host_gets_the_token_on_standard_input_and_runs_the_agent(tmp_path, monkeypatch):
    """The stand-in for ssh does what sshd does: it gives the last word to a shell, at the account's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "ssh"
    program.write_text(
        f'#!/bin/sh\nfor last; do printf "%s\\n" "$last"; done >{tmp_path}/arguments\nexec sh -c "$last"\n'
    )
    program.chmod(0o755)
    provisioner, said = SshProvisioner(str(program)), list[str]()
    wanted = job(tmp_path, ssh_settings(tmp_path, "sleep", "1000"), said)
    await provisioner.start(wanted, AGENTS)
    place = tmp_path / ".local/state/coder-agents" / str(WORKSPACE) / "main"
    try:
        assert (place / "token").read_text().strip() == TOKEN.reveal()
        assert (place / "token").stat().st_mode & 0o077 == 0
        assert await provisioner.running(wanted) == {"main"}
        arguments = (tmp_path / "arguments").read_text()
        assert TOKEN.reveal() not in arguments + "".join(said)
        for option in ("StrictHostKeyChecking=yes", "BatchMode=yes", "ForwardAgent=no", "IdentityAgent=none"):
            assert option in arguments.splitlines()
    finally:
        await provisioner.stop(wanted)
    assert not await provisioner.running(wanted)
    assert not (place / "token").exists()
    await provisioner.delete(wanted)
    assert not place.exists()


async def test_a_program_that_the_host_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    program.chmod(0o755)
    wanted = job(tmp_path, ssh_settings(tmp_path, "no-such-agent; touch $HOME/pwned"), [])
    with pytest.raises(ProvisionError, match=r"no program no-such-agent; touch .HOME/pwned here"):
        await SshProvisioner(str(program)).start(wanted, AGENTS)
    assert not (tmp_path / "pwned").exists()
