"""The way back for an administrator who cannot sign in any more: on the server's machine, past the server."""

from pathlib import Path
from uuid import uuid4

from coder.access import passwords
from coder.clock import Clock
from coder.db import keys, users
from coder.db.models import AuditLog, User
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
            session.add(_noted(found, clock))
            return found.email
    finally:
        await store.close()


def _noted(user: User, clock: Clock) -> AuditLog:
    """Return the line of the audit log, which is nobody's and comes from nowhere."""
    return AuditLog(
        id=uuid4(),
        request_id="",
        time=clock.now(),
        user_id=None,
        username="",
        ip="",
        user_agent="coder reset-password",
        action="write",
        resource_type="user",
        resource_id=str(user.id),
        resource_target=user.username,
        detail="password, on the server's machine",
        status_code=200,
    )
