"""Reports: what was spent by day, storyboard and model, and purchases as plain data."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.reports import Spending, as_json, spending
from prefect_kling.ledger.states import Event

if TYPE_CHECKING:
    from tests.ledger.conftest import MakeOrder, ToMoment


async def test_spending_by_day_storyboard_and_model(
    ledger: Ledger, account: Account, order: MakeOrder, to_moment: ToMoment
) -> None:
    eve = datetime((await ledger.time()).year + 1, 6, 30, 23, 59, 30, tzinfo=UTC)
    first, second = eve.date(), eve.date() + timedelta(days=1)
    await to_moment(eve)

    async def bought(prompt: str, micro_usd: int, *events: Event, storyboard: str = "", model: str = "o1") -> None:
        wanted = order(prompt, micro_usd=micro_usd, storyboard=storyboard, model=model)
        purchase = (await ledger.reserve(account, wanted, Limits())).purchase
        assert purchase is not None
        for event in events:
            purchase = await ledger.happened(purchase, event)

    await bought("1", 1)
    await bought("2", 10, storyboard="film")
    await bought("3", 100, storyboard="film", model="v3")
    await bought("4", 1000, Event.GIVEN_UP)
    await bought("5", 10_000, Event.SEND, Event.ACCEPTED, Event.FAILED, storyboard="film")
    await to_moment(eve + timedelta(minutes=1))
    await bought("6", 100_000, Event.SEND, Event.ANSWER_LOST)
    await bought("7", 1_000_000, storyboard="film")
    await bought("8", 2**40, Event.SEND, Event.ACCEPTED, Event.GONE, storyboard="film")

    newest = [Spending(second, "", "o1", 1, 100_000), Spending(second, "film", "o1", 2, 1_000_000 + 2**40)]
    oldest = [
        Spending(first, "", "o1", 1, 1),
        Spending(first, "film", "o1", 1, 10),
        Spending(first, "film", "v3", 1, 100),
    ]
    assert await spending(ledger, account) == newest + oldest
    assert await spending(ledger, account, since=second) == newest
    assert await spending(ledger, account, since=first) == newest + oldest
    assert await spending(ledger, account, since=date(second.year + 1, 1, 1)) == []
    assert await spending(ledger, Account(account.base_url, "second")) == []


async def test_a_purchase_as_plain_data(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    wanted = order(shot="dawn", take=2, storyboard="lighthouse", run="r1", micro_usd=1_550_000)
    purchase = (await ledger.reserve(account, wanted, Limits())).purchase
    assert purchase is not None
    purchase = await ledger.happened(purchase, Event.SEND)
    purchase = await ledger.happened(purchase, Event.ACCEPTED, task_id="t1")
    found = as_json(purchase)
    assert json.loads(json.dumps(found)) == found
    assert {name: found[name] for name in ("token", "edition", "shot", "take", "key", "state", "task_id", "usd")} == {
        "token": purchase.token,
        "edition": "main",
        "shot": "dawn",
        "take": 2,
        "key": wanted.key,
        "state": "submitted",
        "task_id": "t1",
        "usd": 1.55,
    }
    assert datetime.fromisoformat(found["created_at"]) == purchase.created_at
    whole = as_json(purchase, whole=True)
    assert json.loads(json.dumps(whole)) == whole
    assert found.items() <= whole.items()
    assert whole["request"] == wanted.request
    assert whole["stored_at"] is None
    assert datetime.fromisoformat(whole["sent_at"]) == purchase.sent_at
