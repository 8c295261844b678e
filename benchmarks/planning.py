"""How long a storyboard of 1,000 shots takes from its text to its drawing, with a ledger that has all of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import SecretStr
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.row import Row
from prefect_kling.clips import Clip
from prefect_kling.flows.reckoning import Reckoner
from prefect_kling.flows.standing import Standing, standings
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.purchases import Order
from prefect_kling.ledger.schema import purchases
from prefect_kling.plan_view import PlanView
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.drawing import mermaid, tree
from prefect_kling.storyboard.plan import Plan, plan
from prefect_kling.storyboard.reader import Document, read_storyboard

__all__ = ["measure"]

T = TypeVar("T")

SHOTS, ROUNDS = 1000, 5
HEAD = "title: Long\nlook: grain\ndefaults:\n  aspect_ratio: 16:9\n  duration: 5\nshots:\n"
BOUND = 1.0


def measure() -> list[Row]:
    """Seconds, the best of five. Chains of four, then three in four of all shots in one chain.

    Beside reading, PyYAML's pure loader, which only parses; beside all of it together, what we promise.
    """
    rows = []
    for name, chained in (("chains of 4", lambda n: n % 4), ("a chain of 750", lambda n: 0 < n < 750)):
        text = HEAD + "".join(
            f"  - id: s{n}\n    prompt: Scene number {n}\n" + (f"    base: s{n - 1}\n" if chained(n) else "")
            for n in range(SHOTS)
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.yaml"
            path.write_text(text)
            rows += asyncio.run(_of(name, path, text))
    return rows


async def _of(name: str, path: Path, text: str) -> list[Row]:
    reading, document = _best(lambda: read_storyboard(path))
    planning, planned = _best(lambda: plan(document))
    folder = path.parent
    settings = StudioSettings(SecretStr("none"), str(folder), SecretStr(f"sqlite:///{folder}/ledger.db"), folder)
    there = await desk(settings)
    try:
        await _keep(there, document, planned)
        looking, found = 60.0, dict[str, Standing]()
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            found = await standings(Reckoner(there, document, planned, "main"))
            looking = min(looking, time.perf_counter() - begun)
    finally:
        await close_ledgers()
    assert {standing.status for standing in found.values()} == {"kept"}
    drawing, _ = _best(lambda: _drawn(document, planned, found))
    parser, _ = _best(lambda: yaml.load(text, yaml.SafeLoader), rounds=1)
    return [
        Row(f"{SHOTS:,} shots, {name}: reading", reading, "s", "yaml.safe_load alone", parser),
        Row("planning", planning, "s", "bound", BOUND),
        Row("how they stand in a SQLite ledger", looking, "s", "bound", BOUND),
        Row("critical path, time, tree and flowchart", drawing, "s", "bound", BOUND),
        Row("all of it", reading + planning + looking + drawing, "s", "bound", BOUND),
    ]


def _drawn(document: Document, planned: Plan, found: Mapping[str, Standing]) -> None:
    view = PlanView(document.storyboard.title, planned, found, 20)
    view.totals()
    tree(view.drawing)
    mermaid(view.drawing)


async def _keep(there: Desk, document: Document, planned: Plan) -> None:
    """Writes every shot into the ledger as bought and stored."""
    account_id, now = await there.ledger.account_id(there.account), await there.ledger.time()
    reckoner = Reckoner(there, document, planned, "main")
    clips: dict[str, tuple[str, float]] = {}
    rows = []
    for n, shot in enumerate(planned.order):
        clip = Clip(
            path=f"/srv/films/{n}.mp4", sha256=f"{n:064x}", bytes=1, seconds=5.0, frames=121, width=1280, height=720,
            task_id=f"t{n}", url=f"https://results.example.com/{n}.mp4", url_expires_at=now,
        )  # fmt: skip
        order = (await reckoner.choice(shot, clips)).order(1)
        clips[shot.id] = clip.sha256, clip.seconds
        rows.append(_row(account_id, now, order, clip))

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(insert(purchases), rows)

    await in_backroom(there.ledger.db.write(work))


def _row(account_id: int, now: datetime, order: Order, clip: Clip) -> dict[str, Any]:
    return {
        "token": clip.sha256[-32:], "account_id": account_id, "edition": "main", "key": order.key, "state": "stored",
        "spare": False, "storyboard": order.storyboard, "document": order.document, "shot": order.shot, "take": 1,
        "model": order.model, "seconds": order.seconds, "request": order.request, "folder": order.folder, "run": "",
        "price": order.micro_usd, "counted": order.micro_usd, "owner": "", "task_id": clip.task_id,
        "clip": clip.model_dump(mode="json"), "created_at": now,
    }  # fmt: skip


def _best(call: Callable[[], T], rounds: int = ROUNDS) -> tuple[float, T]:
    """Seconds of the quickest of some calls, and what the last one gave."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - begun)
    return min(times), found
