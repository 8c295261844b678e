"""A Prefect server as a process of its own, on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx

from benchmarks.receivers import clean_environment, free_port

__all__ = ["MANY_RUNS", "PrefectServer", "prefect_server"]

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
STARTS_WITHIN: Final = 90.0
MANY_RUNS: Final = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}
"""What a server of many task runs is set to: by itself it gives each of their events a transaction of its own.

Whole seconds: Prefect 3.8 takes half a second for none, and spins.
"""


class PrefectServer:
    """A server on loopback; `prefect_server` starts one and ends it.

    Args:
        folder: for its home and its log.
        database_url: of an empty PostgreSQL database; empty for a SQLite file in its home.
        ui: whether it has its pages, at the API's address without `/api`.
        settings: variables for its environment, such as `MANY_RUNS`.

    Attributes:
        api: its API's address, the same for each start.
    """

    def __init__(
        self, folder: Path, database_url: str = "", *, ui: bool = False, settings: Mapping[str, str] = NOTHING
    ) -> None:
        self._port = free_port()
        self.api = f"http://127.0.0.1:{self._port}/api"
        self._log = folder / "server.log"
        self._environment = clean_environment(
            PREFECT_HOME=str(folder), PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1", **settings
        )
        # On another port than 4200 the pages have to be told where their API is.
        self._environment["PREFECT_SERVER_UI_API_URL"] = self.api
        self._ui = "--ui" if ui else "--no-ui"
        if database_url:
            database = database_url.replace("postgresql://", "postgresql+asyncpg://")
            self._environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts it; returns when it answers.

        Raises:
            RuntimeError: it has ended instead.
        """
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"),
                *("--port", str(self._port), self._ui), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment,
            )  # fmt: skip
        async with asyncio.timeout(STARTS_WITHIN), httpx.AsyncClient(trust_env=False) as client:
            while self._process.returncode is None:
                try:
                    if (await client.get(f"{self.api}/health")).is_success:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
        raise RuntimeError(f"the Prefect server has ended with {self._process.returncode}; see {self._log}")

    async def stop(self) -> None:
        """Ends it, in order."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def restart(self) -> None:
        """Ends it and starts it again, with the same database."""
        await self.stop()
        await self.start()


@asynccontextmanager
async def prefect_server(
    folder: Path, database_url: str = "", *, ui: bool = False, settings: Mapping[str, str] = NOTHING
) -> AsyncIterator[PrefectServer]:
    """A server for as long as the block lasts; see `PrefectServer` for the arguments."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    server = PrefectServer(folder, database_url, ui=ui, settings=settings)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
