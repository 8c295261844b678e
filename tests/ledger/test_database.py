"""A ledger's database: which ones can be used, what an operator is told about the others, and how long is waited."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pwd
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped] # ships no types
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.database import FOR_EVER, PATIENCE, Database, database_url
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.schema import HEAD, VERSION_TABLE, accounts
from prefect_kling.ledger.trouble import TROUBLES, Trouble, said, trouble

if TYPE_CHECKING:
    from benchmarks.postgresql import PostgreSQL

SECRET = "hunter2-5be2c9"


@dataclass
class Time:
    """Moves only by sleeping; `at` is called when somebody sleeps."""

    seconds: float = 0.0
    at: Callable[[float], None] = lambda _: None

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.at(self.seconds)
        await asyncio.sleep(0)


def told(error: BaseException) -> str:
    """Everything about an error that a log could show, also what is not printed by default."""
    parts, seen, left = [], set[int](), [error]
    while left:
        found = left.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        parts += [str(found), repr(found), repr(found.args), *traceback.format_exception(found)]
        left += [cause for cause in (found.__cause__, found.__context__) if cause is not None]
    return "\n".join(parts)


async def refused(url: str, folder: Path) -> LedgerUnavailable:
    with pytest.raises(LedgerUnavailable) as caught:
        await Ledger.open(url, answers=folder / "answers.jsonl")
    assert "othing is bought" in str(caught.value) or "URL" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "answers.jsonl").exists()
    return caught.value


# URLs.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("/tmp/a b.db", "sqlite+aiosqlite:////tmp/a b.db"),
        ("postgresql://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgres://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgresql+psycopg2://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgresql://u@h/db?sslmode=require", "postgresql+asyncpg://u@h/db?ssl=require"),
    ],
)
def test_the_driver_is_ours(url: str, expected: str) -> None:
    assert database_url(url).render_as_string() == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "://",
        "no such thing://",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?mode=memory&uri=true",
        ":memory:",
        "~no-such-user-here/ledger.db",
        f"mysql://kling:{SECRET}@host/db",
        f"mssql+pyodbc://kling:{SECRET}@host/db",
        f"nothing://kling:{SECRET}@host/db",
        f"postgresql://kling:{SECRET}@host:port/db",
        f"postgresql://kling:a@b:{SECRET}@host/db",
        f"postgresql://kling:a@{SECRET}@host/db",
        f"postgresql://kling:a@b/{SECRET}@host/db",
        f"postgresql://kling@host/db?password={SECRET}",
        f"postgresql://kling@host/db?application_name={SECRET}",
    ],
)
def test_what_cannot_be_a_ledger_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(LedgerUnavailable, match=r"URL|ledger can be kept") as caught:
        Database(url)
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("query", ["", "?ssl=disable"])
async def test_a_password_is_never_shown(query: str, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"postgresql://kling:{SECRET}@127.0.0.1:{nobody.getsockname()[1]}/ledger{query}"
        database = Database(url, sleep=time.sleep, clock=time)
        with caplog.at_level(logging.DEBUG), pytest.raises(LedgerUnavailable, match="after waiting 1") as caught:
            await database.time()
    assert SECRET not in told(caught.value)
    assert SECRET not in f"{database} {database!r} {database.shown} {vars(database)}"
    assert SECRET not in caplog.text
    assert "it is tried again" in caplog.text
    await database.close()


# Files.


async def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    file.write_bytes(b"ftypisom" * 1000)
    error = await refused(str(file), tmp_path)
    assert "the file is something else" in str(error)
    assert file.read_bytes() == b"ftypisom" * 1000


async def test_a_folder(tmp_path: Path) -> None:
    assert "it is a folder" in str(await refused(str(tmp_path), tmp_path))


async def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be kept in" in str(await refused(f"sqlite:///{tmp_path}/file/ledger.db", tmp_path))


async def test_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    await (await Ledger.open(str(file), answers=tmp_path / "answers.jsonl")).close()
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    assert "the file is damaged" in str(await refused(str(file), tmp_path))


async def test_a_file_of_a_newer_version(ledger_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl")

    async def newer(connection: AsyncConnection) -> None:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    await in_backroom(ledger.db.write(newer))
    await ledger.close()
    error = await refused(ledger_url, tmp_path)
    assert "newer version of prefect-kling" in str(error)
    assert "9999" in str(error)
    assert HEAD in str(error)


_OPENING = """
import asyncio, resource, signal, sys
from pathlib import Path
from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.ledger import Ledger

