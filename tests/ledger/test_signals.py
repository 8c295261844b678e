"""SIGINT and SIGTERM in the middle of a purchase: it runs to its end, and then the process ends by itself."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped] # ships no types
import pytest

from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.states import State

if TYPE_CHECKING:
    from prefect_kling.simulator.server import Running

CHILD = Path(__file__).with_name("buying_child.py")
SOON = 20.0
NOISE = ("unclosed", "never awaited", "never retrieved", "exception calling callback", "pool", "Fatal")


class Gate:
    """A way to the simulator on which answers wait until it is open."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.open = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self.open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            for ends in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._carry, args=ends)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, to: socket.socket, held: bool) -> None:
        with suppress(OSError), source:
            while data := source.recv(65536):
                if held:
                    self.open.wait(60)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(simulator: Running) -> Iterator[Gate]:
    found = Gate(int(simulator.origin.rpartition(":")[2]))
    yield found
    found.close()


class Child:
    """A process that buys, and what it writes."""

    def __init__(self, mode: str, url: str, folder: Path, base_url: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILD), mode, url, str(folder), base_url], stdout=out, stderr=err
            )
        self.folder = folder

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def signal(self, number: signal.Signals, times: int) -> None:
        for _ in range(times):
            self.process.send_signal(number)
            # Time to be told: the kernel would make one of two that wait.
            time.sleep(0.1)

    async def ended(self) -> float:
        """Waits for its end, and returns how long that took."""
        begun = time.monotonic()
        await until(lambda: self.process.poll() is not None, f"the end of the child: {self.err}")
        return time.monotonic() - begun


@contextmanager
def child(mode: str, url: str, folder: Path, base_url: str) -> Iterator[Child]:
    found = Child(mode, url, folder, base_url)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait()


async def until(found: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    begun = time.monotonic()
    while not found():
        assert time.monotonic() - begun < seconds, what
        await asyncio.sleep(0.01)


def creates(simulator: Running) -> int:
    return simulator.service.creates.total()


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """While the block lasts, nobody else can write to the ledger."""
    if url.startswith("sqlite"):
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=10)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()
        return
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE kling_purchases IN SHARE MODE")
            yield
    finally:
        await connection.close()


async def check(url: str, folder: Path, base_url: str, simulator: Running) -> None:
    """One create, and its task in the database; looked at without the journal, which would hide what is missing."""
    assert creates(simulator) == 1
    (task_id,) = simulator.service.tasks
    async with await Ledger.open(url, answers=folder / "other.jsonl") as ledger:
        (purchase,) = await ledger.of_account(Account(base_url))
        assert (purchase.state, purchase.task_id) == (State.SUBMITTED, task_id)
        assert await ledger.audit(Account(base_url)) == {}


CASES = [
    ("interrupted", signal.SIGINT),
    ("cancelled", signal.SIGTERM),
    ("raising", signal.SIGTERM),
    ("in_prefect", signal.SIGTERM),
]
IDS = [f"{mode}-{number.name}" for mode, number in CASES]


async def interrupted_during_the_post(
    mode: str, number: signal.Signals, times: int, url: str, gate: Gate, simulator: Running, folder: Path
) -> None:
    base_url = simulator.base_url.replace(simulator.origin, f"http://127.0.0.1:{gate.port}")
    with child(mode, url, folder, base_url) as buying:
        await until(lambda: creates(simulator) == 1, "the POST")
        buying.signal(number, times)
        assert buying.process.poll() is None, buying.err
        gate.open.set()
        assert await buying.ended() < SOON
        assert buying.process.returncode != 0
        assert [noise for noise in NOISE if noise in buying.err] == [], buying.err
        assert "outcome" not in buying.out
    await check(url, folder, base_url, simulator)


async def interrupted_during_the_commit(
    mode: str, number: signal.Signals, times: int, url: str, gate: Gate, simulator: Running, folder: Path
) -> None:
    base_url = simulator.base_url.replace(simulator.origin, f"http://127.0.0.1:{gate.port}")
    journal = folder / "answers.jsonl"
    with child(mode, url, folder, base_url) as buying:
        await until(lambda: creates(simulator) == 1, "the POST")
        async with locked(url):
            gate.open.set()
            await until(lambda: journal.exists() and bool(journal.read_bytes()), "the journal")
            buying.signal(number, times)
            assert buying.process.poll() is None, buying.err
        assert await buying.ended() < SOON
        assert buying.process.returncode != 0
        assert [noise for noise in NOISE if noise in buying.err] == [], buying.err
    await check(url, folder, base_url, simulator)


def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize(("mode", "number"), CASES, ids=IDS)
async def test_a_signal_during_the_post(
    mode: str, number: signal.Signals, times: int, gate: Gate, simulator: Running, tmp_path: Path
) -> None:
    await interrupted_during_the_post(mode, number, times, sqlite(tmp_path), gate, simulator, tmp_path)


@pytest.mark.parametrize(("mode", "number"), CASES, ids=IDS)
async def test_two_signals_during_the_commit(
    mode: str, number: signal.Signals, gate: Gate, simulator: Running, tmp_path: Path
) -> None:
    await interrupted_during_the_commit(mode, number, 2, sqlite(tmp_path), gate, simulator, tmp_path)


@pytest.mark.parametrize("phase", [interrupted_during_the_post, interrupted_during_the_commit])
async def test_signals_on_postgresql(
    phase: Callable[..., Awaitable[None]],
    gate: Gate,
    simulator: Running,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("postgresql").new_database()
    await phase("raising", signal.SIGINT, 2, url, gate, simulator, tmp_path)


async def test_three_signals_are_no_more_than_two(gate: Gate, simulator: Running, tmp_path: Path) -> None:
    # The third meets the interpreter's own end.
    await interrupted_during_the_post("raising", signal.SIGTERM, 3, sqlite(tmp_path), gate, simulator, tmp_path)
