"""What a running task's bar in the Prefect UI says: Queued, Generating, Downloading.

Decoration: what cannot be said is told at debug. A task's record appears on the server some 0.3 s after it has begun,
or after 1 to 2 s where it writes many together; tasks that are done sooner say nothing. A task that ends waits for the
one call that may be under way: heard later, it would take the place of the task's final state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID
from weakref import WeakKeyDictionary

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Running

from prefect_kling.media.cancelling import until_ended

__all__ = ["Live", "live_state"]

PAUSE: Final = 0.3
TRIES: Final = 10
NOT_FOUND: Final = 404
CALL_SECONDS: Final = 5.0
MOST_AT_ONCE: Final = 2
"""Calls of one process: a thousand tasks that change at once must not be what its server is busy with."""
PAUSES: Final = 9
"""After a call its turn pauses for so many times as long."""
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Live:
    """The name and the message of a running task's state."""

    def __init__(self, task_run: UUID, name: str, message: str) -> None:
        self._task_run, self._wanted = task_run, (name, message)
        self._over = False
        self._said: tuple[str, str] | None = None
        self._changed, self._calling = asyncio.Event(), False
        self._changed.set()
        self._saying = asyncio.create_task(self._keep_saying())

    def say(self, name: str, message: str = "") -> None:
        """Shows another state soon; only the last of several is shown for certain."""
        self._wanted = (name, message)
        self._changed.set()

    async def end(self) -> None:
        """Says nothing more, once the call that is under way has ended."""
        self._over = True
        if not self._calling:
            self._saying.cancel()
        await until_ended(self._saying)

    async def _keep_saying(self) -> None:
        await asyncio.sleep(PAUSE)
        while not self._over:
            await self._changed.wait()
            self._changed.clear()
            for _ in range(TRIES):
                if self._over or self._said == self._wanted or await self._heard():
                    break
                await asyncio.sleep(PAUSE)

    async def _heard(self) -> bool:
        """One call to the server; whether there is no use in another."""
        loop = asyncio.get_running_loop()
        turns = _turns.setdefault(loop, asyncio.Semaphore(MOST_AT_ONCE))
        await turns.acquire()
        self._calling, begun = True, time.monotonic()
        try:
            return await self._tried()
        finally:
            self._calling = False
            # It is the turn that pauses: a task that has said something may end.
            loop.call_later(PAUSES * (time.monotonic() - begun), turns.release)

    async def _tried(self) -> bool:
        name, message = wanted = self._wanted
        try:
            async with asyncio.timeout(CALL_SECONDS), get_client() as client:
                state: State[None] = Running(name=name, message=message or None)
                await client.set_task_run_state(self._task_run, state, force=True)
        except Exception as error:  # noqa: BLE001 - see the module: decoration
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code == NOT_FOUND:
                return False
            get_run_logger().debug("%s could not be shown: %s: %s", name, type(error).__name__, error)
        self._said = wanted
        return True


@asynccontextmanager
async def live_state(name: str, message: str = "") -> AsyncIterator[Live | None]:
    """Shows a state of the task that this is called in for as long as the block lasts; nothing outside of a task.

    Args:
        name: of the state.
        message: in a sentence, what the task does.
    """
    context = TaskRunContext.get()
    if context is None:
        yield None
        return
    live = Live(context.task_run.id, name, message)
    try:
        yield live
    finally:
        await live.end()
