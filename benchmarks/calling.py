"""Callbacks that are lost, tripled, late and forged, answers that are lost, and a receiver that is killed meanwhile.

    python -m benchmarks.calling --shots 200 --seed 7

The same shots are bought three times, each time at a gateway of its own with the same seed: undisturbed and polled;
with lost answers that only callbacks can bring home; and with callbacks that nobody should rely on. The receiver is a
process of its own, and is SIGKILLed and started again. What comes of it has to be the same clips, each paid once.
`Report.problems` is what should not be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import math
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from benchmarks.postgresql import PostgreSQL
from benchmarks.receivers import ReceiverProcess
from prefect_kling.blocks import KlingCredentials, KlingStudio
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.hints import MOST_HINTS, hints_of
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.states import State
from prefect_kling.simulator.config import MediaSpec, SimulatorConfig
from prefect_kling.simulator.life import SimulatedTask
from prefect_kling.simulator.server import running
from prefect_kling.tasks import create_video, download_video, wait_for_video

__all__ = ["LOST", "PESTERED", "Outcome", "Report", "Way", "calling"]

GENERATION_SECONDS: Final = 1.0
POLL_INTERVAL: Final = 0.25
"""Short, as a callback that never comes is waited for 24 times as long."""
AT_ONCE: Final = 40
SAME_BYTES: Final = MediaSpec(options="aq-mode=0:mbtree=0")
"""With them, x264 now and then makes other bytes of the same frames (1 of some 30 clips of this size, seen here)."""
FORGED_PER_SECOND: Final = 20
VICTIMS: Final = 4
"""Forged calls go to so few shots at a time, so that each gets many."""
LONGEST: Final = 600.0
KEY: Final = "sk-calling-"


@dataclass(frozen=True)
class Way:
    """How a batch of shots is bought.

    Attributes:
        name: for people.
        faults: of the simulator.
        called: whether callbacks are asked for.
        forged: whether strangers call as well.
        kills: how often the receiver is SIGKILLed and started again.
        most_gets: of a shot whose callback comes as it ends; None where callbacks do not come, and polls do.
    """

    name: str
    faults: str = ""
    called: bool = True
    forged: bool = False
    kills: int = 0
    most_gets: int | None = None


POLLED: Final = Way("polled", called=False)
LOST: Final = Way("lost answers", faults="lost-answer=0.3", kills=1, most_gets=2)
PESTERED: Final = Way(
    "pestered",
    faults="callback-drop=0.5,callback-duplicate=1,callback-late=0.3,callback-forged=0.2",
    forged=True,
    kills=2,
)


@dataclass
class Outcome:
    """What came of one batch.

    Attributes:
        way: how it was bought.
        clips: sha256 by prompt.
        gets: GETs that were answered, by shot.
        creates, posts: as the gateway counted them.
        lost: answers that were lost.
        forged: answers to forged calls, by status.
        calls: what the gateway's sender of callbacks did.
        kills: of the receiver.
        seconds: how long it took.
        problems: sentences about what should not be.
    """

    way: Way
    clips: dict[str, str] = field(default_factory=dict)
    gets: list[int] = field(default_factory=list)
    creates: int = 0
    posts: int = 0
    lost: int = 0
    forged: Counter[str] = field(default_factory=Counter)
    calls: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        shots = max(1, len(self.gets))
        lines = [
            f"{self.way.name}: {len(self.clips)} clips in {self.seconds:.1f} s",
            f"  {self.creates} creates, {self.lost} answers lost, {self.kills} kills of the receiver",
            f"  GETs a shot: {sum(self.gets) / shots:.2f}, at most {max(self.gets, default=0)}",
            f"  calls of the gateway: {_counted(self.calls)}",
            f"  forged calls, by answer: {_counted(self.forged)}",
            *(f"  PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


@dataclass
class Report:
    """What happened, and what should not have."""

    seed: int
    shots: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Of all batches, and of their clips compared with those of the first."""
        found = [f"{outcome.way.name}: {problem}" for outcome in self.outcomes for problem in outcome.problems]
        others = [outcome.way.name for outcome in self.outcomes if outcome.clips != self.outcomes[0].clips]
        return found + [f"{name}: the clips are not those of the undisturbed batch" for name in others]

    def __str__(self) -> str:
        same = "are the same" if all(o.clips == self.outcomes[0].clips for o in self.outcomes) else "DIFFER"
        head = f"seed {self.seed}, {self.shots} shots; the clips of all batches {same}"
        return "\n".join([head, *map(str, self.outcomes)])


