"""Sweeping: what nobody waits for is finished, the first to expire first, and one's trouble is not another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.clips import ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import TaskNotFound
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger import sweeping
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.owners import this_process
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.sweeping import sweep
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

if TYPE_CHECKING:
    from tests.ledger.conftest import Ledgers, MakeOrder, Shift

KEY = "sk-sweeping-90fe17"
MakeRequest = Callable[[str], OmniVideoRequest]


async def no_time(_: float) -> None:
    """Sleeps, as far as anybody can tell."""


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A gateway whose second generation fails."""
    config = SimulatorConfig(seed=1, generation_seconds=0, shrink=8, faults="failed=@2")
    async with running(config) as server:
        yield server


@pytest.fixture
async def keeper(ledger: Ledger, account: Account, server: Running, tmp_path: Path) -> AsyncIterator[Keeper]:
    async with KlingClient(KEY, base_url=server.base_url) as client:
        storage = ClipStorage(str(tmp_path / "storage"))
        yield Keeper(ledger, Account(server.base_url, account.base_url[-32:]), client, storage, sleep=no_time)


class Shop:
    """Buys at the simulator."""

    def __init__(self, keeper: Keeper, server: Running, order: MakeOrder, request: MakeRequest) -> None:
        self.keeper, self.server, self.order, self.request = keeper, server, order, request

    async def bought(self, prompt: str) -> Purchase:
        """A submitted purchase."""
        address = self.server.base_url
        buyer = Buyer(self.keeper.ledger, self.keeper.account, lambda: KlingClient(KEY, base_url=address, attempts=1))
        return await buyer.buy(self.order(prompt), self.request(prompt))

    async def ended(self, *found: Purchase) -> None:
        """Waits until the gateway has ended these, and writes nothing down."""
        for purchase in found:
            ended = False
            while not ended:
                ended = (await self.keeper.client.get(str(purchase.task_id))).ended

    async def completed(self, prompt: str, **facts: Any) -> Purchase:
        """A completed purchase that nobody has downloaded."""
        purchase = await self.bought(prompt)
        await self.ended(purchase)
        row = await self.keeper.look(purchase)
        return await self.keeper.ledger.happened(row, Event.COMPLETED, **facts) if facts else row


@pytest.fixture
def shop(keeper: Keeper, server: Running, order: MakeOrder, make_request: MakeRequest) -> Shop:
    return Shop(keeper, server, order, make_request)


