"""Reading for many at once: those who ask while a read is under way share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

__all__ = ["Gathering"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Gathering(Generic[K, V]):
    """Asks for some keys' values, in one event loop. What is answered was read after it was asked for.

    A thousand shots that begin at once ask for a row each: two statements, not a thousand.

    Args:
        read: gives the values of the keys that have one; called again once it has ended.
    """

    def __init__(self, read: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._asked: list[tuple[tuple[K, ...], asyncio.Future[dict[K, V]]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those of `keys` that have one.

        Raises:
            Exception: what the read raises; everybody who shares it is told.
        """
        answer: asyncio.Future[dict[K, V]] = asyncio.get_running_loop().create_future()
        self._asked.append((tuple(keys), answer))
        if self._reading is None:
            self._reading = asyncio.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, []
                found: Mapping[K, V] | Exception
                try:
                    found = await self._read(list(dict.fromkeys(key for keys, _ in asked for key in keys)))
                except Exception as error:  # noqa: BLE001 - those who asked are told, and the next are read for
                    found = error
                for keys, answer in asked:
                    if answer.done():  # whoever asked was cancelled
                        continue
                    if isinstance(found, Exception):
                        answer.set_exception(found)
                    else:
                        answer.set_result({key: found[key] for key in keys if key in found})
        finally:
            self._reading = None
