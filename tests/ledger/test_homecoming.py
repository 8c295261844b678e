"""Lost answers come home: a callback names the task, the gateway bears it out, and nothing else changes anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.clips import ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import GenerationFailed, PurchaseUncertain
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.hints import Call, hear
from prefect_kling.ledger.homecoming import LOOK_EVERY, bring_home, come_home
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.settling import settle_as_never_created
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.sweeping import sweep
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

if TYPE_CHECKING:
    from tests.ledger.conftest import Ledgers, MakeOrder, Shift

KEY = "sk-homecoming-7b21aa"
BASE = "http://127.0.0.1:9/kling"
"""Nobody is there: what callbacks say is said by the tests."""
MakeRequest = Callable[[str], OmniVideoRequest]


class Bell:
    """An alarm that does something each time somebody waits, and then rings; it is silent once it is out of things."""

    def __init__(self, *deeds: Callable[[], Any]) -> None:
        self.deeds = list(deeds)
        self.waited: list[float] = []

    async def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        if not self.deeds:
            return False
        await self.deeds.pop(0)()
        return True


@pytest.fixture
def shared_url(tmp_path: Path) -> str:
    """In SQLite alone: what is asked of the database here is asked of both by other modules."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running(SimulatorConfig(seed=1, generation_seconds=0, shrink=8)) as server:
        yield server


@pytest.fixture
async def keeper(ledger: Ledger, server: Running, tmp_path: Path) -> AsyncIterator[Keeper]:
    async with KlingClient(KEY, base_url=server.base_url) as client:
        yield Keeper(ledger, Account(server.base_url), client, ClipStorage(str(tmp_path / "storage")))


