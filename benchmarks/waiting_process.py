"""Shots that wait in a process of their own, and when each of them was woken.

Its job is a line of JSON on standard input. It answers with the line `ready` once every shot waits, and with a line of
JSON once all are done: for each shot milliseconds from the gateway's `completeTime` to the alarm, and to the answer of
the GET that confirms it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from benchmarks.receivers import clean_environment
from prefect_kling.callbacks.listening import listener_of
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.prices import estimate_cost, micro_usd
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.gateway.waiting import Alarm
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order
from prefect_kling.settings import StudioSettings

__all__ = ["Waiting", "Woken", "settings_of"]

_ROOT: Final = Path(__file__).resolve().parent.parent
LONGEST: Final = 300.0
BUYING: Final = 40
"""Shots that are being bought at once."""


@dataclass(frozen=True)
class Woken:
    """Milliseconds from `completed` at the gateway, for each shot.

    Attributes:
        alarm: until its alarm rang; of those that were woken by one.
        answer: until the GET that says so was answered.
    """

    alarm: list[float]
    answer: list[float]


def settings_of(job: dict[str, Any]) -> StudioSettings:
    """The studio of a job."""
    return StudioSettings(
        api_key=SecretStr("sk-waiting"),
        storage_url=job["folder"],
        ledger_url=SecretStr(job["ledger_url"]),
        home=Path(job["folder"]) / "home",
        base_url=job["base_url"],
        callback_base_url=job.get("callback", ""),
        max_in_flight=100_000,
        poll_interval=5.0,
    )


class Waiting:
    """Such a process, from its caller's side: `async with Waiting(job) as waiting`.

    Args:
        job: `folder`, `ledger_url`, `base_url`, `shots`, `name`, `way` (`ours`, `plain` or `rows`), `callback`.
        environment: more of it, such as a Prefect server's address.
    """

    def __init__(self, job: dict[str, Any], **environment: str) -> None:
        self._job = job
        self._environment = clean_environment(PREFECT_HOME=str(Path(job["folder"]) / "prefect"), **environment)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.waiting_process", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, cwd=_ROOT, env=self._environment, limit=2**24,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._job).encode() + b"\n")
        if await self._line() != "ready":
            raise RuntimeError("nobody waits")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def woken(self) -> Woken:
        """How it went, once all have been woken."""
        return Woken(**json.loads(await self._line()))

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(LONGEST):
            return (await self._process.stdout.readline()).decode().strip()


class _Timed:
    """An alarm that remembers when it rang, in milliseconds since the epoch."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.rang: float | None = None

    async def wait(self, seconds: float) -> bool:
        """As the alarm's own."""
        rang = await self._alarm.wait(seconds)
        if rang and self.rang is None:
            self.rang = time.time() * 1000
        return rang


class _Shots:
    def __init__(self, job: dict[str, Any], ours: Desk) -> None:
        self.job, self.desk = job, ours
        self.rang: list[float] = []
        self.answered: list[float] = []
        self._waiting = 0
        self._all = asyncio.Event()
        self._buying = asyncio.Semaphore(BUYING)

    async def run(self) -> None:
        """All of them; `ready` is said in between."""
        numbers = self.job.get("rows") or range(self.job["shots"])
        shot: Callable[[int], Awaitable[None]] = {"ours": self._ours, "plain": self._plain, "rows": self._row}[
            self.job["way"]
        ]
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(shot(number))
            while self._waiting < len(numbers):  # noqa: ASYNC110 - a handful of looks
                await asyncio.sleep(0.05)
            print("ready", flush=True)
        print(json.dumps({"alarm": self.rang, "answer": self.answered}), flush=True)

    def _request(self, number: int) -> OmniVideoRequest:
        body = {"model": "kling-v3-omni", "aspect_ratio": "16:9", "duration": "3", "mode": "std"}
        return OmniVideoRequest.model_validate(body | {"prompt": f"{self.job['name']} {number}"})

    async def _ours(self, number: int) -> None:
        """As `create_video` and `wait_for_video` do it, each shot with clients of its own."""
        request = self._request(number)
        body = canonical(request.body())
        cost = micro_usd(estimate_cost(request))
        order = Order("main", key_of(base_key(body), 1), body, request.model, 3, cost, run="waiting")
        async with self._buying:
            listener = await listener_of(self.desk)
            buyer = self.desk.buyer(callback="" if listener is None else listener.base)
            purchase = await buyer.buy(order, request)
        async with AsyncExitStack() as stack:
            keeper = await stack.enter_async_context(self.desk.keeper())
            alarm: _Timed | None = None
            if listener is not None and listener.expects(purchase):
                alarm = _Timed(await stack.enter_async_context(listener.alarm(purchase)))

            async def answered(task: Task) -> None:
                if task.completed_at is not None:
                    self._ended(task, alarm)

            self._waiting += 1
            await keeper.wait(purchase, alarm=alarm, poll_interval=5.0, max_wait=LONGEST, on_state=answered)

    def _ended(self, task: Task, alarm: _Timed | None) -> None:
        assert task.completed_at is not None
        completed = task.completed_at.timestamp() * 1000
        self.answered.append(time.time() * 1000 - completed)
        if alarm is not None and alarm.rang is not None:
            self.rang.append(alarm.rang - completed)

    async def _plain(self, number: int) -> None:
        """The loop that everybody writes first."""
        async with self.desk.client() as client:
            async with self._buying:
                task = await client.create(self._request(number))
            self._waiting += 1
            while not task.ended:
                await asyncio.sleep(5)
                task = await client.get(task.task_id)
            self._ended(task, None)

    async def _row(self, number: int) -> None:
        """A row that is there already, and the alarm alone: nobody is asked."""
        purchase = await self.desk.ledger.get(number)
        listener = await listener_of(self.desk)
        assert listener is not None
        async with listener.alarm(purchase) as alarm:
            self._waiting += 1
            begun = time.time() * 1000
            assert await alarm.wait(LONGEST)
            self.rang.append(time.time() * 1000 - begun)


async def _main() -> None:
    job = json.loads(await asyncio.to_thread(sys.stdin.readline))
    try:
        await _Shots(job, await desk(settings_of(job))).run()
    finally:
        await close_ledgers()


if __name__ == "__main__":
    os.chdir(_ROOT)
    asyncio.run(_main())
