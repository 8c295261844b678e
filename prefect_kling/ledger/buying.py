"""Buying once: a row before the POST, the task id before anything else, and everybody else joins.

The POST and the commits around it are one piece of work in the back room: neither a signal nor a cancellation comes
between the money and the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from sqlalchemy.exc import IntegrityError

from prefect_kling.gateway import errors
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient, backoff
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationTimeout,
    InsufficientCredits,
    KlingError,
    PurchaseUncertain,
    RateLimited,
    TaskNotFound,
)
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.database import FOR_EVER
from prefect_kling.ledger.ledger import Ledger, Reserved
from prefect_kling.ledger.line import Line
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.owners import is_surely_gone
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import Event, State

__all__ = ["POST_WITHIN", "Buyer", "OnUncertain", "as_before", "lost", "outcome_of", "pruned", "uncertain"]

OnUncertain = Literal["stop", "buy-again"]

POST_WITHIN: Final = 10.0
"""Seconds from the commit of `sending` in which the POST has to start; its lease counts from there."""
NOT_SENT_TRIES: Final = 4
RECLAIM_EVERY: Final = 10.0
STOPS_SELLING: Final = (AuthenticationFailed, InsufficientCredits)
"""After one of these the next create of the run would be refused as well."""
BOUGHT: Final = (State.SUBMITTED, State.COMPLETED, State.STORED)
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
_logger = logging.getLogger(__name__)


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, Account], Line]] = WeakKeyDictionary()


def _seconds_since_boot() -> float:
    """Seconds that go on while the machine sleeps, unlike a monotonic clock's."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class Buyer:
    """Buys for one account.

    Attributes:
        ledger, account: where purchases are written down, and who pays.
        client_of: makes a client that tries once (`attempts=1, patience=0`); used in the back room's loop.
        limits: budgets and slots.
        on_uncertain: what to do about a purchase that nobody knows the fate of.
        max_wait: seconds that a 429, or a line for slots that does not move, is put up with.
        look_after: called while slots are waited for, to ask about purchases that nobody waits for.
        callback: the address that the gateway is asked to call, to which the token is added; empty for none.
        come_home: looks, and waits, for the callback of an uncertain purchase, and gives its row afterwards.
        logger: where waiting is reported.
        sleep, rand, clock: time and chance, for tests.
        since_boot: seconds that go on while the machine sleeps, for tests.
    """

    ledger: Ledger
    account: Account
    client_of: Callable[[], KlingClient]
    limits: Limits = field(default_factory=Limits)
    on_uncertain: OnUncertain = "stop"
    max_wait: float = 3600.0
    look_after: Callable[[], Awaitable[object]] | None = None
    callback: str = ""
    come_home: Callable[[Purchase], Awaitable[Purchase]] | None = None
    logger: Logger = _logger
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rand: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    since_boot: Callable[[], float] = _seconds_since_boot

    async def buy(self, order: Order, request: OmniVideoRequest) -> Purchase:
        """Makes sure that an order is bought exactly once, by whomever, and returns its row.

        Args:
            order: what is wanted.
            request: what to send for it, where nobody has sent it yet.

        Returns:
            A row that is `submitted`, `completed` or `stored`.

        Raises:
            BudgetExceeded: a budget does not allow it.
            PurchaseUncertain: it may have been bought; see `uncertain`.
            TaskNotFound: it was bought, and its result is lost.
            GenerationTimeout: no slot became free.
            KlingError: as the gateway said; nothing was bought.
        """
        again, waited = self.on_uncertain == "buy-again", set[int]()
        while True:
            purchase, mine = await self._reserved(order)
            if mine:
                try:
                    return await self._sent(purchase, request)
                except PurchaseUncertain:
                    if not again and self.come_home is None:
                        raise
                    continue  # to find the row as whoever comes later finds it
            match purchase.state:
                case State.RESERVED | State.SENDING:
                    await self._wait_for_owner(purchase)
                case State.UNCERTAIN if self.come_home is not None and purchase.id not in waited:
                    waited.add(purchase.id)
                    purchase = await self.come_home(purchase)
                    if purchase.state in (State.FAILED, State.REFUSED):
                        raise as_before(purchase)
                    # Else it is looked for anew: one that was settled as never created is bought.
                case State.UNCERTAIN if again:
                    again = False
                    self.logger.warning("%s is bought again, as on_uncertain says", purchase.named)
                    await self.ledger.happened(
                        purchase, Event.BOUGHT_AGAIN, reason="bought again while uncertain, as on_uncertain says"
                    )
                case _:
                    return outcome_of(purchase)

    async def _reserved(self, order: Order) -> tuple[Purchase, bool]:
        found = await self.ledger.find(self.account, order.edition, (order.key, *order.also))
        if found:
            return next(iter(found.values())), False
        line, joined = self._line(), self.clock()
        with line.place() as place:
            await place.turn()
            looked, said = self.clock(), False
            while True:
                line.refuse(order.run, joined)
                reserved = await self._reserve(order)
                if reserved.purchase is not None:
                    line.moved = self.clock()
                    if reserved.mine:
                        line.seen(reserved.free)
                        await self._sells_still(reserved.purchase, line, joined)
                    return reserved.purchase, reserved.mine
                line.seen(0)
                now = self.clock()
                if now - max(line.moved, joined) > self.max_wait:
                    raise GenerationTimeout(
                        f"{order.shot or 'The video'} was not bought: all {self.limits.in_flight} slots of the account "
                        f"were taken for {self.max_wait:g} s and none became free. Run again later, or raise "
                        "max_in_flight; `prefect-kling ledger list` shows what takes them"
                    )
                if not said:
                    said = True
                    self.logger.info("%s waits for one of %d slots", order.shot or "A video", self.limits.in_flight)
                if now - looked >= RECLAIM_EVERY:
                    looked = now
                    await self._make_room()
                await self.sleep(0.1 + 0.2 * self.rand())
                await place.turn()

    async def _reserve(self, order: Order) -> Reserved:
        token = secrets.token_hex(16)
        try:
            return await self.ledger.reserve(self.account, order, self.limits, token=token)
        except asyncio.CancelledError:
            # It may be there: nobody else must wait for the lease of somebody who has left.
            for purchase in await self.ledger.select(purchases.c.token == token):
                await self.ledger.happened(purchase, Event.GIVEN_UP, reason="its sender stopped before sending it")
            raise

    async def _sells_still(self, purchase: Purchase, line: Line, joined: float) -> None:
        """Gives a reservation up that got the slot of a purchase whose refusal holds for it too."""
        try:
            line.refuse(purchase.order.run, joined)
        except KlingError:
            await self.ledger.happened(purchase, Event.GIVEN_UP, reason="the gateway has stopped selling")
            raise

    async def _make_room(self) -> None:
        await self.ledger.reclaim(self.account)
        if self.look_after is not None:
            await self.look_after()

    async def _wait_for_owner(self, purchase: Purchase) -> None:
        """Waits until somebody else's purchase is sent or given up. A refusal holds for whoever waited for it too."""
        pause, looked = 0.1, self.clock()
        while purchase.state in (State.RESERVED, State.SENDING):
            if is_surely_gone(purchase.owner) or self.clock() - looked >= RECLAIM_EVERY:
                looked = self.clock()
                await self.ledger.reclaim(self.account)
            else:
                await self.sleep(pause * (0.75 + 0.5 * self.rand()))
                pause = min(pause * 1.5, 1.0)
            purchase = await self.ledger.get(purchase.id)
        if purchase.state is State.REFUSED:
            raise as_before(purchase)

    async def _sent(self, purchase: Purchase, request: OmniVideoRequest) -> Purchase:
        """Sends our reserved row until there is an outcome. Repeats only what surely bought nothing."""
        begun, attempt, line = self.clock(), 0, self._line()
        try:
            while True:
                attempt += 1
                purchase, trouble = await in_backroom(self._post(purchase, request, line))
                if purchase.state is not State.RESERVED:
                    break
                delay = max(backoff(attempt, self.rand), getattr(trouble, "retry_after", None) or 0.0)
                if trouble is not None and self._gives_up(trouble, attempt, self.clock() - begun + delay):
                    raise trouble
                await self.sleep(delay)
        finally:
            if purchase.state is State.RESERVED:
                await self.ledger.happened(purchase, Event.GIVEN_UP, reason="its sender stopped before sending it")
        if trouble is not None and purchase.state is State.REFUSED:
            raise trouble
        if purchase.state is State.RELEASED:
            raise GatewayUnavailable(f"{purchase.named} was not bought: its reservation ran out before it was sent")
        return outcome_of(purchase)

    def _gives_up(self, trouble: KlingError, attempt: int, waited: float) -> bool:
        return waited > self.max_wait if isinstance(trouble, RateLimited) else attempt >= NOT_SENT_TRIES

    async def _post(
        self, purchase: Purchase, request: OmniVideoRequest, line: Line
    ) -> tuple[Purchase, KlingError | None]:
        """One POST with the commits around it. Runs in the back room, to its end.

        Returns:
            The row afterwards, and what went wrong, if anything.
        """
        async with self.client_of() as client:
            client.get_ready()
            begun, callback = self.since_boot(), self.callback or None
            if request.callback_url is not None:
                callback = None  # whoever asked for it there does not hear of the token
            purchase = await self.ledger.happened(purchase, Event.SEND, callback=callback)
            if purchase.state is not State.SENDING:
                return purchase, None
            if self.since_boot() - begun > POST_WITHIN:
                return await self._end(purchase, Event.NOT_SENT), None
            if callback is not None:
                request = request.model_copy(update={"callback_url": f"{callback}/{purchase.token}"})
            try:
                task = await client.create(request)
            except (RateLimited, GatewayUnavailable) as error:
                return await self._end(purchase, Event.NOT_SENT), error
            except PurchaseUncertain as error:
                return await self._end(purchase, Event.ANSWER_LOST, error), error
            except KlingError as error:
                if isinstance(error, STOPS_SELLING):  # before its slot is free for the next in the line
                    line.close(purchase.order.run, self.clock(), error)
                return await self._end(purchase, Event.REFUSED, error), error
            except Exception as error:
                # Nobody knows what it means for the POST.
                self.logger.exception("An unforeseen error while buying %s", purchase.named)
                purchase = await self._end(purchase, Event.ANSWER_LOST, error)
                unsure = uncertain(purchase)
                unsure.__cause__ = error
                return purchase, unsure
        return await self._accepted(purchase, task)

    async def _accepted(self, purchase: Purchase, task: Task) -> tuple[Purchase, KlingError | None]:
        try:
            # Not in a thread: at the interpreter's end there are none to be had.
            self.ledger.journal.append(Answer(self.ledger.id, purchase.token, task.task_id))
        except OSError as error:
            self.logger.warning("The task id could not be journalled (%s); the ledger alone has it", error)
        try:
            accepted = await self.ledger.happened(
                purchase, Event.ACCEPTED, patience=FOR_EVER, task_id=task.task_id, reason=None, error=None
            )
        except IntegrityError:
            twice = PurchaseUncertain(f"the gateway answered with task {task.task_id}, which another purchase has")
            return await self._end(purchase, Event.ANSWER_LOST, twice), twice
        if accepted.task_id != task.task_id:
            self.logger.error(
                "%s was settled as task %s, and its own answer names task %s: that one was paid for as well",
                purchase.named,
                accepted.task_id,
                task.task_id,
            )
        return accepted, None

    async def _end(self, purchase: Purchase, event: Event, error: BaseException | None = None) -> Purchase:
        said = {} if error is None else {"reason": _reason(error), "error": type(error).__name__}
        return await self.ledger.happened(purchase, event, patience=FOR_EVER, **said)

    def _line(self) -> Line:
        lines = _lines.setdefault(asyncio.get_running_loop(), {})
        return lines.setdefault((self.ledger.id, self.account), Line())


