"""Takes made on other machines: a real server, a real worker, and runs of `generate-video/video` as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import EntrypointType  # type: ignore[attr-defined] # where Prefect's pages have it
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled
from pydantic import SecretStr

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import elsewhere, generate_video, preparing, render_storyboard
from prefect_kling.flows.errands import Errand
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.progress import Progress, watcher
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import State as LedgerState
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running as Gateway
from prefect_kling.simulator.server import running
from prefect_kling.tasks.results import Generated

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_server")]

BOARD = """\
title: Elsewhere
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: keeper
    prompt: The keeper
    continues: dawn
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    return path


@pytest.fixture
def one_shot(board: Path) -> None:
    """Leaves the film's first shot alone."""
    board.write_text(BOARD.partition("  - id: keeper")[0])


@pytest.fixture
async def pool(prefect_server: str) -> str:
    """A work pool for processes, with `generate-video/video` deployed to it."""
    name = f"pool-{uuid.uuid4().hex[:8]}"
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    deployment = await generate_video.ato_deployment(
        "video", work_pool_name=name, entrypoint_type=EntrypointType.MODULE_PATH
    )
    await deployment.aapply()
    return name


@pytest.fixture
def worker(pool: str, server_environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of that pool."""
    environment = server_environment | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"],
        env=environment,
        start_new_session=True,
    )
    yield process
    killed(process)


def killed(worker: subprocess.Popen[bytes]) -> None:
    """The worker and every run of its."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@pytest.fixture
async def saved(studio: KlingStudio) -> KlingStudio:
    """The studio as a block that other processes can load."""
    return await named(studio)


async def named(studio: KlingStudio) -> KlingStudio:
    """The same, saved under a name of its own."""
    name = f"studio-{uuid.uuid4().hex[:8]}"
    await studio.asave(name)
    return await KlingStudio.aload(name)


async def render(board: Path, studio: KlingStudio | None, **told: Any) -> tuple[Rendering, UUID]:
    """A film's run: what it came to, and its id."""
    state = await render_storyboard(str(board), studio, where="work-pool", return_state=True, **told)
    assert state.state_details.flow_run_id is not None
    found: Any = await state.aresult(raise_on_failure=False)
    return found, state.state_details.flow_run_id


async def children(run: UUID) -> list[FlowRun]:
    """The runs that a run has started, in order."""
    async with get_client() as client:
        wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
        return await client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC)


def kind(run: FlowRun | None) -> str | None:
    """The name of a run's state."""
    return None if run is None or run.state is None else run.state.name


async def asked_for(pool: str) -> list[FlowRun]:
    """The runs of a pool, once there are any."""
    wanted = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    async with get_client() as client, asyncio.timeout(60):
        while not (found := await client.read_flow_runs(work_pool_filter=wanted)):  # noqa: ASYNC110 - a server is waited for
            await asyncio.sleep(0.1)
    return found


async def test_each_take_is_a_run_on_a_worker_and_the_film_is_paid_for_once(
    board: Path, worker: subprocess.Popen[bytes], saved: KlingStudio, simulator: Gateway
) -> None:
    found, run = await render(board, saved)
    assert found.film is not None, found.sentence()
    assert simulator.service.stats()["creates"] == 2
    started = await children(run)
    assert [(made.name, kind(made)) for made in started] == [
        ("elsewhere · dawn", "Generated"),
        ("elsewhere · keeper", "Generated"),
    ]
    assert saved.credentials.api_key.get_secret_value() not in str([made.parameters for made in started])
    async with get_client() as client:
        graph = (await client._client.get(f"/flow_runs/{run}/graph-v2")).json()
    nodes = {node["label"]: node for _, node in graph["nodes"]}
    lies_in = nodes["generate-video / elsewhere · keeper"]["encapsulating"]
    assert [found["id"] for found in lies_in] == [nodes["keeper · elsewhere"]["id"]]
    parents = {found["id"] for found in nodes["keeper · elsewhere"]["parents"]}
    assert parents == {nodes["dawn · host last frame"]["id"]}


