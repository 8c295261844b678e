"""The receiver: what it takes, what it refuses and how alike, and that it answers once a call is written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from prefect_kling.callbacks import receiver, receiving
from prefect_kling.callbacks.hearing import Hearing
from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES
from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger import hints
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.hints import MOST_HINTS, Call, Heard, hints_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.settings import StudioSettings

if TYPE_CHECKING:
    from tests.callbacks.conftest import Bought


SOON = 20.0
"""Seconds in which what has to come comes, on any machine."""


class Told:
    """What the receiver told of; for each, whether it was in the ledger by then."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, Heard]] = []

    def __call__(self, _: Ledger, call: Call, heard: Heard) -> None:
        self.calls.append((call, heard))


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def client(ours: Desk, told: Told) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(receiver(ours.settings, on_heard=told)) as client:
        yield client


def body(task_id: str = "t-fox", state: str = "completed") -> bytes:
    return json.dumps({"code": 200, "msg": "success", "data": {"taskId": task_id, "state": state}}).encode()


async def heard(ours: Desk, purchase: Purchase) -> list[tuple[str, str]]:
    return [(hint.task_id, hint.state) for hint in await hints_of(ours.ledger, [purchase.id])]


async def test_a_call_is_written_down_and_told_once(
    client: httpx.AsyncClient, ours: Desk, bought: Bought, told: Told
) -> None:
    purchase = await bought()
    for _ in range(3):
        answer = await client.post(f"/kling/{purchase.token}", content=body())
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert await heard(ours, purchase) == [("t-fox", "completed")]
    ((call, what),) = told.calls
    assert (call.task_id, what.purchase, what.short) == ("t-fox", purchase.id, purchase.short)
    # It is a hint: the purchase is as it was.
    assert await ours.ledger.get(purchase.id) == purchase


@pytest.mark.parametrize(
    "events", [(Event.ANSWER_LOST,), (Event.NOT_SENT,), (Event.REFUSED,), (Event.ACCEPTED, Event.COMPLETED, Event.GONE)]
)
async def test_it_is_written_down_whatever_has_become_of_the_purchase(
    client: httpx.AsyncClient, ours: Desk, bought: Bought, events: tuple[Event, ...]
) -> None:
    purchase = await bought("fox", *events)
    assert (await client.post(f"/kling/{purchase.token}", content=body(state="failed"))).status_code == 200
    assert await heard(ours, purchase) == [("t-fox", "failed")]
    assert await ours.ledger.get(purchase.id) == purchase


