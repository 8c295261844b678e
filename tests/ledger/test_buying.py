"""Buying: what every answer and every trouble means for the row, the money and the number of POSTs; and joining."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    GatewayUnavailable,
    GenerationTimeout,
    InsufficientCredits,
    InvalidRequest,
    PurchaseUncertain,
    RateLimited,
    TaskNotFound,
)
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.answers import Answer, Journal
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.buying import NOT_SENT_TRIES, POST_WITHIN, Buyer
from prefect_kling.ledger.database import Database
from prefect_kling.ledger.ledger import LEASE_SECONDS, Ledger, Reserved
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.owners import this_process
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.states import Event, State

if TYPE_CHECKING:
    from tests.ledger.conftest import Clock, Ledgers, MakeOrder, Shift

KEY = "sk-buying-77aa01"
MAX_WAIT = 5.0
ELSEWHERE = "elsewhere|00000000-0000-0000-0000-000000000000|pid:[1]|4711|1"
MakeRequest = Callable[[str], OmniVideoRequest]


class Said(NamedTuple):
    """What the gateway says."""

    status: int
    headers: dict[str, str]
    content: bytes


Answers = Callable[[httpx.Request], Awaitable[Said]]


def said(body: object, status: int = 200, **headers: str) -> Said:
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Said(status, headers, content)


def ok(task_id: str = "t1", status: int = 200) -> Said:
    return said({"code": 200, "msg": "success", "data": {"taskId": task_id, "state": "pending"}}, status)


def no(status: int, msg: str = "no", **headers: str) -> Said:
    return said({"code": status, "msg": msg}, status, **headers)


async def until(holds: Callable[[], object]) -> None:
    """Waits for something that happens in another thread's loop, or on a clock that others move."""
    while not holds():  # noqa: ASYNC110 - no event reaches from there to here
        await asyncio.sleep(0)


