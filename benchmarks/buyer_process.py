"""Processes that buy, to be killed: a nursery that has everything imported forks them as it is told.

A kill is wasted on a process that still imports. So one process, `python -m benchmarks.buyer_process`, imports all
that buying takes and starts neither a thread nor an event loop; it reads jobs, one JSON object a line, and forks a
buyer for each, in a session of its own. What has become of them it prints, likewise. When its input ends, it kills
those that are left and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import logging
import os
import random
import select
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from prefect_kling.clips import Clip
from prefect_kling.gateway.client import tls
from prefect_kling.gateway.errors import BudgetExceeded, KlingError, PurchaseUncertain
from prefect_kling.gateway.prices import billed_seconds, estimate_cost, micro_usd, upper_cost
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.keys import Identity, Place, base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import LIVE
from prefect_kling.settings import StudioSettings

__all__ = ["BUDGET", "DONE", "LATER", "SIX_SHOTS", "UNCERTAIN", "Buyer", "Job", "Nursery", "Shot", "plain_shots"]

DONE: Final = 0
BROKEN: Final = 1
LATER: Final = 3
BUDGET: Final = 4
UNCERTAIN: Final = 5
"""How a buyer ends: everything is stored; a bug; trouble that passes; a budget; something waits to be settled."""

DOCUMENT: Final = "a board"
_logger = logging.getLogger("buyer")
_ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Shot:
    """A shot of a board; `video` is the shot whose clip it is made from, by `refer_type`."""

    id: str
    prompt: str
    video: str = ""
    refer_type: str = "base"


SIX_SHOTS: Final = (
    Shot("dawn", "A lighthouse on a cliff at dawn"),
    Shot("storm", "Turn it into a storm at night", video="dawn"),
    Shot("flood", "The sea rises to the lamp", video="storm"),
    Shot("keeper", "Inside, the keeper climbs the stairs"),
    Shot("lamp", "He lights the lamp", video="keeper", refer_type="feature"),
    Shot("coast", "The coast seen from the harbour"),
)
"""A storyboard with a chain of three, one of two, and a shot by itself."""


def plain_shots(count: int, name: str) -> tuple[Shot, ...]:
    """Shots that need nothing of each other; each costs the same."""
    return tuple(Shot(f"shot-{n}", f"Scene {n} of {name}") for n in range(1, count + 1))


@dataclass(frozen=True)
class Job:
    """What a buyer is to do: buy the shots of one edition, wait for them and keep them.

    Attributes:
        base_url, api_key: of the gateway.
        ledger_url, storage_url, home: of the studio.
        edition, shots: what is wanted; the edition's name is added to each prompt, so that every body is its own.
        run: for budgets and holds.
        max_in_flight, budget_per_day: limits; micro-dollars.
        max_wait: seconds, for a clip and for a slot.
        holds: whether the board is admitted as a whole before anything is bought.
        start_at: on the monotonic clock, so that several start at once.
        log: where the buyer's output goes.
    """

    base_url: str
    api_key: str = field(repr=False)
    ledger_url: str
    storage_url: str
    home: str
    log: str
    edition: str
    shots: tuple[Shot, ...] = SIX_SHOTS
    run: str = "run"
    max_in_flight: int = 20
    budget_per_day: int | None = None
    max_wait: float = 60.0
    holds: bool = True
    start_at: float = 0.0

    def as_line(self) -> bytes:
        """For the nursery."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """The inverse."""
        fields = json.loads(line)
        return cls(**{**fields, "shots": tuple(Shot(**shot) for shot in fields["shots"])})

    def settings(self) -> StudioSettings:
        """Of the studio that buys."""
        return StudioSettings(
            api_key=SecretStr(self.api_key),
            storage_url=self.storage_url,
            ledger_url=SecretStr(self.ledger_url),
            home=Path(self.home),
            base_url=self.base_url,
            max_in_flight=self.max_in_flight,
            budget_per_day=self.budget_per_day,
            budget_per_month=self.budget_per_day,  # so that a test may run over midnight
            poll_interval=0.05,
            max_wait=self.max_wait,
        )


class _Board:
    """One board being bought, as a flow would do it, but without Prefect."""

    def __init__(self, job: Job, ours: Desk) -> None:
        self.job, self.desk = job, ours
        self.running: dict[str, asyncio.Task[Clip | None]] = {}
        self.errors: list[BaseException] = []

    async def bought(self) -> int:
        """How it ended."""
        async with self._admitted():
            for shot in self.job.shots:
                self.running[shot.id] = asyncio.create_task(self._clip(shot))
            await asyncio.gather(*self.running.values())
        for kind, status in ((PurchaseUncertain, UNCERTAIN), (BudgetExceeded, BUDGET), (KlingError, LATER)):
            if any(isinstance(error, kind) for error in self.errors):
                return status
        return DONE

    @contextlib.asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        if not self.job.holds:
            yield
            return
        ledger, account = self.desk.ledger, self.desk.account
        hold = Hold(self.job.edition, DOCUMENT, self.job.run)
        of_edition = (purchases.c.edition == self.job.edition, purchases.c.state.in_([str(state) for state in LIVE]))
        there = {purchase.order.shot for purchase in await ledger.of_account(account, *of_edition)}
        wanted = {
            (shot.id, 1): micro_usd(upper_cost(self._request(shot, "https://example.com/clip.mp4")))
            for shot in self.job.shots
            if shot.id not in there
        }
        await ledger.admit(account, hold, wanted, self.desk.limits)
        try:
            yield
        finally:
            await ledger.end_hold(account, hold)

    async def _clip(self, shot: Shot) -> Clip | None:
        source = await self.running[shot.video] if shot.video else None
        if shot.video and source is None:
            return None
        try:
            return await self._stored(shot, source)
        except KlingError as error:
            _logger.warning("%s: %s: %s", shot.id, type(error).__name__, error)
            self.errors.append(error)
            return None

    async def _stored(self, shot: Shot, source: Clip | None) -> Clip:
        request = self._request(shot, "" if source is None else str(source.live_url(datetime.now(UTC))))
        purchase = await self.desk.buyer().buy(self._order(shot, request, source), request)
        async with self.desk.keeper() as keeper:
            settings = self.desk.settings
            done = await keeper.wait(purchase, poll_interval=settings.poll_interval, max_wait=settings.max_wait)
            kept = await keeper.keep(done)
        assert kept.clip is not None
        return kept.clip

    def _request(self, shot: Shot, url: str) -> OmniVideoRequest:
        body: dict[str, Any] = {"model": "kling-v3-omni", "mode": "std"}
        body["prompt"] = f"{shot.prompt}, {self.job.edition}"
        if shot.video:
            body["video_list"] = [{"video_url": url, "refer_type": shot.refer_type, "keep_original_sound": "no"}]
        if not shot.video or shot.refer_type != "base":
            body |= {"duration": "3", "aspect_ratio": "16:9"}
        return OmniVideoRequest.model_validate(body, context={"loopback": True})

    def _order(self, shot: Shot, request: OmniVideoRequest, source: Clip | None) -> Order:
        identities: dict[Place, Identity] = {}
        if source is not None:
            identities["video_list", 0, "video_url"] = ("clip", source.sha256)
        body = canonical(request.body(), identities)
        seconds = None if source is None else source.seconds
        return Order(
            edition=self.job.edition,
            key=key_of(base_key(body), 1),
            request=body,
            model=request.model,
            seconds=billed_seconds(request, seconds),
            micro_usd=micro_usd(estimate_cost(request, input_seconds=seconds)),
            storyboard="Lighthouse",
            document=DOCUMENT,
            shot=shot.id,
            folder=f"clips/{self.job.edition}",
            run=self.job.run,
        )


async def _buy(job: Job, news: int) -> int:
    await asyncio.sleep(max(0.0, job.start_at - time.monotonic()))
    try:
        ours = await desk(job.settings())
        _say(news, pid=os.getpid(), opened=True)
        return await _Board(job, ours).bought()
    except KlingError as error:
        _logger.warning("%s: %s", type(error).__name__, error)
        return BUDGET if isinstance(error, BudgetExceeded) else LATER
    finally:
        await close_ledgers()


def _be_a_buyer(job: Job) -> int:
    os.setsid()
    news = os.dup(1)
    _say(news, pid=os.getpid(), ready=True)
    output = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(old, new)
    random.seed()  # a fork has its parent's chances
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(relativeCreated)d %(name)s %(message)s")
    try:
        return asyncio.run(_buy(job, news))
    except BaseException:
        _logger.exception("a buyer broke")
        return BROKEN


def _say(pipe: int, **news: object) -> None:
    # One write: buyers and nursery share the pipe.
    os.write(pipe, json.dumps(news).encode() + b"\n")


def _import_the_rest() -> None:
    for name in ("aiosqlite", "asyncpg", "fsspec.implementations.local", "prefect_kling.media.untrusted"):
        importlib.import_module(name)
    for name in ("sqlite.aiosqlite", "postgresql.asyncpg"):
        importlib.import_module(f"sqlalchemy.dialects.{name}")
    tls()


def _lines() -> Iterator[bytes | None]:
    """Lines of standard input as they come, and None every now and then."""
    rest = b""
    while True:
        if not select.select([0], [], [], 0.01)[0]:
            yield None
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _nursery() -> None:
    _import_the_rest()
    _say(1, pid=os.getpid(), ready=True)
    buyers: set[int] = set()
    for line in _lines():
        if line is not None:
            job = Job.read(line)
            pid = os.fork()
            if pid == 0:
                status = BROKEN
                try:
                    status = _be_a_buyer(job)
                finally:
                    os._exit(status)  # the nursery's loop is not ours
            buyers.add(pid)
            _say(1, pid=pid, edition=job.edition)
        while buyers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            buyers.discard(pid)
            _say(1, pid=pid, status=os.waitstatus_to_exitcode(status))
    for pid in buyers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


class Buyer:
    """A buyer that was started.

    Attributes:
        pid: also of its process group.
        ready: set once it has a session of its own.
        opened: set once it has opened the ledger, or ended.
        ended: its exit status, once it has one; minus the signal's number where one ended it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready, self.opened = asyncio.Event(), asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def kill(self) -> int:
        """SIGKILLs it with everything it started, unless it has ended, and waits for that.

        Returns:
            Its exit status.
        """
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return await self.ended


