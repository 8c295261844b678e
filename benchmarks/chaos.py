"""Buyers that are SIGKILLed at random moments, again and again, and what is left in the end: every clip, paid once.

    python -m benchmarks.chaos --kills 500 --database sqlite --seed 7

A simulator loses answers, sends 502 and 504, cuts downloads short. Two buyers at a time work on a board of six shots,
are killed and replaced; what is uncertain then is settled as an operator would, by looking at the gateway's tasks; now
and then another edition of the board is begun. `Report.problems` is what should not be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.buyer_process import DONE, LATER, SIX_SHOTS, UNCERTAIN, Buyer, Job, Nursery
from benchmarks.postgresql import PostgreSQL
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.schema import hold_items, hold_runs, metadata, purchases
from prefect_kling.ledger.settling import settle_as_never_created, settle_as_task
from prefect_kling.ledger.states import LIVE, State
from prefect_kling.ledger.sweeping import sweep
from prefect_kling.settings import StudioSettings
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.life import SimulatedTask
from prefect_kling.simulator.server import Running, running

__all__ = ["FAULTS", "Report", "Scene", "chaos", "scene"]

FAULTS: Final = (
    "lost-answer=0.1,hung-answer=0.04,accepted-502=0.05,accepted-504=0.05,502=0.05,504=0.05,429=0.03,"
    "poll-502=0.02,poll-429=0.01,truncated-download=0.2,download-503=0.03"
)
GENERATION_SECONDS: Final = 0.3
ARRIVAL: Final = timedelta(seconds=1)
"""A POST whose sender was killed may still be on its way into the simulator for so long."""
MOST_OPEN: Final = 4
MEAN_LIFE: Final = 0.5
LONGEST_LIFE: Final = 3.0
UNOPENED: Final = 0.1
"""How often a life counts from its very start, not from when the ledger is open."""
FINISHING_SECONDS: Final = 180.0
LONGEST_TURN: Final = 30.0
HUNG: Final = timedelta(seconds=2)
"""A sender that has had no answer for so long is killed also when the kills are over: none will come."""
NEW: Final = 0.1
"""How often another board is begun although one is open."""
LANES: Final = 2
"""Buyers that live at once, so that the living join what the killed have begun."""
MOVING: Final = (State.RESERVED, State.SENDING, State.SUBMITTED, State.COMPLETED)


@dataclass
class Report:
    """What happened.

    Attributes:
        seed: of kills and faults.
        kills: buyers that were SIGKILLed while they lived.
        phases: kills by what they hit; one kill may hit several shots in several phases.
        buyers, editions, creates: how many there were.
        as_task, never_created: uncertain purchases by how they were settled.
        after_kill: those of them whose sender was killed; the others had lost their answer.
        leftovers: unfinished downloads that the killed have left in `.incoming`, and their bytes.
        seconds: how long it took.
        problems: sentences about what should not be.
    """

    seed: int
    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    buyers: int = 0
    editions: int = 0
    creates: int = 0
    as_task: int = 0
    never_created: int = 0
    after_kill: int = 0
    leftovers: tuple[int, int] = (0, 0)
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count, size = self.leftovers
        lines = [
            f"seed {self.seed}: {self.kills} kills of {self.buyers} buyers in {self.seconds:.1f} s",
            f"{self.creates} creates for {self.editions} editions of {len(SIX_SHOTS)} shots",
            f"phases hit: {_counted(self.phases)}",
            f"faults: {_counted(self.faults)}",
            f"settled: {self.as_task} as a task, {self.never_created} as never created; {self.after_kill} after a kill",
            f"left in .incoming: {count} unfinished downloads, {size} bytes",
            *(f"PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


@dataclass(frozen=True)
class Scene:
    """A studio at a simulator, seen from outside the processes that buy for it.

    Attributes:
        gateway: the simulator.
        desk: the studio's, in this process.
        nursery: where buyers come from.
        folder: of everything the studio writes but a PostgreSQL database.
    """

    gateway: Running
    desk: Desk
    nursery: Nursery
    folder: Path

    def job(self, edition: str, **fields: Any) -> Job:
        """A job for this studio."""
        settings = self.desk.settings
        return Job(
            base_url=settings.base_url,
            api_key=settings.api_key.get_secret_value(),
            ledger_url=settings.ledger_url.get_secret_value(),
            storage_url=settings.storage_url,
            home=str(settings.home),
            log=str(self.log),
            edition=edition,
            max_in_flight=settings.max_in_flight,
            budget_per_day=settings.budget_per_day,
            **fields,
        )

    @property
    def log(self) -> Path:
        """What buyers have said."""
        return self.folder / "buyers.log"

    async def rows(self, *conditions: Any) -> list[Purchase]:
        """The account's rows."""
        return await self.desk.ledger.of_account(self.desk.account, *conditions)

    def tasks(self) -> list[SimulatedTask]:
        """The simulator's tasks."""
        return list(self.gateway.service.tasks.values())

    async def settle(self) -> tuple[Counter[str], bool]:
        """Settles what is uncertain as an operator does, by looking at the gateway's tasks.

        Returns:
            How many were settled as `task` and as `never-created`, of which how many `after-kill`; and whether some
            are left, as their POST may still arrive.
        """
        ledger, account = self.desk.ledger, self.desk.account
        await ledger.reclaim(account)
        settled: Counter[str] = Counter()
        now, left = await ledger.time(), False
        taken = {row.task_id for row in await self.rows()}
        for row in await self.rows(purchases.c.state == str(State.UNCERTAIN)):
            # A sender that lived has seen that its POST had arrived.
            killed = row.error != "PurchaseUncertain"
            prompt = row.order.request["prompt"]
            found = [t for t in self.tasks() if t.request.prompt == prompt and t.task_id not in taken]
            if found:
                async with self.desk.client() as client:
                    await settle_as_task(ledger, account, client, row.token, found[0].task_id)
            elif killed and row.sent_at is not None and now - row.sent_at < ARRIVAL:
                left = True
                continue
            else:
                await settle_as_never_created(ledger, account, row.token)
            settled["task" if found else "never-created"] += 1
            settled["after-kill"] += killed
        return settled, left

    async def settled(self) -> None:
        """Settles what is uncertain, once every POST of the killed has arrived."""
        _, left = await self.settle()
        if left:
            await asyncio.sleep(ARRIVAL / timedelta(seconds=1))
            await self.settle()

    async def swept(self) -> None:
        """Sweeps until nothing is on its way, or a while has passed."""
        async with self.desk.keeper() as keeper:
            for _ in range(50):
                swept = await sweep(keeper)
                if not swept.waiting and not swept.errors:
                    return
                await asyncio.sleep(0.1)

    async def problems(self) -> list[str]:
        """What should not be, after everything has ended."""
        found: list[str] = []
        rows = await self.rows()
        by_task = {task.task_id: task for task in self.tasks()}
        for row in rows:
            if row.state not in (State.STORED, State.ABANDONED, State.RELEASED):
                found.append(f"{row.order.edition} {row.named} is {row.state}: {row.reason}")
            elif row.state is State.STORED:
                found += _of_clip(row, by_task)
        unknown = set(by_task) - {row.task_id for row in rows}
        found += [f"task {task_id} was paid for and is in no row" for task_id in sorted(unknown)]
        bodies = Counter(task.digest for task in self.tasks())
        prompts = {task.digest: task.request.prompt for task in self.tasks()}
        found += [f"{n} creates for {prompts[body]!r}" for body, n in bodies.items() if n != 1]
        live = Counter(row.order.key for row in rows if row.state in LIVE)
        found += [f"{n} live rows of {key}" for key, n in live.items() if n != 1]
        found += await self._of_money(rows)
        found += await self._of_holds()
        found += self._of_storage(rows)
        found += await self._of_secrets()
        found += self._of_database()
        return found

    async def _of_money(self, rows: list[Purchase]) -> list[str]:
        audit = await self.desk.ledger.audit(self.desk.account)
        found = [
            f"the counter of {period} is {kept}, its rows' sum {summed}" for period, (kept, summed) in audit.items()
        ]
        money, counted = self.gateway.service.account, sum(row.counted for row in rows)
        if (counted, 0) != (money.taken, money.frozen):
            found.append(f"the ledger counts {counted}, the simulator billed {money.taken} and holds {money.frozen}")
        return found

    async def _of_holds(self) -> list[str]:
        async def count(connection: AsyncConnection) -> int:
            return sum([len((await connection.execute(select(table))).all()) for table in (hold_runs, hold_items)])

        held = await in_backroom(self.desk.ledger.db.read(count))
        return [f"{held} rows of holds are left"] if held else []

    def _of_storage(self, rows: list[Purchase]) -> list[str]:
        clips = {row.clip.path for row in rows if row.clip is not None}
        storage = Path(self.desk.settings.storage_url)
        there = {str(path) for path in storage.rglob("*") if path.is_file() and ".incoming" not in path.parts}
        return [f"{path} belongs to no row" for path in sorted(there - clips)]

    async def _of_secrets(self) -> list[str]:
        key = self.desk.settings.api_key.get_secret_value()
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        found = [f"the API key is in {path}" for path in files if key.encode() in path.read_bytes()]

        async def texts(connection: AsyncConnection) -> list[str]:
            tables = metadata.sorted_tables
            return [name.name for name in tables if key in repr((await connection.execute(select(name))).all())]

        found += [f"the API key is in {table}" for table in await in_backroom(self.desk.ledger.db.read(texts))]
        said = self.log.read_text("utf-8") if self.log.exists() else ""
        found += [f"a buyer's log has {word}" for word in ("Traceback", "never retrieved", "ignored") if word in said]
        return found

    def _of_database(self) -> list[str]:
        if not self.desk.ledger.db.is_sqlite:
            return []
        path = self.desk.settings.ledger_url.get_secret_value().removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check").fetchone()
        return [] if said == "ok" else [f"SQLite says {said}"]

    def leftovers(self) -> tuple[int, int]:
        """How many unfinished downloads lie in `.incoming`, and their bytes."""
        incoming = Path(self.desk.settings.storage_url) / ".incoming"
        files = [path for path in incoming.rglob("*") if path.is_file()]
        return len(list(incoming.glob("*"))), sum(path.stat().st_size for path in files)


