"""A simulator as a process whose tasks end when it is told so: `end SECONDS` on its standard input.

What was asked for before ends within so many seconds, spread evenly by chance. Its base URL is the first line of its
standard output, and it ends with its input.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading

from prefect_kling.simulator.clock import RealClock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import serve

__all__ = ["HeldClock"]

GENERATION_SECONDS = 1e6
FAR = 1e4
"""Seconds; whoever sleeps for longer, which is only a generation, sleeps until told."""


class HeldClock(RealClock):
    """The machine's clock, but far moments come when it is told so."""

    def __init__(self) -> None:
        self._chance = random.Random(7)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: asyncio.Future[float] | None = None

    async def sleep_until(self, moment: float) -> None:
        """Sleeps until `moment`, or, where that is far, until a while after the next `end`."""
        left = moment - self.now()
        if left < FAR:
            await super().sleep_until(moment)
            return
        if left < GENERATION_SECONDS / 2:  # that is when it leaves `pending`, which it does at once
            return
        self._loop = asyncio.get_running_loop()
        if self._told is None:
            self._told = self._loop.create_future()
        # Shielded: one that is cancelled leaves the others.
        spread = await asyncio.shield(self._told)
        await asyncio.sleep(spread * self._chance.random())

    def end(self, spread: float) -> None:
        """Lets what is held end within so many seconds; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end, spread)

    def _end(self, spread: float) -> None:
        told, self._told = self._told, None
        if told is not None:
            told.set_result(spread)


def _listen(clock: HeldClock) -> None:
    for line in sys.stdin:
        clock.end(float(line.removeprefix("end")))
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serves until its input ends."""
    clock = HeldClock()
    config = SimulatorConfig(seed=1, generation_seconds=GENERATION_SECONDS, balance="1000000", draw=False)
    threading.Thread(target=_listen, args=(clock,), daemon=True).start()
    serve(config, announce=lambda url: print(url, flush=True), clock=clock)


if __name__ == "__main__":
    main()