def _counted(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count) or "none"


async def calling(
    folder: Path,
    new_ledger: Callable[[], str],
    *,
    shots: int,
    seed: int,
    ways: tuple[Way, ...] = (LOST, PESTERED),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Buys the same shots undisturbed, then in each way, and looks at what is left.

    Args:
        folder: for everything; empty.
        new_ledger: gives the address of an empty ledger.
        shots: how many.
        seed: decides clips, faults and what is forged.
        ways: in which they are bought again.
        say: is told how it goes.
    """
    report = Report(seed, shots)
    for number, way in enumerate((POLLED, *ways)):
        place = folder / f"batch-{number}"
        place.mkdir(parents=True)
        batch = _Batch(place, new_ledger(), way, shots, seed)
        # Each has a home of its own, and no Prefect server: the ledger is reread.
        with temporary_settings({PREFECT_HOME: place / "home"}, restore_defaults={PREFECT_API_URL}):
            report.outcomes.append(await batch.run())
        say(str(report.outcomes[-1]))
    return report


class _Batch:
    def __init__(self, folder: Path, ledger_url: str, way: Way, shots: int, seed: int) -> None:
        self.folder, self.ledger_url, self.way, self.shots, self.seed = folder, ledger_url, way, shots, seed
        self.outcome = Outcome(way)
        self.key = KEY + secrets.token_hex(12)
        self.forged_for: set[int] = set()

    async def run(self) -> Outcome:
        begun = time.monotonic()
        config = SimulatorConfig(
            seed=self.seed, faults=self.way.faults, generation_seconds=GENERATION_SECONDS, jitter=0.5, shrink=8,
            late_seconds=1, media=SAME_BYTES, api_key=self.key, balance="100000",
        )  # fmt: skip
        async with AsyncExitStack() as stack:
            self.gateway = await stack.enter_async_context(running(config))
            receiver = ReceiverProcess(self.folder, self.ledger_url)
            if self.way.called:
                stack.push_async_callback(receiver.end)
                await receiver.start()
            studio = self._studio(receiver)
            self.desk = await desk(studio.settings())
            stack.push_async_callback(close_ledgers)
            with disable_run_logger():
                async with asyncio.timeout(LONGEST), self._disturbed(receiver):
                    await asyncio.gather(*(self._shot(number, studio) for number in range(self.shots)))
                    if self.way is LOST:
                        await self._delivered()
            await self._look(receiver)
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _studio(self, receiver: ReceiverProcess) -> KlingStudio:
        return KlingStudio(
            credentials=KlingCredentials(api_key=self.key, base_url=self.gateway.base_url),
            storage_url=str(self.folder / "storage"),
            ledger_url=self.ledger_url,
            max_in_flight=min(AT_ONCE, max(1, self.shots // 3)),
            callback_base_url=receiver.base if self.way.called else "",
            poll_interval=POLL_INTERVAL,
            max_wait=LONGEST,
        )

    async def _shot(self, number: int, studio: KlingStudio) -> None:
        """As a flow does it: the tasks' own functions, one after another."""
        request = {
            "model": "kling-v3-omni", "prompt": f"A fox, picture {number}", "aspect_ratio": "16:9", "duration": "3",
        }  # fmt: skip
        submitted = await create_video.fn(request, studio)
        clip = await download_video.fn(await wait_for_video.fn(submitted, studio), studio)
        self.outcome.clips[request["prompt"]] = _sha256(clip.path)

    @contextlib.asynccontextmanager
    async def _disturbed(self, receiver: ReceiverProcess) -> AsyncIterator[None]:
        killing = asyncio.create_task(self._kill(receiver))
        forging = asyncio.create_task(_Forger(self, receiver.base).run()) if self.way.forged else None
        try:
            yield
        finally:
            if forging is not None:
                forging.cancel()
                await asyncio.gather(forging, return_exceptions=True)
            # Not cancelled: a receiver that is down has to come back, to be asked what it has heard.
            await killing

    async def _kill(self, receiver: ReceiverProcess) -> None:
        """Kills the receiver each time that another share of the shots has completed."""
        for number in range(self.way.kills):
            share = self.shots * (number + 1) / (self.way.kills + 1)
            while sum(not task.running for task in self.tasks()) < share:  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.02)
            status = await receiver.end(signal.SIGKILL)
            if status == -signal.SIGKILL:
                self.outcome.kills += 1
            else:
                self.outcome.problems.append(f"the receiver had ended with {status}")
            await receiver.start()

    async def _delivered(self) -> None:
        """Waits until every call was taken: a shot may have been ended by a poll while the receiver was down."""
        while self.gateway.service.callbacks["delivered"] < self.shots:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.05)

    def tasks(self) -> list[SimulatedTask]:
        """The gateway's."""
        return list(self.gateway.service.tasks.values())

    async def rows(self) -> list[Purchase]:
        """The ledger's."""
        return await self.desk.ledger.of_account(self.desk.account)

    # What is left.

    async def _look(self, receiver: ReceiverProcess) -> None:
        outcome, service = self.outcome, self.gateway.service
        rows, tasks = await self.rows(), {task.task_id: task for task in self.tasks()}
        outcome.creates, outcome.posts = service.creates.total(), service.counts["posts"]
        outcome.lost = service.faults.injected["lost-answer"]
        outcome.calls = {name: service.callbacks[name] for name in sorted(service.callbacks)}
        outcome.gets = [task.polls for task in tasks.values()]
        found = outcome.problems
        if not outcome.creates == len(service.creates) == outcome.posts == self.shots:
            found.append(
                f"{outcome.posts} POSTs and {outcome.creates} creates of {len(service.creates)} for {self.shots} shots"
            )
        states = Counter(str(row.state) for row in rows)
        if states != {str(State.STORED): self.shots}:
            found.append(f"the rows are {_counted(states)}")
        found += [said for row in rows if (said := self._of_row(row, tasks.get(row.task_id or "")))]
        found += [f"{row.named} has {said}" for row in rows if (said := await self._of_hints(row))]
        audit = await self.desk.ledger.audit(self.desk.account)
        counted, money = sum(row.counted for row in rows), service.account
        if audit or (counted, 0) != (money.taken, money.frozen):
            found.append(f"the ledger counts {counted} ({audit}), the gateway billed {money.taken}")
        said = receiver.said()
        tokens = [row.token for row in rows if row.token in said]
        found += [f"{len(tokens)} whole tokens are in what the receiver said"] if tokens else []
        found += [f"the receiver said {word}" for word in ("Traceback", self.key) if word in said]

    def _of_row(self, row: Purchase, task: SimulatedTask | None) -> str:
        if task is None:
            return f"{row.named} is task {row.task_id}, which there is not"
        if task.request.prompt != row.order.request["prompt"]:
            return f"{row.named} is task {row.task_id}, which is of {task.request.prompt!r}"
        if self.way.called and not (task.request.callback_url or "").endswith(row.token):
            return f"{row.named} is task {row.task_id}, which carries another token"
        if row.clip is None or row.clip.sha256 != task.sha256:
            return f"{row.named} is stored as {row.clip and row.clip.sha256}, served was {task.sha256}"
        most = self._most_gets(task)
        return f"{task.polls} GETs of {row.task_id}, bound is {most}" if task.polls > most else ""

    def _most_gets(self, task: SimulatedTask) -> int:
        """What a poller needs from the create to the end, and what a call in vain adds: a GET, and one a second later.

        However many calls are forged, the first alone is listened to.
        """
        lasted = (task.completed_at or 0.0) - task.created_at
        if self.way.most_gets is not None:
            # A receiver that is down is called again after 1, 2 and 4 s, and polls are 12 intervals apart.
            return self.way.most_gets + int((lasted + 7) / (0.9 * 12 * POLL_INTERVAL))
        return 3 + math.ceil(lasted / (0.9 * POLL_INTERVAL))

    async def _of_hints(self, row: Purchase) -> str:
        hints = await hints_of(self.desk.ledger, [row.id])
        true = any(hint.task_id == row.task_id for hint in hints)
        if self.way is LOST and not true:
            return "no hint of its own task, though each callback was sent until it was answered"
        return f"{len(hints)} hints" if len(hints) > MOST_HINTS else ""