def outcome_of(purchase: Purchase) -> Purchase:
    """The purchase, where it is bought; else what has become of it is raised."""
    match purchase.state:
        case State.UNCERTAIN:
            raise uncertain(purchase)
        case State.LOST:
            raise lost(purchase)
        case State.PRUNED:
            raise pruned(purchase)
        case state if state in BOUGHT:
            return purchase
        case _:
            raise as_before(purchase)


def uncertain(purchase: Purchase) -> PurchaseUncertain:
    """What an operator has to know about an uncertain purchase, and both commands that settle it."""
    at = f" at {purchase.sent_at:%Y-%m-%d %H:%M:%S} UTC" if purchase.sent_at else ""
    why = f" ({purchase.reason.rstrip('.')})" if purchase.reason else ""
    return PurchaseUncertain(
        f"The answer to the purchase of {purchase.named}{at} was lost{why}. Asked for: {purchase.order.described}; "
        "that may have been spent. It is not bought again by itself. Look at the account's tasks around that time, "
        f"then say `prefect-kling ledger resolve {purchase.short} --task-id ID` where it exists, or "
        f"`prefect-kling ledger resolve {purchase.short} --never-created` where it does not"
    )


def lost(purchase: Purchase) -> TaskNotFound:
    """What an operator has to know about a result that is gone."""
    why = f" ({purchase.reason.rstrip('.')})" if purchase.reason else ""
    back = (
        f"Where {purchase.clip.path} can be put back, do that and run `prefect-kling sweep`. " if purchase.clip else ""
    )
    return TaskNotFound(
        f"The clip of {purchase.named} is lost: task {purchase.task_id} was paid for, and the gateway no longer has "
        f"its result{why}. {back}It is not bought again by itself; {_buying_anew(purchase)}",
        task_id=purchase.task_id,
    )


