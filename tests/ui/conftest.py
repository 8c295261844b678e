"""A Prefect server with its UI, whoever runs its deployment, a gateway and a browser, each as a user has them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Page, Response, async_playwright, expect

from benchmarks.postgresql import PostgreSQL
from benchmarks.prefect_server import MANY_RUNS, prefect_server
from benchmarks.receivers import clean_environment
from prefect_kling.simulator.clock import ManualClock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

ROOT: Final = Path(__file__).resolve().parents[2]
CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES: Final = ROOT / "build" / "ui"
RENEW: Final = bool(os.environ.get("KLING_RENEW_PICTURES"))
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-background-networking",
    "--no-first-run",
)
WITHIN_MS: Final = 30_000
GENERATION_SECONDS: Final = 60
MOVES_WITHIN: Final = 90

expect.set_options(timeout=WITHIN_MS)

SERVED: Final = """
from prefect import serve
from prefect.deployments.runner import EntrypointType
from prefect_kling import KlingStudio
from prefect_kling.flows import render_storyboard

KlingStudio.register_type_and_schema()
serve(render_storyboard.to_deployment("film", entrypoint_type=EntrypointType.MODULE_PATH))
"""


@dataclass
class House:
    """What a user sits in front of.

    Attributes:
        url: of Prefect's UI.
        gateway: the simulator.
        clock: its time, which stands still unless a test moves it.
        films: where a browser sees the storage.
        storage: the folder of it.
        deployment: the id of what renders storyboards.
        browser: to look at all of it with.
        told: the body of each answer of the server that its pages have got, by their address.
    """

    url: str
    gateway: Running
    clock: ManualClock
    films: str
    storage: Path
    deployment: str
    browser: Browser
    told: list[tuple[str, str]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A page whose answers are kept; of one that a test has failed on, its picture."""
        page = await self.browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(WITHIN_MS)
        page.on("response", self._hear)
        try:
            yield page
        except BaseException:
            await picture(page, "failed")
            raise
        finally:
            await page.close()

    async def _hear(self, response: Response) -> None:
        if "/api/" in response.url and "json" in response.headers.get("content-type", ""):
            with contextlib.suppress(Error):  # its page has gone on, and shows nothing of it
                self.told.append((response.url, await response.text()))

    async def api(self, method: str, path: str, said: Any = None) -> Any:
        """What the server answers to a call, by JSON."""
        async with httpx.AsyncClient(base_url=f"{self.url}/api", trust_env=False) as client:
            answer = await client.request(method, path, json=said)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    async def until(self, run: str, state: str, task: str = "", *, generated: bool = False) -> None:
        """Waits for a state of a flow run, or of its task of a name.

        Args:
            run: the flow run's id.
            state: the name of the state.
            task: the task run's name.
            generated: whether what the gateway generates is done meanwhile.
        """
        mine = {"flow_runs": {"id": {"any_": [run]}}}
        where = "/task_runs/filter" if task else "/flow_runs/filter"
        async with asyncio.timeout(MOVES_WITHIN):
            while True:
                found = await self.api("POST", where, mine)
                # A task's record may be there before its state is.
                said = [one["state"]["name"] for one in found if one["state"] and (not task or one["name"] == task)]
                if state in said:
                    return
                assert task or not {"Failed", "Crashed", "Partial"} & set(said), said
                if generated:
                    self.clock.advance(GENERATION_SECONDS)
                await asyncio.sleep(0.3)

    def creates(self) -> int:
        """How many videos the gateway has been asked for."""
        return int(self.gateway.service.stats()["creates"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> AsyncIterator[House]:
    """All of it, with blocks registered and none saved."""
    folder = tmp_path_factory.mktemp("house")
    storage = folder / "storage"
    storage.mkdir()
    config, clock = SimulatorConfig(seed=1, generation_seconds=GENERATION_SECONDS, shrink=4), ManualClock(time.time())
    async with (
        running(config, clock=clock) as gateway,
        # On SQLite it answers 503 now and then while the machine is busy, and its pages do not ask again.
        prefect_server(folder / "server", postgresql.new_database(), ui=True, settings=MANY_RUNS) as prefect,
        _served(folder, prefect.api, gateway.base_url) as deployment,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with _shown(storage) as films:
            yield House(prefect.api.removesuffix("/api"), gateway, clock, films, storage, deployment, browser)
        await browser.close()


@contextlib.asynccontextmanager
async def _served(folder: Path, api: str, gateway: str) -> AsyncIterator[str]:
    """A process that runs the deployment `film`; the deployment's id."""
    environment = clean_environment(
        PREFECT_API_URL=api,
        PREFECT_HOME=str(folder / "runner"),
        PREFECT_RUNNER_POLL_FREQUENCY="1",
        APIMODELS_API_KEY="sk-runner-4e91c7",
        APIMODELS_BASE_URL=gateway,
        PREFECT_INTEGRATIONS_KLING_STORAGE_URL=str(folder / "storage"),
        PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL="0.5",
        DO_NOT_TRACK="1",
    )
    with (folder / "runner.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVED, cwd=folder, env=environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=api, trust_env=False) as client:
            while not (found := (await client.post("/deployments/filter", json={})).json()):
                assert process.returncode is None, (folder / "runner.log").read_text()
                await asyncio.sleep(0.2)
        yield found[0]["id"]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[str]:
    """Serves a folder on loopback; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser there is nothing to look at."""
    if CHROMIUM is None:
        for item in items:
            if "house" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason="no Chromium here; .ci/run installs it"))


async def picture(page: Page, name: str, readme: bool = False) -> None:
    """Keeps what a page shows, for whoever looks after the tests have run."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png")
    if readme and RENEW:
        await page.screenshot(path=ROOT / "docs" / f"{name}.jpg", type="jpeg", quality=80)


@pytest.fixture
def keep_picture() -> Any:
    """`await keep_picture(page, name)` keeps what a page shows in build/ui; with `readme=True` the README shows it.

    Those are renewed where the environment has `KLING_RENEW_PICTURES`.
    """
    return picture