async def main(path, user, size):
    # Before the rights are gone.
    import aiosqlite, sqlalchemy.dialects.sqlite.aiosqlite, alembic.command, alembic.config
    if size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    if user:
        import os
        os.setgid(user)
        os.setuid(user)
    try:
        await Ledger.open(path, answers=Path(path).with_name("answers.jsonl"))
    except LedgerUnavailable as error:
        print(error)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def opening(path: Path, *, user: int = 0, size: int = 0) -> str:
    """What a child process is told that opens a ledger as another user, or where files may not grow."""
    done = subprocess.run(
        [sys.executable, "-c", _OPENING, str(path), str(user), str(size)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may look into, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="kling-ledger-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_what_may_not_be_written(what: str, open_folder: Path, tmp_path: Path) -> None:
    # Root may write everything; so as nobody.
    other = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else 0
    file = open_folder / "ledger.db"
    if what == "file":
        await (await Ledger.open(str(file), answers=tmp_path / "answers.jsonl")).close()
        file.chmod(0o444)
    open_folder.chmod(0o555)
    words = opening(file, user=other)
    open_folder.chmod(0o755)
    assert "it may not be written" in words or "its folder may not be written" in words
    assert "Nothing is bought without it" in words


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    said = opening(tmp_path / "ledger.db", size=20_000)
    assert "disk" in said
    assert "Nothing is bought without it" in said
    # With room again it is a ledger like any other: nothing is left half made.
    ledger = await Ledger.open(str(tmp_path / "ledger.db"), answers=tmp_path / "answers.jsonl")
    assert ledger.id
    await ledger.close()


# PostgreSQL.


async def test_a_wrong_password(tmp_path: Path) -> None:
    with Says(b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "kling"\0\0') as port:
        error = await refused(f"postgresql://kling:{SECRET}@127.0.0.1:{port}/ledger?ssl=disable", tmp_path)
    assert "check the user and the password" in str(error)
    assert SECRET not in told(error)


async def test_a_database_that_is_not_there(postgresql: PostgreSQL, tmp_path: Path) -> None:
    error = await refused(postgresql.url("no_such_database"), tmp_path)
    assert 'database "no_such_database" does not exist' in str(error)


async def test_a_user_that_is_not_there(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.url().replace("//kling@", f"//stranger:{SECRET}@")
    error = await refused(url, tmp_path)
    assert "check the user in its URL" in str(error)
    assert SECRET not in told(error)


async def test_a_user_who_may_make_no_tables(postgresql: PostgreSQL, tmp_path: Path) -> None:
    url = postgresql.new_database()
    database = Database(url)

    async def guest(connection: AsyncConnection) -> None:
        name = f"guest_{url.rpartition('_')[2]}"
        await connection.execute(text(f"CREATE USER {name}"))
        await connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))

    await database.write(guest)
    await database.close()
    error = await refused(url.replace("//kling@", f"//guest_{url.rpartition('_')[2]}@"), tmp_path)
    assert "permission denied" in str(error)


async def test_a_host_that_is_not_there_is_waited_for_and_then_told() -> None:
    time = Time()
    database = Database(f"postgresql://kling:{SECRET}@no-such-host.invalid/ledger", sleep=time.sleep, clock=time)
    with pytest.raises(LedgerUnavailable, match=r"no-such-host\.invalid/ledger cannot be used after waiting") as caught:
        await database.read(_one, patience=3)
    assert SECRET not in told(caught.value)


async def test_a_server_that_says_nothing_is_given_up(postgresql: PostgreSQL) -> None:
    impatient = Database(postgresql.url(), attempt_seconds=0.5)

    async def hang(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(LedgerUnavailable, match="it does not answer in time"):
        await impatient.read(hang, patience=1)
    assert await impatient.time()
    await impatient.close()


# Waiting.


async def _one(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT 1"))).scalar_one())


async def test_sqlite_keeps_what_it_says_it_has_kept(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "ledger.db"))

    async def pragmas(connection: AsyncConnection) -> list[str | int]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [(await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names]

    assert await database.read(pragmas) == ["wal", 2, 1]
    assert await database.write(pragmas) == ["wal", 2, 1]
    # Also on a connection that has run a single statement, which the driver sets up in another way.
    assert await database.change(pragmas) == ["wal", 2, 1]
    assert await database.write(pragmas) == ["wal", 2, 1]
    await database.close()


def locker(path: Path, held: threading.Event, release: threading.Event, *, whole: bool = False) -> threading.Thread:
    """Another program, as far as SQLite is concerned, that keeps writing to itself; `whole`: reading too."""

    def hold() -> None:
        other = sqlite3.connect(path, isolation_level=None)
        if whole:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        held.set()
        release.wait(30)
        other.execute("COMMIT")
        other.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    return thread


@pytest.mark.parametrize("opened", [True, False], ids=["open", "not-yet-open"])
async def test_a_locked_file_is_waited_for(opened: bool, tmp_path: Path) -> None:
    file, held, release = tmp_path / "ledger.db", threading.Event(), threading.Event()
    await (await Ledger.open(str(file), answers=tmp_path / "answers.jsonl")).close()
    database = Database(str(file))
    if opened:
        await database.time()
    thread = locker(file, held, release, whole=not opened)
    work = asyncio.create_task(database.write(_one))
    # Longer than SQLite itself waits, so that an attempt has failed.
    done, _ = await asyncio.wait([work], timeout=2.5)
    assert not done
    release.set()
    assert await asyncio.wait_for(work, 10) == 1
    await asyncio.to_thread(thread.join)
    await database.close()


async def test_a_file_that_stays_locked_is_told(tmp_path: Path) -> None:
    file, held, release = tmp_path / "ledger.db", threading.Event(), threading.Event()
    time = Time()
    database = Database(str(file), sleep=time.sleep, clock=time)
    await database.time()
    thread = locker(file, held, release)
    with pytest.raises(LedgerUnavailable, match=r"cannot be used: database is locked\. Nothing is bought"):
        await database.write(_one, patience=0)
    release.set()
    await asyncio.to_thread(thread.join)
    await database.close()


def _busy() -> DBAPIError:
    origin = sqlite3.OperationalError("database is locked")
    origin.sqlite_errorname = "SQLITE_BUSY"
    return DBAPIError("BEGIN", None, origin)


def _full() -> DBAPIError:
    origin = sqlite3.OperationalError("database or disk is full")
    origin.sqlite_errorname = "SQLITE_FULL"
    return DBAPIError("INSERT", None, origin)


async def test_a_minute_is_waited_and_two_are_too_many(ledger_url: str) -> None:
    time = Time()
    database = Database(ledger_url, sleep=time.sleep, clock=time)

    async def locked_until(end: float) -> None:
        async def work(connection: AsyncConnection) -> None:
            if time() < end:
                raise _busy()

        await database.write(work)

    await locked_until(60)
    assert 60 <= time() < 65
    with pytest.raises(LedgerUnavailable, match=r"after waiting 1(19|20|18) s: database is locked"):
        await locked_until(1000)
    assert PATIENCE == 120
    await database.close()


async def test_who_waits_for_ever_waits_for_room_on_the_disk_too(
    ledger_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    database = Database(ledger_url, sleep=time.sleep, clock=time)

    async def work(connection: AsyncConnection) -> float:
        if time() < 7200:
            raise _full()
        return time()

    with pytest.raises(LedgerUnavailable, match="disk is full: make room"):
        await database.write(work)
    assert time() == 0
    assert await database.write(work, patience=FOR_EVER) >= 7200
    # Told once a minute, as nobody knows why it takes so long.
    assert 110 <= caplog.text.count("it is tried again") <= 121
    await database.close()


async def test_who_waits_for_ever_keeps_nobody_from_giving_up(tmp_path: Path) -> None:
    database, stop = Database(str(tmp_path / "ledger.db")), asyncio.Event()

    async def stuck(connection: AsyncConnection) -> None:
        if not stop.is_set():
            raise _full()

    for_ever = asyncio.create_task(database.write(stuck, patience=FOR_EVER))
    assert await asyncio.wait_for(database.write(_one), 10) == 1
    assert not for_ever.done()
    stop.set()
    await asyncio.wait_for(for_ever, 10)
    await database.close()


@pytest.mark.parametrize("patience", [PATIENCE, FOR_EVER])
async def test_what_contradicts_the_ledger_is_not_repeated(ledger_url: str, patience: float, tmp_path: Path) -> None:
    ledger, tries = await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl"), 0

    async def work(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(insert(accounts).values(base_url="https://a.example", name="main"))

    await in_backroom(ledger.db.write(work))
    for run in (ledger.db.write, ledger.db.change):
        tries = 0
        with pytest.raises(IntegrityError):
            await asyncio.wait_for(in_backroom(run(work, patience=patience)), 10)
        assert tries == 1
    await ledger.close()


async def test_what_postgresql_cannot_hold_is_not_repeated_for_ever(postgresql: PostgreSQL, tmp_path: Path) -> None:
    async with await Ledger.open(postgresql.new_database(), answers=tmp_path / "answers.jsonl") as ledger:
        for name in ("x" * 100, "nothing\0", "\ud800"):

            async def work(connection: AsyncConnection, name: str = name) -> None:
                await connection.execute(insert(accounts).values(base_url="https://a.example", name=name))

            with pytest.raises(LedgerUnavailable):
                await asyncio.wait_for(in_backroom(ledger.db.write(work, patience=FOR_EVER)), 10)


async def test_errors_show_no_values(ledger_url: str, tmp_path: Path) -> None:
    async with await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl") as ledger:

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(select(accounts).where(text("no_such = :token")), {"token": SECRET})

        with pytest.raises(LedgerUnavailable) as caught:
            await in_backroom(ledger.db.read(work))
    assert SECRET not in told(caught.value)


# Which trouble is which.


def _wrapped(origin: Exception, *, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("SELECT", None, origin, connection_invalidated=invalidated)


def _sqlite(name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> DBAPIError:
    origin = kind("as SQLite says")
    origin.sqlite_errorname = name
    return _wrapped(origin)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_sqlite("SQLITE_BUSY"), Trouble.PASSING),
        (_sqlite("SQLITE_BUSY_SNAPSHOT"), Trouble.PASSING),
        (_sqlite("SQLITE_LOCKED"), Trouble.PASSING),
        (_sqlite("SQLITE_FULL"), Trouble.LASTING),
        (_sqlite("SQLITE_IOERR_WRITE"), Trouble.LASTING),
        (_sqlite("SQLITE_READONLY"), Trouble.LASTING),
        (_sqlite("SQLITE_CANTOPEN"), Trouble.LASTING),
        (_sqlite("SQLITE_NOTADB", sqlite3.DatabaseError), Trouble.LASTING),
        (_sqlite("SQLITE_CORRUPT", sqlite3.DatabaseError), Trouble.LASTING),
        (_sqlite("SQLITE_CONSTRAINT_UNIQUE", sqlite3.IntegrityError), Trouble.FINAL),
        (asyncpg.CannotConnectNowError("das Datenbanksystem startet"), Trouble.PASSING),
        (asyncpg.AdminShutdownError("stopping"), Trouble.PASSING),
        (asyncpg.CrashShutdownError("stopping"), Trouble.PASSING),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), Trouble.PASSING),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"), Trouble.PASSING),
        (asyncpg.DeadlockDetectedError("deadlock"), Trouble.PASSING),
        (asyncpg.SerializationError("could not serialize"), Trouble.PASSING),
        (asyncpg.LockNotAvailableError("lock"), Trouble.PASSING),
        (asyncpg.ReadOnlySQLTransactionError("a standby"), Trouble.PASSING),
        (asyncpg.InterfaceError("connection is closed"), Trouble.PASSING),
        (asyncpg.DiskFullError("no space left"), Trouble.LASTING),
        (asyncpg.InvalidPasswordError("no"), Trouble.LASTING),
        (asyncpg.InvalidCatalogNameError("no such database"), Trouble.LASTING),
        (asyncpg.InsufficientPrivilegeError("no"), Trouble.LASTING),
        (asyncpg.UndefinedTableError("no"), Trouble.LASTING),
        (asyncpg.StringDataRightTruncationError("too long"), Trouble.FINAL),
        (asyncpg.UniqueViolationError("twice"), Trouble.FINAL),
        (asyncpg.DataError("cannot be sent"), Trouble.FINAL),
        (NoConnectionFree("QueuePool limit"), Trouble.PASSING),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Trouble.PASSING),
        (ConnectionResetError("reset"), Trouble.PASSING),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Trouble.PASSING),
        (TimeoutError(), Trouble.PASSING),
        (ssl.SSLCertVerificationError("self-signed"), Trouble.LASTING),
        (_wrapped(Exception("who knows")), Trouble.LASTING),
        (_wrapped(Exception("who knows"), invalidated=True), Trouble.PASSING),
    ],
    ids=lambda value: None if isinstance(value, Trouble) else f"{type(getattr(value, 'orig', value)).__name__}",
)
def test_what_helps_against_trouble(error: Exception, expected: Trouble) -> None:
    assert isinstance(error, TROUBLES)
    assert trouble(error) is expected
    assert said(error)
    if not isinstance(error, DBAPIError):
        assert trouble(_wrapped(error)) is expected


class Says:
    """A PostgreSQL server that has one thing to say, to whoever comes."""

    def __init__(self, error: bytes) -> None:
        self._answer = b"E" + (len(error) + 4).to_bytes(4, "big") + error

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(self._answer)


def test_a_masked_address_opens_no_ledger_of_that_name() -> None:
    with pytest.raises(LedgerUnavailable, match=r"masked.*saved block by reference"):
        database_url("**********")


def test_a_relative_path_would_be_another_ledger_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for url in ("ledger.db", "sqlite:///ledger.db", "sqlite:///./x/ledger.db"):
        with pytest.raises(LedgerUnavailable, match="relative"):
            database_url(url)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_url("sqlite:///~/ledger.db").database == str(tmp_path / "ledger.db")
