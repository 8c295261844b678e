"""A database for the ledger: SQLite in a file, or PostgreSQL. Transactions that wait out locks and outages.

Every coroutine here runs in the back room. A transaction's function may run again after trouble, also after a commit
whose success nobody heard of; so each one that is run here has to find out by itself that it was done before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import BigInteger, bindparam, event, literal_column, select, type_coerce
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.elements import ColumnElement

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.schema import Time
from prefect_kling.ledger.trouble import TROUBLES, Trouble, said, trouble

__all__ = ["ATTEMPT_SECONDS", "FOR_EVER", "PATIENCE", "Database", "chunks", "database_url", "storable"]

T = TypeVar("T")

PATIENCE: Final = 120.0
"""Seconds that a locked or vanished database is waited for."""
FOR_EVER: Final = float("inf")
"""The patience of a commit that says what was paid for."""
ATTEMPT_SECONDS: Final = 60.0
"""A transaction on PostgreSQL that has not ended by then is given up and tried anew, on another connection."""

_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_OPTIONS: Final = frozenset(
    {"host", "port", "ssl", "passfile", "target_session_attrs", "prepared_statement_cache_size"}
)
_CHUNK: Final = 500
_Kind = Literal["read", "look", "write", "single"]
_SINGLE: Final = ("look", "single")
_ALONE: Final[dict[str, Any]] = {"isolation_level": "AUTOCOMMIT"}
_BUSY_MILLISECONDS: Final = 2000
_POOL_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 10.0
# Shorter than the time after which clouds forget an idle connection without a word.
_RECYCLE_SECONDS: Final = 180
_CLOSE_SECONDS: Final = 5.0
_TELL_AFTER, _TELL_EVERY = 5.0, 60.0
_logger = logging.getLogger(__name__)


def database_url(url: str) -> URL:
    """A ledger's address with the driver this package uses.

    Args:
        url: `sqlite:///PATH` or `postgresql://…`; a bare path is SQLite's.

    Raises:
        LedgerUnavailable: no such database is known. Quotes nothing of the URL that may be a password.
    """
    if url and set(url) == {"*"}:
        raise LedgerUnavailable(
            "The ledger's URL is masked: what Prefect stored of a studio given by value has no URL. Give the flow a "
            "saved block by reference, or no studio at all, and run it anew"
        )
    parsed = _parsed(url)
    if parsed is None:
        raise LedgerUnavailable(
            "The ledger's URL cannot be read; it has to look like sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        )
    name = parsed.get_backend_name()
    if name not in _DRIVERS:
        raise LedgerUnavailable(f"A ledger can be kept in sqlite:///PATH or postgresql://…, not in {name}")
    parsed = parsed.set(drivername=_DRIVERS[name])
    return _of_sqlite(parsed) if name == "sqlite" else _of_postgresql(parsed)


def _parsed(url: str) -> URL | None:
    # Raising is the caller's: an error raised in here would keep the parser's, which quotes the URL.
    if "://" not in url:
        with suppress(RuntimeError):  # no such user's home
            return URL.create("sqlite", database=str(Path(url).expanduser()) if url else None)
        return None
    with suppress(ArgumentError, ValueError):
        return make_url(url)
    return None


def _of_sqlite(url: URL) -> URL:
    if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
        raise LedgerUnavailable("The ledger's URL names no file: a ledger in memory would forget what was paid for")
    path = Path(url.database).expanduser()
    if not path.is_absolute() and not url.database.startswith("file:"):
        raise LedgerUnavailable(
            f"The ledger's path {path} is relative: run in another folder, it would be another ledger, which knows "
            "of no purchase. Name it from the root, as in sqlite:////srv/kling/ledger.db"
        )
    return url if url.database.startswith("file:") else url.set(database=str(path))


def _of_postgresql(url: URL) -> URL:
    if any("@" in (part or "") for part in (url.host, url.database)):
        raise LedgerUnavailable(
            "The ledger's URL cannot be read: signs such as @ / : in its password have to be written as %40 %2F %3A"
        )
    query = {("ssl" if name == "sslmode" else name): value for name, value in url.query.items()}
    unknown = sorted(query.keys() - _OPTIONS)
    if unknown:
        raise LedgerUnavailable(
            f"The ledger's URL has an option that is not known here: {unknown[0]}. Known are "
            f"{', '.join(sorted(_OPTIONS))}; user and password stand before the @"
        )
    return url.set(query=query)


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Values, each once, in lists of as many as one statement may ask for."""
    left = list(dict.fromkeys(values))
    for start in range(0, len(left), _CHUNK):
        yield left[start : start + _CHUNK]


