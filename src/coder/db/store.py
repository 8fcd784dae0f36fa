"""The open database: one writer at a time, any number of readers, one server for each state directory."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from coder.errors import CoderError


class StateDirectoryError(CoderError):
    """The state directory cannot be used: not writable, in use by another server, or from a newer version."""


class Store(Protocol):
    """What the server needs of a database. Query modules take the sessions it gives out."""

    def read(self) -> Any:
        """Open a session that sees one consistent state; as an async context manager."""

    def write(self) -> Any:
        """Open a session that may change things; commits when its block ends, rolls back when it raises."""

    async def ping(self) -> None:
        """Raise SQLAlchemyError when the database does not answer."""

    async def close(self) -> None:
        """Close all connections and give up the lock."""


class SqliteStore:
    """The store on a SQLite file, with write-ahead logging."""

    def __init__(self, engine: AsyncEngine, lock: int) -> None:
        self._engine = engine
        self._writer = engine.execution_options(immediate=True)
        self._turn = asyncio.Lock()
        self._lock = lock

    @classmethod
    async def open(cls, directory: Path) -> Self:
        """Open the database in `directory`, making or migrating it. Raises StateDirectoryError."""
        lock = _acquire(directory)
        engine = _engine(directory / "coder.db")
        try:
            async with engine.execution_options(immediate=True).begin() as connection:
                await connection.run_sync(_migrate)
        except CommandError:
            await _give_up(engine, lock)
            raise StateDirectoryError(
                f"The database in {directory} was made by a newer version.",
                remedy="Run that version, or put back the copy from before it was installed.",
            ) from None
        except SQLAlchemyError as problem:
            await _give_up(engine, lock)
            raise StateDirectoryError(
                f"Cannot use the database in {directory}: {_reason(problem)}.",
                remedy="See that its disk has room and works; else put back a copy of coder.db.",
            ) from None
        return cls(engine, lock)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session that sees one consistent state."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a session that may change things; commits when its block ends, rolls back when it raises."""
        async with self._turn, AsyncSession(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    async def ping(self) -> None:
        """Raise SQLAlchemyError when the database does not answer."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections and give up the lock."""
        await _give_up(self._engine, self._lock)


async def _give_up(engine: AsyncEngine, lock: int) -> None:
    await engine.dispose()
    os.close(lock)


def _acquire(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise StateDirectoryError(
            f"Cannot use the state directory {directory}: {problem.strerror}.",
            remedy="Name one that the server may write to with --state-dir (CODER_STATE_DIR).",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        who = f"process {holder}" if holder.isdecimal() else "another process"
        raise StateDirectoryError(
            f"Another server ({who}) already uses the state directory {directory}.",
            remedy="Stop it, or name another directory with --state-dir.",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _engine(file: Path) -> AsyncEngine:
    file.touch(mode=0o600, exist_ok=True)
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", connect_args={"timeout": 10})
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself: _on_begin does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A write transaction takes its lock at once: upgrading a read lock later fails when another writer came between.
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def migration_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for our steps."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection) -> None:
    command.upgrade(migration_config(connection), "head")


def _reason(problem: SQLAlchemyError) -> str:
    cause = getattr(problem, "orig", None)
    return str(cause if isinstance(cause, sqlite3.Error) else problem).rstrip(".")
