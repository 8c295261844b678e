"""Settling: which task may be adopted for an uncertain purchase, by rule, and what is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import CREATE_SECONDS, KlingClient
from prefect_kling.gateway.errors import InvalidRequest, TaskNotFound
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.settling import WINDOW, named_by, objection, settle_as_never_created, settle_as_task
from prefect_kling.ledger.states import Event, State

if TYPE_CHECKING:
    from tests.ledger.conftest import MakeOrder

SENT = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOKEN = "0123456789abcdef0123456789abcdef"
SECOND = timedelta(seconds=1)
END = timedelta(seconds=CREATE_SECONDS) + WINDOW


@pytest.fixture
def purchase(order: MakeOrder) -> Purchase:
    """An uncertain purchase."""
    return Purchase(
        id=1,
        token=TOKEN,
        state=State.UNCERTAIN,
        order=order("A fox"),
        counted=1,
        owner="",
        lease_until=None,
        spare=False,
        task_id=None,
        result_url=None,
        expires_at=None,
        reason=None,
        error=None,
        clip=None,
        created_at=SENT,
        sent_at=SENT,
        answered_at=None,
        polled_at=None,
        missing_since=None,
        ended_at=None,
        stored_at=None,
    )


def param(**fields: Any) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, None),  # what the gateway leaves out is not held against it
        ({"model": "kling-v3-omni"}, None),
        ({"model": "kling-video/kling-v3-omni"}, None),
        ({"model": "kling-video-o1"}, "made by kling-video-o1"),
        ({"model": "kling-video/kling-video-o1"}, "made by"),
        ({"created_at": SENT}, None),
        ({"created_at": SENT - WINDOW}, None),
        ({"created_at": SENT - WINDOW - SECOND}, "created at"),
        ({"created_at": SENT + END}, None),
        ({"created_at": SENT + END + SECOND}, "created at"),
        ({"created_at": SENT - timedelta(days=1)}, "2026-11-21 12:00:00 UTC"),
        ({"param": param(prompt="A fox")}, None),
        ({"param": param(prompt="A hare")}, "its prompt"),
        ({"param": param(mode="pro")}, "its mode"),
        ({"param": param(duration="10")}, "its duration"),
        ({"param": param(duration=5)}, None),  # a number there, a string here
        ({"param": param(aspect_ratio="1:1")}, "its aspect_ratio"),
        ({"param": param(sound="on")}, None),  # we did not say
        ({"param": param(prompt=None, mode=None)}, None),
        ({"param": param(unknown="x")}, None),
        ({"param": "{}"}, None),
        ({"param": "[]"}, None),
        ({"param": '"A fox"'}, None),
        ({"param": "not JSON"}, None),
        ({"param": "{" * 5000}, None),
        ({"state": "failed"}, None),
    ],
)
def test_what_speaks_against_a_task(purchase: Purchase, fields: dict[str, Any], why: str | None) -> None:
    found = objection(purchase, Task(**{"task_id": "t1", "state": "processing", **fields}))
    assert (found is None) is (why is None)
    assert why is None or why in str(found)
    assert TOKEN not in str(found)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, None),
        (param(callback_url=f"https://hooks.example.com/kling/{TOKEN}"), None),
        (param(callback_url="https://hooks.example.com/kling/" + TOKEN[::-1]), "token"),
        (param(prompt="A fox"), "token"),
        (param(prompt="A hare", callback_url=f"https://hooks.example.com/kling/{TOKEN}"), "its prompt"),
    ],
)
def test_where_the_token_was_sent_it_has_to_be_there(purchase: Purchase, said: str | None, why: str | None) -> None:
    found = objection(purchase, Task("t1", "processing", param=said), callback=True)
    assert (found is None) is (why is None)
    assert why is None or why in str(found)


def test_a_purchase_that_was_never_seen_leaving_has_no_window(purchase: Purchase) -> None:
    long_ago = Task("t1", "processing", created_at=SENT - timedelta(days=100))
    assert objection(replace(purchase, sent_at=None), long_ago) is None


# --- on a ledger ---


def client_for(answer: Callable[[str], httpx.Response]) -> KlingClient:
    """A client whose gateway answers a poll for a task id."""
    transport = httpx.MockTransport(lambda request: answer(request.url.params["task_id"]))
    return KlingClient("sk-settling-1a2b", transport=transport, attempts=1)


def known(task_id: str, **fields: Any) -> httpx.Response:
    data = {"taskId": task_id, "state": "processing", "model": "kling-video/kling-v3-omni", **fields}
    return httpx.Response(200, json={"code": 200, "msg": "success", "data": data})


def unknown(task_id: str) -> httpx.Response:
    return httpx.Response(404, json={"code": 404, "msg": f"task not found: {task_id}"})


async def made(
    ledger: Ledger, account: Account, order: MakeOrder, prompt: str, *events: Event, task_id: str = "t1"
) -> Purchase:
    purchase = (await ledger.reserve(account, order(prompt), Limits())).purchase
    assert purchase is not None
    for event in events:
        facts: dict[str, Any] = {"task_id": task_id} if event is Event.ACCEPTED else {}
        purchase = await ledger.happened(purchase, event, **facts)
    return purchase


LOST_ANSWER = (Event.SEND, Event.ANSWER_LOST)


async def test_a_task_that_is_there_is_adopted(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    purchase = await made(ledger, account, order, "A fox", *LOST_ANSWER)
    async with client_for(known) as client:
        found = await settle_as_task(ledger, account, client, purchase.short, "t1")
        assert (found.id, found.state, found.task_id) == (purchase.id, State.SUBMITTED, "t1")
        assert await settle_as_task(ledger, account, client, purchase.token, "t1") == found  # said twice
        with pytest.raises(InvalidRequest, match="nothing to settle"):
            await settle_as_task(ledger, account, client, purchase.token, "t2")
    assert await ledger.audit(account) == {}


async def test_what_is_not_it_changes_nothing(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    other = await made(ledger, account, order, "A hare", Event.SEND, Event.ACCEPTED, task_id="t2")
    purchase = await made(ledger, account, order, "A fox", *LOST_ANSWER)
    async with client_for(unknown) as client:
        with pytest.raises(TaskNotFound, match="does not know task t1; nothing was changed"):
            await settle_as_task(ledger, account, client, purchase.token, "t1")
    async with client_for(lambda task_id: known(task_id, model="kling-video-o1")) as client:
        with pytest.raises(InvalidRequest, match="made by kling-video-o1"):
            await settle_as_task(ledger, account, client, purchase.token, "t1")
    async with client_for(known) as client:
        with pytest.raises(InvalidRequest, match=f"belongs to {other.named} already"):
            await settle_as_task(ledger, account, client, purchase.token, "t2")
    assert await ledger.get(purchase.id) == purchase
    assert await ledger.get(other.id) == other


async def test_never_created_frees_the_money_and_the_place(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    purchase = await made(ledger, account, order, "A fox", *LOST_ANSWER)
    found = await settle_as_never_created(ledger, account, purchase.short)
    assert (found.state, found.counted) == (State.ABANDONED, 0)
    assert (await ledger.reserve(account, order("A fox"), Limits())).mine
    with pytest.raises(InvalidRequest, match="is abandoned: there is nothing to settle"):
        await settle_as_never_created(ledger, account, purchase.short)
    async with client_for(known) as client:  # it turned up after all
        found = await settle_as_task(ledger, account, client, purchase.short, "t1")
    assert (found.state, found.spare, found.counted) == (State.SUBMITTED, True, found.order.micro_usd)
    assert await ledger.audit(account) == {}


@pytest.mark.parametrize("events", [(), (Event.SEND,), (Event.SEND, Event.ACCEPTED), (Event.SEND, Event.REFUSED)])
async def test_only_what_is_uncertain_is_settled(
    ledger: Ledger, account: Account, order: MakeOrder, events: tuple[Event, ...]
) -> None:
    purchase = await made(ledger, account, order, "A fox", *events)
    with pytest.raises(InvalidRequest, match="nothing to settle"):
        await settle_as_never_created(ledger, account, purchase.short)
    async with client_for(known) as client:
        with pytest.raises(InvalidRequest, match="nothing to settle"):
            await settle_as_task(ledger, account, client, purchase.short, "t9")
    assert await ledger.get(purchase.id) == purchase


async def test_an_answer_that_comes_while_somebody_settles_is_not_written_over(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    purchase = await made(ledger, account, order, "A fox", *LOST_ANSWER)
    seen = await ledger.happened(purchase, Event.ACCEPTED, task_id="the true one")
    found = await ledger.happened(purchase, Event.ACCEPTED, task_id="another")  # judged by the row as it was
    assert found.task_id == "the true one"
    assert await ledger.get(purchase.id) == seen == found


async def test_whoever_settles_is_told_that_the_answer_has_come_meanwhile(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    purchase = await made(ledger, account, order, "A fox", *LOST_ANSWER)

    class Meanwhile(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await ledger.happened(purchase, Event.ACCEPTED, task_id="the true one")
            return known("t1")

    async with KlingClient("sk-settling-1a2b", transport=Meanwhile(), attempts=1) as client:
        with pytest.raises(InvalidRequest, match="it is task the true one"):
            await settle_as_task(ledger, account, client, purchase.token, "t1")


@pytest.mark.parametrize("token", ["", "0123456", "%%%%%%%%", "________", "zzzzzzzz"])
async def test_a_token_that_names_nothing(ledger: Ledger, account: Account, order: MakeOrder, token: str) -> None:
    await made(ledger, account, order, "A fox")
    with pytest.raises(InvalidRequest):
        await named_by(ledger, account, token)


async def test_a_token_is_looked_for_in_its_account(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    purchase = await made(ledger, account, order, "A fox")
    assert await named_by(ledger, account, purchase.token) == purchase
    assert await named_by(ledger, account, purchase.short) == purchase
    with pytest.raises(InvalidRequest) as caught:
        await named_by(ledger, Account(account.base_url, "second"), purchase.token)
    assert purchase.short in str(caught.value)
    assert purchase.token not in str(caught.value)
