"""A whole run: 12 shots in three chains, 5 s of generation each, through a Prefect server."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.row import Row

__all__ = ["measure"]

CHAINS, LENGTH, SECONDS = 3, 4, 5.0


def measure() -> list[Row]:
    """Wall time once the server is up; beside it the critical path, which is four generations."""
    os.environ |= {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        wall = asyncio.run(_wall())
    path = LENGTH * SECONDS
    return [
        Row("12 shots in three chains, 5 s each", wall, "s", "critical path", path),
        Row("12 shots in three chains, 5 s each", wall, "s", "critical path + 3 s (bound)", path + 3),
    ]


async def _wall() -> float:
    from prefect_kling import KlingCredentials, KlingStudio, Storyboard
    from prefect_kling.flows import render_storyboard
    from prefect_kling.simulator.child import simulator_child
    from prefect_kling.simulator.config import SimulatorConfig

    shots = [
        {"id": f"c{chain}s{n}", "prompt": f"Chain {chain}, shot {n}"} | ({"feature": f"c{chain}s{n - 1}"} if n else {})
        for chain in range(CHAINS)
        for n in range(LENGTH)
    ]
    board = Storyboard.model_validate(
        {"title": "Three chains", "defaults": {"aspect_ratio": "16:9", "duration": 5}, "shots": shots}
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SimulatorConfig(seed=1, generation_seconds=SECONDS, shrink=8)
        async with simulator_child(config) as base_url:
            studio = KlingStudio(
                credentials=KlingCredentials(api_key="bench", base_url=base_url),
                storage_url=str(Path(folder) / "storage"),
                poll_interval=0.1,
            )
            begun = time.perf_counter()
            await render_storyboard(board, studio)
            return time.perf_counter() - begun
