"""How soon a shot is woken, how often the gateway is asked, and how many calls the receiver takes.

Everything is a process of its own, as in production: the gateway (a simulator that draws no clips), the receiver, a
Prefect server, and whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.ledger import filler
from benchmarks.postgresql import PostgreSQL
from benchmarks.prefect_server import prefect_server
from benchmarks.receivers import ReceiverProcess, clean_environment, receiving
from benchmarks.row import Row
from benchmarks.waiting_process import Waiting, Woken
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import hints, purchases
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

__all__ = ["measure"]

SHOTS: Final = 500
SPREAD_SECONDS: Final = 10.0
P50_BOUND, P95_BOUND = 50.0, 300.0
ASKED: Final = 12
"""Shots of each client whose GETs are counted."""
GENERATION_SECONDS: Final = 30.0
CALLS, CALLS_PER_SECOND, WAITING = 2000, 200, 1000
CLIENT: Final = "apimodels-mcp@0.3.0"
_ROOT: Final = Path(__file__).resolve().parent.parent


def measure() -> list[Row]:
    """Milliseconds, GETs and calls; beside them bounds, a plain poller and the gateway's own client."""
    with tempfile.TemporaryDirectory(prefix="kling-waking-") as folder, PostgreSQL() as server:
        return asyncio.run(_measured(Path(folder), server))


async def _measured(folder: Path, server: PostgreSQL) -> list[Row]:
    rows = await _waking(folder / "waking", server)
    rows += await _asking(folder / "asking")
    rows += await _receiving(_made(folder / "receiving-1"), "SQLite", f"sqlite:///{folder / 'receiving.db'}")
    rows += await _receiving(_made(folder / "receiving-2"), "PostgreSQL", server.new_database())
    return rows


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# --- how soon ---


async def _waking(folder: Path, server: PostgreSQL) -> list[Row]:
    rows: list[Row] = []
    async with _held_gateway() as gateway, prefect_server(folder / "prefect") as prefect:
        plain = await _woken(_made(folder / "plain"), gateway, "", "plain", SPREAD_SECONDS)
        rows += _beside("plain 5 s poller, answered", plain.answer, "a poller's mean, half of 5 s", 2500, 5000)
        number = 0
        for database in ("SQLite", "PostgreSQL"):
            for how, spread, api in (
                ("", SPREAD_SECONDS, prefect.api),
                (", all at once", 0.0, prefect.api),
                (", no Prefect server", SPREAD_SECONDS, ""),
            ):
                number += 1
                place = _made(folder / str(number))
                url = server.new_database() if database == "PostgreSQL" else f"sqlite:///{place / 'ledger.db'}"
                ours = await _woken(place, gateway, url, "ours", spread, api)
                name = f"{database}{how}, completed → "
                polled = [_p(plain.answer, share) for share in (50, 95)]
                # The bound is for shots that end as they do, and for events; the rest is beside what it replaces.
                bound = [P50_BOUND, P95_BOUND] if spread and api else polled
                rows += _beside(f"{name}woken", ours.alarm, "bound" if spread and api else "plain poller", *bound)
                rows += _beside(f"{name}confirmed by a GET", ours.answer, "plain poller", *polled)
    return rows


def _beside(what: str, found: list[float], beside: str, half: float, most: float) -> list[Row]:
    return [
        Row(f"{what}, p50 of {len(found)}", _p(found, 50), "ms", beside, half),
        Row(f"{what}, p95", _p(found, 95), "ms", beside, most),
    ]


def _p(found: list[float], share: int) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[share - 1]