def _of_clip(row: Purchase, by_task: dict[str, SimulatedTask]) -> list[str]:
    task = by_task.get(row.task_id or "")
    clip = row.clip
    if task is None or clip is None:
        return [f"{row.named} is stored, but {'there is no such task' if task is None else 'has no clip'}"]
    path = Path(clip.path)
    there = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if not there == clip.sha256 == task.sha256:
        return [f"{row.named}: on disk {there}, in the ledger {clip.sha256}, served {task.sha256}"]
    return []


@contextlib.asynccontextmanager
async def scene(folder: Path, ledger_url: str, config: SimulatorConfig, **limits: Any) -> AsyncIterator[Scene]:
    """Sets up a simulator, a ledger and a nursery.

    Args:
        folder: for the studio; empty.
        ledger_url: of an empty ledger.
        config: of the simulator; the key it accepts is set here.
        limits: further settings of the studio.
    """
    key = f"sk-chaos-{secrets.token_hex(12)}"
    home = folder / "home"
    async with running(config.model_copy(update={"api_key": key})) as gateway, Nursery(folder / "tmp") as nursery:
        settings = StudioSettings(
            api_key=SecretStr(key),
            storage_url=str(folder / "storage"),
            ledger_url=SecretStr(ledger_url),
            home=home,
            base_url=gateway.base_url,
            **limits,
        )
        async with await Ledger.open(ledger_url, answers=home / "answers.jsonl") as ledger:
            yield Scene(gateway, Desk(settings, ledger), nursery, folder)


