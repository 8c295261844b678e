"""From `prefect deploy` to a film on several machines, whatever is switched off meanwhile, and no secret anywhere."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest
from PIL import Image
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_kling.media.probe import probe
from tests.fleet.conftest import KEY, Fleet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
SOON = 300.0
TWELVE = """\
title: Twelve
look: soft light
defaults: {model: kling-v3-omni, aspect_ratio: 16:9, duration: 3}
shots:
  - id: plain
    prompt: A lighthouse on a cliff
  - id: edit
    prompt: At night
    base: plain
  - id: next
    prompt: Inside
    feature: plain
  - id: onward
    prompt: Up the stairs
    continues: next
  - id: quay
    prompt: The quay as in {harbour}
    images: {harbour: refs/harbour.png}
  - id: twice
    prompt: Waves
    takes: 2
  - id: gull
    prompt: A gull
  - id: boat
    prompt: A boat
  - id: nets
    prompt: Nets
  - id: rain
    prompt: Rain
  - id: bell
    prompt: A bell
  - id: end
    prompt: The end
    continues: bell
"""
THREE = """\
title: Three
defaults: {model: kling-v3-omni, aspect_ratio: 16:9, duration: 3}
shots:
  - id: plain
    prompt: A lighthouse on a cliff
  - id: edit
    prompt: At night
    base: plain
  - id: gull
    prompt: A gull
"""
CREATES, BODIES = 13, 12
"""Two takes of one shot are asked for in the same words."""


@pytest.fixture
def board(tmp_path: Path) -> str:
    folder = tmp_path / "boards"
    (folder / "refs").mkdir(parents=True)
    Image.linear_gradient("L").resize((400, 320)).convert("RGB").save(folder / "refs" / "harbour.png")
    (folder / "twelve.yaml").write_text(TWELVE)
    return str(folder / "twelve.yaml")


async def begun(client: PrefectClient, fleet: Fleet, **parameters: Any) -> FlowRun:
    deployment = await client.read_deployment_by_name("render-storyboard/storyboard")
    studio = {"$ref": {"block_document_id": fleet.studio}}
    return await client.create_flow_run_from_deployment(deployment.id, parameters={"studio": studio, **parameters})


async def until(found: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What it finds, once that is something."""
    try:
        async with asyncio.timeout(SOON):
            while True:
                if result := await found():
                    return result
                await asyncio.sleep(0.2)
    except TimeoutError as error:
        raise AssertionError(f"never: {what}") from error


async def rendered(client: PrefectClient, run: FlowRun, fleet: Fleet) -> FlowRun:
    async def ended() -> FlowRun | None:
        found = await client.read_flow_run(run.id)
        return found if found.state is not None and found.state.is_final() else None

    last: FlowRun = await until(ended, f"an end of {run.name}")
    assert last.state is not None
    assert last.state.name == "Rendered", f"{last.state.name}: {last.state.message}\n{fleet.logs()[-8000:]}"
    return last


async def frames_of(fleet: Fleet, edition: str, tmp_path: Path) -> int:
    """How many frames the film shows that lies in the bucket."""
    files = fsspec.filesystem("s3", **fleet.s3.url_options, skip_instance_cache=True)
    (film,) = files.glob(f"{fleet.bucket}/films/films/{edition}/*.mp4")
    files.get(film, str(tmp_path / f"{edition}.mp4"))
    (facts,) = await probe([tmp_path / f"{edition}.mp4"])
    return facts.video.frames


async def test_twelve_shots_become_a_film_and_nothing_tells_a_secret(fleet: Fleet, board: str, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: fleet.prefect.api}):
        async with get_client() as client:
            before = await fleet.stats()
            run = await rendered(client, await begun(client, fleet, storyboard=board, edition="here"), fleet)
            stats = await fleet.stats()
            assert stats["creates"] - before["creates"] == CREATES
            assert stats["distinct_bodies"] - before["distinct_bodies"] == BODIES
            assert stats["callbacks"]["delivered"] - before["callbacks"]["delivered"] >= CREATES
            assert await frames_of(fleet, "here", tmp_path) == 12 * 73

            own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
            artifacts = await client.read_artifacts(artifact_filter=own)
            assert {str(one.key) for one in artifacts} >= {"shots-twelve", "film-twelve", "sheet-twelve"}
            # Automations and whoever reads of the film next week need its events in the database.
            await until(lambda: events_of(client, "kling.film.rendered"), "the film's event")
    told = fleet.logs() + "".join(dumped(url) for url in fleet.databases)
    assert "Bought shot" in told
    password = fleet.s3.secret
    assert [secret[:6] for secret in (KEY, password) if secret in told] == []


async def test_a_server_that_restarts_in_mid_run_costs_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """With each take on a worker of its own; tests/cli/test_automations_command.py takes a run's machine away."""
    (tmp_path / "three.yaml").write_text(THREE)
    with temporary_settings({PREFECT_API_URL: fleet.prefect.api}):
        async with get_client() as client:
            parameters = {"storyboard": str(tmp_path / "three.yaml"), "edition": "there", "where": "work-pool"}
            before = await fleet.stats()
            run = await begun(client, fleet, **parameters)
            await bought(fleet, before["creates"] + 2)
            await fleet.prefect.restart()
            await rendered(client, run, fleet)
            stats = await fleet.stats()
            assert stats["creates"] - before["creates"] == stats["distinct_bodies"] - before["distinct_bodies"] == 3
            assert await frames_of(fleet, "there", tmp_path) == 3 * 73


async def bought(fleet: Fleet, creates: int) -> None:
    async def enough() -> bool:
        return bool((await fleet.stats())["creates"] >= creates)

    await until(enough, f"{creates} creates")


async def events_of(client: PrefectClient, name: str) -> int:
    """How many of these events the server has kept."""
    wanted = {"filter": {"event": {"name": [name]}}, "limit": 1}
    return int((await client.request("POST", "/events/filter", json=wanted)).json()["total"])


def dumped(url: str) -> str:
    """A whole database, as text."""
    parts = urlsplit(url)
    command = ["pg_dump", "-h", str(parts.hostname), "-p", str(parts.port), "-U", str(parts.username), parts.path[1:]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
