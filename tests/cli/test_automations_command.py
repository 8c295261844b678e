"""`prefect-kling automations` on a real Prefect server, and what the automations do there."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from pydantic import SecretStr

from prefect_kling.flows import render_storyboard
from prefect_kling.flows.announcing import money_trouble
from prefect_kling.gateway.errors import InsufficientCredits
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import running

OURS = str(Path(sys.executable).parent / "prefect-kling")
SOON = 60.0
RUN = "http://127.0.0.1:4200/runs/flow-run/0b6f2c1e-58a3-4b0e-9d6d-5a1f0c9e7d42"


@pytest.fixture
def told() -> Iterator[tuple[str, queue.Queue[str]]]:
    """A web hook's address, and what it is told."""
    said: queue.Queue[str] = queue.Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", said
    server.shutdown()
    server.server_close()


async def command(*arguments: str, environment: dict[str, str], cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=cwd, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, told = await process.communicate()
    assert process.returncode == 0, said.decode() + told.decode()
    return said.decode()


async def automations(*arguments: str, environment: dict[str, str], cwd: Path) -> dict[str, str]:
    """What `prefect-kling automations --json` says of each."""
    said = await command(OURS, "automations", *arguments, "--json", environment=environment, cwd=cwd)
    return {one["name"]: one["done"] for one in json.loads(said)["automations"]}


async def deployed(environment: dict[str, str], folder: Path) -> None:
    """What `init` writes, deployed."""
    await command(OURS, "init", str(folder), environment=environment, cwd=folder.parent)
    prefect = (sys.executable, "-m", "prefect", "--no-prompt")
    pool = ("work-pool", "create", "kling", "--type", "process", "--overwrite")
    await command(*prefect, *pool, environment=environment, cwd=folder)
    await command(*prefect, "deploy", "--all", environment=environment, cwd=folder)


@pytest.fixture
async def no_automations() -> AsyncIterator[None]:
    """Other tests of the session have none of them."""
    yield
    async with get_client() as client:
        for one in await client.read_automations():
            if one.name.startswith("kling: "):
                await client.delete_automation(one.id)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("no_automations")
async def test_they_are_made_once_and_act(
    server_environment: dict[str, str], told: tuple[str, queue.Queue[str]], tmp_path: Path
) -> None:
    address, said = told
    folder = tmp_path / "begun"
    await deployed(server_environment, folder)
    name = f"films-{uuid.uuid4().hex[:8]}"
    await Webhook(url=SecretStr(address)).asave(name)
    given = (str(folder / "automations.yaml"), "--notify", f"webhook/{name}")
    planned = await automations(*given, "--dry-run", environment=server_environment, cwd=tmp_path)
    made = await automations(*given, environment=server_environment, cwd=tmp_path)
    assert set(made.values()) == {"made"}
    assert planned == made
    again = await automations(*given, environment=server_environment, cwd=tmp_path)
    assert again == dict.fromkeys(made, "unchanged")
    # Nobody named is no order to tell nobody.
    unnamed = await automations(given[0], environment=server_environment, cwd=tmp_path)
    assert unnamed == dict.fromkeys(made, "unchanged")

    text = (folder / "automations.yaml").read_text()
    (folder / "automations.yaml").write_text(text.replace("description: A shot has no clip.", "description: Look."))
    changed = await automations(*given, environment=server_environment, cwd=tmp_path)
    assert [one for one, done in changed.items() if done == "changed"] == ["kling: shot failed"]
    async with get_client() as client:
        assert len([one for one in await client.read_automations() if one.name in made]) == len(made)
        daily = await client.read_deployment_by_name("render-storyboard/daily")
        assert not daily.paused
        money_trouble("main", InsufficientCredits("The account cannot pay"))
        async with asyncio.timeout(SOON):
            while not (await client.read_deployment_by_name("render-storyboard/daily")).paused:  # noqa: ASYNC110 - a server
                await asyncio.sleep(0.1)
        assert not (await client.read_deployment_by_name("sweep/sweep")).paused
        film = {"storyboard": "Sea", "link": "https://films.example.com/sea.mp4", "edition": "main", "run": RUN}
        emit_event(
            "kling.film.rendered",
            resource={"prefect.resource.id": "kling.film.0123"},
            payload={**film, "seconds": 9.125, "usd": 0.5697},
        )
        failed = {"storyboard": "Sea", "shot": "dawn", "edition": "main", "usd": 0.0, "error": 'no\n"way"', "run": RUN}
        emit_event("kling.shot.failed", resource={"prefect.resource.id": "kling.shot.none"}, payload=failed)
    state: Any = await render_storyboard(str(tmp_path / "nowhere.yaml"), return_state=True)
    assert state.name == "StoryboardError"
    words = [await asyncio.to_thread(said.get, timeout=SOON) for _ in range(4)]
    assert any(" ended as StoryboardError\n" in one and "there is no such file" in one for one in words), words
    assert any("the account main has no credits\nThe account cannot pay" in one for one in words)
    ready = f"Sea is ready\nhttps://films.example.com/sea.mp4\nEdition main, 9.1 s, 0.57 USD.\n{RUN}"
    assert f"Kling: {ready}" in words
    assert f'Kling: Sea, shot dawn failed\nEdition main, 0.00 USD spent on it.\nno\n"way"\n{RUN}' in words


async def test_without_a_server_it_says_so(server_environment: dict[str, str], tmp_path: Path) -> None:
    environment = {name: value for name, value in server_environment.items() if name != "PREFECT_API_URL"}
    process = await asyncio.create_subprocess_exec(
        OURS, "automations", env=environment, cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert (process.returncode, "PREFECT_API_URL" in said.decode()) == (2, True)


@asynccontextmanager
async def worker(environment: dict[str, str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker of the pool, with the runs that it starts, in a process group of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect", "worker", "start", "--pool", "kling", "--type", "process", env=environment,
        cwd=folder, start_new_session=True, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)
        await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    """Takes a worker away with its runs, which get groups of their own, as a machine that is switched off does."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    runs = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    for group in (process.pid, *runs):
        try:
            os.killpg(os.getpgid(group), signal.SIGKILL)
        except ProcessLookupError:
            continue


async def seen(run_id: Any, *names: str) -> FlowRun:
    """The run, once its state has one of these names."""
    async with get_client() as client, asyncio.timeout(SOON):
        while True:
            run = await client.read_flow_run(run_id)
            if run.state is not None and run.state.name in names:
                return run
            await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("no_automations")
async def test_a_run_whose_machine_is_gone_is_found_crashed_and_tried_again_once(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "begun"
    await deployed(server_environment, folder)
    text = (folder / "automations.yaml").read_text()
    assert "within: 600" in text
    (folder / "automations.yaml").write_text(text.replace("within: 600", "within: 10"))
    await automations(str(folder / "automations.yaml"), environment=server_environment, cwd=tmp_path)
    config = SimulatorConfig(seed=1, generation_seconds=6.0, shrink=8)
    async with running(config) as gateway, get_client() as client:
        environment = server_environment | {
            "APIMODELS_API_KEY": "sk-worker-77a1",
            "APIMODELS_BASE_URL": gateway.base_url,
            "PREFECT_INTEGRATIONS_KLING_LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
            "PREFECT_INTEGRATIONS_KLING_STORAGE_URL": str(tmp_path / "storage"),
            "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.3",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        deployment = await client.read_deployment_by_name("render-storyboard/daily")
        run = await client.create_flow_run_from_deployment(deployment.id)
        async with worker(environment, tmp_path) as first:
            async with asyncio.timeout(SOON):
                # Another process is waited for. What it has asked about is in its ledger: killed before, it would have
                # left an uncertain purchase.
                while not any(task.polls for task in gateway.service.tasks.values()):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.1)
            kill(first)
        crashed = await seen(run.id, "Crashed", "AwaitingRetry")
        assert crashed.run_count == 1
        async with worker(environment, tmp_path):
            rendered = await seen(run.id, "Rendered", "Partial", "Failed")
        stats = gateway.service.stats()
    assert rendered.state is not None
    assert rendered.state.name == "Rendered"
    assert rendered.run_count == 2
    assert stats["creates"] == stats["distinct_bodies"] == 3
