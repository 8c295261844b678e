"""Keeping what was bought: waiting for it, and bringing its clip into storage. Nobody owns this; anyone may do it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import and_, func, not_

from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN, Clip, ClipStorage, file_name
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient, backoff
from prefect_kling.gateway.errors import GatewayUnavailable, GenerationFailed, InvalidMedia, KlingError, TaskNotFound
from prefect_kling.gateway.results import Fetched, fetch
from prefect_kling.gateway.waiting import NOT_FOUND_IS_BELIEVED_AFTER, Alarm, failure_of, wait_for
from prefect_kling.ledger.buying import lost, outcome_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import is_moving, purchases
from prefect_kling.ledger.states import Event, State
from prefect_kling.media.probe import probe_one

__all__ = ["Keeper"]

STRAY_SECONDS: Final = 60.0
"""A submitted purchase that nobody has asked about for so long has nobody."""
CALLED_STRAY_SECONDS: Final = 180.0
"""The same where a callback is expected, and whoever waits asks less often."""
MOST_STRAYS: Final = 10
SAY_SO_EVERY: Final = 25.0
GONE_TRIES: Final = 3
_GONE: Final = (404, 410)
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keeper:
    """Waits, polls and downloads for one account.

    Attributes:
        ledger, account: whose purchases.
        client: of the account.
        storage: where clips go; None where only waiting is wanted.
        logger: where it is told.
        sleep, rand, clock: time and chance, for tests.
    """

    ledger: Ledger
    account: Account
    client: KlingClient
    storage: ClipStorage | None = None
    logger: Logger = _logger
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rand: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    async def wait(
        self,
        purchase: Purchase,
        *,
        alarm: Alarm | None = None,
        poll_interval: float = 5.0,
        max_wait: float = 3600.0,
        on_state: Callable[[Task], Awaitable[None]] | None = None,
    ) -> Purchase:
        """Waits until a purchase has completed, and writes down how it ended.

        Args:
            purchase: bought.
            alarm: rings when its callback has come; None where none is expected, and it is polled.
            poll_interval, max_wait: seconds, see `gateway.waiting`.
            on_state: called when the gateway's word for the task's state changes.

        Returns:
            A row that is `completed` or `stored`.

        Raises:
            GenerationFailed: the gateway made no clip; nothing is billed.
            GenerationTimeout: not within `max_wait`; the row stays `submitted`, and waiting again costs nothing.
            TaskNotFound: it was bought, and the gateway no longer has it.
            PurchaseUncertain: nobody knows whether it was bought.
        """
        purchase = outcome_of(purchase)
        if purchase.state is not State.SUBMITTED or purchase.task_id is None:
            return purchase
        said = self.clock()

        async def say_so(task: Task) -> None:
            nonlocal said
            if not task.ended and self.clock() - said >= SAY_SO_EVERY:
                said = self.clock()
                await self.ledger.polled(purchase)

        try:
            task = await wait_for(
                self.client,
                purchase.task_id,
                alarm=alarm,
                at_once=alarm is not None and await self._waited_for_by_nobody(purchase, 2 * poll_interval),
                poll_interval=poll_interval,
                max_wait=max_wait,
                on_state=on_state,
                on_answer=say_so,
                logger=self.logger,
                sleep=self.sleep,
                rand=self.rand,
                clock=self.clock,
            )
        except GenerationFailed as error:
            await self._failed(purchase, error)
            raise
        except TaskNotFound as error:
            raise lost(await self._gone(purchase, str(error))) from error
        return outcome_of(await self._completed(purchase, task))

    async def _waited_for_by_nobody(self, purchase: Purchase, seconds: float) -> bool:
        """Whether its answer came so long ago that somebody else may have waited for it, in vain."""
        return await self.ledger.time() - (purchase.answered_at or purchase.created_at) > timedelta(seconds=seconds)

    async def look(self, purchase: Purchase) -> Purchase:
        """Asks the gateway once how a submitted purchase stands, and writes down what it says.

        A 404 is believed once the gateway has not known the task for 5 minutes, however many processes have asked.
        """
        if purchase.state is not State.SUBMITTED or purchase.task_id is None:
            return purchase
        try:
            task = await self.client.get(purchase.task_id)
        except TaskNotFound as error:
            await self.ledger.polled(purchase, missing=True)
            now = await self.ledger.time()
            believed = timedelta(seconds=NOT_FOUND_IS_BELIEVED_AFTER)
            if purchase.missing_since is not None and now - purchase.missing_since >= believed:
                return await self._gone(purchase, str(error))
            return purchase
        known = await self.learned(purchase, task)
        if known.state is not State.SUBMITTED:
            return known
        if not task.known:
            self.logger.warning("%s: task %s is %r, which nobody knows", purchase.named, task.task_id, task.state)
        since = purchase.answered_at or purchase.created_at
        if await self.ledger.time() - since > RESULT_LIFE:
            return await self._gone(
                purchase, f"it is {task.state!r} after {RESULT_LIFE.days} days, and nothing is kept longer"
            )
        await self.ledger.polled(purchase)
        return purchase

    async def learned(self, purchase: Purchase, task: Task) -> Purchase:
        """Writes down how the gateway says that a submitted purchase has ended, where it has."""
        if task.state == "failed":
            return await self._failed(purchase, failure_of(task))
        if task.state == "completed" and task.result_urls:
            return await self._completed(purchase, task)
        return purchase

    async def look_after_strays(self) -> int:
        """Asks about submitted purchases that nobody has asked about for a minute, so that their slots come free.

        Returns:
            How many are no longer on their way.
        """
        asked, later = func.coalesce(purchases.c.polled_at, purchases.c.answered_at), self.ledger.db.later
        called = and_(purchases.c.callback.is_not(None), asked >= later(-CALLED_STRAY_SECONDS))
        quiet = and_(asked < later(-STRAY_SECONDS), not_(called))
        found = await self.ledger.of_account(
            self.account, is_moving, purchases.c.state == str(State.SUBMITTED), quiet, limit=MOST_STRAYS
        )
        ended = 0
        for purchase in found:
            try:
                ended += (await self.look(purchase)).state is not State.SUBMITTED
            except KlingError as error:  # whoever waits for a slot is not the one to be told
                self.logger.warning("No news of %s: %s", purchase.named, error)
        return ended

    async def keep(self, purchase: Purchase, *, again: bool = False) -> Purchase:
        """Brings a completed purchase's clip into storage: whole, measured, probed, and synced before the row says so.

        A stored clip that is missing or of another size is fetched once more and has to be the same bytes; so is one
        that was pruned, while the gateway has it.

        Args:
            purchase: completed, stored or pruned.
            again: try a lost one too; the gateway may have it after all.

        Returns:
            A stored row.

        Raises:
            TaskNotFound: the gateway no longer has it; the row is `lost`.
            GatewayUnavailable: it could not be had this time.
            InvalidMedia: what came is no video that can be joined.
            OSError: the storage cannot be written.
        """
        if self.storage is None:
            raise TypeError("a Keeper without storage keeps nothing")
        if not (again and purchase.state is State.LOST) and purchase.state is not State.PRUNED:
            outcome_of(purchase)
        if purchase.clip is not None:
            if await self.storage.size(purchase.clip.path) == purchase.clip.bytes:
                if purchase.state is State.STORED:
                    return purchase
                # It is back where it was, as a disk is that was away for a while.
                return await self._is_there(purchase, purchase.clip)
            if purchase.state is State.PRUNED:
                self.logger.info("%s was pruned; it is fetched again, which costs nothing", purchase.clip.path)
            else:
                self.logger.warning("%s is not there as it was stored; it is fetched again", purchase.clip.path)
        async with self.storage.incoming() as incoming:
            file = incoming / "clip.mp4"
            fetched, url = await self._fetched(purchase, file)
            if purchase.clip is not None and fetched.sha256 != purchase.clip.sha256:
                reason = "what the gateway has now is not the clip that was stored"
                raise lost(await self._gone(purchase, reason))
            clip = await self._published(purchase, file, fetched, url)
        return await self._is_there(purchase, clip)

    async def _is_there(self, purchase: Purchase, clip: Clip) -> Purchase:
        kept = await self.ledger.happened(purchase, Event.DOWNLOADED, clip=clip)
        # One that was stored before may be pruned, and its file removed, just before this is said.
        return kept if purchase.clip is None else await self.keep(kept)

    async def _published(self, purchase: Purchase, file: Path, fetched: Fetched, url: str) -> Clip:
        assert self.storage is not None  # noqa: S101 - checked by the one caller
        task_id = purchase.task_id or ""
        try:
            facts = await probe_one(file)
        except InvalidMedia as error:
            # The file is gone by the time somebody reads this.
            raise InvalidMedia(str(error).replace(str(file), f"The result of task {task_id}")) from error
        location = await self.storage.publish(file, f"{purchase.order.folder}/{file_name(task_id)}.mp4")
        width, height = facts.video.shown_size
        self.logger.info(
            "Kept %s: %.2f s, %dx%d, %.1f MB, at %s",
            purchase.named, facts.seconds, width, height, fetched.bytes / 1e6, location,
        )  # fmt: skip
        return Clip(
            path=location,
            sha256=fetched.sha256,
            bytes=fetched.bytes,
            seconds=float(facts.seconds),
            frames=facts.video.frames,
            width=width,
            height=height,
            task_id=task_id,
            url=url,
            url_expires_at=purchase.expires_at or _expiry(None),
        )

    async def _fetched(self, purchase: Purchase, file: Path) -> tuple[Fetched, str]:
        """The result, by the URL in the row, else by the one that the gateway names now."""
        url, missing = purchase.result_url, TaskNotFound("the gateway names no result for it")
        for attempt in range(1, GONE_TRIES + 1):
            if url is None:
                await self.sleep(backoff(attempt - 1, self.rand) if attempt > 1 else 0.0)
                try:
                    url = await self._named_now(purchase)
                except TaskNotFound as error:
                    missing = error
                    continue
            try:
                return await fetch(url, file, sleep=self.sleep, rand=self.rand), url
            except TaskNotFound as error:
                missing, url = error, None
        expired = purchase.expires_at is not None and await self.ledger.time() > purchase.expires_at + RESULT_MARGIN
        if missing.status in _GONE or expired:
            raise lost(await self._gone(purchase, str(missing))) from missing
        raise GatewayUnavailable(f"The clip of {purchase.named} could not be had this time: {missing}") from missing

    async def _named_now(self, purchase: Purchase) -> str:
        task = await self.client.get(purchase.task_id or "")
        if task.state == "failed":
            error = failure_of(task)
            await self._failed(purchase, error)
            raise error
        if not task.result_urls:
            raise GatewayUnavailable(f"Task {task.task_id} is {task.state} and names no result any more")
        return task.result_urls[0]

    async def _completed(self, purchase: Purchase, task: Task) -> Purchase:
        facts: dict[str, Any] = {"result_url": task.result_urls[0], "expires_at": _expiry(task.completed_at)}
        return await self.ledger.happened(purchase, Event.COMPLETED, **facts)

    async def _failed(self, purchase: Purchase, error: GenerationFailed) -> Purchase:
        return await self.ledger.happened(purchase, Event.FAILED, reason=str(error), error=type(error).__name__)

    async def _gone(self, purchase: Purchase, reason: str) -> Purchase:
        if purchase.state is State.LOST:
            return purchase  # looked for once more, as a sweep does; it was told when it was found to be
        gone = await self.ledger.happened(purchase, Event.GONE, reason=reason, error=TaskNotFound.__name__)
        self.logger.error("%s", lost(gone))
        return gone


def _expiry(completed_at: datetime | None) -> datetime:
    return (completed_at or datetime.now(UTC)) + RESULT_LIFE - RESULT_MARGIN
