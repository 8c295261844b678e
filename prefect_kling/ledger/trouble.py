"""What a database's error means: whether it goes away by waiting, and what an operator is told about it. Pure.

SQLite's errors are told apart by their names, PostgreSQL's by their SQLSTATE: its texts come in the server's language.
"""

from __future__ import annotations

import ssl
from enum import Enum
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped] # ships no types
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

__all__ = ["TROUBLES", "Trouble", "said", "trouble"]

TROUBLES: Final = (
    DBAPIError,
    NoConnectionFree,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # no connection, or a timeout
)
"""What a transaction raises when it is the database's fault, or its network's."""


class Trouble(Enum):
    """What helps.

    `PASSING`: waiting. `LASTING`: somebody has to do something, such as make room on a disk. `FINAL`: nothing; the same
    statement fails each time.
    """

    PASSING = "passing"
    LASTING = "lasting"
    FINAL = "final"


_SQLITE_PASSING: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT")
_SQLITE_FINAL: Final = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")
# Connections, resources but for disk space, deadlocks and serialization, locks, cancelled by an operator or a timeout.
_SQLSTATE_PASSING: Final = ("08", "40", "53", "55P03", "57")
_SQLSTATE_NOT_PASSING: Final = ("53100", "57P04")
_SQLSTATE_FINAL: Final = ("22", "23")
_STANDBY: Final = "25006"  # read-only, as for a moment after a failover

_MEANINGS: Final = (
    ("is not a database", "the file is something else"),
    ("malformed", "the file is damaged; restore it from a backup, as it says what was paid for"),
    ("readonly", "it may not be written"),
    ("unable to open", "it is a folder, or its folder may not be written"),
    ("disk is full", "make room; what waits to be written down is written then"),
    ("disk I/O error", "look at the disk and its free space"),
    ("password", "check the user and the password in its URL"),
    ("role", "check the user in its URL"),
)


def trouble(error: BaseException) -> Trouble:
    """What helps against an error of `TROUBLES`."""
    origin = _origin(error)
    sqlite: str | None = getattr(origin, "sqlite_errorname", None)
    sqlstate: str | None = getattr(origin, "sqlstate", None)
    if sqlite is not None:
        found = _by_code(sqlite, _SQLITE_PASSING, _SQLITE_FINAL)
    elif sqlstate is not None and sqlstate not in _SQLSTATE_NOT_PASSING:
        found = _by_code(sqlstate, (*_SQLSTATE_PASSING, _STANDBY), _SQLSTATE_FINAL)
    elif isinstance(origin, asyncpg.DataError | UnicodeError | OverflowError):
        found = Trouble.FINAL  # what cannot even be sent
    elif isinstance(origin, ssl.SSLCertVerificationError):
        found = Trouble.LASTING
    elif isinstance(origin, OSError | NoConnectionFree | asyncpg.InterfaceError | asyncpg.InternalClientError):
        found = Trouble.PASSING
    else:
        found = Trouble.LASTING
    cut_off = isinstance(error, DBAPIError) and error.connection_invalidated
    return Trouble.PASSING if cut_off and found is Trouble.LASTING else found


def said(error: BaseException) -> str:
    """An error in a few words for an operator, without SQL or values."""
    origin = _origin(error)
    if isinstance(origin, NoConnectionFree):
        return "every connection is in use"
    if isinstance(origin, TimeoutError):
        return "it does not answer in time"
    text = str(origin).partition("\n")[0].strip() or type(origin).__name__
    meaning = next((meaning for sign, meaning in _MEANINGS if sign in text), "")
    return f"{text}: {meaning}" if meaning else text


def _by_code(code: str, passing: tuple[str, ...], final: tuple[str, ...]) -> Trouble:
    if code.startswith(passing):
        return Trouble.PASSING
    return Trouble.FINAL if code.startswith(final) else Trouble.LASTING


def _origin(error: BaseException) -> BaseException:
    """The driver's own error."""
    found: Any = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # SQLAlchemy puts one of its own around asyncpg's.
    own = found.__cause__
    if isinstance(own, asyncpg.PostgresError | asyncpg.InterfaceError):
        found = own
    origin: BaseException = found
    return origin
