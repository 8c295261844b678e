"""A studio's desk: its ledger, and what it takes to buy and to keep for its account.

A process opens a ledger once, however many tasks use it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

import httpx

from prefect_kling.clips import ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.settings import StudioSettings

__all__ = ["Desk", "close_ledgers", "desk"]

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
_logger = logging.getLogger(__name__)
_open: dict[tuple[int, str, str], Ledger] = {}


async def desk(settings: StudioSettings) -> Desk:
    """The desk of a studio; its ledger is opened where this process has not done so yet.

    Raises:
        LedgerUnavailable: the ledger cannot be used.
    """
    url, answers = settings.ledger_url.get_secret_value(), settings.home / "answers.jsonl"
    key = (os.getpid(), url, str(answers))

    async def opened() -> Ledger:
        # In the back room, where nothing comes between looking and putting but the opening itself.
        if key not in _open:
            made = await Ledger.open(url, answers=answers)
            if key in _open:
                await made.close()
            _open.setdefault(key, made)
        return _open[key]

    there = _open.get(key)
    return Desk(settings, await in_backroom(opened()) if there is None else there)


async def close_ledgers() -> None:
    """Closes every ledger that this process has opened through `desk`; the next `desk` opens them again."""
    while _open:
        _, ledger = _open.popitem()
        await ledger.close()


@dataclass(frozen=True)
class Desk:
    """See `desk`."""

    settings: StudioSettings
    ledger: Ledger

    @property
    def account(self) -> Account:
        """Who pays."""
        return Account(_one_spelling(self.settings.base_url), self.settings.account)

    @property
    def limits(self) -> Limits:
        """Budgets and slots."""
        return Limits(
            in_flight=self.settings.max_in_flight,
            per_run=self.settings.budget_per_run,
            per_day=self.settings.budget_per_day,
            per_month=self.settings.budget_per_month,
            uncertain_seconds=self.settings.max_wait,
        )

    def client(self, logger: Logger = _logger, *, once: bool = False) -> KlingClient:
        """A client for the account; `once` makes one whose creates are never repeated, for a `Buyer`."""
        tries = {"attempts": 1, "patience": 0.0} if once else {}
        settings = self.settings
        return KlingClient(settings.api_key, base_url=settings.base_url, logger=logger, **tries)  # type: ignore[arg-type] # by name

    def buyer(
        self,
        logger: Logger = _logger,
        *,
        callback: str = "",
        come_home: Callable[[Purchase], Awaitable[Purchase]] | None = None,
    ) -> Buyer:
        """What buys for this studio; see `Buyer` for the arguments."""

        async def look_after() -> None:
            async with self.keeper(logger) as keeper:
                await keeper.look_after_strays()

        return Buyer(
            self.ledger,
            self.account,
            lambda: self.client(logger, once=True),
            self.limits,
            self.settings.on_uncertain,
            self.settings.max_wait,
            look_after,
            callback,
            come_home,
            logger,
        )

    @asynccontextmanager
    async def keeper(self, logger: Logger = _logger) -> AsyncIterator[Keeper]:
        """What waits and downloads for this studio, with a client of its own."""
        async with self.client(logger) as client:
            yield Keeper(self.ledger, self.account, client, self.storage(), logger)

    def storage(self) -> ClipStorage:
        """Where its clips are kept."""
        settings = self.settings
        return ClipStorage(settings.storage_url, settings.storage_options, public_url=settings.public_storage_url)


@lru_cache(maxsize=16)
def _one_spelling(base_url: str) -> str:
    """A gateway's address, whatever the letters' case, the port or the slash at its end: it is the same account."""
    base = base_url.strip().rstrip("/")
    try:
        url = httpx.URL(base)
        # Said once more: the first time, `HTTPS` is not known to have 443 as its own port.
        return str(url.copy_with(port=url.port)).rstrip("/")
    except httpx.InvalidURL:
        return base  # the client refuses it
