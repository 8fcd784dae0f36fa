"""An administrator who cannot sign in gets back in, on the server's machine."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from coder.access import passwords, tokens
from coder.access.roles import OWNER
from coder.cli.commands.reset_password import command
from coder.clock import FakeClock
from coder.db import keys, site, users
from coder.db.models import ApiKey, AuditLog
from coder.db.store import SqliteStore
from coder.errors import CoderError
from coder.ids import Secret
from coder.server.recovery import set_password

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NEW = Secret("a-long-new-password-7")


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    store = await SqliteStore.open(tmp_path)
    async with store.write() as session:
        here = await site.ensure(session, NOW)
        alice = await users.create(
            session,
            organization_id=here.organization.id,
            username="alice",
            email="alice@example.com",
            name="",
            password_hash="",
            roles=[OWNER],
            now=NOW,
        )
        await keys.create(
            session,
            tokens.new_session_token(),
            user_id=alice.id,
            login_type=keys.PASSWORD,
            lifetime=timedelta(hours=1),
            now=NOW,
        )
    await store.close()
    return tmp_path


async def stored(place: Path) -> tuple[str, int, list[str]]:
    """Return the hash of Alice's password, how many keys she has, and what the audit log says."""
    store = await SqliteStore.open(place)
    async with store.read() as session:
        found = await users.by_name(session, "alice")
        held = await session.scalar(select(func.count()).select_from(ApiKey))
        noted = (await session.scalars(select(AuditLog.detail))).all()
    await store.close()
    assert found is not None
    return found.password_hash, held or 0, list(noted)


@pytest.mark.parametrize("who", ["alice", "Alice@example.com"])
async def test_a_password_is_set_by_name_or_address(place: Path, who: str):
    assert await set_password(place, who, NEW, FakeClock()) == "alice@example.com"
    hashed, held, noted = await stored(place)
    assert passwords.verify_password(hashed, NEW.reveal())
    assert not held, "whoever was signed in is not any more"
    assert noted == ["password, on the server's machine"]


async def test_what_cannot_be_done_is_said(place: Path, tmp_path: Path):
    with pytest.raises(CoderError, match="no user 'bob'"):
        await set_password(place, "bob", NEW, FakeClock())
    with pytest.raises(CoderError, match="too easy"):
        await set_password(place, "alice", Secret("x"), FakeClock())
    with pytest.raises(CoderError, match="no database"):
        await set_password(tmp_path / "elsewhere", "alice", NEW, FakeClock())
    running = await SqliteStore.open(place)
    with pytest.raises(CoderError, match="already uses") as refused:
        await set_password(place, "alice", NEW, FakeClock())
    assert "Stop it" in refused.value.remedy
    await running.close()


async def test_the_command_prints_a_password_it_made(place: Path):
    told = await asyncio.to_thread(CliRunner().invoke, command, ["alice", "--state-dir", str(place)])
    assert told.exit_code == 0
    assert len(told.stdout.strip()) == 20
