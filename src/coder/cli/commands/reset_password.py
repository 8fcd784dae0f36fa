"""`coder reset-password`: for whoever runs the server and cannot sign in to it."""

import asyncio
from pathlib import Path

import click

from coder.cli import accounts, output
from coder.ids import Secret


@click.command("reset-password")
@click.argument("user")
@click.option("--state-dir", envvar="CODER_STATE_DIR", metavar="DIR", help="The server's. [env: CODER_STATE_DIR]")
@click.option(
    "-p", "--password", envvar="CODER_USER_PASSWORD", metavar="PASSWORD",
    help="Other users of this machine can read it here: better set CODER_USER_PASSWORD, or let one be made.",
)  # fmt: skip
def command(*, user: str, state_dir: str | None, password: str | None) -> None:
    """Give a user, named by name or address, a new password, on the machine of the server while it is stopped.

    It ends all sessions and tokens of that user. Without a password one is made and printed, this once.
    """
    from coder import config
    from coder.clock import SystemClock
    from coder.server import recovery

    directory = Path(state_dir) if state_dir else config.load().state_path
    made = None if password else accounts.generated_password()
    secret = made or Secret(password or "")
    email = asyncio.run(recovery.set_password(directory, user, secret, SystemClock()))
    output.note(f"{email} has a new password{', shown only now:' if made else '.'}")
    if made:
        output.out(made.reveal())