Ask = Callable[[str], tuple[str, str, bytes]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda token: ("GET", f"/kling/{token}", b""),
        lambda token: ("PUT", f"/kling/{token}", body()),
        lambda token: ("HEAD", f"/kling/{token}", b""),
        lambda token: ("OPTIONS", f"/kling/{token}", b""),
        lambda token: ("POST", f"/kling/{token}/", body()),
        lambda token: ("POST", f"/kling/{token}0", body()),
        lambda token: ("POST", f"/kling/{token[:31]}", body()),
        lambda token: ("POST", f"/kling/{token[:31]}%00", body()),
        lambda token: ("POST", f"/kling/{token}%0a", body()),
        lambda token: ("POST", f"/{token}", body()),
        lambda token: ("POST", f"/KLING/{token}", body()),
        lambda token: ("POST", f"//kling/{token}", body()),
        lambda token: ("POST", "/kling/" + "0" * 32, body()),
        lambda token: ("POST", "/kling/" + "0" * 32, b"no json"),
        lambda token: ("POST", "/kling/" + "0" * 32, b"x" * (MAX_CALLBACK_BYTES + 1)),
        lambda token: ("POST", f"/kling/{token[:16]}" + "0" * 16, body()),
        lambda _: ("POST", "/kling/health", b""),
        lambda _: ("GET", "/", b""),
        lambda _: ("GET", "/docs", b""),
    ],
)
async def test_whatever_names_no_purchase_gets_the_same_404(
    client: httpx.AsyncClient, ours: Desk, bought: Bought, told: Told, ask: Ask
) -> None:
    purchase = await bought()
    method, path, content = ask(purchase.token)
    nowhere = await client.request(method, "/no/such/path")
    answer = await client.request(method, path, content=content)
    assert (answer.status_code, answer.content, answer.headers) == (404, nowhere.content, nowhere.headers)
    assert (await heard(ours, purchase), told.calls) == ([], [])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"no json", 400),
        (b"[]", 400),
        (b'{"task_id": "t-fox", "task_status": "succeed"}', 400),
        (b'{"code": 0, "data": {"task_id": "t-fox", "task_status": "succeed"}}', 400),
        (b"x" * MAX_CALLBACK_BYTES, 400),
        (b"x" * (MAX_CALLBACK_BYTES + 1), 413),
        (b"x" * 10 * MAX_CALLBACK_BYTES, 413),
    ],
    ids=["empty", "no JSON", "a list", "upstream's", "upstream's inside", "64 kB", "more", "much more"],
)
async def test_what_is_no_callback_is_refused(
    client: httpx.AsyncClient, ours: Desk, bought: Bought, told: Told, content: bytes, status: int
) -> None:
    purchase = await bought()
    answer = await client.post(f"/kling/{purchase.token}", content=content)
    assert (answer.status_code, answer.json()) == (status, {"error": "not a callback"})
    assert (await heard(ours, purchase), told.calls) == ([], [])


