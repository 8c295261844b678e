"""A Prefect server as a process of its own, on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.receivers import clean_environment, free_port

__all__ = ["PrefectServer", "prefect_server"]

STARTS_WITHIN: Final = 90.0


@dataclass(frozen=True)
class PrefectServer:
    """A server that answers: its API's address, and its process."""

    api: str
    pid: int


@asynccontextmanager
async def prefect_server(folder: Path, database_url: str = "") -> AsyncIterator[PrefectServer]:
    """A server for as long as the block lasts.

    Args:
        folder: for its home; made here.
        database_url: of an empty PostgreSQL database; empty for a SQLite file in its home.

    Raises:
        RuntimeError: it ended before it answered.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = clean_environment(
        PREFECT_HOME=str(folder), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"
    )
    if database_url:
        database = database_url.replace("postgresql://", "postgresql+asyncpg://")
        environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(STARTS_WITHIN), httpx.AsyncClient(trust_env=False) as client:
            while process.returncode is None:
                try:
                    if (await client.get(f"{api}/health")).is_success:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
        if process.returncode is not None:
            raise RuntimeError(f"the Prefect server has ended with {process.returncode}")
        yield PrefectServer(api, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
