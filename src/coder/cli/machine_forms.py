"""How an agent is started on a machine that its user brings: one line to paste, a systemd unit, a cloud-init document.

The token is never in a unit, which every user of the machine may read; it stands in a file of root's.
"""

import shlex
from dataclasses import dataclass

from coder.ids import Secret

FORMS = ("text", "json", "systemd", "cloud-init")
_PROGRAM = "/usr/local/bin/coder"


@dataclass(frozen=True, slots=True)
class Start:
    """An agent to start."""

    workspace: str
    agent: str
    url: str
    token: Secret
    file: str | None = None
    """Where its token is kept, if it is in a file already."""

    @property
    def name(self) -> str:
        """What the unit and its token are called."""
        return f"coder-agent-{self.workspace}-{self.agent}"

    @property
    def token_file(self) -> str:
        """Where the token is kept on the machine."""
        return self.file or f"/etc/coder-agent/{self.workspace}-{self.agent}.token"


def line(start: Start) -> str:
    """Return the line that starts an agent in a shell."""
    place = {"CODER_AGENT_URL": start.url}
    if start.file:
        place["CODER_AGENT_TOKEN_FILE"] = start.file
    else:
        place["CODER_AGENT_TOKEN"] = start.token.reveal()
    return " ".join([*(f"{key}={shlex.quote(value)}" for key, value in place.items()), "coder", "agent"])


def unit(start: Start, user: str) -> str:
    """Return a systemd unit; sessions run as that user."""
    return f"""[Unit]
Description=Agent of the workspace {start.workspace}
Wants=network-online.target
After=network-online.target

[Service]
User={user}
LoadCredential=token:{start.token_file}
Environment=CODER_AGENT_URL={start.url.replace("%", "%%")}
Environment=CODER_AGENT_TOKEN_FILE=%d/token
ExecStart={_PROGRAM} agent
KillMode=mixed
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


def cloud_init(starts: list[Start], user: str) -> str:
    """Return a cloud-init document that makes the user, and starts the agents at each boot."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts with line ends as they are, to be read by people too."""

    Dumper.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
        ),
    )
    files, units = [], []
    for start in starts:
        units.append(f"{start.name}.service")
        files += [
            {"path": start.token_file, "permissions": "0600", "content": start.token.reveal() + "\n"},
            {"path": f"/etc/systemd/system/{units[-1]}", "permissions": "0644", "content": unit(start, user)},
        ]
    document = {
        "users": ["default", {"name": user, "shell": "/bin/bash"}],
        "write_files": files,
        "runcmd": [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", *units]],
    }
    return "#cloud-config\n" + yaml.dump(document, Dumper=Dumper, sort_keys=False)