async def test_a_sweep_finishes_what_nobody_waits_for(
    ledgers: Ledgers, keeper: Keeper, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    account = keeper.account
    completed = await shop.completed("completed")
    failing, submitted = await shop.bought("failing"), await shop.bought("submitted")
    await shop.ended(failing, submitted)
    # One died between the gateway's answer and its commit, another in mid-POST, a third before it.
    *parts, start = this_process().split("|")
    gone = await ledgers(owner="|".join((*parts, f"{int(start) - 1}")))
    left = {}
    for name in ("answered", "in mid-POST", "reserved"):
        row = (await gone.reserve(account, order(name), Limits())).purchase
        assert row is not None
        left[name] = row if name == "reserved" else await gone.happened(row, Event.SEND)
    async with KlingClient(KEY, base_url=shop.server.base_url) as client:
        task = await client.create(make_request("answered"))
    gone.journal.append(Answer(gone.id, left["answered"].token, task.task_id))
    await shop.ended(replace(left["answered"], task_id=task.task_id))

    swept = await sweep(keeper)
    assert swept.recovered == 3
    assert sorted(swept.stored) == sorted([completed.short, submitted.short, left["answered"].short])
    assert swept.failed == [failing.short]
    assert [row.short for row in swept.uncertain] == [left["in mid-POST"].short]
    assert (swept.lost, swept.waiting, swept.errors) == ([], [], {})
    states = {row.order.request["prompt"]: row.state for row in await keeper.ledger.of_account(account)}
    assert states == {
        "completed": State.STORED,
        "failing": State.FAILED,
        "submitted": State.STORED,
        "answered": State.STORED,
        "in mid-POST": State.UNCERTAIN,
        "reserved": State.RELEASED,
    }
    assert await keeper.ledger.audit(account) == {}
    # A second sweep finds nothing to do but what waits for a decision.
    before = shop.server.service.stats()
    swept = await sweep(keeper)
    assert (swept.recovered, swept.stored, swept.failed, len(swept.uncertain)) == (0, [], [], 1)
    after = shop.server.service.stats()
    assert [after[name] for name in ("posts", "polls", "downloads")] == [
        before[name] for name in ("posts", "polls", "downloads")
    ]


async def test_the_first_to_expire_is_downloaded_first_and_all_before_what_is_still_made(
    keeper: Keeper, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 1)
    now = await keeper.ledger.time()
    first = await shop.completed("1", expires_at=now + timedelta(days=5))
    submitted = await shop.bought("fails, as the second does")
    third = await shop.completed("3", expires_at=now + timedelta(hours=1))
    fourth = await shop.completed("4", expires_at=now + timedelta(days=2))
    last = await shop.bought("5")
    await shop.ended(submitted, last)
    swept = await sweep(keeper)
    assert swept.stored == [row.short for row in (third, fourth, first, last)]
    assert swept.failed == [submitted.short]


async def test_what_was_thought_lost_and_is_there_after_all_is_stored(keeper: Keeper, shop: Shop, shift: Shift) -> None:
    row = await shop.completed("A fox")
    lost = await keeper.ledger.happened(row, Event.GONE, reason="410")
    shift.advance(timedelta(days=6).total_seconds())
    swept = await sweep(keeper)
    assert (swept.stored, swept.lost) == ([lost.short], [])
    found = await keeper.ledger.get(row.id)
    assert (found.state, found.reason, found.counted) == (State.STORED, None, row.order.micro_usd)
    # One that stays lost is asked about as long as results are kept, and no longer.
    other = await shop.completed("A hare, which fails")
    assert other.state is State.FAILED
    third = await keeper.ledger.happened(await shop.completed("A bird"), Event.GONE)
    shop.server.service.results.expire(str(third.task_id))
    assert (await sweep(keeper)).stored == []
    assert (await keeper.ledger.get(third.id)).state is State.LOST
    shift.advance(timedelta(days=8).total_seconds())
    before = shop.server.service.stats()["polls"]
    await sweep(keeper)
    assert shop.server.service.stats()["polls"] == before


async def test_one_whose_disk_is_back_after_a_month_is_stored_again(keeper: Keeper, shop: Shop, shift: Shift) -> None:
    row = await keeper.keep(await shop.completed("A fox"))
    assert row.clip is not None
    shop.server.service.results.expire(str(row.task_id))
    path, elsewhere = Path(row.clip.path), Path(row.clip.path).with_suffix(".away")
    path.rename(elsewhere)
    with pytest.raises(TaskNotFound):
        await keeper.keep(row)
    shift.advance(timedelta(days=30).total_seconds())
    assert (await sweep(keeper)).stored == []
    elsewhere.rename(path)
    assert (await sweep(keeper)).stored == [row.short]
    assert (await keeper.ledger.get(row.id)).state is State.STORED


async def test_an_expired_result_is_told_as_lost(keeper: Keeper, shop: Shop) -> None:
    row = await shop.completed("A fox")
    shop.server.service.results.expire(str(row.task_id))
    swept = await sweep(keeper)
    assert (swept.lost, swept.stored, swept.errors) == ([row.short], [], {})
    assert (await keeper.ledger.get(row.id)).state is State.LOST


async def test_trouble_with_one_leaves_the_others(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    answers = {
        "t1": httpx.Response(503),
        "t2": httpx.Response(200, json={"code": 200, "data": {"taskId": "t2", "state": "processing"}}),
        "t3": httpx.Response(200, json={"code": 200, "data": {"taskId": "t3", "state": "failed", "failMsg": "no"}}),
        "t4": httpx.Response(404, json={"code": 404, "msg": "no"}),
    }
    rows = {}
    for task_id in answers:
        row = (await ledger.reserve(account, order(task_id), Limits())).purchase
        assert row is not None
        row = await ledger.happened(row, Event.SEND)
        rows[task_id] = await ledger.happened(row, Event.ACCEPTED, task_id=task_id)
    transport = httpx.MockTransport(lambda request: answers[request.url.params["task_id"]])
    async with KlingClient(KEY, transport=transport, attempts=1) as client:
        swept = await sweep(Keeper(ledger, account, client, sleep=no_time))
    assert sorted(swept.waiting) == sorted([rows["t2"].short, rows["t4"].short])
    assert swept.failed == [rows["t3"].short]
    assert list(swept.errors) == [rows["t1"].short]
    assert "1 failed" in swept.sentence()
    assert "2 still generating" in swept.sentence()
    assert "1 to be tried again" in swept.sentence()
    assert all(row.token not in f"{swept.what_to_do()} {swept.as_dict()}" for row in rows.values())


async def test_a_sweep_of_nothing_says_so(keeper: Keeper) -> None:
    swept = await sweep(keeper)
    assert swept.sentence() == "nothing to do"
    assert swept.what_to_do() == ""
