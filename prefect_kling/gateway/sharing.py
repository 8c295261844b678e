"""Connections that the clients of one event loop share: two hundred tasks that poll do not shake hands each time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpx

__all__ = ["SharedClient"]

_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Nobody waits for a connection behind calls that hang."""
_open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, SharedClient]] = WeakKeyDictionary()


class SharedClient:
    """An `httpx.AsyncClient`, opened for the first who borrows it and closed after the last has given it back.

    Attributes:
        client: to be used until it is given back.
        users: who have it now.
    """

    def __init__(self, key: Hashable, options: Mapping[str, Any]) -> None:
        self.client = httpx.AsyncClient(**options, limits=_LIMITS)
        self._key, self.users = key, 0

    @classmethod
    def borrow(cls, key: Hashable, options: Mapping[str, Any]) -> SharedClient:
        """The client with this key in the running event loop, made with these options where there is none."""
        there = _open.setdefault(asyncio.get_running_loop(), {})
        if key not in there:
            there[key] = cls(key, options)
        there[key].users += 1
        return there[key]

    async def give_back(self) -> None:
        """Closes it where nobody else has it."""
        self.users -= 1
        if not self.users:
            del _open[asyncio.get_running_loop()][self._key]
            await self.client.aclose()
