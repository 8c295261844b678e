"""1,000 shots in one flow run, 200 of them in flight at the gateway, 30 s each.

Everything is a process of its own: a gateway that makes one clip for all, a Prefect server, the run. With PostgreSQL
under the ledger and the server, and with SQLite.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.flow_process import Ended, FlowProcess, Job
from benchmarks.gateway_process import gateway_process
from benchmarks.postgresql import PostgreSQL
from benchmarks.prefect_server import MANY_RUNS, prefect_server
from benchmarks.row import Row

__all__ = ["measure"]

SHOTS, IN_FLIGHT, GENERATION_SECONDS = 1000, 200, 30.0
IDEAL: Final = SHOTS / IN_FLIGHT * GENERATION_SECONDS
MEGABYTES: Final = 500.0


def measure() -> list[Row]:
    """Seconds beside those that the slots alone take, memory beside its bound, clips beside shots."""
    with tempfile.TemporaryDirectory(prefix="kling-thousand-") as folder, PostgreSQL() as server:
        postgresql = asyncio.run(_ended(Path(folder) / "1", server.new_database(), server.new_database()))
        sqlite = asyncio.run(_ended(Path(folder) / "2", "", ""))
    rows = []
    for database, ended in (("PostgreSQL", postgresql), ("SQLite", sqlite)):
        name = f"{SHOTS:,} shots, {IN_FLIGHT} in flight, {database}"
        # On SQLite it has to end, not to be quick.
        bound = ("bound", 1.1 * IDEAL) if database == "PostgreSQL" else ("slots alone", IDEAL)
        rows += [
            Row(f"{name}: the run ({ended.state})", ended.seconds, "s", *bound),
            Row(f"{name}: its memory", ended.megabytes, "MB", "bound", MEGABYTES),
            Row(f"{name}: clips", ended.stored, "", "shots", SHOTS),
            Row(f"{name}: processor time a shot", 1000 * ended.cpu / SHOTS, "ms", "its children", _children(ended)),
        ]
    return rows


def _children(ended: Ended) -> float:
    return 1000 * ended.cpu_children / SHOTS


async def _ended(folder: Path, server_url: str, ledger_url: str) -> Ended:
    async with (
        gateway_process(GENERATION_SECONDS) as base_url,
        prefect_server(folder / "server", server_url, settings=MANY_RUNS) as prefect,
    ):
        job = Job("Thousand", SHOTS, IN_FLIGHT, base_url, str(folder), ledger_url or f"sqlite:///{folder}/ledger.db")
        run = await FlowProcess.start(job, prefect.api)
        run.begin()
        return await run.ended()