class _Forger:
    """A stranger who knows some purchases' tokens, and calls all the time."""

    def __init__(self, batch: _Batch, base: str) -> None:
        self._batch, self._base = batch, base
        self._chance = random.Random(f"{batch.seed}-forger")
        self._known: list[Purchase] = []

    async def run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client, asyncio.TaskGroup() as calls:
            for number in range(sys.maxsize):
                if number % FORGED_PER_SECOND == 0:
                    self._known = [row for row in await self._batch.rows() if row.state is State.SUBMITTED]
                calls.create_task(self._call(client, *self._forged()))
                await asyncio.sleep(1 / FORGED_PER_SECOND)

    def _forged(self) -> tuple[str, dict[str, Any]]:
        """A token, and what is said of it."""
        chance, known = self._chance, self._known
        kind = chance.choice(("guessed", "false URL", "false URL", "failed", "other", "invented"))
        if kind == "guessed" or not known:
            return f"{chance.getrandbits(128):032x}", _said("1", "completed")
        victim, other = chance.choice(known[:VICTIMS]), chance.choice(known)
        task_id = str(victim.task_id)
        if kind == "other":
            task_id = str(other.task_id)
        elif kind == "invented":
            task_id = f"{chance.getrandbits(64):x}"
        return victim.token, _said(task_id, "failed" if kind == "failed" else "completed")

    async def _call(self, client: httpx.AsyncClient, token: str, body: dict[str, Any]) -> None:
        try:
            answer = await client.post(f"{self._base}/{token}", json=body)
        except httpx.TransportError:
            self._batch.outcome.forged["unreachable"] += 1
            return
        self._batch.outcome.forged[str(answer.status_code)] += 1


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _said(task_id: str, state: str) -> dict[str, Any]:
    result = json.dumps({"resultUrls": ["http://127.0.0.1:9/somebody/elses.mp4"]}) if state == "completed" else None
    data = {
        "taskId": task_id,
        "model": "kling-video/kling-v3-omni",
        "state": state,
        "param": "{}",
        "resultJson": result,
    }
    return {"code": 200, "msg": "success", "data": data}


def main() -> None:
    """The soak."""
    parser = argparse.ArgumentParser(description="Loses answers and callbacks, forges calls, kills the receiver.")
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = random.randrange(2**31) if asked.seed is None else asked.seed
    # The simulator tells of every caller that it hangs up on.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kling-calling-")))
        if asked.database == "sqlite":
            new_ledger = (f"sqlite:///{folder / f'ledger-{number}.db'}" for number in range(3)).__next__
        else:
            new_ledger = stack.enter_context(PostgreSQL()).new_database
        report = asyncio.run(
            calling(
                folder, new_ledger, shots=asked.shots, seed=seed,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        )  # fmt: skip
    print(report)
    print(*(f"PROBLEM {problem}" for problem in report.problems), sep="\n")
    raise SystemExit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
