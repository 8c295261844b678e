"""docs/scheduling.md, followed word for word, on a Prefect server and a gateway of the tests' own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from prefect_kling.simulator.server import Running

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scheduling.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
BIN = Path(sys.executable).parent


def block(holding: str, api: str, gateway: str) -> str:
    """The terminal with these words, for this server and this gateway, in this environment."""
    (found,) = [one for one in BLOCKS if holding in one]
    text = str(found).replace(". films/bin/activate\n", "")
    text = text.replace("http://127.0.0.1:4200/api", api).replace("http://127.0.0.1:8765/api/v1", gateway)
    return f"set -eu\n{text}"


async def typed(script: str, environment: dict[str, str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=environment, cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@asynccontextmanager
async def left_running(script: str, environment: dict[str, str], folder: Path) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=environment, cwd=folder, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


@pytest.mark.timeout(240)
async def test_it_leads_to_a_film_and_a_schedule(
    server_environment: dict[str, str], simulator: Running, tmp_path: Path
) -> None:
    environment = server_environment | {"PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    api = environment.pop("PREFECT_API_URL")
    deploying, working, running_it = (
        block(words, api, simulator.base_url) for words in ("init", "worker start", "deployment run")
    )
    # The test session's server has had the pool of another test.
    deploying = deploying.replace("--type process", "--type process --overwrite")
    await typed(deploying, environment, tmp_path)
    async with left_running(working, environment, tmp_path):
        said = await typed(running_it, environment, tmp_path)
    assert "Rendered" in said
    stats = simulator.service.stats()
    assert stats["creates"] == stats["distinct_bodies"] == 3
    async with get_client() as client:
        daily = await client.read_deployment_by_name("render-storyboard/daily")
        assert [schedule.active for schedule in daily.schedules] == [True]
        for automation in await client.read_automations():
            if automation.name.startswith("kling: "):
                await client.delete_automation(automation.id)
        await client.delete_deployment(daily.id)


def test_its_other_terminals_say_what_there_is() -> None:
    commands = [line.split("#")[0].strip() for one in BLOCKS for line in one.splitlines()]
    assert "prefect server start" in commands
    assert "prefect-kling simulate --port 8765" in commands


def test_it_names_what_is_deployed_and_automated() -> None:
    deployed = re.findall(r"^  - name: (\w+)$", (ROOT / "deployments" / "prefect.yaml").read_text(), flags=re.MULTILINE)
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == deployed
    made = re.findall(r'name: "kling: (.*)"', (ROOT / "deployments" / "automations.yaml").read_text())
    assert [row for row in re.findall(r"^\| ([a-z ]+) \|", PAGE, flags=re.MULTILINE) if row in made] == made
