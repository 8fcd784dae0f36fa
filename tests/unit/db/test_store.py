"""The open database: migrations, transactions, one server for each directory."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select

from coder.access import tokens
from coder.access.roles import OWNER
from coder.db import keys, site, templates, users
from coder.db.models import Base, Organization
from coder.db.store import SqliteStore, StateDirectoryError, migration_config

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path)
    yield opened
    await opened.close()


async def add_user(store: SqliteStore, name: str = "alice") -> None:
    async with store.write() as session:
        here = await site.ensure(session, NOW)
        await users.create(
            session,
            organization_id=here.organization.id,
            username=name,
            email=f"{name}@example.com",
            name="",
            password_hash="",
            roles=[OWNER],
            now=NOW,
        )


@pytest.mark.filterwarnings("ignore:autogenerate skipping", "ignore:Skipped unsupported reflection")
async def test_the_migrations_make_exactly_the_tables_of_the_models(store: SqliteStore):
    def compare(connection: Connection) -> tuple[list, set[str]]:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        indexes = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='index'")}
        return compare_metadata(context, Base.metadata), indexes

    async with store.read() as session:
        differences, indexes = await (await session.connection()).run_sync(compare)
    assert differences == []
    expected = {index.name for table in Base.metadata.tables.values() for index in table.indexes}
    assert expected <= indexes  # those on expressions are not compared above


async def test_opening_again_changes_nothing(tmp_path: Path):
    first = await SqliteStore.open(tmp_path)
    await add_user(first)
    await first.close()
    again = await SqliteStore.open(tmp_path)
    async with again.read() as session:
        assert await users.any_exist(session)
    await again.close()


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path):
    store = await SqliteStore.open(tmp_path)
    await store.close()
    with sqlite3.connect(tmp_path / "coder.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StateDirectoryError, match="newer version"):
        await SqliteStore.open(tmp_path)


async def test_what_is_no_database_gets_one_line(tmp_path: Path):
    (tmp_path / "coder.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StateDirectoryError, match="not a database"):
        await SqliteStore.open(tmp_path)


async def test_a_second_server_is_refused_until_the_first_has_gone(tmp_path: Path):
    first = await SqliteStore.open(tmp_path)
    with pytest.raises(StateDirectoryError, match=r"Another server \(process \d+\) already uses"):
        await SqliteStore.open(tmp_path)
    await first.close()
    await (await SqliteStore.open(tmp_path)).close()


async def test_a_directory_that_cannot_be_made_gets_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StateDirectoryError, match="Cannot use the state directory"):
        await SqliteStore.open(tmp_path / "file" / "state")


async def test_only_the_owner_can_read_the_database(tmp_path: Path):
    store = await SqliteStore.open(tmp_path / "state")
    await store.close()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "coder.db").stat().st_mode) == 0o600


async def test_a_write_that_raises_leaves_no_trace(store: SqliteStore):
    async def fail() -> None:
        async with store.write() as session:
            await site.ensure(session, NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with store.read() as session:
        assert not (await session.execute(select(Organization))).all()


async def test_writers_take_turns_and_readers_do_not_wait(store: SqliteStore):
    await add_user(store, "first")
    async with store.write() as session:
        other = asyncio.create_task(add_user(store, "second"))
        user = await users.by_name(session, "first")
        assert user is not None
        await users.set_status(session, user.id, users.SUSPENDED, NOW)
        async with store.read() as reading:
            seen = await users.by_name(reading, "first")
            assert seen is not None
            assert seen.status == users.ACTIVE
            assert await users.by_name(reading, "second") is None
    await other
    async with store.read() as reading:
        assert await users.by_name(reading, "second") is not None


async def test_of_fifty_first_users_at_once_exactly_one_wins(store: SqliteStore):
    async def first(number: int) -> bool:
        async with store.write() as session:
            if await users.any_exist(session):
                return False
            here = await site.ensure(session, NOW)
            await users.create(
                session,
                organization_id=here.organization.id,
                username=f"u{number}",
                email=f"{number}@example.com",
                name="",
                password_hash="",
                roles=[OWNER],
                now=NOW,
            )
            return True

    assert sum(await asyncio.gather(*map(first, range(50)))) == 1


async def test_the_deployment_keeps_its_identity(store: SqliteStore):
    async with store.write() as session:
        first = await site.ensure(session, NOW)
    async with store.write() as session:
        again = await site.ensure(session, NOW)
    assert first.deployment_id == again.deployment_id
    assert first.organization.id == again.organization.id
    async with store.read() as session:
        names = [offer.template.name for offer in await templates.offers(session)]
    assert names == ["machine", "process"]


async def test_times_come_back_in_utc(store: SqliteStore):
    await add_user(store)
    async with store.read() as session:
        user = await users.by_email(session, "ALICE@example.com")
    assert user is not None
    assert user.created_at == NOW
    assert user.created_at.tzinfo is UTC


async def test_foreign_keys_are_kept(store: SqliteStore):
    async with store.read() as session:
        connection = await session.connection()
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert set(tables) == {*Base.metadata.tables, "alembic_version"}


def test_the_migrations_are_one_line_without_branches():
    steps = list(ScriptDirectory.from_config(migration_config()).walk_revisions())
    assert [step.is_head for step in steps] == [True] + [False] * (len(steps) - 1)
    assert not any(step.is_branch_point for step in steps)


def _columns(file: Path, table: str) -> set[str]:
    with sqlite3.connect(file) as database:
        found = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    database.close()
    return found


async def test_the_roles_come_from_the_role_and_go_back_to_it(tmp_path: Path):
    def step(connection: Connection, target: str) -> None:
        (command.upgrade if target == "head" else command.downgrade)(migration_config(connection), target)

    first = await SqliteStore.open(tmp_path)
    await add_user(first)
    async with first.write() as session:
        alice = await users.by_name(session, "alice")
        key = tokens.new_session_token()
        await keys.create(
            session, key, user_id=alice.id, login_type=keys.PASSWORD, lifetime=timedelta(hours=1), now=NOW
        )
        here = await site.ensure(session, NOW)
        for name in ("bob", "bob"):  # the name of a deleted user is free
            made = await users.create(
                session, organization_id=here.organization.id, username=name, email=f"{name}@example.com", name="",
                password_hash="", roles=["auditor"], now=NOW,
            )  # fmt: skip
            await users.set_status(session, made.id, users.DELETED, NOW)
    async with first.write() as session:
        await (await session.connection()).run_sync(step, "0001")
    assert "roles" not in _columns(tmp_path / "coder.db", "users")
    async with first.write() as session:
        await (await session.connection()).run_sync(step, "head")
    async with first.read() as session:
        back = await users.by_name(session, "alice")
        assert back.role_names == {OWNER}
        assert await keys.get(session, key.id) is not None
        assert await users.by_name(session, "bob") is None
    await first.close()
