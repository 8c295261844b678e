"""A large ledger is as quick as a small one: what every run asks of it is answered by an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event

from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order
from prefect_kling.ledger.schema import is_moving, purchases
from prefect_kling.ledger.states import Event

ACCOUNT = Account("https://gateway.example.com/api/v1")


@contextmanager
def told(ledger: Ledger) -> Iterator[list[tuple[str, Any]]]:
    """The statements that a ledger runs meanwhile, with their parameters."""
    ran: list[tuple[str, Any]] = []
    engine = ledger.db._engine.sync_engine

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        ran.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield ran
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_no_query_of_a_run_goes_through_all_purchases(tmp_path: Path) -> None:
    order = Order("main", key_of("k1:0", 1), {}, "kling-v3-omni", 5, 1000, document="d", shot="dawn", run="r")
    async with await Ledger.open(str(tmp_path / "ledger.db"), answers=tmp_path / "answers.jsonl") as ledger:
        await ledger.account_id(ACCOUNT)
        with told(ledger) as ran:
            await ledger.find(ACCOUNT, "main", [order.key])
            reserved = await ledger.reserve(ACCOUNT, order, Limits(per_run=10**9, per_day=10**9))
            assert reserved.purchase is not None
            await ledger.happened(reserved.purchase, Event.GIVEN_UP)
            await ledger.reclaim(ACCOUNT)
            await ledger.of_account(ACCOUNT, is_moving, purchases.c.state == "submitted")
            await ledger.by_task(ACCOUNT, "t1")
    looked = [(sql, values) for sql, values in ran if "kling_purchases" in sql and not sql.startswith("INSERT")]
    assert len(looked) >= 8
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for sql, values in looked:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            steps = [step for step in plan if "kling_purchases" in step]
            assert steps
            # By its number, its token, its task, or one of the indexes that hold only what is wanted.
            for step in steps:
                assert "SCAN" not in step, (step, sql)
                assert "kling_purchases_time" not in step, (step, sql)
                assert "kling_purchases_shot" not in step, (step, sql)
    connection.close()
