"""What the ledger costs: every transition of a purchase, for 100 shots at once, with few rows and with 100,000."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.postgresql import PostgreSQL
from benchmarks.row import Row
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import Event, State

__all__ = ["filler", "life", "measure"]

SHOTS, ROWS, ROUNDS = 100, 100_000, 5
ACCOUNT = Account("https://gateway.example.com/api/v1")
LIMITS = Limits(in_flight=1000, per_run=10**12, per_day=10**12, per_month=10**12)


def measure() -> list[Row]:
    """Milliseconds a shot; beside it the bound, and for SQLite five synced inserts of the driver alone."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        few, many = asyncio.run(_timed(f"sqlite:///{folder}/ledger.db", Path(folder)))
        rows += _rows("SQLite", few, many, 25.0)
        rows.append(Row("SQLite, a shot", few, "ms", "5 synced inserts by sqlite3 alone", _bare(Path(folder))))
        with PostgreSQL() as server:
            few, many = asyncio.run(_timed(server.new_database(), Path(folder)))
        rows += _rows("PostgreSQL", few, many, 15.0)
    return rows


def _rows(name: str, few: float, many: float, bound: float) -> list[Row]:
    return [
        Row(f"{name}, a shot's transitions", few, "ms", "bound", bound),
        Row(f"{name}, the same beside {ROWS:,} rows", many, "ms", "few rows", few),
    ]


async def _timed(url: str, folder: Path) -> tuple[float, float]:
    async with await Ledger.open(url, answers=folder / "answers.jsonl") as ledger:
        await _batch(ledger, "warm")
        few = min([await _batch(ledger, f"few{n}") for n in range(ROUNDS)])
        await _fill(ledger)
        await _batch(ledger, "warm again")
        many = min([await _batch(ledger, f"many{n}") for n in range(ROUNDS)])
    return few, many


async def _batch(ledger: Ledger, name: str) -> float:
    hold = Hold("main", name, name)
    begun = time.perf_counter()
    await ledger.admit(ACCOUNT, hold, {(f"s{n}", 1): 1000 for n in range(SHOTS)}, LIMITS)
    await asyncio.gather(*(life(ledger, name, n) for n in range(SHOTS)))
    await ledger.end_hold(ACCOUNT, hold)
    return (time.perf_counter() - begun) / SHOTS * 1000


async def life(ledger: Ledger, name: str, number: int) -> None:
    """Takes one purchase from its reservation to its stored clip."""
    order = Order("main", f"k1:{name}-{number}#1", {"prompt": "A lighthouse"}, "kling-v3-omni", 5, 1000)
    order = Order(**{**vars(order), "document": name, "shot": f"s{number}", "run": name})
    purchase = (await ledger.reserve(ACCOUNT, order, LIMITS)).purchase
    assert purchase is not None
    facts: dict[Event, dict[str, Any]] = {
        Event.SEND: {},
        Event.ACCEPTED: {"task_id": f"{name}-{number}"},
        Event.COMPLETED: {"result_url": "https://results.example.com/clip.mp4"},
        Event.DOWNLOADED: {},
    }
    for event, known in facts.items():
        purchase = await ledger.happened(purchase, event, **known)
    assert purchase.state is State.STORED


async def _fill(ledger: Ledger) -> None:
    account_id, now = await ledger.account_id(ACCOUNT), await ledger.time()

    async def work(connection: AsyncConnection) -> None:
        for start in range(0, ROWS, 5000):
            await connection.execute(
                insert(purchases), [filler(account_id, now, n) for n in range(start, start + 5000)]
            )

    await in_backroom(ledger.db.write(work))


def filler(account_id: int, now: Any, number: int) -> dict[str, Any]:
    """A row of `kling_purchases`, stored, of which there can be any number."""
    return {
        "token": f"{number:032x}", "account_id": account_id, "edition": "main", "key": f"k1:{number:064x}#1",
        "state": "stored", "spare": False, "storyboard": "filler", "document": "", "shot": f"s{number}", "take": 1,
        "model": "kling-v3-omni", "seconds": 5, "request": {"prompt": "A lighthouse"}, "folder": "clips", "run": "",
        "price": 1000, "counted": 1000, "owner": "", "task_id": f"filler-{number}", "created_at": now,
    }  # fmt: skip


def _bare(folder: Path) -> float:
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (a)")
    begun = time.perf_counter()
    for _ in range(SHOTS * 5):
        connection.execute("INSERT INTO t VALUES (1)")
    taken = (time.perf_counter() - begun) / SHOTS * 1000
    connection.close()
    return taken
