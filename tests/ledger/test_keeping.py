"""Keeping what was bought, on the simulator: waiting, downloading, and clips that are gone or changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN, ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import (
    GatewayUnavailable,
    GenerationFailed,
    GenerationTimeout,
    InvalidMedia,
    PurchaseUncertain,
    TaskNotFound,
)
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.gateway.waiting import NOT_FOUND_IS_BELIEVED_AFTER
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.keeping import MOST_STRAYS, STRAY_SECONDS, Keeper
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

if TYPE_CHECKING:
    from tests.ledger.conftest import Clock, Ledgers, MakeOrder, Shift

KEY = "sk-keeping-4d0c11"
MakeRequest = Callable[[str], OmniVideoRequest]


@pytest.fixture
def shared_url(tmp_path: Path) -> str:
    """In SQLite alone: what is asked of the database here is asked of both by other modules."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def storage(tmp_path: Path) -> ClipStorage:
    return ClipStorage(str(tmp_path / "storage"))


async def no_time(_: float) -> None:
    """Sleeps, as far as anybody can tell."""


class Studio(Protocol):
    """A keeper and a way to buy, at a simulator with these faults."""

    def __call__(self, faults: str = "") -> Any: ...


@pytest.fixture
def studio(ledger: Ledger, order: MakeOrder, make_request: MakeRequest, storage: ClipStorage) -> Studio:
    """`async with studio("expired=@1") as (server, keeper, buy)`."""

    @asynccontextmanager
    async def opened(
        faults: str = "",
    ) -> AsyncIterator[tuple[Running, Keeper, Callable[[str], Awaitable[Purchase]]]]:
        config = SimulatorConfig(seed=1, generation_seconds=0, shrink=8, faults=faults)
        async with running(config) as server, KlingClient(KEY, base_url=server.base_url) as client:
            account = Account(server.base_url)
            keeper = Keeper(ledger, account, client, storage, sleep=no_time)

            async def buy(prompt: str = "A fox") -> Purchase:
                buyer = Buyer(ledger, account, lambda: KlingClient(KEY, base_url=server.base_url, attempts=1))
                return await buyer.buy(order(prompt, shot="dawn"), make_request(prompt))

            yield server, keeper, buy

    return opened


async def stored(keeper: Keeper, purchase: Purchase) -> Purchase:
    """Waits for a purchase, and keeps its clip."""
    patient = Keeper(keeper.ledger, keeper.account, keeper.client, sleep=asyncio.sleep)
    return await keeper.keep(await patient.wait(purchase, poll_interval=0.02, max_wait=60))


def result_of(server: Running, purchase: Purchase) -> Path:
    """The gateway's own copy of a result."""
    found = server.service.results.get(str(purchase.task_id))
    assert found is not None
    return found.path


# --- the good way ---


async def test_a_purchase_is_waited_for_and_its_clip_kept(studio: Studio, storage: ClipStorage) -> None:
    async with studio() as (server, keeper, buy):
        bought = await buy()
        row = await stored(keeper, bought)
        assert (row.state, row.counted, row.task_id) == (State.STORED, row.order.micro_usd, bought.task_id)
        clip = row.clip
        assert clip is not None
        (task,) = server.service.stats()["tasks"].values()
        assert clip.sha256 == task["sha256"]
        assert clip.task_id == row.task_id
        assert clip.path == storage.location(f"{row.order.folder}/{row.task_id}.mp4")
        assert await storage.size(clip.path) == clip.bytes
        assert clip.url == row.result_url
        assert clip.url_expires_at == row.expires_at
        assert row.ended_at is not None
        assert row.expires_at is not None
        life = row.expires_at - row.ended_at
        assert abs(life - (RESULT_LIFE - RESULT_MARGIN)) < timedelta(minutes=1)
        # Once more costs nothing: nothing is asked, nothing fetched.
        before = server.service.stats()
        assert await keeper.keep(await keeper.wait(row)) == row
        assert await keeper.look(row) == row
        after = server.service.stats()
        assert (after["polls"], after["downloads"]) == (before["polls"], before["downloads"])
        assert not list(Path(storage.location(".incoming")).iterdir())