@dataclass
class Wire:
    """A gateway in the back room: an answer or an error for each POST, the last for all that follow."""

    script: Iterable[Said | BaseException | Answers]
    posts: list[httpx.Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._steps = list(self.script)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.posts.append(request)
        step = self._steps[min(len(self.posts), len(self._steps)) - 1]
        if isinstance(step, BaseException):
            raise step
        found = step if isinstance(step, Said) else await step(request)
        return httpx.Response(found.status, headers=found.headers, content=found.content)

    def client(self) -> KlingClient:
        return KlingClient(KEY, transport=httpx.MockTransport(self), attempts=1, patience=0.0)


def wired(*script: Said | BaseException | Answers) -> Wire:
    return Wire(script)


@dataclass
class Shop:
    """Makes buyers that share an account and a clock."""

    account: Account
    clock: Clock

    def buyer(self, ledger: Ledger, wire: Wire, **options: Any) -> Buyer:
        values: dict[str, Any] = {"max_wait": MAX_WAIT, "sleep": self.clock.sleep, "rand": lambda: 0.5}
        return Buyer(ledger, self.account, wire.client, **{**values, "clock": self.clock, **options})


@pytest.fixture
def shop(account: Account, clock: Clock) -> Shop:
    return Shop(account, clock)


# --- what every answer means ---

SURELY_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def family(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(family(child) for child in kind.__subclasses__()))


BOUGHT = (State.SUBMITTED, 1, None, True)
UNCERTAIN = (State.UNCERTAIN, 1, PurchaseUncertain, True)
# Under `MAX_WAIT` and with pauses of 0.5, 1, 2 and 4 s.
LATER = (State.RELEASED, 4, RateLimited, False)
NEVER_SENT = (State.RELEASED, NOT_SENT_TRIES, GatewayUnavailable, False)


def refused(kind: type[Exception]) -> tuple[State, int, type[Exception], bool]:
    return State.REFUSED, 1, kind, False


Expected = tuple[State, int, type[BaseException] | None, bool]
# What the gateway does, and: the row's state, the number of POSTs, what is raised, whether money is still counted.
TABLE: dict[str, tuple[Said | BaseException, Expected]] = {
    **{
        kind.__name__: (kind("broken"), NEVER_SENT if kind in SURELY_NOT_SENT else UNCERTAIN)
        for kind in family(httpx.TransportError)
    },
    "our own timeout": (TimeoutError(), UNCERTAIN),
    "cannot be decoded": (httpx.DecodingError("broken"), UNCERTAIN),
    "gzip that is none": (said(b"not gzip", 200, **{"content-encoding": "gzip"}), UNCERTAIN),
    # Cannot happen as the client is set up; if it does, nobody knows what was bought.
    "redirects": (httpx.TooManyRedirects("loop"), UNCERTAIN),
    "no URL": (httpx.InvalidURL("none"), UNCERTAIN),
    "a bug": (RuntimeError("bug"), UNCERTAIN),
    "200": (ok("task-200"), BOUGHT),
    "201": (ok("task-201", 201), BOUGHT),
    "200 with another code, and a task": (
        said({"code": 500, "data": {"taskId": "task-code", "state": "pending"}}),
        BOUGHT,
    ),
    "200 code 400": (said({"code": 400, "msg": "no", "data": None}), refused(InvalidRequest)),
    "200 code 401": (said({"code": 401, "msg": "no", "data": None}), refused(AuthenticationFailed)),
    "200 code 402": (said({"code": 402, "msg": "no", "data": {}}), refused(InsufficientCredits)),
    "200 code 1102": (said({"code": 1102, "msg": "no"}), refused(InsufficientCredits)),
    "200 code 1303": (said({"code": 1303, "msg": "later"}), LATER),
    "200 code 500": (said({"code": 500, "msg": "oops"}), UNCERTAIN),
    "200 HTML": (said("<html>", 200, **{"content-type": "text/html"}), UNCERTAIN),
    "200 empty": (said(""), UNCERTAIN),
    "200 without a task": (said({"code": 200, "data": {}}), UNCERTAIN),
    "200 with an empty task": (said({"code": 200, "data": {"taskId": ""}}), UNCERTAIN),
    "200 with a number for a task": (said({"code": 200, "data": {"taskId": 5}}), UNCERTAIN),
    "204": (said("", 204), UNCERTAIN),
    **{f"{status}": (said("", status, location="https://example.com"), UNCERTAIN) for status in (301, 302, 307, 308)},
    "400": (no(400), refused(InvalidRequest)),
    "400 HTML": (said("<html>", 400), refused(InvalidRequest)),
    "400 in odd signs": (said('{"code": 400, "msg": "bad \\u0000 \\ud800 prompt"}', 400), refused(InvalidRequest)),
    "401": (no(401), refused(AuthenticationFailed)),
    "402": (no(402), refused(InsufficientCredits)),
    "403": (no(403), refused(AuthenticationFailed)),
    "404": (no(404), refused(TaskNotFound)),
    "408": (no(408), UNCERTAIN),
    "409": (no(409), refused(InvalidRequest)),
    "410": (no(410), refused(TaskNotFound)),
    "422": (no(422), refused(InvalidRequest)),
    "429": (no(429), LATER),
    "429 code 1302": (no(429, "upstream 1302"), LATER),
    "429 that asks for more time than there is": (
        no(429, **{"retry-after": "6"}),
        (State.RELEASED, 1, RateLimited, False),
    ),
    **{f"429 code {code}": (no(429, f"code {code}"), refused(InsufficientCredits)) for code in (1100, 1101, 1102)},
    "429 code 1304": (no(429, "code 1304"), refused(AuthenticationFailed)),
    **{f"{status}": (no(status), UNCERTAIN) for status in (500, 501, 502, 503, 504, 520, 599)},
    "502 HTML": (said("<html>", 502), UNCERTAIN),
}


async def test_a_connection_that_cannot_be_made_is_no_lost_answer(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "carrier-pigeon://127.0.0.1:1")
    buyer = shop.buyer(ledger, wired(ok()))
    buyer = replace(buyer, client_of=lambda: KlingClient(KEY, attempts=1, patience=0.0))
    with pytest.raises(ValueError, match="carrier-pigeon"):
        await buyer.buy(order("pigeon"), make_request("pigeon"))
    (row,) = await ledger.of_account(shop.account)
    assert (row.state, row.counted) == (State.RELEASED, 0)


async def test_what_every_answer_means(ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest) -> None:
    found: dict[str, Expected] = {}
    for name, (answer, _) in TABLE.items():
        wire, raised = wired(answer), None
        # A run each: one that met a 402 sells nothing more.
        wanted = order(name, run=name)
        try:
            await shop.buyer(ledger, wire, limits=Limits(in_flight=1000)).buy(wanted, make_request(name))
        except Exception as error:  # noqa: BLE001 - compared below
            raised = error
        (row,) = [row for row in await ledger.of_account(shop.account) if row.order == wanted]
        found[name] = (row.state, len(wire.posts), type(raised) if raised else None, row.counted > 0)
        if row.state in (State.UNCERTAIN, State.REFUSED):
            assert row.reason, name
            assert row.error, name
        assert row.owner == "" or row.state is State.RESERVED, name
        assert KEY not in f"{row.reason} {raised}"
        assert row.token not in str(raised)
    assert found == {name: expected for name, (_, expected) in TABLE.items()}
    assert await ledger.audit(shop.account) == {}


@pytest.mark.parametrize("first", [httpx.ConnectError("refused"), no(429), no(429, **{"retry-after": "3"})])
async def test_what_surely_bought_nothing_is_sent_again_by_the_same_row(
    ledger: Ledger,
    shop: Shop,
    order: MakeOrder,
    make_request: MakeRequest,
    first: Said | BaseException,
) -> None:
    wire = wired(first, first, ok())
    bought = await shop.buyer(ledger, wire, max_wait=60.0).buy(order(), make_request("A fox"))
    assert (bought.state, bought.task_id, len(wire.posts)) == (State.SUBMITTED, "t1", 3)
    assert len({post.content for post in wire.posts}) == 1
    assert len(await ledger.of_account(shop.account)) == 1
    asked = isinstance(first, Said) and "retry-after" in first.headers
    assert shop.clock.now == (6.0 if asked else 1.5)


# --- before and after the POST ---


async def test_the_row_is_committed_before_the_first_byte_and_the_id_journalled_before_its_commit(
    ledger: Ledger, shared_url: str, ledgers: Ledgers, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    other, held = await ledgers(), Database(shared_url)
    seen: list[Purchase] = []
    busy: list[asyncio.Task[None]] = []

    async def look(_: httpx.Request) -> Said:
        # Another connection sees it: it is committed.
        seen.extend(await other.of_account(shop.account))
        taken = asyncio.Event()

        async def hold(connection: AsyncConnection) -> None:
            # Nobody can write the row down before this ends, and it ends when the journal has the answer.
            await connection.execute(text("UPDATE kling_purchases SET folder = folder"))
            taken.set()
            await until(other.journal.answers)
            seen.extend(await other.of_account(shop.account))

        busy.append(asyncio.create_task(held.write(hold)))
        await taken.wait()
        return ok("t1")

    bought = await shop.buyer(ledger, wired(look)).buy(order(), make_request("A fox"))

    async def ended() -> None:
        # The purchase could be written down, so the transaction has ended; the rest of its task takes a moment.
        await asyncio.gather(*busy)
        await held.close()

    await in_backroom(ended())
    assert [(row.state, row.task_id) for row in seen] == [(State.SENDING, None), (State.SENDING, None)]
    sent = seen[0]
    assert sent.owner == this_process()
    assert sent.sent_at is not None
    assert sent.lease_until is not None
    assert (sent.lease_until - sent.sent_at).total_seconds() == pytest.approx(LEASE_SECONDS, abs=0.1)
    assert ledger.journal.answers() == (Answer(ledger.id, bought.token, "t1"),)
    assert (bought.state, bought.task_id, bought.owner) == (State.SUBMITTED, "t1", "")


async def test_a_journal_that_cannot_be_written_loses_nothing(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "file").write_text("")
    ledger.journal = Journal(tmp_path / "file" / "answers.jsonl")
    with caplog.at_level(logging.WARNING):
        bought = await shop.buyer(ledger, wired(ok())).buy(order(), make_request("A fox"))
    assert bought.state is State.SUBMITTED
    assert "could not be journalled" in caplog.text


async def test_a_post_that_would_start_late_is_not_started(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    """The machine slept between the commit and the POST, and the lease no longer covers it."""
    moments = iter([0.0, POST_WITHIN + 1, 20.0, 20.0])
    wire = wired(ok())
    bought = await shop.buyer(ledger, wire, since_boot=lambda: next(moments)).buy(order(), make_request("A fox"))
    assert (bought.state, len(wire.posts)) == (State.SUBMITTED, 1)
    assert list(moments) == []


async def test_a_reservation_that_others_took_back_is_not_sent(
    ledger: Ledger, ledgers: Ledgers, shop: Shop, order: MakeOrder, make_request: MakeRequest, shift: Shift
) -> None:
    other = await ledgers()

    async def overslept(_: float) -> None:
        shift.advance(LEASE_SECONDS + 1)
        assert await other.reclaim(shop.account) == 1

    wire = wired(no(429))
    with pytest.raises(GatewayUnavailable, match="ran out before it was sent"):
        await shop.buyer(ledger, wire, sleep=overslept).buy(order(), make_request("A fox"))
    assert len(wire.posts) == 1
    (row,) = await ledger.of_account(shop.account)
    assert (row.state, row.counted) == (State.RELEASED, 0)


# --- joining ---


@pytest.mark.parametrize("state", [State.SUBMITTED, State.COMPLETED, State.STORED, State.LOST, State.UNCERTAIN])
async def test_whoever_finds_a_live_row_posts_nothing(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest, state: State
) -> None:
    purchase = (await ledger.reserve(shop.account, order(), Limits())).purchase
    assert purchase is not None
    events = {
        State.SUBMITTED: (Event.ACCEPTED,),
        State.COMPLETED: (Event.ACCEPTED, Event.COMPLETED),
        State.STORED: (Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED),
        State.LOST: (Event.ACCEPTED, Event.GONE),
        State.UNCERTAIN: (Event.ANSWER_LOST,),
    }
    for event in (Event.SEND, *events[state]):
        facts: dict[str, Any] = {"task_id": "t1"} if event is Event.ACCEPTED else {}
        purchase = await ledger.happened(purchase, event, **facts)
    wire = wired(ok("t2"))
    buying = shop.buyer(ledger, wire).buy(order(run="r2"), make_request("A fox"))
    if state in (State.LOST, State.UNCERTAIN):
        with pytest.raises(TaskNotFound if state is State.LOST else PurchaseUncertain) as caught:
            await buying
        assert purchase.token not in str(caught.value)
    else:
        assert await buying == purchase
    assert wire.posts == []


async def two_at_once(
    first: Buyer, second: Buyer, order: Order, request: OmniVideoRequest, clock: Clock
) -> tuple[Purchase | BaseException, Purchase | BaseException]:
    """The outcomes of two buyers of one order, the second of which begins while the first has it."""
    one = asyncio.create_task(first.buy(order, request))
    found: object = None
    while not found:
        found = await first.ledger.find(first.account, order.edition, [order.key])
    one_outcome, other = await asyncio.gather(one, second.buy(order, request), return_exceptions=True)
    return one_outcome, other


def after_a_while(clock: Clock, answer: Said) -> Answers:
    """An answer that comes when somebody has slept for some seconds."""

    async def wait(_: httpx.Request) -> Said:
        then = clock.now + 3
        await until(lambda: clock.now >= then)
        return answer

    return wait


async def test_a_second_buyer_waits_for_a_living_one_and_posts_nothing(
    ledgers: Ledgers, shop: Shop, order: MakeOrder, make_request: MakeRequest, clock: Clock
) -> None:
    mine, theirs = wired(after_a_while(clock, ok())), wired(ok("t2"))
    first, second = shop.buyer(await ledgers(), mine), shop.buyer(await ledgers(owner=ELSEWHERE), theirs)
    one, other = await two_at_once(first, second, order(), make_request("A fox"), clock)
    assert one == other
    assert isinstance(one, Purchase)
    assert (one.task_id, len(mine.posts), len(theirs.posts)) == ("t1", 1, 0)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (402, InsufficientCredits), (401, AuthenticationFailed)]
)
async def test_a_refusal_holds_for_whoever_waited_for_it(
    ledgers: Ledgers,
    shop: Shop,
    order: MakeOrder,
    make_request: MakeRequest,
    clock: Clock,
    status: int,
    kind: type[Exception],
) -> None:
    mine, theirs = wired(after_a_while(clock, no(status, "because"))), wired(ok("t2"))
    first, second = shop.buyer(await ledgers(), mine), shop.buyer(await ledgers(owner=ELSEWHERE), theirs)
    one, other = await two_at_once(first, second, order(), make_request("A fox"), clock)
    assert type(one) is type(other) is kind
    assert str(one) == str(other)
    assert (len(mine.posts), len(theirs.posts)) == (1, 0)
    clock.now += 1  # whoever comes later may find the account filled up
    bought = await second.buy(order(), make_request("A fox"))
    assert (bought.task_id, len(theirs.posts)) == ("t2", 1)


async def test_what_a_dead_buyer_left(
    ledgers: Ledgers, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    *parts, start = this_process().split("|")
    gone, ours = await ledgers(owner="|".join((*parts, f"{int(start) - 1}"))), await ledgers()
    await gone.reserve(shop.account, order("never sent"), Limits())
    sending = (await gone.reserve(shop.account, order("being sent"), Limits())).purchase
    answered = (await gone.reserve(shop.account, order("answered"), Limits())).purchase
    assert sending is not None
    assert answered is not None
    await gone.happened(sending, Event.SEND)
    await gone.happened(answered, Event.SEND)
    gone.journal.append(Answer(gone.id, answered.token, "t9"))
    wire = wired(ok())
    buyer = shop.buyer(ours, wire)
    assert (await buyer.buy(order("answered"), make_request("answered"))).task_id == "t9"
    with pytest.raises(PurchaseUncertain):
        await buyer.buy(order("being sent"), make_request("being sent"))
    assert wire.posts == []
    assert (await buyer.buy(order("never sent"), make_request("never sent"))).task_id == "t1"
    assert len(wire.posts) == 1
    assert shop.clock.now == 0.0  # nobody waited for the dead


# --- uncertain ---


async def test_an_uncertain_purchase_stops_with_both_commands(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire = wired(httpx.ReadTimeout("slow"), ok())
    wanted = order(shot="dawn")
    said = []
    for _ in range(2):
        with pytest.raises(PurchaseUncertain) as caught:
            await shop.buyer(ledger, wire).buy(wanted, make_request("A fox"))
        said.append(str(caught.value))
    (row,) = await ledger.of_account(shop.account)
    assert len(wire.posts) == 1
    assert said[0] == said[1]
    for part in (
        "shot 'dawn'",
        "ReadTimeout",
        '"A fox"',
        "0.3165 USD",
        f"resolve {row.short} --task-id",
        "--never-created",
    ):
        assert part in said[0]
    assert row.token not in said[0]


async def test_one_found_uncertain_is_bought_again_at_most_once(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    lost = wired(httpx.ReadTimeout("slow"))
    with pytest.raises(PurchaseUncertain):
        await shop.buyer(ledger, lost).buy(order(), make_request("A fox"))
    with pytest.raises(PurchaseUncertain):
        await shop.buyer(ledger, lost, on_uncertain="buy-again").buy(order(), make_request("A fox"))
    assert len(lost.posts) == 2
    good = wired(ok("t3"))
    bought = await shop.buyer(ledger, good, on_uncertain="buy-again").buy(order(), make_request("A fox"))
    assert (bought.task_id, len(good.posts)) == ("t3", 1)
    rows = await ledger.of_account(shop.account)
    assert [(row.state, row.counted > 0) for row in rows] == [
        (State.ABANDONED, True),
        (State.ABANDONED, True),
        (State.SUBMITTED, True),
    ]
    assert await ledger.audit(shop.account) == {}


async def test_one_that_becomes_uncertain_is_bought_again_at_once_where_that_is_wanted(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire = wired(httpx.ReadTimeout("slow"), ok("t2"))
    bought = await shop.buyer(ledger, wire, on_uncertain="buy-again").buy(order(), make_request("A fox"))
    assert (bought.task_id, len(wire.posts)) == ("t2", 2)
    lost = wired(httpx.ReadTimeout("slow"))
    with pytest.raises(PurchaseUncertain):
        await shop.buyer(ledger, lost, on_uncertain="buy-again").buy(order("A hare"), make_request("A hare"))
    assert len(lost.posts) == 2


async def test_two_that_buy_again_buy_once(
    ledgers: Ledgers, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    first, second, wire = await ledgers(), await ledgers(), wired(httpx.ReadTimeout("slow"), ok("t2"), ok("t3"))
    with pytest.raises(PurchaseUncertain):
        await shop.buyer(first, wire).buy(order(), make_request("A fox"))
    buyers = [shop.buyer(ledger, wire, on_uncertain="buy-again") for ledger in (first, second)]
    one, other = await asyncio.gather(*(buyer.buy(order(), make_request("A fox")) for buyer in buyers))
    assert one.task_id == other.task_id == "t2"
    assert len(wire.posts) == 2


# --- slots and budgets ---


async def test_without_a_slot_it_gives_up_after_a_while_and_looks_after_others_meanwhile(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire, looked = wired(ok()), []
    limits = Limits(in_flight=1)

    async def look_after() -> None:
        looked.append(shop.clock.now)

    await shop.buyer(ledger, wire, limits=limits).buy(order(), make_request("A fox"))
    buyer = shop.buyer(ledger, wire, limits=limits, max_wait=35.0, look_after=look_after)
    with pytest.raises(GenerationTimeout, match="all 1 slots"):
        await buyer.buy(order("A hare"), make_request("A hare"))
    assert 35 < shop.clock.now < 36
    assert looked == pytest.approx([10, 20, 30], abs=1)
    assert len(wire.posts) == 1
    assert len(await ledger.of_account(shop.account)) == 1


async def test_a_slot_that_becomes_free_is_taken(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire, limits = wired(ok("t1"), ok("t2")), Limits(in_flight=1)
    first = await shop.buyer(ledger, wire, limits=limits).buy(order(), make_request("A fox"))

    async def look_after() -> None:
        await ledger.happened(first, Event.FAILED)

    buyer = shop.buyer(ledger, wire, limits=limits, max_wait=35.0, look_after=look_after)
    bought = await buyer.buy(order("A hare"), make_request("A hare"))
    assert (bought.task_id, len(wire.posts)) == ("t2", 2)


async def test_a_line_that_moves_is_waited_in_for_longer_than_one_that_does_not(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    numbers = iter(range(100))
    limits = Limits(in_flight=1)

    async def another(_: httpx.Request) -> Said:
        return ok(f"t{next(numbers)}")

    async def look_after() -> None:
        (running,) = [row for row in await ledger.of_account(shop.account) if row.state is State.SUBMITTED]
        await ledger.happened(running, Event.FAILED)

    buyer = shop.buyer(ledger, wired(another), limits=limits, max_wait=15.0, look_after=look_after)
    prompts = [f"A fox, {number}" for number in range(5)]
    found = await asyncio.gather(*(buyer.buy(order(prompt), make_request(prompt)) for prompt in prompts))
    assert len({row.task_id for row in found}) == 5
    assert shop.clock.now > 2 * 15


async def test_a_budget_stops_before_anything_is_sent(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire = wired(ok())
    with pytest.raises(BudgetExceeded, match="of this UTC day"):
        await shop.buyer(ledger, wire, limits=Limits(per_day=1)).buy(order(), make_request("A fox"))
    assert wire.posts == []
    assert await ledger.of_account(shop.account) == []


async def test_a_402_stops_those_of_the_run_who_stand_in_line(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest, clock: Clock
) -> None:
    wire = wired(after_a_while(clock, no(402)), ok())
    buyer = shop.buyer(ledger, wire, limits=Limits(in_flight=1), max_wait=60.0)
    found = await asyncio.gather(
        *(buyer.buy(order(f"{n}", run="r1"), make_request(f"{n}")) for n in range(3)), return_exceptions=True
    )
    assert [type(one) for one in found] == [InsufficientCredits] * 3
    assert len(wire.posts) == 1
    clock.now += 1  # a later run, after topping up
    assert (await buyer.buy(order("0", run="r1"), make_request("0"))).task_id == "t1"


# --- cancelled ---


async def test_who_is_cancelled_in_mid_post_waits_for_the_answer(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    loop, sent, answer = asyncio.get_running_loop(), asyncio.Event(), False

    async def slow(_: httpx.Request) -> Said:
        loop.call_soon_threadsafe(sent.set)
        await until(lambda: answer)
        return ok()

    buying = asyncio.create_task(shop.buyer(ledger, wired(slow)).buy(order(), make_request("A fox")))
    await sent.wait()
    for _ in range(3):  # somebody in a hurry
        buying.cancel()
        await asyncio.sleep(0)
    assert not buying.done()
    (row,) = await ledger.of_account(shop.account)
    assert row.state is State.SENDING
    answer = True
    with pytest.raises(asyncio.CancelledError):
        await buying
    (row,) = await ledger.of_account(shop.account)
    assert (row.state, row.task_id) == (State.SUBMITTED, "t1")


async def test_who_is_cancelled_while_reserving_leaves_nothing_for_others_to_wait_for(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    wire, reserving = wired(ok()), asyncio.Event()
    real = ledger.reserve

    async def told(*arguments: Any, **options: Any) -> Reserved:
        reserving.set()
        return await real(*arguments, **options)

    ledger.reserve = told  # type: ignore[method-assign] # to know when it begins
    buying = asyncio.create_task(shop.buyer(ledger, wire).buy(order(), make_request("A fox")))
    await reserving.wait()
    buying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await buying
    assert {row.state for row in await ledger.of_account(shop.account)} <= {State.RELEASED}
    assert wire.posts == []


async def test_who_is_cancelled_between_two_posts_gives_the_row_back(
    ledger: Ledger, shop: Shop, order: MakeOrder, make_request: MakeRequest
) -> None:
    async def cancelled(_: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    wire = wired(no(429))
    buying = asyncio.create_task(shop.buyer(ledger, wire, sleep=cancelled).buy(order(), make_request("A fox")))
    with pytest.raises(asyncio.CancelledError):
        await buying
    (row,) = await ledger.of_account(shop.account)
    assert (row.state, row.counted, len(wire.posts)) == (State.RELEASED, 0, 1)
