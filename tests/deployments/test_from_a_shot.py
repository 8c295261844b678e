"""The shipped example of a deployment that a finished shot starts, on a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun, State

from prefect_kling import KlingStudio
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.simulator.server import Running

ROOT = Path(__file__).parents[2]
SOON = 60.0
BOARD = """\
title: {title}
defaults: {{model: kling-v3-omni, aspect_ratio: 16:9, duration: 3}}
shots:
  - id: dawn
    prompt: A lighthouse at dawn
"""


@pytest.mark.timeout(180)
async def test_each_finished_shot_of_the_storyboard_that_is_named_starts_a_run_with_its_clip(
    server_environment: dict[str, str], studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    file = str(ROOT / "deployments" / "from-a-shot.yaml")
    for arguments in (["work-pool", "create", "kling", "--overwrite"], ["deploy", "--all", "--prefect-file", file]):
        kind = ["--type", "process"] if "create" in arguments else []
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments, *kind]
        done = await asyncio.to_thread(
            subprocess.run, command, env=server_environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for title in ("Another", "Lighthouse"):
        (tmp_path / "film.yaml").write_text(BOARD.format(title=title))
        state: State[Any] = await render_storyboard(
            str(tmp_path / "film.yaml"), studio, edition=title, return_state=True
        )
        rendering: Rendering = await state.aresult()
    clip = rendering.shots[0].clip
    assert clip is not None
    (run,) = await started()
    assert run.parameters == {
        "storyboard": "/srv/kling/vertical.yaml",
        "allow_outside": True,
        "variables": {"clip": clip.path},
        "edition": "Lighthouse-dawn",
    }


async def started() -> list[FlowRun]:
    """The runs of the example's deployment, once there are any."""
    async with get_client() as client, asyncio.timeout(SOON):
        deployment = await client.read_deployment_by_name("render-storyboard/from-a-shot")
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
        while not (runs := await client.read_flow_runs(flow_run_filter=wanted)):  # noqa: ASYNC110 - a server is waited for
            await asyncio.sleep(0.1)
    return runs