class Nursery:
    """The nursery, from its caller's side: `async with Nursery(TMPDIR) as nursery`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._buyers: dict[int, Buyer] = {}
        self._started: asyncio.Queue[Buyer] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._scratch.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("APIMODELS_", "PREFECT_"))}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.buyer_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env=kept | {"TMPDIR": str(self._scratch)},
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        for buyer in list(self._buyers.values()):
            await buyer.kill()
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def start(self, job: Job) -> Buyer:
        """Starts a buyer; returns when it has a session of its own and is about to work."""
        assert self._process.stdin is not None
        self._process.stdin.write(job.as_line())
        await self._process.stdin.drain()
        buyer = await asyncio.wait_for(self._started.get(), 30)
        await asyncio.wait_for(buyer.ready.wait(), 30)
        return buyer

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            news = json.loads(line)
            buyer = self._buyers.get(news["pid"])
            if buyer is None:  # the buyer itself may be heard of before the nursery has told
                buyer = self._buyers[news["pid"]] = Buyer(news["pid"])
                self._started.put_nowait(buyer)
            if "ready" in news:
                buyer.ready.set()
            elif "opened" in news:
                buyer.opened.set()
            elif "status" in news:
                del self._buyers[news["pid"]]
                buyer.ready.set()
                buyer.opened.set()
                buyer.ended.set_result(int(news["status"]))


if __name__ == "__main__":
    _nursery()
