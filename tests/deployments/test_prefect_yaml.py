"""The shipped deployments, deployed for real."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import IntervalSchedule

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
