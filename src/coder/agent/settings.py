"""What an agent is told at its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coder.ids import Secret
from coder.outbound import Outbound


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything that does not come from the server's manifest."""

    url: str
    """The server, without a slash at the end."""
    token: Secret
    """Who this agent is."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to every request to the server and its relay; may hold credentials."""
    outbound: Outbound = field(default_factory=Outbound)
    prefer_region: str | None = None
    """Id, code or name of the relay region that is to be home whenever it answers."""
    listen_port: int = 0
    """UDP port of the tunnel; 0 takes any free one."""
    block_direct: bool = False
    """Relay only, whatever the server allows."""
    block_file_transfer: bool = False
    """Refuse SFTP and the commands that move files."""
    ssh_silence: float | None = 72 * 3600.0
    """Seconds an SSH client may answer nothing; None: for ever."""
    map_ports: bool = False
    """Ask the router for a port that leads here."""
    log_directory: Path | None = None
    """Where the output of scripts is kept too, a file each."""
    script_directory: Path | None = None
    """Where scripts keep data and programs; without it below the user's cache directory."""
    subsystems: tuple[str, ...] = ()
    """What runs the workspace: envbox, envbuilder, exectrace."""
    version: str
    """What the agent says it is: a semantic version with a leading v."""