def storable(text: str) -> str:
    """A text from outside without what a database cannot hold: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Database:
    """An engine, and transactions on it.

    Args:
        url: see `database_url`.
        ahead: milliseconds that the database's clock is taken to be ahead, for tests.
        attempt_seconds: see `ATTEMPT_SECONDS`.
        sleep, clock: time, for tests.

    Raises:
        LedgerUnavailable: the URL or the folder cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        ahead: Callable[[], int] = lambda: 0,
        attempt_seconds: float = ATTEMPT_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = database_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._ahead, self._attempt_seconds, self._sleep, self._clock = ahead, attempt_seconds, sleep, clock
        # SQLite has one writer; waiting here is fair and quick, waiting in SQLite is a sleep in growing steps.
        self._writing: AbstractAsyncContextManager[Any] = asyncio.Lock() if self.is_sqlite else nullcontext()
        self._engine = self._made()

    def __repr__(self) -> str:
        return f"Database({self.shown})"

    @property
    def shown(self) -> str:
        """Its address for people: without the password, and without options, which may hold another."""
        if self.is_sqlite:
            return self._url.database or ""
        return self._url.set(drivername="postgresql", password=None, query={}).render_as_string()

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
            patience: seconds that locks and outages are waited for; `FOR_EVER` also waits for what somebody has to
                mend, such as a full disk.

        Raises:
            LedgerUnavailable: the database cannot be used.
            IntegrityError: what would be written contradicts what is there; never repeated.
        """
        return await self._repeated(work, "write", patience)

    async def change(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """The same for `work` that is one statement, which needs no transaction around it."""
        return await self._repeated(work, "single", patience)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """Runs `work` in a transaction that writes nothing.

        Raises:
            LedgerUnavailable: the database cannot be used.
        """
        return await self._repeated(work, "read", patience)

    async def look(self, work: Callable[[AsyncConnection], Awaitable[T]], *, patience: float = PATIENCE) -> T:
        """The same for `work` that is one statement, which needs no transaction around it."""
        return await self._repeated(work, "look", patience)

    async def time(self, *, patience: float = PATIENCE) -> datetime:
        """The database's time."""

        async def ask(connection: AsyncConnection) -> datetime:
            found: datetime = (await connection.execute(select(self.now))).scalar_one()
            return found

        return await self.look(ask, patience=patience)

    async def close(self) -> None:
        """Closes its connections; it can be used again."""
        with suppress(*TROUBLES):  # a server that is gone cannot be taken leave of
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._engine.dispose()

    async def _repeated(self, work: Callable[[AsyncConnection], Awaitable[T]], kind: _Kind, patience: float) -> T:
        begun, pause, told = self._clock(), 0.05, _TELL_AFTER - _TELL_EVERY
        while True:
            try:
                return await self._attempt(work, kind)
            except IntegrityError:
                raise
            except TROUBLES as error:
                failed = error
            waited, what = self._clock() - begun, trouble(failed)
            if not (
                (what is Trouble.PASSING and waited + pause <= patience)
                or (what is not Trouble.FINAL and patience == FOR_EVER)
            ):
                raise self._unavailable(failed, waited) from failed
            if waited - told >= _TELL_EVERY:
                told = waited
                _logger.warning("The ledger %s cannot be used now (%s); it is tried again", self.shown, said(failed))
            await self._sleep(pause * (0.75 + 0.5 * random.random()))  # noqa: S311 - no secret
            pause = min(pause * 1.5, 2.0)

    async def _attempt(self, work: Callable[[AsyncConnection], Awaitable[T]], kind: _Kind) -> T:
        if not self.is_sqlite:
            # Not a timeout of the driver's: that one asks the server to stop, and waits for it, who may be gone.
            async with asyncio.timeout(self._attempt_seconds):
                return await self._transaction(work, kind)
        if kind in ("read", "look"):
            return await self._transaction(work, kind)
        # For one attempt, not until it succeeds: whoever waits for ever must not make others wait as long.
        async with self._writing:
            return await self._transaction(work, kind)

    async def _transaction(self, work: Callable[[AsyncConnection], Awaitable[T]], kind: _Kind) -> T:
        async with self._engine.connect() as connection:
            await connection.execution_options(kling_kind=kind, **_ALONE if kind in _SINGLE else {})
            async with connection.begin():
                return await work(connection)

    def _unavailable(self, error: BaseException, waited: float) -> LedgerUnavailable:
        after = f" after waiting {waited:.0f} s" if waited >= 1 else ""
        return LedgerUnavailable(
            f"The ledger {self.shown} cannot be used{after}: {said(error)}. Nothing is bought without it"
        )

    def _made(self) -> AsyncEngine:
        # Parameters are tokens and prompts; nobody reads those in a traceback.
        common: dict[str, Any] = {"hide_parameters": True, "max_overflow": 5, "pool_timeout": _POOL_SECONDS}
        if not self.is_sqlite:
            return create_async_engine(
                self._url,
                pool_size=5,
                pool_recycle=_RECYCLE_SECONDS,
                connect_args={"timeout": _CONNECT_SECONDS},
                **common,
            )
        folder = Path(self.shown).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerUnavailable(
                f"The ledger cannot be kept in {folder}: {error.strerror}; nothing is bought without it"
            ) from error
        engine = create_async_engine(self._url, pool_size=3, connect_args={"timeout": 2}, **common)
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
    if kind not in _SINGLE:
        connection.exec_driver_sql("BEGIN" if kind == "read" else "BEGIN IMMEDIATE")
