"""What callbacks said, written down: whose it is, once in a while, and never too much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.hints import (
    AGAIN_SECONDS,
    MOST_HINTS,
    Call,
    Heard,
    forget_hints,
    hear,
    heard_since,
    hints_of,
)
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.states import Event

if TYPE_CHECKING:
    from tests.ledger.conftest import MakeOrder, Shift


@pytest.fixture
async def purchase(ledger: Ledger, account: Account, order: MakeOrder) -> Purchase:
    row = (await ledger.reserve(account, order(), Limits())).purchase
    assert row is not None
    return row


async def said(ledger: Ledger, *calls: Call) -> list[Heard]:
    return await hear(ledger, calls)


async def test_a_call_is_written_down_and_is_news_once_in_a_while(
    ledger: Ledger, purchase: Purchase, shift: Shift
) -> None:
    call = Call(purchase.token, "t1", "completed")
    news = Heard(purchase.id, purchase.short, fresh=True, kept=True)
    again = Heard(purchase.id, purchase.short, fresh=False, kept=True)
    assert await said(ledger, call) == [news]
    assert await said(ledger, call, call) == [again, again]
    assert await said(ledger, Call(purchase.token, "t2", "failed")) == [news]
    shift.advance(AGAIN_SECONDS + 1)
    assert await said(ledger, call, call) == [news, again]
    assert [(hint.task_id, hint.state) for hint in await hints_of(ledger, [purchase.id])] == [
        ("t1", "completed"), ("t2", "failed")
    ]  # fmt: skip


async def test_it_is_kept_whatever_the_purchase_has_come_to(
    ledger: Ledger, purchase: Purchase, task_id: Callable[[], str]
) -> None:
    sent = await ledger.happened(purchase, Event.SEND)
    bought = await ledger.happened(sent, Event.ACCEPTED, task_id=task_id())
    assert (await ledger.happened(bought, Event.FAILED)).state == "failed"
    (heard,) = await said(ledger, Call(purchase.token, "late", "completed"))
    assert heard.kept
    assert (await ledger.get(purchase.id)).state == "failed"


async def test_a_token_that_no_purchase_has_says_nothing(ledger: Ledger, purchase: Purchase) -> None:
    token = purchase.token
    near = [
        "0" * 32,
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        ("0" if token[0] != "0" else "1") + token[1:],
        token[:16] + "f" * 16,
        token[:16] + "0" * 16,
        token[:31],
        token + "0",
        token.upper() if token.upper() != token else "G" * 32,
        "",
        "%",
    ]
    for heard in await said(ledger, *(Call(one, "t1", "completed") for one in near if one != token)):
        assert (heard.purchase, heard.kept) == (None, False)
    assert await hints_of(ledger, [purchase.id]) == []


async def test_many_at_once_get_each_their_own(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    rows = [(await ledger.reserve(account, order(f"{n}"), Limits(in_flight=99))).purchase for n in range(20)]
    calls = [Call(row.token, f"t-{row.id}", "completed") for row in rows if row is not None]
    mixed = [Call("f" * 32, "t", "completed"), *calls, Call(calls[0].token), calls[1]]
    heard = await said(ledger, *mixed)
    assert [one.purchase for one in heard[1:21]] == [row.id for row in rows if row is not None]
    assert all(one.kept and one.fresh for one in heard[1:21])
    assert heard[0].purchase is None
    assert (heard[21].purchase, heard[21].kept) == (calls and rows[0] and rows[0].id, False)
    assert (heard[22].kept, heard[22].fresh) == (True, False)
    found = await hints_of(ledger, [row.id for row in rows if row is not None])
    assert {(hint.purchase, hint.task_id) for hint in found} == {(row.id, f"t-{row.id}") for row in rows if row}


async def test_two_receivers_that_are_told_the_same_do_not_wait_for_each_other(
    ledger: Ledger, purchase: Purchase
) -> None:
    # PostgreSQL ends such a knot after a second. What is written in one order cannot be knotted.
    written: list[list[str]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO kling_hints"):
            written.append([value for value in parameters if str(value).startswith("task-")])

    engine = ledger.db._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        await said(ledger, *(Call(purchase.token, f"task-{n:02}", "completed") for n in range(30, 0, -1)))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert written == [[f"task-{n:02}" for n in range(1, 31)]]


async def test_a_purchase_keeps_so_many_hints_and_forgets_none_for_more(ledger: Ledger, purchase: Purchase) -> None:
    calls = [Call(purchase.token, f"t{n}", "completed") for n in range(MOST_HINTS + 5)]
    heard = await said(ledger, *calls)
    assert [one.kept for one in heard] == [True] * MOST_HINTS + [False] * 5
    assert [one.kept for one in await said(ledger, calls[-1], calls[0])] == [False, True]
    assert len(await hints_of(ledger, [purchase.id])) == MOST_HINTS


async def test_what_was_heard_lately_is_found_without_knowing_whose(
    ledger: Ledger, purchase: Purchase, shift: Shift
) -> None:
    await said(ledger, Call(purchase.token, "old", "completed"))
    shift.advance(60)
    await said(ledger, Call(purchase.token, "new", "completed"))
    mine = [hint.task_id for hint in await heard_since(ledger, 30) if hint.purchase == purchase.id]
    assert mine == ["new"]


async def test_hints_are_forgotten_once_no_result_can_be_had(ledger: Ledger, purchase: Purchase, shift: Shift) -> None:
    await said(ledger, Call(purchase.token, "old", "completed"))
    shift.advance(7.5 * 86400)
    await forget_hints(ledger)
    assert len(await hints_of(ledger, [purchase.id])) == 1
    shift.advance(86400)
    assert await forget_hints(ledger) >= 1
    assert await hints_of(ledger, [purchase.id]) == []


async def test_a_ledger_that_cannot_be_written_is_told(ledger: Ledger, purchase: Purchase) -> None:
    await ledger.db._engine.dispose()

    async def broken(*_: object) -> None:
        raise OSError("the database is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.db, "_attempt", broken)
        with pytest.raises(LedgerUnavailable):
            await hear(ledger, [Call(purchase.token, "t1", "completed")], patience=0.1)
    assert await hints_of(ledger, [purchase.id]) == []
