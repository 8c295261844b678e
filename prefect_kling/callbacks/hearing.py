"""Writing calls down as they come: those that come during one commit share the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.hints import Call, Heard, hear
from prefect_kling.ledger.ledger import Ledger

__all__ = ["Hearing"]

MOST_AT_ONCE: Final = 200
MOST_WAITING: Final = 5000


class Hearing:
    """Takes calls for one ledger, in one event loop.

    Args:
        ledger: where they are written down.
        patience: seconds that a ledger in trouble is waited for; the gateway waits 10 s for an answer.
    """

    def __init__(self, ledger: Ledger, *, patience: float = 5.0) -> None:
        self.ledger, self._patience = ledger, patience
        self._waiting: list[tuple[Call, asyncio.Future[Heard]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def hear(self, call: Call) -> Heard:
        """Writes a call down, and returns once that is committed.

        Raises:
            LedgerUnavailable: it is not written down; it has to be said again.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise LedgerUnavailable("more calls have come than can be written down")
        written: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await written

    async def _write(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                found = await self._heard([call for call, _ in some])
                for (_, written), this in zip(some, found, strict=True):
                    if written.done():  # its caller has hung up
                        continue
                    if isinstance(this, Exception):
                        written.set_exception(this)
                    else:
                        written.set_result(this)
        finally:
            self._writing = None

    async def _heard(self, calls: list[Call]) -> Sequence[Heard | Exception]:
        try:
            return await hear(self.ledger, calls, patience=self._patience)
        except Exception as error:  # noqa: BLE001 - each caller is told, and the next ones are heard
            return [error] * len(calls)
