"""The shipped deployments, deployed for real."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import IntervalSchedule
from ruamel.yaml import YAML

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import sweep

ROOT = Path(__file__).parents[2]


async def prefect(*arguments: str, env: dict[str, str], cwd: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
async def test_every_flow_deploys_from_the_installed_package(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    await prefect(
        "work-pool", "create", "kling", "--type", "process", "--overwrite", env=server_environment, cwd=tmp_path
    )
    file = str(ROOT / "deployments" / "prefect.yaml")
    started = datetime.now(UTC)
    await prefect("deploy", "--all", "--prefect-file", file, env=server_environment, cwd=tmp_path)
    async with get_client() as client:
        deployments = {
            deployment.name: deployment
            for deployment in await client.read_deployments()
            if deployment.updated and deployment.updated >= started  # other tests deploy to this server, too
        }
    assert deployments.keys() == {"storyboard", "daily", "series", "video", "sweep"}
    for deployment in deployments.values():
        assert deployment.entrypoint is not None
        assert deployment.entrypoint.startswith("prefect_kling.flows.")
        assert not deployment.pull_steps
    for name in ("storyboard", "series"):
        schema = deployments[name].parameter_openapi_schema
        assert schema is not None
        assert "studio" in schema["properties"]
    assert [bool(deployments[name].schedules) for name in ("storyboard", "series", "video")] == [False] * 3
    # It would buy a film a day.
    assert [schedule.active for schedule in deployments["daily"].schedules] == [False]
    strategies = {name: deployments[name].concurrency_options for name in ("daily", "sweep")}
    assert {name: found and found.collision_strategy for name, found in strategies.items()} == {
        "daily": ConcurrencyLimitStrategy.ENQUEUE,
        "sweep": ConcurrencyLimitStrategy.CANCEL_NEW,
    }
    (schedule,) = deployments["sweep"].schedules
    assert schedule.active
    assert isinstance(schedule.schedule, IntervalSchedule)
    assert schedule.schedule.interval == timedelta(minutes=15)


@pytest.mark.timeout(180)
async def test_a_deploy_undoes_what_was_switched_on_the_server(
    server_environment: dict[str, str], tmp_path: Path
) -> None:
    pool = ("work-pool", "create", "kling", "--type", "process", "--overwrite")
    await prefect(*pool, env=server_environment, cwd=tmp_path)
    deploy = ("deploy", "--name", "daily", "--prefect-file", str(ROOT / "deployments" / "prefect.yaml"))
    await prefect(*deploy, env=server_environment, cwd=tmp_path)
    async with get_client() as client:
        daily = await client.read_deployment_by_name("render-storyboard/daily")
        await client.update_deployment_schedule(daily.id, daily.schedules[0].id, active=True)
        await client.pause_deployment(daily.id)
        switched = await client.read_deployment_by_name("render-storyboard/daily")
        assert (switched.paused, [schedule.active for schedule in switched.schedules]) == (True, [True])
        await prefect(*deploy, env=server_environment, cwd=tmp_path)
        again = await client.read_deployment_by_name("render-storyboard/daily")
        assert [schedule.active for schedule in again.schedules] == [False]
        # Also what an automation has paused for want of credits.
        assert not again.paused
        await client.delete_deployment(daily.id)


async def test_a_sweep_looks_after_the_studio_that_is_named(server_environment: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "deployments" / "prefect.yaml").read_text("utf-8")
    (shown,) = re.findall(r"^    #   (studio: .*)\n    parameters: {}$", text, flags=re.MULTILINE)
    parameters = YAML(typ="safe").load(shown)
    await KlingStudio(credentials=KlingCredentials(api_key="sk-sweeps-51d0aa"), max_in_flight=3).asave(
        "films", overwrite=True
    )
    said = await asyncio.to_thread(sweep.validate_parameters, parameters)
    assert isinstance(said["studio"], KlingStudio)
    assert said["studio"].max_in_flight == 3
    (tmp_path / "prefect.yaml").write_text(
        text.replace("    parameters: {}\n    schedules:", f"    parameters: {{{shown}}}\n    schedules:")
    )
    pool = ("work-pool", "create", "kling", "--type", "process", "--overwrite")
    await prefect(*pool, env=server_environment, cwd=tmp_path)
    await prefect("deploy", "--name", "sweep", env=server_environment, cwd=tmp_path)
    async with get_client() as client:
        deployed = await client.read_deployment_by_name("sweep/sweep")
        assert deployed.parameters == parameters
        assert (await client.create_flow_run_from_deployment(deployed.id)).parameters == parameters
        await client.delete_deployment(deployed.id)
