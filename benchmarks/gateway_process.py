"""A simulator as a process, of small clips: `python -m benchmarks.gateway_process SECONDS once|each`.

With `once`, one clip is drawn and given out for all, since what is measured is what is around them. Its base URL is the
first line of its standard output; it ends with its input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from benchmarks.receivers import clean_environment
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import serve

__all__ = ["gateway_process"]

_ROOT: Final = Path(__file__).resolve().parent.parent


@asynccontextmanager
async def gateway_process(generation_seconds: float, draw: Literal["once", "each"] = "once") -> AsyncIterator[str]:
    """The base URL of a gateway whose generations take so long, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.gateway_process", str(generation_seconds), draw, cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=clean_environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serves until its input ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    seconds, draw = float(sys.argv[1]), sys.argv[2] == "each" or "once"
    config = SimulatorConfig(seed=1, generation_seconds=seconds, balance="1000000", shrink=8, draw=draw)
    serve(config, announce=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