async def test_a_take_whose_worker_is_killed_is_gone_on_with_and_not_bought_again(
    board: Path,
    pool: str,
    worker: subprocess.Popen[bytes],
    saved: KlingStudio,
    simulator: Gateway,
    one_shot: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(elsewhere, "UNHEARD_SECONDS", 5.0)
    slow = simulator.service.config.model_copy(update={"generation_seconds": 10.0})
    monkeypatch.setattr(simulator.service, "config", slow)
    rendering = asyncio.create_task(render(board, saved))
    while not simulator.service.stats()["polls"]:  # noqa: ASYNC110 - another process is waited for
        await asyncio.sleep(0.1)
    (made,) = await asked_for(pool)
    assert made.infrastructure_pid is not None
    process = int(made.infrastructure_pid.rpartition(":")[2])
    os.kill(process, signal.SIGSTOP)  # else it would see its worker go, and say so
    killed(worker)
    os.kill(process, signal.SIGKILL)
    found, run = await rendering
    assert found.film is not None, found.sentence()
    assert simulator.service.stats()["creates"] == 1
    assert [kind(made) for made in await children(run)] == ["Running"]


async def test_a_cancelled_film_takes_back_what_no_worker_has_begun(
    board: Path, pool: str, saved: KlingStudio, simulator: Gateway, one_shot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering = asyncio.create_task(render(board, saved))
    await asked_for(pool)
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering
    assert kind((await asked_for(pool))[0]) == "Cancelled"
    assert simulator.service.stats()["creates"] == 0
    # One that no worker begins is made by the film's own run.
    monkeypatch.setattr(elsewhere, "UNHEARD_SECONDS", 0.5)
    found, run = await render(board, saved)
    assert found.film is not None, found.sentence()
    assert simulator.service.stats()["creates"] == 1
    assert [kind(made) for made in await children(run)] == ["Cancelled"]


@pytest.mark.usefixtures("old_prices")
async def test_without_credits_elsewhere_nothing_more_is_bought_and_what_runs_is_kept(
    board: Path, pool: str, studio: KlingStudio
) -> None:
    working = asyncio.create_task(works_here(pool))
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, balance="0.20")) as poor:
        key = KlingCredentials(api_key="sk-poor-8a3f10", base_url=poor.base_url)
        found, run = await render(board, await named(studio.model_copy(update={"credentials": key})))
        assert poor.service.stats()["creates"] == 1
    working.cancel()
    assert [(shot.status, shot.error_type) for shot in found.shots] == [
        ("stored", None),
        ("failed", "InsufficientCredits"),
    ]
    assert [kind(made) for made in await children(run)] == ["Generated", "InsufficientCredits"]


async def works_here(pool: str) -> None:
    """A worker in this process; costs nothing to start."""
    begun = set[UUID]()
    while True:
        for run in await asked_for(pool):
            if run.id not in begun:
                begun.add(run.id)
                await run_flow_async(generate_video, flow_run=run, parameters=run.parameters, return_type="state")
        await asyncio.sleep(0.1)


async def test_what_cannot_be_made_elsewhere_is_told_before_anything_is_bought(
    board: Path, pool: str, studio: KlingStudio, simulator: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    found: Any = (await render(board, studio))[0]
    assert isinstance(found, StoryboardError)
    assert "saved nowhere" in str(found)
    async with get_client() as client:
        video = await client.read_deployment_by_name(elsewhere.DEPLOYMENT)
        await client.delete_deployment(video.id)
    found = (await render(board, await named(studio)))[0]
    assert isinstance(found, StoryboardError)
    assert "prefect-kling init" in str(found)
    assert simulator.service.stats()["creates"] == 0


async def test_a_worker_with_another_ledger_buys_nothing(
    studio: KlingStudio, simulator: Gateway, tmp_path: Path
) -> None:
    theirs = await desk(studio.settings())
    errand = Errand.of(theirs, ORDER, Limits())
    other = studio.model_copy(update={"ledger_url": SecretStr(f"sqlite:///{tmp_path / 'other.db'}")})
    state: Any = await generate_video(REQUEST, other, errand=errand, return_state=True)
    assert (state.name, "uses the ledger" in state.message) == ("InvalidRequest", True)
    assert simulator.service.stats()["creates"] == 0


async def test_a_take_whose_film_was_cancelled_is_not_bought(studio: KlingStudio, simulator: Gateway) -> None:
    film = await film_that_is(Cancelled())
    errand = Errand.of(await desk(studio.settings()), replace(ORDER, run=str(film.id)), Limits())
    state: Any = await generate_video(REQUEST, studio, errand=errand, return_state=True)
    assert (state.name, "the film's run is Cancelled" in state.message) == ("InvalidRequest", True)
    assert simulator.service.stats()["creates"] == 0


async def film_that_is(state: State[Any]) -> FlowRun:
    async with get_client() as client:
        return await client.create_flow_run(render_storyboard, parameters={}, state=state)


async def test_what_a_film_has_done_with_is_not_bought_by_whoever_comes_late(studio: KlingStudio) -> None:
    film = await film_that_is(Running())
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="failed=@1")) as failing:
        key = KlingCredentials(api_key="sk-late-2d95a1", base_url=failing.base_url)
        late = studio.model_copy(update={"credentials": key})
        order = replace(ORDER, run=str(film.id))
        errand = Errand.of(await desk(late.settings()), order, Limits(), attempt=film.run_count)
        for _ in range(2):
            state: Any = await generate_video(REQUEST, late, errand=errand, return_state=True)
            assert (state.name, "internal error" in state.message) == ("GenerationFailed", True), state.message
        assert failing.service.stats()["creates"] == 1