class _Gateway:
    def __init__(self, process: asyncio.subprocess.Process, base_url: str) -> None:
        self._process, self.base_url = process, base_url

    async def end(self, spread: float) -> None:
        """Lets what was asked for end within so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"end {spread}\n".encode())
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def _held_gateway() -> AsyncIterator[_Gateway]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.held_gateway", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, cwd=_ROOT, env=clean_environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield _Gateway(process, (await process.stdout.readline()).decode().strip())
    finally:
        process.stdin.close()
        await process.wait()


async def _woken(folder: Path, gateway: _Gateway, ledger_url: str, way: str, spread: float, api: str = "") -> Woken:
    server = {"PREFECT_API_URL": api} if api else {}
    async with contextlib.AsyncExitStack() as stack:
        job: dict[str, Any] = {
            "folder": str(folder), "ledger_url": ledger_url or f"sqlite:///{folder / 'ledger.db'}",
            "base_url": gateway.base_url, "shots": SHOTS, "name": folder.name, "way": way,
        }  # fmt: skip
        if way == "ours":
            receiver = await stack.enter_async_context(receiving(folder, ledger_url, server))
            job["callback"] = receiver.base
        waiting = await stack.enter_async_context(Waiting(job, **server))
        await asyncio.sleep(1)  # whatever the buying has left to do
        await gateway.end(spread)
        return await waiting.woken()


# --- how often ---


async def _asking(folder: Path) -> list[Row]:
    """GETs of the same gateway for the same kind of shots in the same run."""
    config = SimulatorConfig(
        seed=1, generation_seconds=GENERATION_SECONDS, jitter=0.3, balance="1000000", draw=False, shrink=8
    )
    async with running(config) as gateway, contextlib.AsyncExitStack() as stack:
        waiting = []
        for name, way in (("called", "ours"), ("polled", "ours"), ("plain", "plain")):
            place = _made(folder / name)
            job: dict[str, Any] = {
                "folder": str(place), "ledger_url": f"sqlite:///{place / 'ledger.db'}", "base_url": gateway.base_url,
                "shots": ASKED, "name": name, "way": way,
            }  # fmt: skip
            if name == "called":
                job["callback"] = (await stack.enter_async_context(receiving(place, job["ledger_url"]))).base
            waiting.append(await stack.enter_async_context(Waiting(job)))
        own = await _own_client(folder, gateway)
        called, polled, plain = [await waits.woken() for waits in waiting]
        gets = {name: _gets(gateway, name) for name in ("called", "polled", "plain", "own")}
    lasts = f"{GENERATION_SECONDS:g} s"
    rows = [
        Row(f"GETs a shot of {lasts}, with callbacks", gets["called"], "", "bound", 2),
        Row("the same", gets["called"], "", "plain 5 s poller", gets["plain"]),
        Row("GETs a shot, without callbacks", gets["polled"], "", "plain 5 s poller", gets["plain"]),
    ]
    if own:
        rows += [
            Row("GETs a shot, with callbacks", gets["called"], "", "the gateway's own client", gets["own"]),
            Row("GETs a shot, without callbacks", gets["polled"], "", "the gateway's own client", gets["own"]),
        ]
    others = [("plain 5 s poller", plain.answer), ("ours without callbacks", polled.answer)]
    others += [("the gateway's own client", own)] if own else []
    return rows + [
        Row("completed → confirmed, p50, no Prefect server", _p(called.answer, 50), "ms", name, _p(found, 50))
        for name, found in others
    ]


def _gets(gateway: Running, name: str) -> float:
    found = [task.polls for task in gateway.service.tasks.values() if (task.request.prompt or "").startswith(name)]
    return statistics.mean(found) if found else float("nan")


async def _own_client(folder: Path, gateway: Running) -> list[float]:
    """The gateway's own client, unchanged: milliseconds until its tool returns; none where npm is not installed."""
    if shutil.which("npm") is None:
        return []
    npm = ["npm", "install", "--prefix", str(folder), "--omit=optional", "--ignore-scripts", "--no-audit", CLIENT]
    await asyncio.to_thread(subprocess.run, npm, check=True, capture_output=True, timeout=100)
    script = folder / "node_modules" / "apimodels-mcp" / "dist" / "index.js"
    process = await asyncio.create_subprocess_exec(
        "node", str(script), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=clean_environment(APIMODELS_BASE_URL=gateway.base_url, APIMODELS_API_KEY="sk-any"), limit=2**24,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    hello = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "b", "version": "0"}}
    said: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    for number in range(1, ASKED + 1):
        shot = {
            "prompt": f"own {number}", "model": "kling-v3-omni", "aspect_ratio": "16:9", "duration": "3",
            "wait_seconds": 120,
        }  # fmt: skip
        call = {"name": "generate_video", "arguments": shot}
        said.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call})
    process.stdin.writelines(json.dumps(message).encode() + b"\n" for message in said)
    returned: list[float] = []
    try:
        async with asyncio.timeout(180):
            while len(returned) < ASKED:
                answer = json.loads(await process.stdout.readline())
                if answer.get("id"):
                    returned.append(_late(answer, gateway, time.time()))
    finally:
        process.terminate()
        await process.wait()
    return returned