def pruned(purchase: Purchase) -> TaskNotFound:
    """What an operator has to know about a clip that was removed from storage on purpose."""
    on = f" on {purchase.ended_at:%Y-%m-%d}" if purchase.ended_at else ""
    kept = f", until about {purchase.expires_at:%Y-%m-%d}" if purchase.expires_at else ""
    return TaskNotFound(
        f"The clip of {purchase.named} was pruned{on}: task {purchase.task_id} was paid for, and as no film used its "
        f"clip, it was removed from storage. As long as the gateway keeps the result{kept}, a run that wants it "
        f"fetches it again at no cost. It is not bought again by itself; {_buying_anew(purchase)}",
        task_id=purchase.task_id,
    )


def _buying_anew(purchase: Purchase) -> str:
    return f"{f'--retake {purchase.order.shot}' if purchase.order.shot else 'another edition'} buys a new one"


def as_before(purchase: Purchase) -> KlingError:
    """The error in which a purchase ended, as far as the ledger keeps it: its class and its text."""
    kind: Any = getattr(errors, purchase.error or "", None)
    if not (isinstance(kind, type) and issubclass(kind, KlingError)):
        kind = KlingError
    said = purchase.reason or f"{purchase.named} is {purchase.state}"
    found: KlingError = kind(said)
    return found


def _reason(error: BaseException) -> str:
    """Why, in a few words; that an answer was lost is what the state says."""
    told = error.__cause__ if isinstance(error, PurchaseUncertain) and error.__cause__ is not None else error
    said = str(told)[:500] or type(told).__name__
    return said if isinstance(told, KlingError) else f"{type(told).__name__}: {said}"