async def test_too_many_tasks_for_one_purchase_are_told_to_come_again(
    client: httpx.AsyncClient, ours: Desk, bought: Bought
) -> None:
    purchase = await bought()
    for n in range(MOST_HINTS):
        assert (await client.post(f"/kling/{purchase.token}", content=body(f"false-{n}"))).status_code == 200
    answer = await client.post(f"/kling/{purchase.token}", content=body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert len(await heard(ours, purchase)) == MOST_HINTS


async def test_a_ledger_that_cannot_be_written_has_the_gateway_call_again(
    client: httpx.AsyncClient, ours: Desk, bought: Bought, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase = await bought()

    async def away(*_: object, **__: object) -> list[Heard]:
        raise LedgerUnavailable("The ledger at sqlite:///secret cannot be used")

    with monkeypatch.context() as patch:
        patch.setattr("prefect_kling.callbacks.hearing.hear", away)
        answer = await client.post(f"/kling/{purchase.token}", content=body())
        assert (answer.status_code, answer.json(), told.calls) == (503, {"error": "try again later"}, [])
    assert (await client.post(f"/kling/{purchase.token}", content=body())).status_code == 200
    assert await heard(ours, purchase) == [("t-fox", "completed")]


async def test_a_ledger_that_is_not_there_is_no_secret_told(settings: StudioSettings) -> None:
    nowhere = replace(settings, ledger_url=SecretStr("sqlite:////proc/none/ledger.db"))
    async with client_of(receiver(nowhere)) as client:
        for answer in (await client.get("/kling/health"), await client.post("/kling/" + "0" * 32, content=body())):
            assert (answer.status_code, answer.json()) == (503, {"error": "try again later"})


async def test_a_ledger_that_does_not_open_is_opened_once_for_all_who_call(
    settings: StudioSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[StudioSettings] = []

    async def endless(settings: StudioSettings) -> Desk:
        opened.append(settings)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(receiving, "desk", endless)
    monkeypatch.setattr(receiving, "_PATIENCE", 0.05)
    async with client_of(receiver(settings)) as client, asyncio.timeout(SOON):
        calls = [client.post("/kling/" + "0" * 32, content=body()) for _ in range(10)]
        for answer in await asyncio.gather(*calls, client.get("/kling/health")):
            assert (answer.status_code, answer.json()) == (503, {"error": "try again later"})
    assert len(opened) == 1


@pytest.mark.parametrize("well", [True, False])
async def test_however_many_ask_for_its_health_the_ledger_is_asked_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, *, well: bool
) -> None:
    asked: list[float] = []

    async def time(_: Ledger, *, patience: float) -> None:
        asked.append(patience)
        await asyncio.sleep(0)
        if not well:
            raise LedgerUnavailable("The ledger at sqlite:///secret cannot be used")

    monkeypatch.setattr(Ledger, "time", time)
    monkeypatch.setattr(receiving, "_HEALTH_SECONDS", 600.0)
    await asyncio.gather(*(client.get("/kling/health") for _ in range(20)))
    answer = await client.get("/kling/health")
    assert (answer.status_code, len(asked)) == (200 if well else 503, 1)


async def test_its_health_says_which_ledger_without_saying_its_id(client: httpx.AsyncClient, ours: Desk) -> None:
    answer = await client.get("/kling/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "ledger": ledger_mark(ours.ledger.id)})
    assert ours.ledger.id[:8] not in answer.text
    assert (await client.head("/kling/health")).status_code == 200


async def test_it_can_be_mounted_anywhere(ours: Desk, bought: Bought, told: Told) -> None:
    app = Starlette(routes=[Mount("/hooks/of", app=receiver(ours.settings, on_heard=told))])
    purchase = await bought()
    async with client_of(app) as client:
        assert (await client.post(f"/hooks/of/kling/{purchase.token}", content=body())).status_code == 200
        assert (await client.get("/hooks/of/kling/health")).status_code == 200
        assert (await client.post(f"/kling/{purchase.token}", content=body())).status_code == 404
    assert len(told.calls) == 1


async def test_no_key_is_needed(ours: Desk, bought: Bought) -> None:
    purchase = await bought()
    async with client_of(receiver(replace(ours.settings, api_key=SecretStr("")))) as client:
        assert (await client.post(f"/kling/{purchase.token}", content=body())).status_code == 200


# --- many at once ---


async def test_calls_that_come_during_a_commit_share_the_next(
    ours: Desk, bought: Bought, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchases = [await bought(str(n)) for n in range(30)]
    batches: list[int] = []
    whole = hints.hear

    async def counted(ledger: Ledger, calls: Any, **options: Any) -> list[Heard]:
        batches.append(len(calls))
        return await whole(ledger, calls, **options)

    monkeypatch.setattr("prefect_kling.callbacks.hearing.hear", counted)
    hearing = Hearing(ours.ledger)
    calls = [Call(row.token, str(row.task_id), "completed") for row in purchases]
    found = await asyncio.gather(*(hearing.hear(call) for call in calls))
    assert [one.purchase for one in found] == [row.id for row in purchases]
    assert all(one.fresh for one in found)
    assert sum(batches) == 30
    assert len(batches) <= 3


async def test_trouble_with_one_commit_is_told_to_those_in_it_alone(
    ours: Desk, bought: Bought, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase, whole, tries = await bought(), hints.hear, 0

    async def first_fails(*arguments: Any, **options: Any) -> list[Heard]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("a bug")
        return await whole(*arguments, **options)

    monkeypatch.setattr("prefect_kling.callbacks.hearing.hear", first_fails)
    hearing = Hearing(ours.ledger)
    call = Call(purchase.token, "t-fox", "completed")
    with pytest.raises(ValueError, match="a bug"):
        await hearing.hear(call)
    assert (await hearing.hear(call)).fresh


async def test_a_caller_who_hangs_up_keeps_no_other_from_being_heard(ours: Desk, bought: Bought) -> None:
    one, other = await bought("one"), await bought("other")
    hearing = Hearing(ours.ledger)
    gone = asyncio.create_task(hearing.hear(Call(one.token, "t-one", "completed")))
    stays = asyncio.create_task(hearing.hear(Call(other.token, "t-other", "completed")))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).kept
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await heard(ours, other) == [("t-other", "completed")]
    assert (await ours.ledger.get(one.id)).state is State.SUBMITTED
