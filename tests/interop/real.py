"""A command kept out of the user's files: the other implementation's with its agent, or ours at its server."""

import os
import subprocess
from pathlib import Path

from e2e.deployment import Deployment

NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses: what the command would ask of the internet fails at once."""


class Command:
    """A command that runs with this home and with nothing of the user's settings."""

    def __init__(self, binary: Path, home: Path) -> None:
        self.binary = binary
        self.home = home

    def environment(self, **extra: str) -> dict[str, str]:
        self.home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
        place = str(self.home)
        return kept | {"HOME": place, "CODER_CONFIG_DIR": f"{place}/config", "TMPDIR": place, "NO_COLOR": "1"} | extra

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.binary, *arguments],
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ok(self, *arguments: str, **extra: str) -> str:
        done = self.run(*arguments, **extra)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


class Real(Command):
    """The other implementation's command and agent, kept on this machine."""

    def __init__(self, binary: Path, deployment: Deployment) -> None:
        super().__init__(binary, deployment.place / "home")
        self.deployment = deployment

    def environment(self, **extra: str) -> dict[str, str]:
        return super().environment(**{"HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"} | extra)

    def sign_in(self) -> None:
        self.ok("login", self.deployment.url, "--token", (self.deployment.place / "config" / "session").read_text())

    def start_agent(self) -> None:
        """Start the agent, its debugging addresses off: they are fixed ports."""
        off = ("--pprof-address", "", "--prometheus-address", "", "--debug-address", "")
        with (self.deployment.place / "real-agent.log").open("ab") as log:
            self.deployment.processes["real-agent"] = subprocess.Popen(
                [self.binary, "agent", "--no-reap", "--log-dir", str(self.deployment.place), *off],
                env=self.environment(
                    CODER_AGENT_URL=self.deployment.url,
                    CODER_AGENT_TOKEN=(self.deployment.place / "token").read_text().strip(),
                ),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