async def test_what_an_earlier_attempt_of_a_film_wanted_is_not_bought(studio: KlingStudio, simulator: Gateway) -> None:
    film = await film_that_is(Running())
    order = replace(ORDER, run=str(film.id))
    errand = Errand.of(await desk(studio.settings()), order, Limits(), attempt=film.run_count - 1)
    state: Any = await generate_video(REQUEST, studio, errand=errand, return_state=True)
    assert (state.name, "was begun again since" in state.message) == ("InvalidRequest", True)
    assert simulator.service.stats()["creates"] == 0


async def test_the_films_budgets_hold_for_its_takes_elsewhere(studio: KlingStudio, simulator: Gateway) -> None:
    film = await film_that_is(Running())
    order, poor = replace(ORDER, run=str(film.id)), Limits(per_day=ORDER.micro_usd - 1)
    errand = Errand.of(await desk(studio.settings()), order, poor, attempt=film.run_count)
    state: Any = await generate_video(REQUEST, studio, errand=errand, return_state=True)
    assert (state.name, "budget of this UTC day" in state.message) == ("BudgetExceeded", True), state.message
    assert simulator.service.stats()["creates"] == 0


async def test_shots_that_are_one_purchase_share_its_run(
    board: Path, pool: str, saved: KlingStudio, simulator: Gateway, one_shot: None
) -> None:
    board.write_text(f"{board.read_text()}  - id: again\n    prompt: A lighthouse at dawn\n")
    working = asyncio.create_task(works_here(pool))
    found, run = await render(board, saved)
    working.cancel()
    assert found.film is not None, found.sentence()
    assert simulator.service.stats()["creates"] == 1
    assert [kind(made) for made in await children(run)] == ["Generated"]


@contextmanager
def failure_of(shot: str) -> Iterator[asyncio.Event]:
    """Set once the runs of the block have told that the shot has failed."""
    failed = asyncio.Event()

    def told(step: Progress) -> None:
        if (step.shot, step.step) == (shot, "failed"):
            failed.set()

    token = watcher.set(told)
    try:
        yield failed
    finally:
        watcher.reset(token)


@pytest.mark.usefixtures("old_prices", "pool")
async def test_a_take_that_comes_back_after_the_credits_are_gone_is_not_bought(
    board: Path, studio: KlingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.write_text(BOARD.replace("    continues: dawn\n", ""))
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, balance="0.1")) as poor:
        key = KlingCredentials(api_key="sk-poor-8a3f10", base_url=poor.base_url)
        there = await named(studio.model_copy(update={"credentials": key}))
        with failure_of("dawn") as failed:

            async def made(_: Any, name: str, *__: Any) -> elsewhere.Alone:
                if name == "keeper":
                    await failed.wait()
                return elsewhere.Alone("was never begun")

            monkeypatch.setattr(elsewhere.Elsewhere, "made", made)
            found, _ = await render(board, there)
        assert [shot.error_type for shot in found.shots] == ["InsufficientCredits"] * 2
        assert poor.service.stats()["posts"] == 1


@pytest.mark.usefixtures("pool")
async def test_a_take_that_a_worker_has_bought_is_waited_for_although_the_credits_are_gone(
    board: Path, studio: KlingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.write_text(BOARD.replace("    continues: dawn\n", ""))

    async def unknown(*_: Any) -> None:
        """The balance is not looked at before."""

    monkeypatch.setattr(preparing, "check_balance", unknown)
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, balance="0.20")) as poor:
        key = KlingCredentials(api_key="sk-poor-8a3f10", base_url=poor.base_url)
        there = await named(studio.model_copy(update={"credentials": key}))
        bought = asyncio.Event()
        with failure_of("dawn") as failed:

            async def made(self: elsewhere.Elsewhere, name: str, order: Order, _: Any, request: dict[str, Any]) -> Any:
                if name == "keeper":
                    wanted = OmniVideoRequest.model_validate(request, context={"loopback": True})
                    await self.desk.buyer().buy(order, wanted)
                    bought.set()
                    await failed.wait()
                await bought.wait()
                return elsewhere.Alone("ended as Crashed")

            monkeypatch.setattr(elsewhere.Elsewhere, "made", made)
            found, _ = await render(board, there)
        assert [(shot.status, shot.error_type) for shot in found.shots] == [
            ("failed", "InsufficientCredits"),
            ("stored", None),
        ]