def _late(answer: dict[str, Any], gateway: Running, now: float) -> float:
    text = answer["result"]["content"][0]["text"]
    completed = [task.completed_at for task_id, task in gateway.service.tasks.items() if task_id in text]
    assert completed, text
    assert completed[0] is not None, text
    return (now - completed[0]) * 1000


# --- how many ---


async def _receiving(folder: Path, database: str, ledger_url: str) -> list[Row]:
    """Calls at a steady rate, to a receiver that has one core, while shots wait in another process."""
    core = min(os.sched_getaffinity(0))
    async with await Ledger.open(ledger_url, answers=folder / "answers.jsonl") as ledger:
        receiver = ReceiverProcess(folder, ledger_url, before=("taskset", "--cpu-list", str(core)))
        try:
            await receiver.start()
            numbers = await _filled(ledger, receiver.base)
            job = {
                "folder": str(folder), "ledger_url": ledger_url, "base_url": "http://127.0.0.1:9/v1", "shots": WAITING,
                "name": database, "way": "rows", "rows": numbers[:WAITING], "callback": receiver.base,
            }  # fmt: skip
            async with Waiting(job) as waiting:
                before, begun = receiver.cpu_seconds(), time.perf_counter()
                took, refused = await _load(receiver.base)
                taken = time.perf_counter() - begun
                busy = receiver.cpu_seconds() - before
                woken = await waiting.woken()
        finally:
            await receiver.end()
        kept = await _kept(ledger)
    name = f"receiver on one core, {database}"
    return [
        Row(f"{name}, calls a second, {WAITING:,} shots waiting", CALLS / taken, "", "asked for", CALLS_PER_SECOND),
        Row(f"{name}, answered 200", len(took) - refused, "", "calls", CALLS),
        Row(f"{name}, in the ledger", kept, "", "calls", CALLS),
        Row(f"{name}, woken", len(woken.alarm), "", "shots waiting", WAITING),
        Row(f"{name}, answer p50", _p(took, 50), "ms", "bound", 50),
        Row(f"{name}, answer p95", _p(took, 95), "ms", "bound", 50),
        Row(f"{name}, share of the core", 100 * busy / taken, "%", "whole core", 100),
    ]


async def _filled(ledger: Ledger, callback: str) -> list[int]:
    """Rows that wait for their callbacks; their numbers."""
    account = await ledger.account_id(Account("http://127.0.0.1:9/v1"))
    now = await ledger.time()

    async def work(connection: AsyncConnection) -> list[int]:
        rows = [
            filler(account, now, n) | {"token": _token(n), "state": "submitted", "callback": callback}
            for n in range(CALLS)
        ]
        await connection.execute(insert(purchases), rows)
        return [row.id for row in await connection.execute(select(purchases.c.id).order_by(purchases.c.id))]

    return await in_backroom(ledger.db.write(work))


def _token(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}{number:024x}"


async def _load(base: str) -> tuple[list[float], int]:
    """Milliseconds of each call, and how many were not answered 200."""
    took, refused = [], 0
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=10) as client:

        async def call(number: int) -> None:
            nonlocal refused
            data = {"taskId": f"filler-{number}", "model": "kling-video/kling-v3-omni", "state": "completed"}
            begun = time.perf_counter()
            answer = await client.post(f"{base}/{_token(number)}", json={"code": 200, "msg": "success", "data": data})
            took.append((time.perf_counter() - begun) * 1000)
            refused += answer.status_code != 200

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number in range(CALLS):
                calls.create_task(call(number))
                await asyncio.sleep(max(0.0, begun + (number + 1) / CALLS_PER_SECOND - time.perf_counter()))
    return took, refused


async def _kept(ledger: Ledger) -> int:
    async def count(connection: AsyncConnection) -> int:
        return int((await connection.execute(select(func.count()).select_from(hints))).scalar_one())

    return await in_backroom(ledger.db.read(count))
