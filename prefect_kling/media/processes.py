"""A child process that neither outlives its caller nor knows its secrets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prefect_kling.media.cancelling import until_ended

__all__ = ["Ended", "run"]

T = TypeVar("T")

KEPT_STDERR = 64 * 1024
MOST_STDOUT = 16 * 1024 * 1024
# What reads hostile files has no use for the account's key, which lives in the environment.
KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "SYSTEMROOT")


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit status; minus the signal's number where one ended it.
        timed_out: whether we killed it because its time was up.
        stderr: the last 64 kB of what it complained about.
    """

    status: int
    timed_out: bool
    stderr: str

    @property
    def why(self) -> str:
        """Its end in words, for the middle of a sentence."""
        if self.timed_out:
            return "was stopped because it took too long"
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"ended with status {self.status}"

    @property
    def full(self) -> int:
        """The number of the error (`ENOSPC`, `EDQUOT`, `EFBIG`) where a full disk or a quota ended it, otherwise 0."""
        if self.status == -signal.SIGXFSZ:
            return errno.EFBIG
        said = self.stderr.splitlines()[-8:] if self.status else []
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return next((number for number in numbers if any(os.strerror(number) in line for line in said)), 0)


async def run(
    command: Sequence[str], *, timeout: float, given: bytes = b"", on_line: Callable[[str], None] | None = None
) -> Ended:
    """Runs a command in a session of its own, to its end or ours.

    Args:
        command: program and arguments; no shell is involved.
        timeout: seconds until it is killed with everything it started.
        given: what it reads from standard input.
        on_line: called with each line of its standard output, without the line's end.

    Raises:
        OSError: the program cannot be started.
        ValueError: it wrote more than 16 MB to standard output.
    """
    process = await _started(command)
    timed_out = False
    stderr = bytearray()
    pipes = [
        asyncio.ensure_future(pipe)
        for pipe in (
            _feed(_opened(process.stdin), given),
            _lines(_opened(process.stdout), on_line),
            _tail(_opened(process.stderr), stderr),
        )
    ]
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*pipes, process.wait())
    except TimeoutError:
        timed_out = True
    finally:
        # Also after its own end: it may have left children in its session, and those hold the pipes open.
        _kill(process)
        await until_ended(_over(process, pipes))
    return Ended(await process.wait(), timed_out, stderr.decode(errors="replace"))


async def _started(command: Sequence[str]) -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
        )
    )
    try:
        # Cancelled before all pipes are open, asyncio waits for ever for the end of the child.
        await until_ended(starting)
    except asyncio.CancelledError:
        if not starting.cancelled() and starting.exception() is None:
            _kill(starting.result())
            await until_ended(_over(starting.result()))
        raise
    return starting.result()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _over(process: asyncio.subprocess.Process, pipes: Sequence[asyncio.Future[None]] = ()) -> None:
    await asyncio.gather(*pipes, return_exceptions=True)
    # asyncio tells that a process is over once its pipes are read to their end, also where nobody reads on.
    for pipe in (_opened(process.stdout), _opened(process.stderr)):
        while await pipe.read(KEPT_STDERR):
            pass
    await process.wait()


def _opened(pipe: T | None) -> T:
    if pipe is None:
        raise RuntimeError("asyncio opened no pipe although one was asked for")
    return pipe


async def _feed(pipe: asyncio.StreamWriter, given: bytes) -> None:
    # A child that died early has closed its end; its exit status tells more than the broken pipe.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(given)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _lines(pipe: asyncio.StreamReader, on_line: Callable[[str], None] | None) -> None:
    rest, total = b"", 0
    while chunk := await pipe.read(KEPT_STDERR):
        total += len(chunk)
        if total > MOST_STDOUT:
            raise ValueError(f"the child process wrote more than {MOST_STDOUT} bytes")
        *lines, rest = (rest + chunk).split(b"\n")
        if on_line is not None:
            for line in lines:
                on_line(line.decode(errors="replace"))


async def _tail(pipe: asyncio.StreamReader, kept: bytearray) -> None:
    while chunk := await pipe.read(KEPT_STDERR):
        kept += chunk
        del kept[:-KEPT_STDERR]