@dataclass
class Clock:
    """A clock that stands still unless it is moved."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Till:
    """Buys, and loses the answers."""

    def __init__(self, keeper: Keeper, order: MakeOrder, request: MakeRequest) -> None:
        self.keeper, self.order, self.request = keeper, order, request

    async def sent(self, prompt: str = "A fox") -> Purchase:
        """A row whose POST is about to leave."""
        ledger = self.keeper.ledger
        row = (await ledger.reserve(self.keeper.account, self.order(prompt, shot="dawn"), Limits())).purchase
        assert row is not None
        return await ledger.happened(row, Event.SEND, callback=BASE)

    async def task(self, purchase: Purchase | None, prompt: str = "A fox") -> str:
        """A task at the gateway, for a purchase or for nobody that we know; it has ended."""
        callback = {} if purchase is None else {"callback_url": f"{BASE}/{purchase.token}"}
        made = await self.keeper.client.create({**self.request(prompt).body(), **callback})
        while not (await self.keeper.client.get(made.task_id)).ended:  # noqa: ASYNC110 - the gateway is waited for
            await asyncio.sleep(0.01)
        return made.task_id

    async def lost(self, prompt: str = "A fox") -> tuple[Purchase, str]:
        """An uncertain purchase, and the task that it is."""
        row = await self.sent(prompt)
        task_id = await self.task(row, prompt)
        return await self.keeper.ledger.happened(row, Event.ANSWER_LOST), task_id

    async def called(self, purchase: Purchase, *tasks: str) -> None:
        """Callbacks that name these tasks come."""
        await hear(self.keeper.ledger, [Call(purchase.token, task, "completed") for task in tasks])


@pytest.fixture
def till(keeper: Keeper, order: MakeOrder, make_request: MakeRequest) -> Till:
    return Till(keeper, order, make_request)


def creates(server: Running) -> int:
    return int(server.service.stats()["creates"])


async def test_what_a_callback_names_comes_home_with_its_result(till: Till, keeper: Keeper, server: Running) -> None:
    lost, task_id = await till.lost()
    assert await bring_home(keeper, lost) == lost  # before anybody has called
    await till.called(lost, task_id)
    home = await bring_home(keeper, lost)
    assert (home.state, home.task_id, home.counted) == (State.COMPLETED, task_id, lost.order.micro_usd)
    assert home.result_url is not None
    kept = await keeper.keep(home)
    assert kept.clip is not None
    assert await bring_home(keeper, kept) == kept
    assert (creates(server), await keeper.ledger.audit(keeper.account)) == (1, {})


async def test_a_token_with_another_purchases_task_changes_nothing(till: Till, keeper: Keeper) -> None:
    lost, _ = await till.lost()
    other, others_task = await till.lost("A hare")
    await till.called(other, others_task)
    assert (await bring_home(keeper, other)).task_id == others_task
    await till.called(lost, others_task)
    assert await bring_home(keeper, lost) == lost


async def test_a_task_that_does_not_carry_the_token_is_not_believed(
    till: Till, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    lost, task_id = await till.lost()
    nobodys = await till.task(None)
    await till.called(lost, nobodys)
    with caplog.at_level(logging.WARNING):
        assert await bring_home(keeper, lost) == lost
    assert "is not believed: it does not carry this purchase's token" in caplog.text
    assert lost.token not in caplog.text
    # Its own one is found among those that are not.
    await till.called(lost, task_id, "no-such-task")
    assert (await bring_home(keeper, lost)).task_id == task_id


async def test_a_failed_task_comes_home_as_failed_and_counts_nothing(
    till: Till, keeper: Keeper, server: Running, order: MakeOrder
) -> None:
    row = await till.sent("a forbiddenpicture of a fox")
    task_id = await till.task(row, "a forbiddenpicture of a fox")
    lost = await keeper.ledger.happened(row, Event.ANSWER_LOST)
    await till.called(lost, task_id)
    home = await bring_home(keeper, lost)
    assert (home.state, home.task_id, home.counted, home.error) == (State.FAILED, task_id, 0, "GenerationFailed")
    assert await keeper.ledger.audit(keeper.account) == {}


async def test_a_task_that_turns_up_for_an_abandoned_purchase_is_counted_and_kept_beside_the_other(
    till: Till, keeper: Keeper
) -> None:
    lost, task_id = await till.lost()
    await keeper.ledger.happened(lost, Event.NEVER_CREATED)
    again = await till.sent()  # the same video, in a row of its own
    await till.called(lost, task_id)
    swept = await sweep(keeper)
    assert (swept.recovered, swept.stored) == (1, [lost.short])
    home = await keeper.ledger.get(lost.id)
    assert (home.state, home.spare, home.counted) == (State.STORED, True, lost.order.micro_usd)
    assert (await keeper.ledger.get(again.id)).state is State.SENDING
    assert await keeper.ledger.audit(keeper.account) == {}


async def test_a_sweep_brings_home_what_nobody_waits_for(till: Till, keeper: Keeper, server: Running) -> None:
    lost, task_id = await till.lost()
    await till.called(lost, "false", task_id)
    failed = await till.sent("forbiddenpicture")
    await till.called(failed, await till.task(failed, "forbiddenpicture"))
    await keeper.ledger.happened(failed, Event.ANSWER_LOST)
    swept = await sweep(keeper)
    assert (swept.recovered, swept.stored, swept.failed, swept.uncertain) == (2, [lost.short], [failed.short], [])
    assert creates(server) == 2


# --- waiting for it ---


async def test_whoever_waits_goes_on_when_the_callback_comes(till: Till, keeper: Keeper) -> None:
    lost, task_id = await till.lost()
    bell = Bell(lambda: till.called(lost, task_id))
    home = await come_home(keeper, lost, bell, max_wait=600)
    assert (home.state, home.task_id, len(bell.waited)) == (State.COMPLETED, task_id, 1)


async def test_false_calls_are_asked_about_once_each(till: Till, keeper: Keeper, server: Running) -> None:
    lost, task_id = await till.lost()
    before = server.service.stats()["polls"]
    lies = [lambda n=n: till.called(lost, f"false-{n % 3}") for n in range(30)]
    home = await come_home(keeper, lost, Bell(*lies, lambda: till.called(lost, task_id)), max_wait=600)
    assert home.task_id == task_id
    assert server.service.stats()["polls"] - before == 3 + 1


async def test_a_task_that_the_gateway_does_not_know_yet_is_asked_about_again(
    till: Till, keeper: Keeper, server: Running
) -> None:
    lost, task_id = await till.lost()
    hidden = server.service.tasks.pop(task_id)
    await till.called(lost, task_id)

    class Later(Bell):
        async def wait(self, seconds: float) -> bool:
            server.service.tasks[task_id] = hidden
            return await super().wait(seconds)

    assert (await come_home(keeper, lost, Later(), max_wait=600)).task_id == task_id


async def test_one_that_is_named_again_and_again_keeps_no_other_from_being_asked_about_again(
    till: Till, keeper: Keeper, server: Running
) -> None:
    lost, task_id = await till.lost()
    hidden, clock = server.service.tasks.pop(task_id), Clock()
    await till.called(lost, task_id)

    async def a_lie() -> None:
        server.service.tasks[task_id] = hidden
        clock.now += LOOK_EVERY / 3
        await till.called(lost, "false")

    bell = Bell(*[a_lie] * 9)
    home = await come_home(replace(keeper, clock=clock), lost, bell, max_wait=600)
    assert (home.task_id, len(bell.deeds)) == (task_id, 6)


@pytest.mark.parametrize("status", [400, 403])
async def test_a_task_that_the_gateway_does_not_let_us_see_is_passed_over(
    till: Till, keeper: Keeper, server: Running, shift: Shift, status: int
) -> None:
    lost, task_id = await till.lost()
    await till.called(lost, task_id)
    shift.advance(1)
    await till.called(lost, "another-account's")  # the newest one is asked about first

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params["task_id"] != task_id:
            return httpx.Response(status, json={"code": status, "msg": "not yours"})
        async with httpx.AsyncClient() as client:
            return await client.get(request.url, headers={"Authorization": request.headers["Authorization"]})

    transport = httpx.MockTransport(answer)
    async with KlingClient(KEY, base_url=server.base_url, transport=transport) as client:
        assert (await bring_home(replace(keeper, client=client), lost)).task_id == task_id


async def test_who_is_second_to_bring_one_home_has_it_at_once(till: Till, keeper: Keeper) -> None:
    lost, task_id = await till.lost()
    await till.called(lost, task_id)
    home = await bring_home(keeper, lost)
    assert await bring_home(keeper, lost) == home  # as it was when the second one looked


async def test_the_wait_ends_where_somebody_settles_it(
    till: Till, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    lost, _ = await till.lost()
    bell = Bell(lambda: settle_as_never_created(keeper.ledger, keeper.account, lost.token))
    with caplog.at_level(logging.WARNING):
        assert (await come_home(keeper, lost, bell, max_wait=600)).state is State.ABANDONED
    assert f"`prefect-kling ledger resolve {lost.short}`" in caplog.text
    assert lost.token not in caplog.text


async def test_the_wait_ends_so_long_after_the_post(till: Till, keeper: Keeper, shift: Shift) -> None:
    lost, _ = await till.lost()
    shift.advance(590)

    async def time_passes() -> None:
        shift.advance(11)

    bell = Bell(time_passes)
    assert (await come_home(keeper, lost, bell, max_wait=600)).state is State.UNCERTAIN
    assert bell.waited == [pytest.approx(10, abs=5)]
    assert (await come_home(keeper, lost, Bell(), max_wait=600)).state is State.UNCERTAIN


# --- buying ---


class Shop:
    """Buys at a simulator that loses answers, with `home` in place of waiting for a callback."""

    def __init__(self, ledger: Ledger, server: Running, order: MakeOrder, request: MakeRequest) -> None:
        self.ledger, self.server, self.order, self.request = ledger, server, order, request
        self.account = Account(server.base_url)

    async def buy(self, home: Callable[[Keeper, Purchase], Any], prompt: str = "A fox", **options: Any) -> Purchase:
        async with KlingClient(KEY, base_url=self.server.base_url) as client:
            keeper = Keeper(self.ledger, self.account, client)
            buyer = Buyer(
                self.ledger,
                self.account,
                lambda: KlingClient(KEY, base_url=self.server.base_url, attempts=1),
                callback=BASE,
                come_home=lambda purchase: home(keeper, purchase),
                **options,
            )
            return await buyer.buy(self.order(prompt, shot="dawn"), self.request(prompt))

    async def its_callback_comes(self, keeper: Keeper, purchase: Purchase) -> Purchase:
        """Waits, and meanwhile the callback comes."""
        tasks = self.server.service.tasks.values()
        (task_id,) = [task.task_id for task in tasks if purchase.token in str(task.request.callback_url)]
        bell = Bell(lambda: hear(self.ledger, [Call(purchase.token, task_id, "completed")]))
        return await come_home(keeper, purchase, bell, max_wait=600)


async def nothing_comes(_: Keeper, purchase: Purchase) -> Purchase:
    """Waits, and nothing comes."""
    return purchase


@pytest.fixture
async def shop(ledger: Ledger, order: MakeOrder, make_request: MakeRequest) -> AsyncIterator[Shop]:
    config = SimulatorConfig(seed=1, generation_seconds=0, shrink=8, faults="lost-answer=@1")
    async with running(config) as server:
        yield Shop(ledger, server, order, make_request)


async def test_a_lost_answer_comes_home_without_a_second_post(shop: Shop) -> None:
    bought = await shop.buy(shop.its_callback_comes)
    assert bought.state in (State.SUBMITTED, State.COMPLETED)
    assert creates(shop.server) == 1
    # Whoever wants it later joins it.
    assert (await shop.buy(shop.its_callback_comes)).id == bought.id
    assert shop.server.service.stats()["posts"] == 1


async def test_the_token_is_in_what_is_sent_and_in_nothing_that_is_kept_of_it(shop: Shop) -> None:
    bought = await shop.buy(shop.its_callback_comes)
    (task,) = shop.server.service.tasks.values()
    assert task.request.callback_url == f"{BASE}/{bought.token}"
    assert bought.callback == BASE
    assert "callback_url" not in bought.order.request
    assert bought.token not in repr(bought)


async def test_without_a_callback_it_stays_uncertain_at_the_end(shop: Shop) -> None:
    with pytest.raises(PurchaseUncertain, match="ledger resolve"):
        await shop.buy(nothing_comes)
    with pytest.raises(PurchaseUncertain):
        await shop.buy(nothing_comes)
    assert shop.server.service.stats()["posts"] == 1
    bought = await shop.buy(nothing_comes, on_uncertain="buy-again")
    assert (bought.state, shop.server.service.stats()["posts"]) == (State.SUBMITTED, 2)


async def test_one_that_is_settled_as_never_created_meanwhile_is_bought(shop: Shop) -> None:
    async def settled(keeper: Keeper, purchase: Purchase) -> Purchase:
        return await settle_as_never_created(keeper.ledger, keeper.account, purchase.token)

    bought = await shop.buy(settled)
    assert (bought.state, shop.server.service.stats()["posts"]) == (State.SUBMITTED, 2)


async def test_each_that_is_lost_is_waited_for(ledger: Ledger, order: MakeOrder, make_request: MakeRequest) -> None:
    config = SimulatorConfig(seed=1, generation_seconds=0, shrink=8, faults="lost-answer=@1,lost-answer=@2")
    async with running(config) as server:
        shop = Shop(ledger, server, order, make_request)

        async def home(keeper: Keeper, purchase: Purchase) -> Purchase:
            first = server.service.stats()["posts"] == 1
            return await (nothing_comes if first else shop.its_callback_comes)(keeper, purchase)

        bought = await shop.buy(home, on_uncertain="buy-again")
        assert bought.task_id is not None
        assert server.service.stats()["posts"] == 2


async def test_a_task_that_failed_is_told_and_not_bought_again_by_itself(shop: Shop) -> None:
    async def ended(keeper: Keeper, purchase: Purchase) -> Purchase:
        while not all(task.completed_at for task in shop.server.service.tasks.values()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        return await shop.its_callback_comes(keeper, purchase)

    with pytest.raises(GenerationFailed, match="made no clip"):
        await shop.buy(ended, "a forbiddenpicture")
    assert shop.server.service.stats()["posts"] == 1


async def test_a_callback_that_the_user_asked_for_is_left_as_it_is(
    shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    own = make_request("An owl").model_copy(update={"callback_url": "http://127.0.0.1:9/mine"})
    shop.request = lambda _: own
    with pytest.raises(PurchaseUncertain):
        await shop.buy(nothing_comes, "An owl")
    (task,) = shop.server.service.tasks.values()
    assert task.request.callback_url == "http://127.0.0.1:9/mine"
    (row,) = await shop.ledger.of_account(shop.account)
    assert row.callback is None


async def test_another_process_waits_for_the_same_lost_answer(
    shop: Shop, ledgers: Ledgers, make_request: MakeRequest
) -> None:
    with pytest.raises(PurchaseUncertain):
        await shop.buy(nothing_comes)
    shop.ledger = await ledgers()
    assert (await shop.buy(shop.its_callback_comes)).task_id is not None
    assert shop.server.service.stats()["posts"] == 1