async def test_trouble_on_the_way_is_no_end(studio: Studio) -> None:
    faults = "poll-500=@1,poll-429=@2,poll-html=@3,download-503=@1,download-503=@2,truncated-download=@3"
    async with studio(faults) as (server, keeper, buy):
        row = await stored(keeper, await buy())
        assert row.state is State.STORED
        assert server.service.stats()["faults"]["truncated-download"] == 1


# --- failed, lost, late ---


@pytest.mark.parametrize("fault", ["failed", "moderation"])
async def test_a_failed_one_is_not_paid_for_and_may_be_bought_again(studio: Studio, fault: str) -> None:
    async with studio(f"{fault}=@1") as (server, keeper, buy):
        bought = await buy()
        with pytest.raises(GenerationFailed, match="not billed"):
            await stored(keeper, bought)
        row = await keeper.ledger.get(bought.id)
        assert (row.state, row.counted, row.error) == (State.FAILED, 0, "GenerationFailed")
        with pytest.raises(GenerationFailed) as caught:
            await keeper.wait(row)
        assert str(caught.value) == row.reason
        assert (await stored(keeper, await buy())).state is State.STORED
        assert server.service.stats()["posts"] == 2
        assert await keeper.ledger.audit(keeper.account) == {}


async def test_an_expired_result_is_lost_and_never_bought_again(studio: Studio) -> None:
    async with studio("expired=@1") as (server, keeper, buy):
        bought = await buy()
        with pytest.raises(TaskNotFound, match="--retake dawn buys a new one") as caught:
            await stored(keeper, bought)
        assert caught.value.task_id == bought.task_id
        row = await keeper.ledger.get(bought.id)
        assert (row.state, row.task_id, row.counted) == (State.LOST, bought.task_id, row.order.micro_usd)
        for call in (buy, lambda: keeper.keep(row), lambda: keeper.wait(row)):
            with pytest.raises(TaskNotFound, match="is lost"):
                await call()
        assert server.service.stats()["posts"] == 1


async def test_a_result_that_is_no_video_is_told_by_its_task_and_can_be_tried_again(studio: Studio) -> None:
    async with studio() as (server, keeper, buy):
        row = await keeper.wait(await buy(), poll_interval=0.02)
        path = result_of(server, row)
        content = path.read_bytes()
        path.write_bytes(b"<html>" + b"x" * 5000)
        with pytest.raises(InvalidMedia, match=f"The result of task {row.task_id}"):
            await keeper.keep(row)
        assert (await keeper.ledger.get(row.id)).state is State.COMPLETED
        path.write_bytes(content)
        assert (await keeper.keep(row)).state is State.STORED


# --- stored clips that are not as they were ---


