"""The workspace's shell: what SSH sessions run, where, with which environment, and what the server is told of them."""

import getpass
import hmac
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from coder import descriptors
from coder.agent.processes import Surroundings
from coder.dataplane.ssh import SshPolicy
from coder.ids import Secret
from coder.wire.proto import agent_pb2 as pb

FALLBACK_SHELL = "/bin/sh"

_NAME = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)

NOWHERE = "0.0.0.0 0 0.0.0.0 0"
"""What `SSH_CONNECTION` says: tools look whether it is there, and inside the tunnel there are no such addresses."""


def login() -> tuple[str, str, str]:
    """Return name, home directory and login shell of the user this agent runs as."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        # Containers run as users that have no entry.
        return os.environ.get("USER") or _user(), str(Path.home()), os.environ.get("SHELL") or FALLBACK_SHELL
    return entry.pw_name, entry.pw_dir, entry.pw_shell or FALLBACK_SHELL


def _user() -> str:
    """Return the user's name, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def host_seed(token: Secret) -> bytes:
    """Return the 32 bytes the host key is made from: as secret as the agent's token, and the same while it lasts.

    That is enough: the token has 122 random bits, and whoever holds it can be the agent anyway. The server keeps its
    plain SHA-256 alone, from which this cannot be computed. A workspace made anew has a new token and so a new key;
    clients know the machine by its end of the tunnel, for which the server vouches.
    """
    return hmac.digest(token.reveal().encode(), b"coder ssh host key", "sha256")


def directory(manifest: pb.Manifest, environ: Mapping[str, str]) -> str:
    """Make an absolute path of the manifest's directory; relative ones are below the home directory."""
    return str(Path.home() / homely(expanded(manifest.directory, environ)))


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """Replace $NAME and ${NAME} as a shell does; what is not set is empty."""
    return _NAME.sub(lambda found: environ.get(found[1] or found[2], ""), text)


def homely(path: str) -> str:
    """Replace a leading ~ by the home directory; other users' homes are left as they are written."""
    return str(Path.home()) + path[1:] if path == "~" or path.startswith("~/") else path


def policy(
    manifest: pb.Manifest,
    *,
    directory: str,
    token: str,
    banners: tuple[str, ...] = (),
    environ: Mapping[str, str],
    programs: str = "",
    block_file_transfer: bool = False,
) -> SshPolicy:
    """Say what sessions of the agent with this manifest find. `environ` is the agent's own environment.

    `programs` is a directory where scripts put programs; it comes first in the path.
    """
    name, home, shell = login()
    inherited = {key: value for key, value in environ.items() if not key.startswith("CODER_AGENT_")}
    described = {
        "CODER": "true",
        "CODER_WORKSPACE_NAME": manifest.workspace_name,
        "CODER_WORKSPACE_AGENT_NAME": manifest.agent_name,
        "CODER_WORKSPACE_OWNER_NAME": manifest.owner_username,
        "CODER_WORKSPACE_ID": _id(manifest.workspace_id),
        "CODER_AGENT_TOKEN": token,
        "VSCODE_PROXY_URI": manifest.vs_code_port_proxy_uri,
        "USER": name,
        "LOGNAME": name,
        "HOME": home,
        "SHELL": shell,
        "SSH_CLIENT": "0.0.0.0 0 0",
        "SSH_CONNECTION": NOWHERE,
    }
    start = directory if Path(directory).is_dir() else home
    hushed = (Path(home) / ".hushlogin").exists()
    defaults = inherited | {key: value for key, value in described.items() if value}
    overrides = {key: expanded(value, inherited) for key, value in manifest.environment_variables.items()}
    if programs:
        chosen = overrides if "PATH" in overrides else defaults
        chosen["PATH"] = os.pathsep.join(part for part in (programs, chosen.get("PATH") or os.defpath) if part)
    return SshPolicy(
        shell=shell,
        home=home,
        directory=start if Path(start).is_dir() else "/",
        defaults=defaults,
        overrides=overrides,
        banners=banners,
        open_files=descriptors.inherited(),
        block_file_transfer=block_file_transfer,
        motd=None if hushed else homely(expanded(manifest.motd_path, environ)) or None,
    )


def surroundings(found: SshPolicy) -> Surroundings:
    """Say what scripts find: the same as sessions."""
    return Surroundings(
        shell=found.shell,
        directory=found.directory,
        environment={**found.defaults, **found.overrides},
        open_files=found.open_files,
    )


def _id(data: bytes) -> str:
    return str(UUID(bytes=data)) if len(data) == 16 else ""
