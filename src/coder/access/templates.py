"""What templates hold: who starts the agents, what each of them is given, what a user may choose. Pure.

All of it is stored as JSON; `checked` reads what somebody wrote, the models write themselves with `model_dump`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from coder.access import names, roles
from coder.access.roles import Action, Resource

T = TypeVar("T", bound=BaseModel)

MACHINE, PROCESS = "machine", "process"
"""Names of the templates that every deployment has."""
DEFAULT_AGENT = "main"
CONNECTION_TIMEOUT = 120
"""Seconds after which an agent that never connected is shown as late, unless its template says otherwise."""
_MOST = 64
_LONG = 64 * 1024
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Kind(StrEnum):
    """Who starts the agents of a workspace."""

    MACHINE = "machine"
    """Its user, on a machine they bring."""
    PROCESS = "process"
    """The server, as its own child process."""
    DOCKER = "docker"
    """The server, in a container each."""
    SSH = "ssh"
    """The server, on a host it reaches with OpenSSH."""


def may_have(owner_roles: Iterable[str], kind: str) -> bool:
    """Say whether a user of these roles may have workspaces of a kind.

    A process of the server may do all that the server may: nobody gets by it what they do not have.
    """
    return kind != Kind.PROCESS or roles.allowed(owner_roles, Action.UPDATE, Resource.DEPLOYMENT)


Word = Annotated[str, StringConstraints(max_length=256, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$")]
Text = Annotated[str, StringConstraints(max_length=_LONG)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"\A[^\x00-\x1f\x7f]*\z")]


class Strict(BaseModel):
    """A part of a template: what is not known in it is refused, so that a typing error is not lost."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Script(Strict):
    """A program of an agent, for its user's shell."""

    display_name: Word = ""
    icon: Word = ""
    script: Text
    cron: Word = ""
    """When it runs: six fields, seconds first; empty: not by time."""
    log_path: Word = ""
    run_on_start: bool = True
    run_on_stop: bool = False
    start_blocks_login: bool = False
    timeout_seconds: int = Field(default=0, ge=0, le=86400)
    """0: it may take for ever."""


class Healthcheck(Strict):
    """How an agent finds out whether an app is well."""

    url: Word
    interval_seconds: int = Field(default=10, ge=1, le=3600)
    threshold: int = Field(default=3, ge=1, le=100)
    """Failures in a row until it counts as unwell."""


class App(Strict):
    """Something in the workspace that users open in the browser."""

    slug: Annotated[str, StringConstraints(max_length=32, pattern=r"\A[a-z0-9](?:-?[a-z0-9])*\z")]
    display_name: Word = ""
    icon: Word = ""
    group: Word = ""
    url: Word = ""
    command: Word = ""
    open_in: Literal["slim-window", "tab"] = "slim-window"
    external: bool = False
    subdomain: bool = False
    hidden: bool = False
    sharing_level: Literal["owner", "organization", "authenticated", "public"] = "owner"
    healthcheck: Healthcheck | None = None


class MetadataItem(Strict):
    """A value that an agent measures again and again, for its users to see."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\A[A-Za-z0-9_.-]+\z")]
    display_name: Word = ""
    script: Text
    interval_seconds: int = Field(default=10, ge=1, le=86400)
    timeout_seconds: int = Field(default=5, ge=1, le=3600)


class AgentSpec(Strict):
    """One agent of each workspace of a template."""

    name: Word = DEFAULT_AGENT
    operating_system: Literal["linux", "darwin", "windows"] = "linux"
    architecture: Literal["amd64", "arm64", "armv7"] = "amd64"
    directory: Annotated[Word, Field(max_length=1024)] = ""
    connection_timeout_seconds: int = Field(default=CONNECTION_TIMEOUT, ge=0, le=86400)
    environment: dict[str, Text] = Field(default_factory=dict, max_length=_MOST)
    scripts: tuple[Script, ...] = Field(default=(), max_length=_MOST)
    apps: tuple[App, ...] = Field(default=(), max_length=_MOST)
    metadata: tuple[MetadataItem, ...] = Field(default=(), max_length=_MOST)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if fault := names.name_problem(name):
            raise ValueError(fault)
        return name

    @field_validator("environment")
    @classmethod
    def _environment(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(f"{name[:40]!r} cannot be the name of a variable")
        return given

    @model_validator(mode="after")
    def _unique(self) -> "AgentSpec":
        _require_unique("slug", [app.slug for app in self.apps])
        _require_unique("key", [item.key for item in self.metadata])
        return self

    def columns(self) -> dict[str, Any]:
        """Return what a new agent's row holds of it, with fresh ids."""
        scripts = [{**one.model_dump(), "id": str(uuid4()), "log_source_id": str(uuid4())} for one in self.scripts]
        return {
            "name": self.name,
            "operating_system": self.operating_system,
            "architecture": self.architecture,
            "directory": self.directory,
            "connection_timeout_seconds": self.connection_timeout_seconds,
            "environment": dict(self.environment),
            "scripts": scripts,
            "apps": [{**one.model_dump(), "id": str(uuid4())} for one in self.apps],
            "metadata_items": [one.model_dump() for one in self.metadata],
        }