async def chaos(
    folder: Path, ledger_url: str, *, kills: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Kills buyers until there were `kills`, lets the rest be finished, and looks at what is left.

    Args:
        folder: for the studio; empty.
        ledger_url: of an empty ledger.
        kills: how many.
        seed: decides the moments of the kills, and the faults.
        say: is told how it goes.
    """
    config = SimulatorConfig(
        seed=seed, faults=FAULTS, generation_seconds=GENERATION_SECONDS, shrink=8, balance="100000"
    )
    async with scene(folder, ledger_url, config) as there:
        return await _Chaos(there, kills, seed, say).run()


class _Chaos:
    def __init__(self, there: Scene, kills: int, seed: int, say: Callable[[str], None]) -> None:
        self.scene, self.wanted, self.say = there, kills, say
        self.report = Report(seed)
        self.settling = asyncio.Lock()
        self.open: list[str] = []
        self.blocked: set[str] = set()

    async def run(self) -> Report:
        begun = time.monotonic()
        await asyncio.gather(*(self._kill(random.Random(f"{self.report.seed}-{lane}")) for lane in range(LANES)))
        deadline = time.monotonic() + FINISHING_SECONDS
        while self.open and time.monotonic() < deadline:
            await asyncio.gather(*(self._turn(edition) for edition in self.open[:LANES]))
        await self._settle()
        await self.scene.swept()
        report = self.report
        report.problems += [f"edition {edition} was not finished" for edition in self.open]
        report.problems += await self._rerun()
        report.problems += await self.scene.problems()
        service = self.scene.gateway.service
        report.creates, report.faults = service.creates.total(), dict(service.faults.injected)
        if report.creates != report.editions * len(SIX_SHOTS):
            report.problems.append(f"{report.creates} creates for {report.editions} editions")
        report.leftovers = self.scene.leftovers()
        report.seconds = time.monotonic() - begun
        return report

    def _edition(self, chance: random.Random) -> str:
        """A board that can be gone on with; a new one where there is none, and now and then."""
        free = [edition for edition in self.open if edition not in self.blocked]
        if free and (chance.random() > NEW or len(self.open) >= MOST_OPEN):
            return chance.choice(free)
        self.report.editions += 1
        self.open.append(f"edition-{self.report.editions}")
        return self.open[-1]

    async def _kill(self, chance: random.Random) -> None:
        while self.report.kills < self.wanted:
            await self._turn(self._edition(chance), chance)

    async def _turn(self, edition: str, chance: random.Random | None = None) -> None:
        """One buyer's life; without `chance` it is killed only where it waits too long."""
        buyer = await self.scene.nursery.start(self.scene.job(edition, run=f"run-{self.report.buyers}"))
        self.report.buyers += 1
        if chance is not None:
            await self._moment(buyer, chance)
        else:
            await self._end(buyer)
        status = await buyer.kill()
        if status == -signal.SIGKILL:
            self.report.kills += 1
            await self._look(edition, buyer)
            if self.report.kills % 50 == 0:
                self.say(f"{self.report.kills} kills")
        elif status == DONE:
            self.open = [other for other in self.open if other != edition]
        elif status == UNCERTAIN:
            self.blocked.add(edition)
        elif status != LATER:
            self.report.problems.append(f"a buyer of {edition} ended with {status}")
        async with self.settling:
            await self._settle()

    async def _moment(self, buyer: Buyer, chance: random.Random) -> None:
        """Returns when it is time for a kill: after a random while, or soon after the gateway was asked for something.

        Most of a buyer's life is waiting; what it does at the gateway's door is over in milliseconds.
        """
        if chance.random() > UNOPENED:
            await buyer.opened.wait()
        service = self.scene.gateway.service
        sign = chance.choice(("none", "none", "posts", "posts", "downloads"))
        wanted = service.counts[sign] + chance.randint(1, 3)
        deadline = time.monotonic() + min(chance.expovariate(1 / MEAN_LIFE), LONGEST_LIFE)
        pause = chance.random() ** 2 * (0.4 if sign == "downloads" else 0.05)
        while time.monotonic() < deadline and not buyer.ended.done():
            if sign != "none" and service.counts[sign] >= wanted:
                await asyncio.sleep(pause)
                return
            await asyncio.sleep(0.002)

    async def _end(self, buyer: Buyer) -> None:
        """Returns when a buyer has ended, or waits for an answer that does not come."""
        deadline = time.monotonic() + LONGEST_TURN
        while not buyer.ended.done() and time.monotonic() < deadline:
            await asyncio.wait([buyer.ended], timeout=0.5)
            now = await self.scene.desk.ledger.time()
            for row in await self.scene.rows(purchases.c.state == str(State.SENDING)):
                if f"|{buyer.pid}|" in row.owner and row.sent_at is not None and now - row.sent_at > HUNG:
                    return

    async def _look(self, edition: str, buyer: Buyer) -> None:
        """Counts what the kill hit, before anybody mends it."""
        answered = {answer.token for answer in self.scene.desk.ledger.journal.answers()}
        phases = set()
        for row in await self.scene.rows(purchases.c.edition == edition, purchases.c.state.in_(list(map(str, MOVING)))):
            owned = f"|{buyer.pid}|" in row.owner
            if row.state is State.SENDING and owned:
                phases.add("sending, answer in the journal" if row.token in answered else "sending")
            elif row.state is State.RESERVED and owned:
                phases.add("reserved")
            elif row.state is State.COMPLETED and self._is_published(row):
                phases.add("completed, clip in storage")
            elif row.state in (State.SUBMITTED, State.COMPLETED):
                phases.add(str(row.state))
        self.report.phases.update(phases or {"between"})

    def _is_published(self, row: Purchase) -> bool:
        return (Path(self.scene.desk.settings.storage_url) / row.order.folder / f"{row.task_id}.mp4").exists()

    async def _settle(self) -> None:
        if not self.blocked:
            return
        settled, left = await self.scene.settle()
        self.report.as_task += settled["task"]
        self.report.never_created += settled["never-created"]
        self.report.after_kill += settled["after-kill"]
        if left and not set(self.open) - self.blocked and self.report.kills >= self.wanted:
            await asyncio.sleep(0.1)
        elif not left:
            self.blocked.clear()

    async def _rerun(self) -> Iterable[str]:
        """Runs the last boards once more, which may cost nothing."""
        before = self.scene.gateway.service.creates.total()
        found = []
        for number in range(max(1, self.report.editions - 2), self.report.editions + 1):
            buyer = await self.scene.nursery.start(self.scene.job(f"edition-{number}", run="rerun"))
            status = await asyncio.wait_for(buyer.ended, FINISHING_SECONDS)
            if status != DONE:
                found.append(f"a rerun of edition-{number} ended with {status}")
        more = self.scene.gateway.service.creates.total() - before
        return [*found, *([f"reruns bought {more} videos"] if more else [])]


def main() -> None:
    """The soak."""
    parser = argparse.ArgumentParser(description="SIGKILLs buyers at random moments and looks at what is left.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="a folder to work in, which is left as it is")
    asked = parser.parse_args()
    seed = random.randrange(2**31) if asked.seed is None else asked.seed
    # The simulator tells of every caller that hangs up on it.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    print(f"seed {seed}, {asked.kills} kills, {asked.database}", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kling-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        if asked.database == "sqlite":
            url = f"sqlite:///{folder / 'ledger.db'}"
        else:
            url = stack.enter_context(PostgreSQL()).new_database()
        report = asyncio.run(
            chaos(folder, url, kills=asked.kills, seed=seed, say=lambda text: print(text, file=sys.stderr, flush=True))
        )
    print(report)
    raise SystemExit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
