"""A storyboard of 200 shots that is rendered again, unchanged: nothing is bought, asked for or fetched."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.row import Row

__all__ = ["measure"]

SHOTS, CHAIN, BOUND = 200, 10, 5.0


def measure() -> list[Row]:
    """Seconds from the run's start to its join; beside it the first run, and the bound."""
    os.environ |= {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        first, again = asyncio.run(_runs())
    return [
        Row(f"{SHOTS} unchanged shots, until the join", again, "s", "bound", BOUND),
        Row(f"{SHOTS} unchanged shots, until the join", again, "s", "the first run", first),
    ]


async def _runs() -> tuple[float, float]:
    from prefect_kling import KlingCredentials, KlingStudio, Storyboard
    from prefect_kling.flows import render_storyboard
    from prefect_kling.flows.progress import Progress, watcher
    from prefect_kling.simulator.config import SimulatorConfig
    from prefect_kling.simulator.server import running

    shots = [
        {"id": f"s{n}", "prompt": f"Shot {n}"} | ({"feature": f"s{n - 1}"} if n % CHAIN else {}) for n in range(SHOTS)
    ]
    board = Storyboard.model_validate(
        {"title": "Again", "defaults": {"aspect_ratio": "16:9", "duration": 3}, "shots": shots}
    )
    joined = [0.0]

    def watch(step: Progress) -> None:
        if step.step == "joining":
            joined[0] = time.perf_counter()

    watcher.set(watch)
    with tempfile.TemporaryDirectory() as folder:
        config = SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8)
        async with running(config) as simulator:
            studio = KlingStudio(
                credentials=KlingCredentials(api_key="bench-key-0", base_url=simulator.base_url),
                storage_url=str(Path(folder) / "storage"),
                ledger_url=f"sqlite:///{folder}/ledger.db",
                poll_interval=0.1,
                max_in_flight=100,
            )
            taken = []
            for _ in range(2):
                before, begun = simulator.service.stats(), time.perf_counter()
                await render_storyboard(board, studio)
                taken.append(joined[0] - begun)
            after = simulator.service.stats()
            for count in ("posts", "polls", "downloads", "uploads"):
                assert after[count] == before[count], count
    return taken[0], taken[1]
