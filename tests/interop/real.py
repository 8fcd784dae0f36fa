"""The other implementation's command and agent, kept on this machine and out of the user's files."""

import os
import subprocess
from pathlib import Path

from e2e.deployment import Deployment

NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses: what the command would ask of the internet fails at once."""


class Real:
    def __init__(self, binary: Path, deployment: Deployment) -> None:
        self.binary = binary
        self.deployment = deployment

        self.home = deployment.place / "home"

    def environment(self, **extra: str) -> dict[str, str]:
        home = self.home
        home.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
        own = {"HOME": str(home), "CODER_CONFIG_DIR": str(home / "config"), "TMPDIR": str(home), "NO_COLOR": "1"}
        return kept | own | {"HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"} | extra

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
