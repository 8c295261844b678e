"""A database that goes away in the middle of a purchase, and clocks that jump: one POST, and its task is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import select
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import GatewayUnavailable, GenerationFailed, LedgerUnavailable, PurchaseUncertain
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.answers import Answer, Journal
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.database import Database
from prefect_kling.ledger.ledger import LEASE_SECONDS, Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.upgrade import up_to_date

if TYPE_CHECKING:
    from benchmarks.postgresql import PostgreSQL

ACCOUNT = Account("https://gateway.test/v1")
REQUEST = OmniVideoRequest(model="kling-v3-omni", prompt="A lighthouse", aspect_ratio="16:9", duration="3")
ORDER = Order("main", "k1:dawn#1", REQUEST.body(), REQUEST.model, 3, 189_900, shot="dawn", run="run")
OTHER_HOST = "elsewhere|boot|namespace|1|1"


class Gateway:
    """Sells videos, and does `before` each answer. What it does runs in the back room."""

    def __init__(self) -> None:
        self.sold: list[str] = []
        self.before: Callable[[], Awaitable[object]] | None = None

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["prompt"] == "A lighthouse"
        self.sold.append(f"task-{len(self.sold) + 1}")
        task_id = self.sold[-1]
        if self.before is not None:
            await self.before()
        return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": task_id}})

    def client(self) -> KlingClient:
        transport = httpx.MockTransport(self._answer)
        return KlingClient("sk-test", base_url=ACCOUNT.base_url, transport=transport, attempts=1, patience=0.0)

    def buyer(self, ledger: Ledger, **more: Any) -> Buyer:
        return Buyer(ledger, ACCOUNT, more.pop("client_of", self.client), Limits(), **more)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def ledger(ledger_url: str, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl") as opened:
        yield opened


@pytest.fixture
async def on_postgresql(postgresql: PostgreSQL, tmp_path: Path) -> AsyncIterator[Ledger]:
    # It crashes, the machine does not; and to come back it would sync every file of its folder.
    said(postgresql, "ALTER SYSTEM SET fsync = off")
    said(postgresql, "SELECT pg_reload_conf()")
    async with await Ledger.open(postgresql.new_database(), answers=tmp_path / "answers.jsonl") as opened:
        await opened.account_id(ACCOUNT)
        yield opened
    if not postgresql.is_running():
        postgresql.start()


async def is_bought_once(ledger: Ledger, gateway: Gateway, account: Account = ACCOUNT) -> Purchase:
    """One POST, its task in the row and nowhere else, and every counter right."""
    assert gateway.sold == ["task-1"]
    rows = await ledger.of_account(account)
    bought = [row for row in rows if row.task_id is not None]
    assert [row.task_id for row in bought] == ["task-1"]
    assert [row.counted for row in rows if row not in bought] == [0] * (len(rows) - 1)
    assert await ledger.audit(account) == {}
    return bought[0]


def said(server: PostgreSQL, sql: str) -> None:
    server._run("psql", "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", "kling", "-d", "postgres", "-c", sql)


def outage(server: PostgreSQL, *, seconds: float = 0.3) -> threading.Thread:
    """The server crashes now, and is back after a while. Blocks until it is gone."""
    server.stop()
    back = threading.Timer(seconds, server.start)
    back.start()
    return back


# The server is stopped, and started again.


async def test_postgresql_is_gone_before_the_reservation(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway
) -> None:
    back = outage(postgresql)
    purchase = await gateway.buyer(on_postgresql).buy(ORDER, REQUEST)
    back.join()
    assert purchase == await is_bought_once(on_postgresql, gateway)


async def test_postgresql_is_gone_before_the_post(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway
) -> None:
    backs: list[threading.Thread] = []

    def client() -> KlingClient:
        backs.append(outage(postgresql))
        return gateway.client()

    purchase = await gateway.buyer(on_postgresql, client_of=client).buy(ORDER, REQUEST)
    for back in backs:
        back.join()
    assert purchase == await is_bought_once(on_postgresql, gateway)


async def test_postgresql_is_gone_during_the_post(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway
) -> None:
    backs: list[threading.Thread] = []

    async def crash() -> None:
        assert (await on_postgresql._select())[0].state is State.SENDING  # written down before
        backs.append(outage(postgresql))

    gateway.before = crash
    purchase = await gateway.buyer(on_postgresql).buy(ORDER, REQUEST)
    backs[0].join()
    assert purchase == await is_bought_once(on_postgresql, gateway)
    assert purchase.state is State.SUBMITTED


async def test_postgresql_is_gone_at_the_answer(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway
) -> None:
    backs: list[threading.Thread] = []

    class Crashing(Journal):
        def append(self, answer: Answer) -> None:
            super().append(answer)
            backs.append(outage(postgresql))

    on_postgresql.journal = Crashing(on_postgresql.journal.path)
    purchase = await gateway.buyer(on_postgresql).buy(ORDER, REQUEST)
    backs[0].join()
    assert purchase == await is_bought_once(on_postgresql, gateway)


async def test_postgresql_is_gone_when_the_clip_is_there(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway
) -> None:
    purchase = await gateway.buyer(on_postgresql).buy(ORDER, REQUEST)
    for step, state in ((Event.COMPLETED, State.COMPLETED), (Event.DOWNLOADED, State.STORED)):
        back = outage(postgresql)
        purchase = await on_postgresql.happened(purchase, step)
        back.join()
        assert purchase.state is state
    await is_bought_once(on_postgresql, gateway)


async def test_nothing_is_sent_without_a_row(
    on_postgresql: Ledger, postgresql: PostgreSQL, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    monkeypatch.setattr(on_postgresql.db, "_sleep", sleep)
    monkeypatch.setattr(on_postgresql.db, "_clock", lambda: waited)
    postgresql.stop()
    with pytest.raises(LedgerUnavailable, match=r"cannot be used after waiting 1[12]\d s.* Nothing is bought"):
        await gateway.buyer(on_postgresql).buy(ORDER, REQUEST)
    postgresql.start()
    assert gateway.sold == []
    assert await on_postgresql.of_account(ACCOUNT) == []


async def test_idle_connections_that_died_are_replaced(on_postgresql: Ledger, postgresql: PostgreSQL) -> None:
    await asyncio.gather(*(on_postgresql.time() for _ in range(5)))
    postgresql.stop(mode="fast")
    postgresql.start()
    await asyncio.wait_for(asyncio.gather(*(on_postgresql.time() for _ in range(5))), 10)


# Connections are cut, at every statement of a purchase.


def cut_connections(server: PostgreSQL, ledger: Ledger) -> None:
    """Every connection to the ledger's database ends; the server goes on."""
    database = ledger.db._url.database
    said(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")


@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
async def test_a_cut_at_any_statement_does_not_buy_twice(
    when: str, postgresql: PostgreSQL, gateway: Gateway, tmp_path: Path
) -> None:
    async with await Ledger.open(postgresql.new_database(), answers=tmp_path / "answers.jsonl") as ledger:
        seen, number, cuts = 0, 1, True

        def cut(*_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                cut_connections(postgresql, ledger)

        event.listen(ledger.db._engine.sync_engine, when, cut)
        while cuts:
            gateway.sold.clear()
            account, seen = Account(ACCOUNT.base_url, f"cut at {number}"), 0
            await Buyer(ledger, account, gateway.client, Limits()).buy(ORDER, REQUEST)
            cuts, number = seen >= number, number + 1
            assert (await is_bought_once(ledger, gateway, account)).state is State.SUBMITTED
            assert len(await ledger.of_account(account)) == 1
        event.remove(ledger.db._engine.sync_engine, when, cut)
    assert number > 10


# Commits whose success nobody hears of.


class Deaf:
    """The connection of a ledger is lost right after each commit, once."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = 0
        whole = ledger.db._transaction
        deaf = False

        async def transaction(work: Callable[[AsyncConnection], Awaitable[Any]], kind: Any) -> Any:
            nonlocal deaf
            found = await whole(work, kind)
            deaf = kind != "read" and not deaf
            if deaf:
                self.lost += 1
                raise ConnectionResetError("lost after the commit")
            return found

        monkeypatch.setattr(ledger.db, "_transaction", transaction)


async def test_a_commit_that_nobody_heard_of_is_not_done_twice(
    ledger: Ledger, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(ledger, monkeypatch)
    purchase = await gateway.buyer(ledger).buy(ORDER, REQUEST)
    assert purchase.state is State.SUBMITTED
    assert deaf.lost >= 4  # the account, the reservation, sending, the answer
    await is_bought_once(ledger, gateway)
    purchase = await ledger.happened(purchase, Event.FAILED, reason="no good")
    assert (purchase.state, purchase.counted) == (State.FAILED, 0)
    assert await ledger.audit(ACCOUNT) == {}


@pytest.mark.parametrize(
    "events",
    [
        (Event.GIVEN_UP,),
        (Event.SEND, Event.REFUSED),
        (Event.SEND, Event.NOT_SENT, Event.GIVEN_UP),
        (Event.SEND, Event.LEASE_ENDED, Event.NEVER_CREATED),
        (Event.SEND, Event.LEASE_ENDED, Event.NOT_SENT),
        (Event.SEND, Event.ANSWER_LOST, Event.BOUGHT_AGAIN, Event.ACCEPTED),
        (Event.GIVEN_UP, Event.ACCEPTED, Event.FAILED),
        (Event.SEND, Event.ACCEPTED, Event.GONE, Event.FAILED),
        (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED, Event.GONE),
    ],
    ids=", ".join,
)
async def test_money_is_moved_once_however_often_a_commit_is_repeated(
    events: tuple[Event, ...], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure, unsure = await reserved(ledger, "sure"), await reserved(ledger, "unsure")
    for happened in events:
        facts: dict[str, Any] = {"task_id": "task-1"} if happened is Event.ACCEPTED else {}
        sure = await ledger.happened(sure, happened, **facts)
    deaf = Deaf(ledger, monkeypatch)
    for happened in events:
        facts = {"task_id": "task-2"} if happened is Event.ACCEPTED else {}
        unsure = await ledger.happened(unsure, happened, **facts)
    assert deaf.lost >= len(events)
    assert (unsure.state, unsure.counted, unsure.spare) == (sure.state, sure.counted, sure.spare)
    assert await ledger.audit(ACCOUNT) == {}


async def reserved(ledger: Ledger, key: str) -> Purchase:
    order = Order("main", key, REQUEST.body(), REQUEST.model, 3, 189_900, run="run")
    found = (await ledger.reserve(ACCOUNT, order, Limits())).purchase
    assert found is not None
    return found


async def test_a_connection_that_is_cut_at_the_commit(postgresql: PostgreSQL, gateway: Gateway, tmp_path: Path) -> None:
    with network(postgresql) as net:
        url = postgresql.new_database().replace(f":{postgresql.port}/", f":{net.port}/")
        async with await Ledger.open(url, answers=tmp_path / "answers.jsonl") as ledger:
            await ledger.account_id(ACCOUNT)
            net.cut_at = b"COMMIT"
            purchase = await gateway.buyer(ledger).buy(ORDER, REQUEST)
            assert net.cuts == 1
            assert len(await ledger.of_account(ACCOUNT)) == 1
            assert purchase == await is_bought_once(ledger, gateway)


async def test_a_network_that_swallows_everything_is_waited_out(
    postgresql: PostgreSQL, gateway: Gateway, tmp_path: Path
) -> None:
    with network(postgresql) as net:
        db = Database(postgresql.new_database().replace(f":{postgresql.port}/", f":{net.port}/"), attempt_seconds=0.4)

        async def opened() -> Ledger:
            return Ledger(db, Journal(tmp_path / "answers.jsonl"), await up_to_date(db))

        ledger = await in_backroom(opened())
        thaw = threading.Timer(1.5, net.flowing.set)

        async def freeze() -> None:
            net.flowing.clear()
            thaw.start()

        gateway.before = freeze
        purchase = await asyncio.wait_for(gateway.buyer(ledger).buy(ORDER, REQUEST), 30)
        thaw.join()
        assert purchase == await is_bought_once(ledger, gateway)
        await ledger.close()


class Network:
    """A way to a server. While `flowing` is not set, whatever is sent is swallowed up, and nobody is told.

    Once, when `cut_at` is among what a client sends, the connection is cut after the server has answered.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.flowing = threading.Event()
        self.flowing.set()
        self.cut_at: bytes | None = None
        self.cuts = 0
        self._ended = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._ended = True
        self.flowing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        cut = False
        with client, socket.create_connection(("127.0.0.1", self._to)) as server, contextlib.suppress(OSError):
            while not self._ended:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                for end in ready:
                    data = end.recv(65536)
                    if not data or (end is server and cut):
                        return
                    if not self.flowing.is_set():
                        # Lost packets: this connection never recovers.
                        while not self._ended and client.fileno() >= 0 and self._open(client):
                            pass
                        return
                    if end is client and self.cut_at is not None and self.cut_at in data:
                        cut, self.cut_at, self.cuts = True, None, self.cuts + 1
                    (server if end is client else client).sendall(data)

    def _open(self, end: socket.socket) -> bool:
        ready, _, _ = select.select([end], [], [], 0.05)
        return not ready or bool(end.recv(65536))


@contextlib.contextmanager
def network(server: PostgreSQL) -> Iterator[Network]:
    found = Network(server.port)
    try:
        yield found
    finally:
        found.close()


# What the gateway says and no database can hold.


async def test_what_the_gateway_says_is_written_down_whatever_signs_are_in_it(ledger: Ledger) -> None:
    purchase = await ledger.happened(await reserved(ledger, "dawn"), Event.SEND)
    purchase = await ledger.happened(purchase, Event.ACCEPTED, task_id="task-1")
    reason = "not \0 allowed: \ud83d"
    purchase = await asyncio.wait_for(
        ledger.happened(purchase, Event.FAILED, reason=reason, error=GenerationFailed.__name__), 10
    )
    assert purchase.state is State.FAILED
    assert purchase.reason is not None
    assert purchase.reason.startswith("not ")


@pytest.mark.parametrize("task_id", ["task\0", "x" * 300, "task-\ud83d", "two\nlines"], ids=ascii)
async def test_a_task_id_that_cannot_be_kept_is_no_answer(task_id: str, ledger: Ledger, gateway: Gateway) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        body = json.dumps({"code": 200, "msg": "success", "data": {"taskId": task_id}})
        return httpx.Response(200, content=body.encode())

    def client() -> KlingClient:
        transport = httpx.MockTransport(answer)
        return KlingClient("sk-test", base_url=ACCOUNT.base_url, transport=transport, attempts=1, patience=0.0)

    with pytest.raises(PurchaseUncertain):
        await asyncio.wait_for(gateway.buyer(ledger, client_of=client).buy(ORDER, REQUEST), 10)
    assert [row.state for row in await ledger.of_account(ACCOUNT)] == [State.UNCERTAIN]
    assert await ledger.replay() == 0


# Clocks that jump.


class Shift:
    def __init__(self) -> None:
        self.milliseconds = 0

    def __call__(self) -> int:
        return self.milliseconds

    def jump(self, seconds: float) -> None:
        self.milliseconds += round(seconds * 1000)


HOUR = 3600.0


@pytest.fixture
def shift() -> Shift:
    return Shift()


@pytest.fixture
async def moved(ledger_url: str, shift: Shift, tmp_path: Path) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Two ledgers on one database and one clock, as of two machines."""
    async with (
        await Ledger.open(ledger_url, answers=tmp_path / "here.jsonl", ahead=shift) as here,
        await Ledger.open(ledger_url, answers=tmp_path / "there.jsonl", ahead=shift) as there,
    ):
        there.owner = OTHER_HOST
        yield here, there


async def test_a_sender_whose_lease_has_ended_lands_its_task(
    moved: tuple[Ledger, Ledger], shift: Shift, gateway: Gateway
) -> None:
    here, there = moved
    seen: list[State] = []

    async def jump() -> None:
        shift.jump(LEASE_SECONDS - 10)
        await there.reclaim(ACCOUNT)
        seen.append((await there._select())[0].state)
        shift.jump(HOUR)
        await there.reclaim(ACCOUNT)
        seen.append((await there._select())[0].state)

    gateway.before = jump
    purchase = await gateway.buyer(here).buy(ORDER, REQUEST)
    assert seen == [State.SENDING, State.UNCERTAIN]
    assert (purchase.state, purchase.reason) == (State.SUBMITTED, None)
    await is_bought_once(here, gateway)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "backwards"])
async def test_a_clock_that_jumps_before_the_post(
    jump: float, moved: tuple[Ledger, Ledger], shift: Shift, gateway: Gateway
) -> None:
    here, there = moved
    reclaimed: list[int] = []

    def client() -> KlingClient:
        if not reclaimed:
            shift.jump(jump)
            # In the back room's loop, which waits for this thread meanwhile: so in a loop of its own.
            reclaimed.append(in_a_loop_of_its_own(lambda: reclaim_elsewhere(there)))
        return gateway.client()

    buyer = gateway.buyer(here, client_of=client)
    if jump > 0:
        with pytest.raises(GatewayUnavailable, match="ran out before it was sent"):
            await buyer.buy(ORDER, REQUEST)
        assert gateway.sold == []
        purchase = await buyer.buy(ORDER, REQUEST)
    else:
        purchase = await buyer.buy(ORDER, REQUEST)
    assert reclaimed == [1 if jump > 0 else 0]
    assert purchase == await is_bought_once(here, gateway)


def in_a_loop_of_its_own(work: Callable[[], Awaitable[int]]) -> int:
    found: list[int] = []

    async def run() -> None:
        found.append(await work())

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(20)
    return found[0]


async def reclaim_elsewhere(there: Ledger) -> int:
    """As `Ledger.reclaim` of another process: not in this one's back room."""
    url = there.db._url.render_as_string(hide_password=False).replace("+asyncpg", "").replace("+aiosqlite", "")
    db = Database(url, ahead=there.db._ahead)
    other = Ledger(db, there.journal, there.id, owner=OTHER_HOST)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prefect_kling.ledger.ledger.in_backroom", lambda work: work)
            return await other.reclaim(ACCOUNT)
    finally:
        await db.close()


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forwards", "backwards"])
async def test_whoever_joins_while_the_clock_jumps_sends_nothing(
    jump: float, moved: tuple[Ledger, Ledger], shift: Shift, gateway: Gateway
) -> None:
    here, there = moved
    sent, go = threading.Event(), threading.Event()

    async def hold() -> None:
        sent.set()
        await until(go.is_set)

    async def nothing(_: float) -> None:
        await asyncio.sleep(0.01)

    ticks = itertools.count(0, 20)
    gateway.before = hold
    first = asyncio.create_task(gateway.buyer(here).buy(ORDER, REQUEST))
    await until(sent.is_set)
    shift.jump(jump)
    # For each look at its clock 20 s have gone by: it looks for dead senders whenever it may.
    joining = gateway.buyer(there, sleep=nothing, clock=lambda: float(next(ticks)))
    second = asyncio.create_task(joining.buy(ORDER, REQUEST))
    if jump > 0:
        with pytest.raises(PurchaseUncertain):
            await asyncio.wait_for(second, 20)
    else:
        done, _ = await asyncio.wait([second], timeout=0.3)
        assert not done
    go.set()
    assert (await first).state is State.SUBMITTED
    if jump < 0:
        assert (await asyncio.wait_for(second, 20)).task_id == "task-1"
    await is_bought_once(here, gateway)


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not found():  # noqa: ASYNC110 - what is looked at happens in another loop
            await asyncio.sleep(0.01)


async def test_a_post_that_would_start_late_does_not_start(ledger: Ledger, gateway: Gateway) -> None:
    # The machine slept while `sending` was committed; the second time it stayed awake.
    times = iter([100.0, 110.5, 200.0, 209.5])
    slept: list[float] = []
    states: list[State] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        states.extend(row.state for row in await ledger.of_account(ACCOUNT))
        assert gateway.sold == []

    purchase = await gateway.buyer(ledger, since_boot=lambda: next(times), sleep=sleep).buy(ORDER, REQUEST)
    assert states == [State.RESERVED]
    assert len(slept) == 1
    assert purchase == await is_bought_once(ledger, gateway)
