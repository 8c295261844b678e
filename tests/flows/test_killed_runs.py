"""Runs through Prefect that end in the middle: killed, stopped, retried. The film is finished, and paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry

from prefect_kling import KlingClient
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.settling import settle_as_never_created, settle_as_task
from prefect_kling.ledger.states import State
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

pytestmark = pytest.mark.timeout(240)

BOARD = """\
title: Killed
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: A storm at night
    base: dawn
  - id: keeper
    prompt: The keeper
    continues: storm
  - id: quay
    prompt: The quay
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A chain of three shots, and one beside it."""
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    return path


def environment(server_environment: dict[str, str], gateway: Running) -> dict[str, str]:
    return server_environment | {
        "APIMODELS_API_KEY": "sk-killed-0c77a1",
        "APIMODELS_BASE_URL": gateway.base_url,
        "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.2",
        "PYTHONUNBUFFERED": "1",
    }


async def started(board: Path, env: dict[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from prefect_kling.cli import main; main()",
        "render",
        str(board),
        "--json",
        stdout=PIPE,
        stderr=PIPE,
        env=env,
        start_new_session=True,
    )


async def reached(process: Process, step: str) -> None:
    """Reads the lines of progress up to one that names this step."""
    assert process.stderr is not None
    seen = []
    async for line in process.stderr:
        seen.append(line.decode())
        if step in seen[-1].split():
            return
    pytest.fail(f"the run ended before it was {step}:\n{''.join(seen)}")


async def killed(process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


async def finished(process: Process) -> dict[str, object]:
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    found: dict[str, object] = json.loads(out)
    return found


@asynccontextmanager
async def ledger_of(env: dict[str, str]) -> AsyncIterator[Ledger]:
    """The ledger that the processes use."""
    home = Path(env["PREFECT_HOME"]) / "kling"
    async with await Ledger.open(str(home / "ledger.db"), answers=home / "answers.jsonl") as ledger:
        yield ledger


async def settled_by_an_operator(env: dict[str, str], gateway: Running) -> None:
    """What the kill left uncertain is looked up at the gateway, as the message tells people to do."""
    account = Account(gateway.base_url)
    async with ledger_of(env) as ledger, KlingClient("sk-operator-52d0", base_url=gateway.base_url) as client:
        await ledger.reclaim(account)
        for row in await ledger.of_account(account, purchases.c.state == str(State.UNCERTAIN)):
            for task_id in list(gateway.service.tasks):
                with suppress(InvalidRequest):
                    await settle_as_task(ledger, account, client, row.token, task_id)
                    break
            else:
                await settle_as_never_created(ledger, account, row.token)


async def is_settled(env: dict[str, str], gateway: Running) -> None:
    """Nothing is held and nothing is on its way; every counter is the sum of its rows."""
    account = Account(gateway.base_url)
    async with ledger_of(env) as ledger:
        await ledger.reclaim(account)
        states = {row.state for row in await ledger.of_account(account)}
        assert states <= {State.STORED, State.RELEASED, State.ABANDONED}
        assert (await ledger.spent(account, Hold("", "", ""))).held == 0
        assert await ledger.audit(account) == {}


async def test_a_run_that_is_killed_four_times_is_finished_and_paid_for_once(
    server_environment: dict[str, str], board: Path
) -> None:
    config = SimulatorConfig(seed=1, generation_seconds=1.0, shrink=8, faults="truncated-download=0.3,poll-502=0.2")
    async with running(config) as gateway:
        env = environment(server_environment, gateway)
        for step in ("generating", "downloading", "generating", "joining"):
            process = await started(board, env)
            await reached(process, step)
            await killed(process)
            await settled_by_an_operator(env, gateway)
        rendering = await finished(await started(board, env))
        assert gateway.service.stats()["creates"] == 4
        served = {task_id: task["sha256"] for task_id, task in gateway.service.stats()["tasks"].items()}
        shots = rendering["shots"]
        assert isinstance(shots, list)
        for shot in shots:
            kept = hashlib.sha256(Path(shot["clip"]).read_bytes()).hexdigest()
            assert kept == shot["sha256"] == served[shot["task_id"]]
        await is_settled(env, gateway)


async def test_two_processes_at_once_make_one_film(server_environment: dict[str, str], board: Path) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=1.0, shrink=8)) as gateway:
        env = environment(server_environment, gateway)
        one, two = await asyncio.gather(*(started(board, env) for _ in range(2)))
        films = await asyncio.gather(finished(one), finished(two))
        assert gateway.service.stats()["creates"] == 4
        assert films[0]["film"] == films[1]["film"]
        assert {json.dumps(film["shots"][0]["sha256"]) for film in films} == {  # type: ignore[index] # parsed JSON
            json.dumps(films[0]["shots"][0]["sha256"])  # type: ignore[index] # likewise
        }
        await is_settled(env, gateway)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_stopped_can_be_retried_by_prefect_and_pays_only_for_the_rest(
    server_environment: dict[str, str], board: Path, stop: signal.Signals
) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=1.0, shrink=8)) as gateway:
        env = environment(server_environment, gateway)
        process = await started(board, env)
        await reached(process, "generating")
        process.send_signal(stop)
        out, said = await process.communicate()
        assert process.returncode == 130, (out + said).decode()
        flow_run = await _scheduled_again(env)
        # As a worker does it; `prefect flow-run retry --entrypoint` of Prefect 3.8 never awaits an async flow.
        retried = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prefect.engine",
            str(flow_run),
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env | {"PREFECT__FLOW_ENTRYPOINT": "prefect_kling.flows.storyboard:render_storyboard"},
        )
        said, _ = await retried.communicate()
        assert retried.returncode == 0, said.decode()
        assert gateway.service.stats()["creates"] == 4
        assert (Path(env["PREFECT_HOME"]) / "kling" / "storage" / "films" / "main" / "killed.mp4").is_file()
        await is_settled(env, gateway)


async def _scheduled_again(env: dict[str, str]) -> UUID:
    """What `prefect flow-run retry` does to the newest run: the same run is to be run once more."""
    async with PrefectClient(env["PREFECT_API_URL"]) as client:
        (found,) = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        await client.set_flow_run_state(found.id, AwaitingRetry(), force=True)
        return found.id
