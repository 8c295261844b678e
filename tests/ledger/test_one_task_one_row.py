"""A task of the gateway belongs to one purchase: a second claim is refused, not repeated for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import PurchaseUncertain
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.database import FOR_EVER
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.states import Event, State

ACCOUNT = Account("https://gateway.test/v1")
REQUEST = OmniVideoRequest(model="kling-v3-omni", prompt="A lighthouse", aspect_ratio="16:9", duration="3")


@pytest.fixture
async def ledger(ledger_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl") as opened:
        yield opened


def order(key: str) -> Order:
    return Order("main", key, REQUEST.body(), REQUEST.model, 3, 189_900, shot=key)


async def sending(ledger: Ledger, key: str) -> Purchase:
    reserved = await ledger.reserve(ACCOUNT, order(key), Limits())
    assert reserved.purchase is not None
    return await ledger.happened(reserved.purchase, Event.SEND)


async def test_a_commit_that_another_row_speaks_against_ends_at_once(ledger: Ledger) -> None:
    first, second = await sending(ledger, "dawn"), await sending(ledger, "night")
    await ledger.happened(first, Event.ACCEPTED, task_id="task-1")
    with pytest.raises(IntegrityError):
        await ledger.happened(second, Event.ACCEPTED, patience=FOR_EVER, task_id="task-1")
    assert (await ledger.get(second.id)).state is State.SENDING


async def test_an_answer_that_names_a_bought_task_makes_the_purchase_uncertain(ledger: Ledger) -> None:
    def client() -> KlingClient:
        answer = httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": "task-1"}})
        return KlingClient(
            SecretStr("sk-test"),
            base_url=ACCOUNT.base_url,
            transport=httpx.MockTransport(lambda _: answer),
            attempts=1,
            patience=0.0,
        )

    buyer = Buyer(ledger, ACCOUNT, client)
    await buyer.buy(order("dawn"), REQUEST)
    with pytest.raises(PurchaseUncertain, match="task task-1, which another purchase has"):
        await buyer.buy(order("night"), REQUEST)


async def test_a_journal_that_names_a_bought_task_stops_nobody(ledger: Ledger) -> None:
    first, second = await sending(ledger, "dawn"), await sending(ledger, "night")
    await ledger.happened(first, Event.ACCEPTED, task_id="task-1")
    ledger.journal.append(Answer(ledger.id, second.token, "task-1"))
    third = await sending(ledger, "storm")
    ledger.journal.append(Answer(ledger.id, third.token, "task-2"))
    assert await ledger.replay() == 1
    assert (await ledger.get(third.id)).task_id == "task-2"
    assert (await ledger.get(second.id)).state is State.SENDING
