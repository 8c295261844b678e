"""Runs that wait for a person on a real Prefect server, answered as the UI does it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry, Failed, Pending

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.asking import Questions
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.preparing import Wish, prepare
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

BOARD = """\
title: Approved
defaults:
  model: kling-v3-omni
  aspect_ratio: "16:9"
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: A storm at night
    base: dawn
"""
PRICE = 3 * Decimal("0.0633")
LONG_ENOUGH = 60.0


@pytest.fixture
def board(tmp_path: Path) -> str:
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    return str(path)


class Person:
    """Somebody who answers a run's questions in the UI."""

    def __init__(self, run: UUID) -> None:
        self.run = run

    async def asked(self, key: str) -> FlowRun:
        """Waits until the run asks this."""
        async with get_client() as client:
            deadline = time.monotonic() + LONG_ENOUGH
            while time.monotonic() < deadline:
                run = await client.read_flow_run(self.run)
                state = run.state
                assert state is not None
                if state.is_paused() and state.state_details.pause_key == key:
                    return run
                assert not state.is_final(), state.message
                await asyncio.sleep(0.1)
        pytest.fail(f"{key} is not asked")

    async def shown(self, key: str, how: str = "paused") -> str:
        """What the form says above its fields."""
        async with get_client() as client:
            for _ in range(100):
                try:
                    return str(json.loads(await client.read_flow_run_input(self.run, f"{how}-{key}-description")))
                except PrefectHTTPStatusError:  # the form follows the state
                    await asyncio.sleep(0.1)
        pytest.fail(f"{key} has no form")

    async def says(self, key: str, **said: Any) -> str:
        """Answers a question; why the server refuses it, or nothing."""
        run = await self.asked(key)
        assert run.state is not None
        await self.shown(key, str(run.state.name).lower())
        async with get_client() as client:
            result = await client.resume_flow_run(self.run, run_input=said)
        return "" if result.status == SetStateStatus.ACCEPT else str(getattr(result.details, "reason", ""))


async def begun(board: str, studio: KlingStudio, **wishes: Any) -> tuple[asyncio.Task[Any], Person]:
    """A run that is under way, by hand, and who answers it."""
    name = f"approved-{uuid4()}"
    flow = render_storyboard.with_options(flow_run_name=name)
    task: asyncio.Task[Any] = asyncio.create_task(_state(flow, board, studio, wishes))
    async with get_client() as client:
        for _ in range(300):
            found = await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
            if found:
                return task, Person(found[0].id)
            await asyncio.sleep(0.1)
    pytest.fail("the run does not begin")


async def _state(flow: Any, board: str, studio: KlingStudio, wishes: dict[str, Any]) -> Any:
    return await flow(board, studio, **wishes, return_state=True)


async def rendering_of(task: asyncio.Task[Any]) -> Rendering:
    state = await task
    assert state.name == "Rendered", state.message
    rendering = await state.aresult()
    assert isinstance(rendering, Rendering)
    return rendering


def creates(simulator: Running) -> int:
    return int(simulator.service.stats()["creates"])


