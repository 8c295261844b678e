"""A simulator as a process: it comes up, takes its settings along, and never stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from prefect_kling.simulator import SimulatorConfig, SimulatorFailed, simulator_child


async def stats(base_url: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer: dict[str, Any] = (await client.get(base_url.replace("/api/v1", "/_sim/stats"))).json()
        return answer


async def refused(base_url: str) -> bool:
    try:
        await stats(base_url)
    except httpx.TransportError:
        return True
    return False


async def test_a_child_serves_with_its_settings_and_ends_with_the_block(until: Any) -> None:
    async with simulator_child(SimulatorConfig(balance=3), seed=42) as base_url:
        assert base_url.startswith("http://127.0.0.1:")
        said = await stats(base_url)
        assert (said["seed"], said["usd"]["balance"]) == (42, "3")
    assert await refused(base_url)


async def test_a_child_ends_when_its_parent_is_killed(until: Any, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio\n"
        "from prefect_kling.simulator import simulator_child\n"
        "async def main():\n"
        "    async with simulator_child(seed=1) as url:\n"
        "        print(url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    base_url = (await parent.stdout.readline()).decode().strip()
    assert (await stats(base_url))["seed"] == 1
    assert list(tmp_path.iterdir())
    parent.kill()
    await parent.wait()

    async def gone() -> bool:
        return await refused(base_url) and not list(tmp_path.iterdir())

    await until(gone)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(tmp_path: Path, name: signal.Signals) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "prefect_kling.simulator", "--seed", "3", "--faults", "429=@1", "--media", "codec=hevc"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert child.stdout is not None
    base_url = (await child.stdout.readline()).decode().strip()
    assert (await stats(base_url))["seed"] == 3
    child.send_signal(name)
    _, said = await child.communicate()
    assert (child.returncode, said) == (0, b"")
    assert list(tmp_path.iterdir()) == []


async def test_wrong_settings_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError, match="'lost' is unknown"):
        async with simulator_child(faults="lost=1"):
            raise AssertionError("it must not come up")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect_kling.simulator", "--faults", "lost=1", stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    assert child.returncode == 2
    assert b"'lost' is unknown" in said


async def test_a_taken_port_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    async with simulator_child() as base_url:
        port = int(base_url.split(":")[2].split("/")[0])
        with pytest.raises(SimulatorFailed, match="exit code 1"):
            async with simulator_child(port=port):
                raise AssertionError("it must not come up")
    assert "in use" in capfd.readouterr().err
