"""The workspace's shell: what SSH sessions run, where, with which environment, and what the server is told of them."""

import getpass
import hmac
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from coder.dataplane.ssh import SshPolicy
from coder.ids import Secret
from coder.wire.proto import agent_pb2 as pb

FALLBACK_SHELL = "/bin/sh"

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


def policy(
    manifest: pb.Manifest, *, directory: str, token: str, banners: tuple[str, ...] = (), environ: Mapping[str, str]
) -> SshPolicy:
    """Say what sessions of the agent with this manifest find. `environ` is the agent's own environment."""
    name, home, shell = login()
    inherited = {key: value for key, value in environ.items() if not key.startswith("CODER_AGENT_")}
    described = {
        "CODER": "true",
        "CODER_WORKSPACE_NAME": manifest.workspace_name,
        "CODER_WORKSPACE_AGENT_NAME": manifest.agent_name,
        "CODER_WORKSPACE_OWNER_NAME": manifest.owner_username,
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
    return SshPolicy(
        shell=shell,
        home=home,
        directory=start if Path(start).is_dir() else "/",
        defaults=inherited | {key: value for key, value in described.items() if value},
        overrides=dict(manifest.environment_variables),
        banners=banners,
        motd=None if hushed else manifest.motd_path or None,
    )
