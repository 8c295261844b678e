"""Ledgers on both databases whose clock can be moved, and orders to buy."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Order

if TYPE_CHECKING:
    from benchmarks.postgresql import PostgreSQL


class Shift:
    """How far the database's clock is taken to be ahead; `ledgers` share one."""

    def __init__(self) -> None:
        self.milliseconds = 0

    def __call__(self) -> int:
        return self.milliseconds

    def advance(self, seconds: float) -> None:
        """Moves the clock on."""
        self.milliseconds += round(seconds * 1000)


class Ledgers(Protocol):
    """Opens one more ledger on the test's database, as another process would."""

    async def __call__(self, *, owner: str | None = None) -> Ledger:
        """`owner` stands in for another process."""
        ...


class MakeOrder(Protocol):
    """Makes an order; equal arguments make equal orders."""

    def __call__(self, prompt: str = ..., *, take: int = ..., micro_usd: int = ..., **fields: Any) -> Order:
        """`fields` are those of `Order`."""
        ...


@dataclass
class Clock:
    """A clock of seconds that sleeping moves, and nothing else; whoever sleeps lets others run."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Lets the others run once, and the clock be later."""
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def shift() -> Shift:
    """Moves the time of every ledger of the test."""
    return Shift()


@pytest.fixture
def clock() -> Clock:
    """A clock that only sleeping moves."""
    return Clock()


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in SQLite that nothing was written into, to be copied: making its tables takes longer."""
    path = tmp_path_factory.mktemp("empty") / "ledger.db"

    async def make() -> None:
        await (await Ledger.open(str(path), answers=path.with_name("answers.jsonl"))).close()

    asyncio.run(make())
    return path


@pytest.fixture(scope="session")
def shared_postgresql(postgresql: PostgreSQL) -> str:
    """One database for the session; its tests have an account each."""
    return postgresql.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path, empty_ledger: Path) -> str:
    """The address of a ledger that has nothing of the test's `account`, once in each kind of database."""
    if request.param == "sqlite":
        shutil.copy(empty_ledger, tmp_path / "ledger.db")
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("shared_postgresql")
    return url


@pytest.fixture
async def ledgers(shared_url: str, shift: Shift, tmp_path: Path) -> AsyncIterator[Ledgers]:
    """Opens ledgers on the test's database; they are closed at its end."""
    opened: list[Ledger] = []

    async def another(*, owner: str | None = None) -> Ledger:
        ledger = await Ledger.open(shared_url, answers=tmp_path / "home" / "answers.jsonl", ahead=shift)
        if owner is not None:
            ledger.owner = owner
        opened.append(ledger)
        return ledger

    yield another
    for ledger in opened:
        await ledger.close()


@pytest.fixture
async def ledger(ledgers: Ledgers) -> Ledger:
    """A ledger, once in each kind of database."""
    return await ledgers()


@pytest.fixture
def account() -> Account:
    """Who pays; another for each test."""
    return Account(f"https://gateway.example.com/{uuid.uuid4().hex}")


@pytest.fixture
def order() -> MakeOrder:
    """Makes orders."""

    def make(prompt: str = "A fox", *, take: int = 1, micro_usd: int = 316_500, **fields: Any) -> Order:
        body = canonical(request_for(prompt).body())
        values: dict[str, Any] = {
            "edition": "main",
            "key": key_of(base_key(body), take),
            "request": body,
            "model": "kling-v3-omni",
            "seconds": 5,
            "micro_usd": micro_usd,
            "take": take,
        }
        return Order(**values | fields)

    return make


@pytest.fixture
def make_request() -> Callable[[str], OmniVideoRequest]:
    """The request that an order of the same prompt stands for."""
    return request_for


def request_for(prompt: str = "A fox") -> OmniVideoRequest:
    """A plain text shot."""
    return OmniVideoRequest.model_validate({"model": "kling-v3-omni", "prompt": prompt, "aspect_ratio": "16:9"})


ToMoment = Callable[[datetime], Awaitable[None]]


@pytest.fixture
def to_moment(ledger: Ledger, shift: Shift) -> ToMoment:
    """Moves the clock on to a moment of the real year or later; never back."""

    async def move(moment: datetime) -> None:
        ahead = moment - await ledger.time()
        assert ahead > timedelta(0)
        shift.advance(ahead / timedelta(seconds=1))

    return move


_numbers = itertools.count(1)


@pytest.fixture
def task_id() -> Callable[[], str]:
    """Another task id each time."""
    return lambda: f"task-{next(_numbers)}"