@pytest.mark.parametrize("harm", ["deleted", "truncated", "overwritten with more"])
async def test_a_stored_clip_that_is_not_whole_is_fetched_again(
    studio: Studio, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with studio() as (server, keeper, buy):
        row = await stored(keeper, await buy())
        assert row.clip is not None
        path = Path(row.clip.path)
        content = path.read_bytes()
        if harm == "deleted":
            path.unlink()
        else:
            path.write_bytes(content[:100] if harm == "truncated" else content + b"x")
        with caplog.at_level(logging.WARNING):
            again = await keeper.keep(row)
        assert "fetched again" in caplog.text
        assert again.clip is not None
        assert (again.state, again.clip.sha256) == (State.STORED, row.clip.sha256)
        assert path.read_bytes() == content
        assert server.service.stats()["posts"] == 1


async def test_one_that_the_gateway_has_changed_is_lost_and_not_put_in_its_place(studio: Studio) -> None:
    async with studio() as (server, keeper, buy):
        row, other = await stored(keeper, await buy()), await stored(keeper, await buy("A hare"))
        assert row.clip is not None
        Path(row.clip.path).unlink()
        result_of(server, row).write_bytes(result_of(server, other).read_bytes())
        with pytest.raises(TaskNotFound, match="is not the clip that was stored"):
            await keeper.keep(row)
        lost = await keeper.ledger.get(row.id)
        assert (lost.state, lost.clip, lost.task_id) == (State.LOST, row.clip, row.task_id)
        assert not Path(row.clip.path).exists()


async def test_one_whose_disk_was_away_is_had_again_without_the_gateway(studio: Studio) -> None:
    async with studio() as (server, keeper, buy):
        row = await stored(keeper, await buy())
        assert row.clip is not None
        path, elsewhere = Path(row.clip.path), Path(row.clip.path).with_suffix(".away")
        path.rename(elsewhere)
        server.service.results.expire(str(row.task_id))
        with pytest.raises(TaskNotFound):
            await keeper.keep(row)
        lost = await keeper.ledger.get(row.id)
        assert lost.state is State.LOST
        elsewhere.rename(path)
        found = await keeper.keep(lost, again=True)
        assert (found.state, found.clip, found.reason, found.error) == (State.STORED, row.clip, None, None)


# --- polls, on a gateway that says what a test wants ---


class Script:
    """Answers each poll by task id: a status, or the data of a good answer."""

    def __init__(self, **answers: int | dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        task_id = request.url.params["task_id"]
        self.asked.append(task_id)
        answer = self.answers[task_id]
        if isinstance(answer, int):
            return httpx.Response(answer, json={"code": answer, "msg": "no"})
        return httpx.Response(200, json={"code": 200, "data": {"taskId": task_id, **answer}})

    def keeper(self, ledger: Ledger, account: Account, **options: Any) -> Keeper:
        client = KlingClient(KEY, transport=httpx.MockTransport(self), attempts=1)
        return Keeper(ledger, account, client, **options)


@pytest.fixture
def submitted(ledger: Ledger, account: Account, order: MakeOrder) -> Callable[[str], Awaitable[Purchase]]:
    """Makes a submitted row with this task id."""

    async def make(task_id: str) -> Purchase:
        purchase = (await ledger.reserve(account, order(task_id), Limits())).purchase
        assert purchase is not None
        purchase = await ledger.happened(purchase, Event.SEND)
        return await ledger.happened(purchase, Event.ACCEPTED, task_id=task_id)

    return make


Submitted = Callable[[str], Awaitable[Purchase]]
PROCESSING = {"state": "processing"}


async def test_a_404_is_believed_after_five_minutes_whoever_asked(
    ledgers: Ledgers, account: Account, submitted: Submitted, shift: Shift
) -> None:
    row = await submitted("t1")
    script = Script(t1=404)
    processes = [script.keeper(await ledgers(), account) for _ in range(2)]
    for keeper in processes:
        assert (await keeper.look(await keeper.ledger.get(row.id))).state is State.SUBMITTED
        shift.advance(NOT_FOUND_IS_BELIEVED_AFTER / 2 - 5)
    assert (await processes[0].look(await processes[0].ledger.get(row.id))).state is State.SUBMITTED
    # A good answer begins it anew.
    script.answers["t1"] = PROCESSING
    await processes[1].look(row)
    script.answers["t1"] = 404
    shift.advance(NOT_FOUND_IS_BELIEVED_AFTER)
    assert (await processes[0].look(await processes[0].ledger.get(row.id))).state is State.SUBMITTED
    shift.advance(NOT_FOUND_IS_BELIEVED_AFTER + 1)
    lost = await processes[1].look(await processes[1].ledger.get(row.id))
    assert (lost.state, lost.task_id, lost.counted) == (State.LOST, "t1", lost.order.micro_usd)
    assert lost.error == "TaskNotFound"


async def test_whoever_waits_believes_it_after_five_minutes_too(
    ledger: Ledger, account: Account, submitted: Submitted, clock: Clock
) -> None:
    keeper = Script(t1=404).keeper(ledger, account, sleep=clock.sleep, clock=clock, rand=lambda: 0.5)
    with pytest.raises(TaskNotFound, match="task t1 was paid for"):
        await keeper.wait(await submitted("t1"), poll_interval=30)
    assert NOT_FOUND_IS_BELIEVED_AFTER <= clock.now < NOT_FOUND_IS_BELIEVED_AFTER + 60
    (row,) = await ledger.of_account(account)
    assert row.state is State.LOST


async def test_a_wait_that_ends_leaves_the_row_as_it_was(
    ledger: Ledger, account: Account, submitted: Submitted, clock: Clock
) -> None:
    script = Script(t1=PROCESSING)
    keeper = script.keeper(ledger, account, sleep=clock.sleep, clock=clock, rand=lambda: 0.5)
    row = await submitted("t1")
    with pytest.raises(GenerationTimeout):
        await keeper.wait(row, max_wait=600)
    now = await ledger.get(row.id)
    assert now.state is State.SUBMITTED
    assert now.polled_at is not None  # so that nobody else asks while it is waited for
    script.answers["t1"] = {"state": "completed", "resultUrls": ["https://cdn.example.com/1.mp4"]}
    done = await keeper.wait(now, max_wait=600)
    assert (done.state, done.result_url) == (State.COMPLETED, "https://cdn.example.com/1.mp4")


async def test_what_cannot_be_waited_for_is_told(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    keeper = Script().keeper(ledger, account)
    purchase = (await ledger.reserve(account, order(), Limits())).purchase
    assert purchase is not None
    purchase = await ledger.happened(await ledger.happened(purchase, Event.SEND), Event.ANSWER_LOST)
    with pytest.raises(PurchaseUncertain):
        await keeper.wait(purchase)
    assert await keeper.look(purchase) == purchase
    with pytest.raises(TypeError, match="without storage"):
        await keeper.keep(purchase)


@pytest.mark.parametrize(
    "answer", [{"state": "completed", "resultUrls": []}, {"state": "asleep"}, {"state": "pending"}]
)
async def test_an_answer_without_a_result_is_asked_for_again(
    ledger: Ledger, account: Account, submitted: Submitted, answer: dict[str, Any]
) -> None:
    row = await Script(t1=answer).keeper(ledger, account).look(await submitted("t1"))
    assert row.state is State.SUBMITTED
    assert (await ledger.get(row.id)).polled_at is not None


async def test_strays_are_those_nobody_has_asked_about_for_a_minute(
    ledger: Ledger, account: Account, submitted: Submitted, shift: Shift
) -> None:
    script = Script(old=PROCESSING, asked=PROCESSING, new=PROCESSING, done={"state": "failed", "failMsg": "no"})
    keeper = script.keeper(ledger, account)
    _, asked = await submitted("old"), await submitted("asked")
    await submitted("done")
    shift.advance(STRAY_SECONDS + 1)
    await ledger.polled(asked)
    await submitted("new")
    assert await keeper.look_after_strays() == 1
    assert sorted(script.asked) == ["done", "old"]
    assert await keeper.look_after_strays() == 0  # they have been asked about now
    assert len(script.asked) == 2


async def test_trouble_with_one_stray_leaves_the_others_and_whoever_waits_for_a_slot(
    ledger: Ledger, account: Account, submitted: Submitted, shift: Shift, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(t1=503, t2=401, t3={"state": "failed"})
    for task_id in script.answers:
        await submitted(task_id)
    shift.advance(STRAY_SECONDS + 1)
    with caplog.at_level(logging.WARNING):
        assert await script.keeper(ledger, account).look_after_strays() == 1
    assert script.asked == ["t1", "t2", "t3"]
    assert caplog.text.count("No news of") == 2


async def test_not_too_many_strays_are_asked_about_at_once(
    ledger: Ledger, account: Account, submitted: Submitted, shift: Shift
) -> None:
    script = Script(**dict.fromkeys((f"t{number}" for number in range(MOST_STRAYS + 2)), PROCESSING))
    for task_id in script.answers:
        await submitted(task_id)
    shift.advance(STRAY_SECONDS + 1)
    keeper = script.keeper(ledger, account)
    await keeper.look_after_strays()
    assert len(script.asked) == MOST_STRAYS
    await keeper.look_after_strays()
    assert sorted(script.asked) == sorted(script.answers)


async def test_a_look_that_finds_no_gateway_changes_nothing(
    ledger: Ledger, account: Account, submitted: Submitted
) -> None:
    row = await submitted("t1")
    with pytest.raises(GatewayUnavailable):
        await Script(t1=503).keeper(ledger, account).look(row)
    assert await ledger.get(row.id) == row


@pytest.mark.parametrize("state", ["pending", "dreaming"])
async def test_what_has_not_ended_in_seven_days_takes_no_slot_any_more(
    ledger: Ledger,
    account: Account,
    shift: Shift,
    submitted: Callable[[str], Awaitable[Purchase]],
    state: str,
) -> None:
    keeper, purchase = Script(t1={"state": state}).keeper(ledger, account), await submitted("t1")
    assert (await keeper.look(purchase)).state is State.SUBMITTED
    shift.advance(7 * 24 * 3600 + 60)
    gone = await keeper.look(purchase)
    assert gone.state is State.LOST
    assert gone.counted == gone.order.micro_usd
    assert state in str(gone.reason)