async def test_after_an_approval_takes_are_made_elsewhere(
    board: Path, pool: str, saved: KlingStudio, simulator: Gateway, one_shot: None
) -> None:
    """Prefect counts the end of a pause as another beginning of the run."""
    name = f"approved-{uuid.uuid4().hex}"
    flow: Any = render_storyboard.with_options(flow_run_name=name)
    running_ = asyncio.create_task(flow(str(board), saved, approve="plan", where="work-pool", return_state=True))
    async with get_client() as client, asyncio.timeout(60):
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        while kind(run := next(iter(await client.read_flow_runs(flow_run_filter=wanted)), None)) != "Paused":  # noqa: ASYNC110 - a server
            await asyncio.sleep(0.1)
        assert run is not None
        # The form follows the state.
        while (await client.resume_flow_run(run.id, run_input={"decision": "buy"})).status is not SetStateStatus.ACCEPT:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    working = asyncio.create_task(works_here(pool))
    state = await running_
    working.cancel()
    assert state.name == "Rendered", state.message
    assert [kind(made) for made in await children(run.id)] == ["Generated"]
    assert simulator.service.stats()["creates"] == 1


async def test_what_moderation_refuses_elsewhere_is_tried_in_softer_words(
    board: Path, pool: str, saved: KlingStudio, simulator: Gateway
) -> None:
    sharp, _, _ = BOARD.replace("A lighthouse at dawn", "A battle, forbiddenpicture").partition("  - id: keeper")
    board.write_text(f"{sharp}    soften:\n      - A knight rests\n")
    working = asyncio.create_task(works_here(pool))
    found, run = await render(board, saved)
    working.cancel()
    assert found.film is not None, found.sentence()
    assert [shot.softened for shot in found.shots] == [1]
    assert [kind(made) for made in await children(run)] == ["GenerationFailed", "Generated"]


REQUEST = OmniVideoRequest(model="kling-v3-omni", prompt="A lighthouse", aspect_ratio="16:9", duration="3")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ORDER = Order("main", "k1:0#1", REQUEST.body(), "kling-v3-omni", 3, 189_900, storyboard="elsewhere", shot="dawn")
STORED = Purchase(
    7, "t0", LedgerState.STORED, ORDER, 0, "", None, spare=False, task_id="a1", result_url=None, expires_at=None,
    reason=None, error=None, clip=None, created_at=NOW, sent_at=NOW, answered_at=NOW, polled_at=None,
    missing_since=None, ended_at=None, stored_at=NOW,
)  # fmt: skip
BOUGHT = replace(STORED, state=LedgerState.SUBMITTED)
FAILED = replace(STORED, state=LedgerState.FAILED, error="GenerationFailed", reason="no such luck")
UNSURE = replace(STORED, state=LedgerState.UNCERTAIN)
POOR: State[Any] = Failed(name="InsufficientCredits", message="top it up")


@pytest.mark.parametrize(
    ("row", "state", "unheard", "told"),
    [
        (None, None, 0, "None"),
        (None, Running(), 299, "None"),
        (None, Running(), 301, "Alone: has not been heard of for 301 s"),
        (BOUGHT, Running(), 59, "None"),
        (BOUGHT, Running(), 61, "Alone: has not been heard of for 61 s"),
        (replace(BOUGHT, callback="https://calls.test"), Running(), 179, "None"),
        (replace(BOUGHT, callback="https://calls.test"), Running(), 181, "Alone: has not been heard of for 181 s"),
        (STORED, Running(), 0, "Generated: 7"),
        (STORED, Crashed(), 0, "Generated: 7"),
        (FAILED, Running(), 0, "GenerationFailed: no such luck"),
        (UNSURE, Running(), 0, "None"),
        (UNSURE, Failed(name="PurchaseUncertain", message="settle it"), 0, "PurchaseUncertain: settle it"),
        (None, POOR, 0, "InsufficientCredits: top it up"),
        (BOUGHT, Crashed(message="gone"), 0, "Alone: ended as Crashed (gone)"),
        (None, Cancelled(), 0, "Alone: ended as Cancelled"),
        (None, Failed(message="no module"), 0, "Alone: ended as Failed (no module)"),
        (None, Completed(), 0, "Alone: ended as Completed"),
    ],
)
def test_what_has_become_of_a_take(row: Purchase | None, state: State[Any] | None, unheard: float, told: str) -> None:
    patient = elsewhere.patience(row, state, workers=True)
    match elsewhere.concluded(row, state, unheard, patient):
        case elsewhere.Alone(why=why):
            found = f"Alone: {why}"
        case Generated(purchase=number):
            found = f"Generated: {number}"
        case None:
            found = "None"
        case error:
            found = f"{type(error).__name__}: {error}"
    assert found == told


def test_busy_workers_are_waited_for_longer_than_absent_ones() -> None:
    assert [elsewhere.patience(None, Scheduled(), workers=there) for there in (True, False)] == [300, 60]
