"""The way back for an administrator who cannot sign in any more: on the server's machine, past the server."""

from pathlib import Path

from coder.access import passwords
from coder.clock import Clock
from coder.db import keys, users
from coder.db.store import SqliteStore
from coder.errors import CoderError
from coder.ids import Secret


async def set_password(directory: Path, who: str, password: Secret, clock: Clock) -> str:
    """Set the password of a user, by name or address, and end all their sessions and tokens. Returns the address.

    `directory` is the state directory of a server that does not run. Raises CoderError.
    """
    if fault := passwords.password_problem(password.reveal()):
        raise CoderError(fault)
    if not (directory / "coder.db").exists():
        raise CoderError(f"There is no database in {directory}.", remedy="Name the server's --state-dir.")
    store = await SqliteStore.open(directory)
    try:
        async with store.write() as session:
            found = await users.by_name(session, who) or await users.by_email(session, who)
            if found is None:
                raise CoderError(f"There is no user {who!r}.")
            hashed = passwords.hash_password(password.reveal())
            await users.change(session, found.id, clock.now(), password_hash=hashed, login_type=users.PASSWORD)
            await keys.end(session, found.id)
            return found.email
    finally:
        await store.close()