async def test_nothing_is_bought_before_its_plan_is_approved(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    task, person = await begun(board, studio, approve="plan", budget=2.0)
    await person.asked("plan")
    text = await person.shown("plan")
    assert "2 of 2 shots are to be bought, about 0.38 USD" in text
    assert "| storm | A storm at night \\(from dawn\\) |" in text
    assert creates(simulator) == 0
    assert "decision" in await person.says("plan")
    async with get_client() as client:
        await client.update_flow_run(person.run, name="Friday's film", tags=["mine"])
        assert await person.says("plan", decision="buy") == ""
        assert (await rendering_of(task)).usd == 2 * PRICE
        run = await client.read_flow_run(person.run)
    # What somebody has said of it meanwhile stays.
    assert (run.name, set(run.tags)) == ("Friday's film", {"mine", "kling", "Approved"})
    assert creates(simulator) == 2
    # What is there needs no money, and no approval.
    again, _ = await begun(board, studio, approve="plan")
    assert (await rendering_of(again)).usd == 0


async def test_a_plan_that_is_declined_buys_nothing(studio: KlingStudio, simulator: Running, board: str) -> None:
    task, person = await begun(board, studio, approve="both")
    assert await person.says("plan", decision="decline") == ""
    state = await task
    assert (state.type.value, state.name) == ("CANCELLED", "Declined")
    assert "Nothing was bought" in state.message
    assert creates(simulator) == 0


async def test_a_plan_that_changes_while_it_is_read_is_asked_for_again(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    task, person = await begun(board, studio, approve="plan")
    await person.asked("plan")
    Path(board).write_text(BOARD.replace("duration: 3", "duration: 4"))
    assert await person.says("plan", decision="buy") == ""
    await person.asked("plan-2")
    assert "The storyboard has changed since its plan was approved" in await person.shown("plan-2")
    assert await person.says("plan-2", decision="decline") == ""
    assert (await task).name == "Declined"
    assert creates(simulator) == 0


async def test_nobody_answers(studio: KlingStudio, simulator: Running, board: str) -> None:
    hasty = studio.model_copy(update={"approval_wait": 1})
    task, _ = await begun(board, hasty, approve="plan")
    state = await task
    assert state.is_failed()
    assert "was not approved by" in state.message
    assert "Nothing was bought" in state.message
    assert creates(simulator) == 0


async def test_a_cut_is_approved_after_a_retake_of_one_shot(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    task, person = await begun(board, studio, approve="cut")
    await person.asked("cut-1")
    text = await person.shown("cut-1")
    assert text.count("data:image/webp;base64,") == 2
    assert len(text) < 100_000
    # Another dawn is another storm, too.
    assert "**dawn**, take 1, 3.0 s, 0.19 USD, again at most 0.38 USD with storm\n\n![](data:" in text
    assert "**storm**, take 1, 3.0 s, 0.19 USD, again at most 0.19 USD\n\n![](data:" in text
    assert creates(simulator) == 2
    # The server refuses a shot that there is not; the run what it lets pass.
    assert "shot-9" in await person.says("cut-1", decision="retake", retake=["shot-9"])
    assert await person.says("cut-1", decision="retake", retake=[]) == ""
    await person.asked("cut-2")
    assert "No shot was chosen to take again" in await person.shown("cut-2")
    assert await person.says("cut-2", decision="approve", retake=["storm"]) == ""
    await person.asked("cut-3")
    assert "it cannot be both" in await person.shown("cut-3")
    assert await person.says("cut-3", decision="retake", retake=["storm"]) == ""
    await person.asked("cut-4")
    assert creates(simulator) == 3
    assert await person.says("cut-4", decision="approve") == ""
    rendering = await rendering_of(task)
    assert {shot.id: shot.take for shot in rendering.shots} == {"dawn": 1, "storm": 2}
    assert rendering.usd == 3 * PRICE
    assert creates(simulator) == 3


async def test_what_is_made_of_a_retaken_shot_is_bought_anew_and_a_stop_keeps_the_clips(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    task, person = await begun(board, studio, approve="cut", budget=0.9)
    assert await person.says("cut-1", decision="retake", retake=["dawn"]) == ""
    await person.asked("cut-2")
    assert creates(simulator) == 4
    ours = await desk(studio.settings())
    assert (await ours.ledger.spent(ours.account, Hold("", "", ""))).held == 0
    # Four are 0.76 USD.
    assert await person.says("cut-2", decision="retake", retake=["storm"]) == ""
    await person.asked("cut-3")
    assert "the budget of this run is" in await person.shown("cut-3")
    assert creates(simulator) == 4
    assert await person.says("cut-3", decision="stop") == ""
    state = await task
    assert (state.type.value, state.name) == ("CANCELLED", "Stopped")
    assert "All clips are kept" in state.message
    # Another run would go on with the take that was chosen, and buy none.
    found = (await prepare(board, studio, {}, Wish())).standings
    assert {shot: (standing.status, standing.take) for shot, standing in found.items()} == {
        "dawn": ("kept", 2),
        "storm": ("kept", 1),
    }


async def test_what_was_written_since_a_plan_was_approved_is_not_bought_with_a_retake(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    task, person = await begun(board, studio, approve="both")
    assert await person.says("plan", decision="buy") == ""
    await person.asked("cut-1")
    Path(board).write_text(f"{BOARD}  - id: gulls\n    prompt: Gulls, that nobody has approved\n")
    assert await person.says("cut-1", decision="retake", retake=["storm"]) == ""
    await person.asked("plan-2")
    assert "The storyboard has changed since its plan was approved" in await person.shown("plan-2")
    assert creates(simulator) == 2
    assert await person.says("plan-2", decision="buy") == ""
    await person.asked("cut-2")
    assert creates(simulator) == 4
    assert await person.says("cut-2", decision="approve") == ""
    assert (await rendering_of(task)).film is not None


async def test_the_price_of_a_plan_is_approved_once(studio: KlingStudio, simulator: Running, board: str) -> None:
    """What is made of other files than then is another purchase, and was not in that price."""
    picture = Path(board).with_name("harbour.png")
    Image.new("RGB", (400, 320), "teal").save(picture)
    Path(board).write_text(f"{BOARD}  - id: quay\n    prompt: The quay\n    first_frame: harbour.png\n")
    task, person = await begun(board, studio, approve="both")
    assert await person.says("plan", decision="buy") == ""
    await person.asked("cut-1")
    Image.new("RGB", (400, 320), "navy").save(picture)
    assert await person.says("cut-1", decision="retake", retake=["storm"]) == ""
    await person.asked("plan-2")
    assert (
        "With what this run has bought it costs more than was approved, which was at most 0.5697 USD"
        in await person.shown("plan-2")
    )
    assert creates(simulator) == 3
    assert "This run has bought for 0.5697 USD." in await person.shown("plan-2")
    assert await person.says("plan-2", decision="decline") == ""
    declined = await task
    assert declined.name == "Declined"
    assert declined.message.endswith("(plan-2). What this run has bought before, for 0.5697 USD, is kept")


CHECKED = """\
title: Checked
defaults: {model: kling-v3-omni, aspect_ratio: 16:9, duration: 3}
shots:
  - id: dawn
    prompt: A lighthouse at dawn
"""


async def test_a_plan_whose_checks_may_buy_retakes_is_asked_about(
    studio: KlingStudio, simulator: Running, board: str
) -> None:
    Path(board).write_text(CHECKED)
    await rendering_of((await begun(board, studio, approve="nothing"))[0])
    # Clips of the simulator are small here.
    Path(board).write_text(f"{CHECKED}    max_retakes: 1\n    check: {{size: true}}\n")
    task, person = await begun(board, studio, approve="plan")
    await person.asked("plan")
    assert "Retakes after failed checks come on top" in await person.shown("plan")
    assert await person.says("plan", decision="decline") == ""
    assert (await task).name == "Declined"
    assert creates(simulator) == 1


async def test_what_would_be_bought_again_is_asked_about_and_in_the_price(studio: KlingStudio, board: str) -> None:
    Path(board).write_text(CHECKED)
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="lost-answer=@1")) as losing:
        key = KlingCredentials(api_key="sk-again-91c04d", base_url=losing.base_url)
        told: dict[str, Any] = {"credentials": key, "on_uncertain": "buy-again"}
        unsure = studio.model_copy(update=told | {"on_uncertain": "stop"})
        assert (await (await begun(board, unsure))[0]).name == "Partial"
        task, person = await begun(board, studio.model_copy(update=told), approve="plan")
        await person.asked("plan")
        assert "1 of 1 shots are to be bought, about 0.19 USD" in await person.shown("plan")
        assert losing.service.stats()["creates"] == 1
        assert await person.says("plan", decision="buy") == ""
        assert (await rendering_of(task)).film is not None
        assert losing.service.stats()["creates"] == 2


async def test_a_retake_of_what_only_the_wanted_shots_need(studio: KlingStudio, simulator: Running, board: str) -> None:
    task, person = await begun(board, studio, approve="cut", only=["storm"])
    assert await person.says("cut-1", decision="retake", retake=["dawn"]) == ""
    await person.asked("cut-2")
    assert creates(simulator) == 4
    assert await person.says("cut-2", decision="approve") == ""
    assert (await rendering_of(task)).film is not None


@pytest.fixture
def worker(
    server_environment: dict[str, str], simulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment of a worker, which this process has as well: one ledger, one storage."""
    said = {
        "APIMODELS_API_KEY": "sk-approved-7c1d20",
        "APIMODELS_BASE_URL": simulator.base_url,
        "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.1",
        "PREFECT_INTEGRATIONS_KLING_STORAGE_URL": str(tmp_path / "storage"),
        "PREFECT_INTEGRATIONS_KLING_LEDGER_URL": f"sqlite:///{tmp_path / 'studio.db'}",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return server_environment | said


async def deployed(parameters: dict[str, Any]) -> UUID:
    """A run of a deployment on a work pool, which no worker has taken yet."""
    async with get_client() as client:
        flow_id = await client.create_flow(render_storyboard)
        pool = await client.create_work_pool(WorkPoolCreate(name=f"pool-{uuid4()}", type="process"))
        deployment = await client.create_deployment(flow_id=flow_id, name="approved", work_pool_name=pool.name)
        return (await client.create_flow_run_from_deployment(deployment, parameters=parameters)).id


async def attempt(run: UUID) -> FlowRun:
    """Runs it until it ends or is suspended, as whoever has taken it does, and in a process that has done so before."""
    async with get_client() as client:
        await client.set_flow_run_state(run, Pending())
        found = await client.read_flow_run(run)
        with suppress(Pause):  # by which an engine ends its process
            await run_flow_async(render_storyboard, found, parameters=found.parameters, return_type="state")
        return await client.read_flow_run(run)


async def attempt_elsewhere(run: UUID, env: dict[str, str]) -> FlowRun:
    """The same in a process of its own."""
    entrypoint = {"PREFECT__FLOW_ENTRYPOINT": "prefect_kling.flows.storyboard:render_storyboard"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect.engine", str(run), stdout=PIPE, stderr=STDOUT, env=env | entrypoint
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    async with get_client() as client:
        return await client.read_flow_run(run)


async def shots_artifact(run: UUID) -> str:
    """What the page says of the shots, before their table."""
    async with get_client() as client:
        own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        found = await client.read_artifacts(artifact_filter=own)
    (table,) = [str(one.data) for one in found if str(one.key).startswith("shots-")]
    return table.split("\n\n")[1]


def named(run: FlowRun) -> str:
    assert run.state is not None
    return f"{run.state.name}: {run.state.message or run.state.state_details.pause_key}"


@pytest.mark.usefixtures("studio")
async def test_a_run_of_a_work_pool_is_suspended_and_another_process_buys_nothing_again(
    worker: dict[str, str], simulator: Running, board: str
) -> None:
    run = await deployed({"storyboard": board, "approve": "both"})
    person = Person(run)
    assert named(await attempt_elsewhere(run, worker)) == "Suspended: plan"
    assert creates(simulator) == 0
    assert await person.says("plan", decision="buy") == ""
    assert named(await attempt(run)) == "Suspended: cut-1"
    assert creates(simulator) == 2
    assert await shots_artifact(run) == "Edition main: 2 of 2 clips are there; this run has spent 0.38 USD."
    assert await person.says("cut-1", decision="retake", retake=["storm"]) == ""
    assert named(await attempt(run)) == "Suspended: cut-2"
    assert creates(simulator) == 3
    assert await person.says("cut-2", decision="approve") == ""
    # The take that was replaced is in it; what this run has bought itself was not there already.
    assert named(await attempt_elsewhere(run, worker)).startswith("Rendered: 2 clips, 6.1 s, 0.57 USD")
    assert await shots_artifact(run) == "2 clips, 6.1 s, 0.57 USD"
    assert creates(simulator) == 3


@pytest.mark.usefixtures("studio", "worker")
async def test_a_retry_asks_again_what_has_ended_the_run_or_nobody_has_answered(simulator: Running, board: str) -> None:
    run = await deployed({"storyboard": board, "approve": "plan"})
    person = Person(run)
    await attempt(run)
    assert await person.says("plan", decision="decline") == ""
    assert named(await attempt(run)).startswith("Declined")
    async with get_client() as client:
        await client.set_flow_run_state(run, AwaitingRetry())
    assert named(await attempt(run)) == "Suspended: plan-2"
    async with get_client() as client:  # as Prefect's server does it once the time is up
        await client.set_flow_run_state(run, Failed(message="never resumed"), force=True)
        await client.set_flow_run_state(run, AwaitingRetry())
    assert named(await attempt(run)) == "Suspended: plan-3"
    assert creates(simulator) == 0


@pytest.mark.usefixtures("studio", "worker")
async def test_a_retake_that_was_cut_short_is_gone_on_with(simulator: Running, board: str) -> None:
    """The run dies after the retakes were bought and before the next question: they are bought once all the same."""
    run = await deployed({"storyboard": board, "approve": "cut", "retake": ["dawn"]})
    person = Person(run)
    assert named(await attempt(run)) == "Suspended: cut-1"
    assert await person.says("cut-1", decision="retake", retake=["dawn"]) == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Questions, "ask", _dies)
        assert named(await attempt(run)).startswith("Failed")
    assert creates(simulator) == 4
    async with get_client() as client:
        await client.set_flow_run_state(run, AwaitingRetry())
    assert named(await attempt(run)) == "Suspended: cut-2"
    assert creates(simulator) == 4


async def _dies(*_: Any) -> None:
    raise OSError("the machine is gone")
