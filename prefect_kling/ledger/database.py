"""A database for the ledger: SQLite in a file, or PostgreSQL. Transactions that wait out locks and outages.

Every coroutine here runs in the back room. A transaction's function may run again after trouble, also after a commit
whose success nobody heard of; so each one that is run here has to find out by itself that it was done before.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import BigInteger, bindparam, event, literal_column, select, type_coerce
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.elements import ColumnElement

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.schema import Time

__all__ = ["FOR_EVER", "PATIENCE", "Database", "database_url"]

T = TypeVar("T")

PATIENCE: Final = 120.0
"""Seconds that a locked or vanished database is waited for."""
FOR_EVER: Final = float("inf")
"""The patience of a commit that says what was paid for."""

_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_Kind = Literal["read", "write", "single"]
_ALONE: Final[dict[str, Any]] = {"isolation_level": "AUTOCOMMIT"}
_BUSY_MILLISECONDS: Final = 2000
# What goes away by waiting; anything else is told at once.
_PASSING = re.compile(
    r"database is locked|database table is locked|database schema is locked|deadlock|could not serialize|"
    r"too many clients|starting up|shutting down|in recovery|recovery mode|terminating connection|cannot connect now|"
    r"connection (was|is) closed|connection reset|connection refused|closed in the middle|not accepting|"
    r"remaining connection slots|unexpected connection|temporary failure|server closed",
    re.IGNORECASE,
)


def database_url(url: str) -> URL:
    """A ledger's address with the driver this package uses.

    Args:
        url: `sqlite:///PATH` or `postgresql://…`; a bare path is SQLite's.

    Raises:
        LedgerUnavailable: no such database is known.
    """
    if "://" not in url:
        return URL.create("sqlite+aiosqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LedgerUnavailable("The ledger's URL cannot be read; it has to look like sqlite:///PATH") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise LedgerUnavailable(
            f"A ledger can be kept in sqlite:///PATH or postgresql://…, not in {parsed.get_backend_name()}"
        )
    return parsed.set(drivername=driver)


class Database:
    """An engine, and transactions on it.

    Args:
        url: see `database_url`.
        ahead: milliseconds that the database's clock is taken to be ahead, for tests.
        sleep, clock: time, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        ahead: Callable[[], int] = lambda: 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = database_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._ahead, self._sleep, self._clock = ahead, sleep, clock
        # SQLite has one writer; waiting here is fair and quick, waiting in SQLite is a sleep in growing steps.
        self._writing = asyncio.Lock()
        self._engine = self._made()

    def __repr__(self) -> str:
        return f"Database({self.shown})"

    @property
    def shown(self) -> str:
        """Its address for people: without the password."""
        return self.url.database or "in memory" if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @property
    def now(self) -> ColumnElement[datetime]:
        """The database's own time, as an expression."""
        return self.later(0)

    def later(self, seconds: float) -> ColumnElement[datetime]:
        """The database's own time so many seconds from now, as an expression."""
        if self.is_sqlite:
            now = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
        else:
            now = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
        # Asked for when it is executed: statements are built once and used many times.
        shift = bindparam(
            "shift", callable_=lambda: self._ahead() + round(seconds * 1000), type_=BigInteger, unique=True
        )
        return type_coerce(literal_column(now, BigInteger) + shift, Time())

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """Runs `work` in a transaction that has the write lock from its start, and commits.

        Args:
            work: called with the connection, perhaps more than once.
            patience: seconds that locks and outages are waited for; `FOR_EVER` repeats whatever goes wrong.

        Raises:
            LedgerUnavailable: the database cannot be used.
            IntegrityError: another row has what may be in one row only.
        """
        return await self._write(work, "write", patience)

    async def change(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """The same for `work` that is one statement, which needs no transaction around it."""
        return await self._write(work, "single", patience)

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], kind: _Kind, patience: float) -> T:
        if not self.is_sqlite:
            return await self._repeated(lambda: self._transaction(work, kind), patience)
        async with self._writing:
            return await self._repeated(lambda: self._transaction(work, kind), patience)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """Runs `work` in a transaction that writes nothing.

        Raises:
            LedgerUnavailable: the database cannot be used.
        """
        return await self._repeated(lambda: self._transaction(work, "read"), patience)

    async def time(self) -> datetime:
        """The database's time."""

        async def ask(connection: AsyncConnection) -> datetime:
            found: datetime = (await connection.execute(select(self.now))).scalar_one()
            return found

        return await self.read(ask)

    async def close(self) -> None:
        """Closes its connections; it can be used again."""
        await self._engine.dispose()

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]], kind: _Kind) -> T:
        async with self._engine.connect() as connection:
            await connection.execution_options(kling_kind=kind, **_ALONE if kind == "single" else {})
            async with connection.begin():
                return await work(connection)

    async def _repeated(self, attempt: Callable[[], Awaitable[T]], patience: float) -> T:
        begun, pause = self._clock(), 0.05
        while True:
            try:
                return await attempt()
            except IntegrityError:
                raise  # what is in the ledger already speaks against it, and will the next time
            except (DBAPIError, OSError) as error:
                trouble = error
            waited = self._clock() - begun
            if patience != FOR_EVER and (not _passes(trouble) or waited + pause > patience):
                raise self._unavailable(trouble, waited) from trouble
            await self._sleep(pause * (0.75 + 0.5 * random.random()))  # noqa: S311 - no secret
            pause = min(pause * 1.5, 2.0)

    def _unavailable(self, error: Exception, waited: float) -> LedgerUnavailable:
        said = str(getattr(error, "orig", None) or error).partition("\n")[0]
        said = said.rpartition(">: ")[2] or type(error).__name__
        meant = _meaning(said)
        after = f" after waiting {waited:.0f} s" if waited >= 1 else ""
        return LedgerUnavailable(
            f"The ledger {self.shown} cannot be used{after}: {said}{meant}. Nothing is bought without it"
        )

    def _made(self) -> AsyncEngine:
        if not self.is_sqlite:
            return create_async_engine(
                self.url,
                pool_size=5,
                max_overflow=5,
                pool_timeout=PATIENCE,
                connect_args={"timeout": 10, "command_timeout": 60},
            )
        if self.url.database:
            folder = Path(self.url.database).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LedgerUnavailable(
                    f"The ledger cannot be kept in {folder}: {error.strerror}; nothing is bought without it"
                ) from error
        engine = create_async_engine(self.url, pool_size=3, max_overflow=5, connect_args={"timeout": 2})
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would come late and take no lock
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    kind = connection.get_execution_options().get("kling_kind", "write")
    if kind != "single":
        connection.exec_driver_sql("BEGIN" if kind == "read" else "BEGIN IMMEDIATE")


def _passes(error: Exception) -> bool:
    if isinstance(error, OSError):  # asyncpg could not connect
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, DBAPIError) and bool(_PASSING.search(str(error)))


def _meaning(said: str) -> str:
    for sign, meaning in (
        ("is not a database", ": the file is something else"),
        ("malformed", ": the file is damaged; restore it from a backup, as it says what was paid for"),
        ("readonly", ": it may not be written"),
        ("disk is full", ""),
        ("disk I/O error", ""),
    ):
        if sign in said:
            return meaning
    return ""
