"""Extra headers of every request: those given, and those a command prints."""

import os
import subprocess

from coder.cli.store import is_plain
from coder.errors import CoderError

REMEDY = "Run it by hand: it must print lines like X-Name=value and end with status 0."


def from_command(command: str, url: str) -> dict[str, str]:
    """Run the command through the shell, with CODER_URL set, and read `key=value` lines; blank ones do not count.

    Raises CoderError. Messages never repeat what the command printed: it may be a credential.
    """
    environment = os.environ | {"CODER_URL": url}
    done = subprocess.run(command, shell=True, env=environment, stdout=subprocess.PIPE, check=False)  # noqa: S602 - asked for
    if done.returncode != 0:
        raise CoderError(f"the header command ended with status {done.returncode}", remedy=REMEDY)
    headers = {}
    for number, line in enumerate(done.stdout.decode(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip() or not is_plain(line):
            raise CoderError(f"line {number} of the header command is not written key=value", remedy=REMEDY)
        headers[key.strip()] = value.strip()
    return headers
