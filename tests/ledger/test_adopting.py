"""Adopting: a task that was bought elsewhere becomes a take, costs nothing, and is refused where it cannot be one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.clips import RESULT_LIFE, ClipStorage
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import InvalidRequest, TaskNotFound
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.adopting import adopt, objection_to_adopting
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.keys import base_key, key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.takes import Pin, Slate, pinned, retake
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

if TYPE_CHECKING:
    from tests.ledger.conftest import Ledgers, MakeOrder

KEY = "sk-adopting-7e02b5"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MakeRequest = Callable[[str], OmniVideoRequest]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"state": "pending"}, None),
        ({"state": "processing"}, None),
        ({"state": "completed", "completed_at": NOW - RESULT_LIFE}, None),
        ({"state": "completed"}, None),  # what the gateway leaves out is not held against it
        ({"state": "completed", "param": '{"prompt": "A hare"}'}, None),  # other words are meant
        ({"state": "completed", "model": "kling-video/kling-v3-omni"}, None),
        ({"state": "completed", "model": "kling-video/kling-video-o1"}, "the shot is of kling-v3-omni"),
        ({"state": "completed", "completed_at": NOW - RESULT_LIFE - timedelta(seconds=1)}, "keeps results for 7 days"),
        ({"state": "failed", "fail_message": "found sensitive"}, "failed at the gateway (found sensitive)"),
        ({"state": "failed"}, "no reason given"),
        ({"state": "paused"}, "calls it 'paused'"),
    ],
)
def test_what_speaks_against_a_task(order: MakeOrder, fields: dict[str, Any], why: str | None) -> None:
    found = objection_to_adopting(order(), Task(**{"task_id": "t1", **fields}), NOW)
    assert (found is None) is (why is None)
    assert why is None or why in str(found)


def shot(order: MakeOrder, **fields: Any) -> Order:
    return order(storyboard="lighthouse", document="d", shot="dawn", folder="clips/main/lighthouse", **fields)


def base_of(wanted: Order) -> str:
    return base_key(wanted.request)


def answering(**fields: Any) -> KlingClient:
    """A client whose gateway knows every task, as these fields say."""

    def answer(request: httpx.Request) -> httpx.Response:
        data = {"taskId": request.url.params["task_id"], "state": "processing", **fields}
        return httpx.Response(200, json={"code": 200, "data": data})

    return KlingClient(KEY, transport=httpx.MockTransport(answer), attempts=1)


async def live_at(ledger: Ledger, account: Account, order: MakeOrder, take: int, *events: Event) -> Purchase:
    """A take of the shot that was bought in the usual way."""
    wanted = shot(order, take=take)
    row = (await ledger.reserve(account, wanted, Limits())).purchase
    assert row is not None
    for event in events:
        facts: dict[str, Any] = {"task_id": f"bought-{take}"} if event is Event.ACCEPTED else {}
        row = await ledger.happened(row, event, **facts)
    return row


# --- at a gateway ---


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running(SimulatorConfig(seed=1, generation_seconds=0, shrink=8)) as server:
        yield server


async def test_a_clip_bought_elsewhere_is_a_take_that_runs_use_and_costs_nothing(
    ledger: Ledger, server: Running, order: MakeOrder, make_request: MakeRequest, tmp_path: Path, account: Account
) -> None:
    payer = Account(server.base_url, account.base_url[-32:])
    wanted = shot(order)
    async with KlingClient(KEY, base_url=server.base_url, attempts=1) as client:
        task = await client.create(make_request("A fox, made by hand"))
        row = await adopt(ledger, payer, client, wanted, base_of(wanted), task.task_id, run="r1")
        assert (row.state, row.task_id, row.counted) == (State.SUBMITTED, task.task_id, 0)
        assert (row.order.take, row.order.key, row.order.micro_usd, row.order.run) == (1, wanted.key, 0, "r1")
        assert row.created_at == row.sent_at == row.answered_at
        keeper = Keeper(ledger, payer, client, ClipStorage(str(tmp_path / "storage")))
        stored = await keeper.keep(await keeper.wait(row, poll_interval=0.02))
        # A run that wants the shot joins it, and posts nothing.
        buyer = Buyer(ledger, payer, lambda: KlingClient(KEY, base_url=server.base_url, attempts=1))
        assert await buyer.buy(wanted, make_request("A fox")) == stored
    assert stored.clip is not None
    assert stored.clip.path.endswith(f"clips/main/lighthouse/{task.task_id}.mp4")
    assert (stored.state, stored.counted, await ledger.audit(payer)) == (State.STORED, 0, {})
    assert server.service.stats()["creates"] == 1
    assert await pinned(ledger, payer, "main", "lighthouse") == {("dawn", base_of(wanted)): Pin(1, "r1")}


async def test_a_task_that_the_gateway_does_not_know_changes_nothing(
    ledger: Ledger, server: Running, order: MakeOrder
) -> None:
    payer, wanted = Account(server.base_url), shot(order)
    async with KlingClient(KEY, base_url=server.base_url, attempts=1) as client:
        with pytest.raises(TaskNotFound, match="does not know task t-none; nothing was changed"):
            await adopt(ledger, payer, client, wanted, base_of(wanted), "t-none")
    assert await ledger.of_account(payer) == []
    assert await pinned(ledger, payer, "main", "lighthouse") == {}


# --- which take ---


@pytest.mark.parametrize(("live", "take"), [((), 1), ((1,), 2), ((1, 2), 3), ((2,), 1), ((1, 3), 2)], ids=str)
async def test_it_is_the_first_take_that_is_free(
    ledger: Ledger, account: Account, order: MakeOrder, live: tuple[int, ...], take: int
) -> None:
    for number in live:
        await live_at(ledger, account, order, number, Event.SEND, Event.ACCEPTED, Event.COMPLETED)
    await live_at(ledger, account, order, 9, Event.GIVEN_UP)  # not live
    wanted = shot(order, take=7)
    async with answering() as client:
        row = await adopt(ledger, account, client, wanted, base_of(wanted), "t1")
    assert (row.order.take, row.order.key) == (take, key_of(base_of(wanted), take))
    assert (await pinned(ledger, account, "main", "lighthouse"))["dawn", base_of(wanted)].take == take
    assert await ledger.audit(account) == {}


async def test_a_take_in_other_words_is_not_free(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    await live_at(ledger, account, order, 1, Event.SEND, Event.ACCEPTED)
    firm = shot(lambda **fields: order("A fox, said otherwise", **fields))  # type: ignore[arg-type] # its prompt is set
    async with answering() as client:
        row = await adopt(ledger, account, client, firm, base_of(firm), "t1", also=[base_of(shot(order))])
    assert row.order.take == 2


async def test_what_was_adopted_can_be_retaken(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    wanted = shot(order)
    async with answering() as client:
        row = await adopt(ledger, account, client, wanted, base_of(wanted), "t1", run="r1")
    for event in (Event.COMPLETED, Event.DOWNLOADED):
        row = await ledger.happened(row, event)
    slate = Slate("main", "lighthouse", "dawn", base_of(wanted))
    assert (await retake(ledger, account, slate, "r2")).take == 2


# --- whose task it is ---


async def test_a_task_that_another_row_has_is_refused(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    row = await live_at(ledger, account, order, 1, Event.SEND, Event.ACCEPTED)
    wanted = shot(order)
    async with answering() as client:
        with pytest.raises(InvalidRequest, match=rf"belongs to shot 'dawn' already \({row.short}, submitted\)"):
            await adopt(ledger, account, client, wanted, base_of(wanted), "bought-1")
    assert await ledger.of_account(account) == [row]


async def test_an_answer_in_the_journal_is_a_rows_task(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    row = await live_at(ledger, account, order, 1, Event.SEND)
    ledger.journal.append(Answer(ledger.id, row.token, "t1"))
    await ledger.happened(row, Event.LEASE_ENDED)
    wanted = shot(order)
    async with answering() as client:
        with pytest.raises(InvalidRequest, match="belongs to shot 'dawn' already"):
            await adopt(ledger, account, client, wanted, base_of(wanted), "t1")


async def test_what_may_be_a_lost_answer_is_settled_not_adopted(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    row = await live_at(ledger, account, order, 1, Event.SEND, Event.ANSWER_LOST)
    wanted = shot(order)
    async with answering() as client:
        with pytest.raises(InvalidRequest, match=f"ledger resolve {row.short} --task-id t1`") as caught:
            await adopt(ledger, account, client, wanted, base_of(wanted), "t1")
    assert row.token not in str(caught.value)
    assert await ledger.of_account(account) == [row]
    # One that was made at another time cannot be it.
    long_ago = row.created_at - timedelta(hours=1)
    async with answering(createTime=int(long_ago.timestamp() * 1000)) as client:
        assert (await adopt(ledger, account, client, wanted, base_of(wanted), "t1")).order.take == 2


@pytest.mark.parametrize(
    "fields", [{"state": "failed", "failMsg": "no"}, {"state": "odd"}, {"model": "kling-video-o1"}]
)
async def test_what_cannot_be_a_take_changes_nothing(
    ledger: Ledger, account: Account, order: MakeOrder, fields: dict[str, Any]
) -> None:
    wanted = shot(order)
    async with answering(**fields) as client:
        with pytest.raises(InvalidRequest, match=r"Task t1 cannot be adopted: .*\. Nothing was changed"):
            await adopt(ledger, account, client, wanted, base_of(wanted), "t1")
    assert await ledger.of_account(account) == []


async def test_two_who_adopt_one_task_at_once_make_one_row(
    ledgers: Ledgers, account: Account, order: MakeOrder
) -> None:
    wanted = shot(order)
    processes = [await ledgers() for _ in range(3)]
    async with answering() as client:
        found = await asyncio.gather(
            *(adopt(ledger, account, client, wanted, base_of(wanted), "t1") for ledger in processes),
            return_exceptions=True,
        )
    rows = [one for one in found if isinstance(one, Purchase)]
    assert len(rows) == 1
    assert all(isinstance(one, InvalidRequest) for one in found if one is not rows[0])
    assert await processes[0].of_account(account) == rows


async def test_two_tasks_adopted_at_once_are_two_takes(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    wanted = shot(order)
    processes = [await ledgers() for _ in range(3)]
    async with answering() as client:
        rows = await asyncio.gather(
            *(adopt(ledger, account, client, wanted, base_of(wanted), f"t{n}") for n, ledger in enumerate(processes))
        )
    assert sorted(row.order.take for row in rows) == [1, 2, 3]