class Parameter(Strict):
    """Something to choose for a workspace. Its agents find the value in the variable `CODER_PARAMETER_<NAME>`."""

    name: Annotated[str, StringConstraints(max_length=64, pattern=r"\A[a-z][a-z0-9_]*\z")]
    display_name: Word = ""
    description: Word = ""
    type: Literal["string", "number", "bool"] = "string"
    default: Word | None = None
    """None: a value has to be given."""
    options: tuple[Word, ...] = Field(default=(), max_length=_MOST)
    """The values there are; none: any."""

    @property
    def variable(self) -> str:
        """The variable of agents that holds the value."""
        return f"CODER_PARAMETER_{self.name.upper()}"

    def problem(self, value: str) -> str | None:
        """Say what is wrong with a value, or None."""
        if len(value) > 1024 or _UNSEEN.search(value):
            return "Expected a text without control characters, of 1024 characters at most."
        if self.options and value not in self.options:
            return f"Expected one of {', '.join(self.options)}."
        if self.type == "bool" and value not in {"true", "false"}:
            return "Expected true or false."
        if self.type == "number" and not re.fullmatch(r"-?\d{1,15}(?:\.\d{1,9})?", value, re.ASCII):
            return "Expected a number."
        return None


Command = Annotated[tuple[Argument, ...], Field(min_length=1, max_length=_MOST)]
AbsolutePath = Annotated[str, StringConstraints(max_length=1024, pattern=r"\A/[A-Za-z0-9._/@+-]*\z")]
"""Without any sign that the programs it is handed to take for more than a part of a path."""


class Options(Strict):
    """Settings of a kind. What stands below a field is told to those who fill it in."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MachineSettings(Options):
    """Nothing: the machine is the user's."""


class ProcessSettings(Options):
    """How the server starts the agent as a process of its own."""

    directory: AbsolutePath | Literal[""] = ""
    """Where it starts and what its sessions call home; empty: a directory of the workspace in the server's state."""


class DockerSettings(Options):
    """The container of an agent. The image holds the agent's program."""

    image: Annotated[str, StringConstraints(max_length=512, pattern=r"\A[a-z0-9][A-Za-z0-9_.:/@-]*\z")]
    command: Command = ("coder", "agent")
    network: Annotated[str, StringConstraints(max_length=128, pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]*\z")] | None = None
    volume: AbsolutePath | None = None
    """Where in the container a volume of the workspace is mounted; it outlives stops. None: nothing does."""
    cpus: float | None = Field(default=None, gt=0, le=1024)
    memory_mb: int | None = Field(default=None, ge=16, le=16 << 20)
    pull: Literal["always", "missing", "never"] = "missing"
    allow_sudo: bool = False
    """Whether programs in it may gain privileges, as `sudo` does."""
    access_url: Annotated[str, StringConstraints(max_length=512, pattern=r"\A(?:https?://[^\s\x00-\x1f\x7f]+)?\z")] = ""
    """Where containers reach the server, if that is not its access URL."""


class SshSettings(Options):
    """The host on which the server starts the agent. Its `sshd` gives the account a POSIX shell."""

    host: Annotated[str, StringConstraints(max_length=255, pattern=r"\A[A-Za-z0-9][A-Za-z0-9.:_-]*\z")]
    port: int = Field(default=22, ge=1, le=65535)
    user: Annotated[str, StringConstraints(max_length=64, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]*\z")]
    identity_file: AbsolutePath
    """The private key, on the server; nothing else is offered."""
    known_hosts_file: AbsolutePath
    """The host's keys, on the server; a host with another key is refused."""
    command: Command = ("coder", "agent")
    access_url: Annotated[str, StringConstraints(max_length=512, pattern=r"\A(?:https?://[^\s\x00-\x1f\x7f]+)?\z")] = ""
    """Where the host reaches the server, if that is not its access URL."""


Settings = MachineSettings | ProcessSettings | DockerSettings | SshSettings

_SETTINGS: Mapping[Kind, type[Settings]] = {
    Kind.MACHINE: MachineSettings,
    Kind.PROCESS: ProcessSettings,
    Kind.DOCKER: DockerSettings,
    Kind.SSH: SshSettings,
}


def settings_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a kind's settings."""
    return _SETTINGS[kind].model_json_schema()


class Content(Strict):
    """What a version of a template holds."""

    settings: dict[str, Any] = Field(default_factory=dict)
    agents: tuple[AgentSpec, ...] = Field(default=(), max_length=_MOST)
    parameters: tuple[Parameter, ...] = Field(default=(), max_length=_MOST)

    @model_validator(mode="after")
    def _unique(self) -> "Content":
        _require_unique("agent", [agent.name.lower() for agent in self.agents])
        _require_unique("parameter", [parameter.name for parameter in self.parameters])
        return self


def agents_of(stored: Sequence[Mapping[str, Any]]) -> list[AgentSpec]:
    """Return the agents of a stored version: one of them at least."""
    return [AgentSpec.model_validate(one) for one in stored] or [AgentSpec()]


def settings_of(kind: str, stored: Mapping[str, Any]) -> Settings:
    """Return a version's settings in the shape of its kind. Raises ValidationError, which is a ValueError."""
    return _SETTINGS[Kind(kind)].model_validate(stored)


def problems(error: ValidationError, within: str = "") -> list[tuple[str, str]]:
    """Return pairs of a field and what is wrong with it; the values themselves are not told."""
    found = []
    for fault in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in (*filter(None, [within]), *fault["loc"]))
        unknown = fault["type"] == "extra_forbidden"
        found.append((place or "template", "There is no such field." if unknown else str(fault["msg"])))
    return found


def chosen(parameters: Sequence[Parameter], given: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the value of each parameter, and what is wrong with those given, by name."""
    known = {parameter.name: parameter for parameter in parameters}
    faults = [(name[:64], "The template has no such parameter.") for name in given if name not in known]
    values: dict[str, str] = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        fault = "A value is needed." if value is None else parameter.problem(value)
        if fault:
            faults.append((name, fault))
        elif value is not None:
            values[name] = value
    return values, faults


def _require_unique(what: str, found: Sequence[str]) -> None:
    twice = sorted({one for one in found if found.count(one) > 1})
    if twice:
        raise ValueError(f"there are two of the {what} {twice[0]!r}")
