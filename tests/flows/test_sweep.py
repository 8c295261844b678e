"""The flow `sweep`, through a real Prefect server, against the simulator over real HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import sweep
from prefect_kling.gateway.errors import AuthenticationFailed, PurchaseUncertain
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import State as Stand
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from tests.conftest import logged

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]


async def bought(studio: KlingStudio, shot: str) -> Purchase:
    """Buys a shot in a run that does not live to see it done."""
    request = OmniVideoRequest(model="kling-v3-omni", prompt=f"At {shot}", aspect_ratio="16:9", duration="3")
    body = canonical(request.body())
    order = Order("main", key_of(base_key(body), 1), body, request.model, 3, 189_900, "harbour", shot=shot)
    return await (await desk(studio.settings())).buyer().buy(order, request)


async def swept(studio: KlingStudio) -> State[Any]:
    state: State[Any] = await sweep(studio, return_state=True)
    return state


def at(studio: KlingStudio, server: Running) -> KlingStudio:
    credentials = KlingCredentials(api_key="sk-sweep-77af01", base_url=server.base_url)
    return studio.model_copy(update={"credentials": credentials})


async def test_it_brings_home_what_a_dead_run_left(studio: KlingStudio, simulator: Running) -> None:
    purchases = [await bought(studio, shot) for shot in ("dawn", "night")]
    ledger = (await desk(studio.settings())).ledger
    stored: list[str] = []
    async with asyncio.timeout(60):
        while len(stored) < 2:
            state = await swept(studio)
            assert (state.type.value, state.name) == ("COMPLETED", "Swept")
            result = await state.aresult()
            stored += result["stored"]
            assert state.message is not None
            if result["stored"]:
                assert f"{len(result['stored'])} stored" in state.message
    assert sorted(stored) == sorted(purchase.short for purchase in purchases)
    for purchase in purchases:
        found = await ledger.get(purchase.id)
        assert found.clip is not None
        assert Path(found.clip.path).stat().st_size == found.clip.bytes
    assert simulator.service.stats()["creates"] == 2
    assert (await swept(studio)).message == "nothing to do"


async def test_what_is_uncertain_is_told_with_what_to_do(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(seed=1, shrink=8, faults="lost-answer=1")) as losing:
        there = at(studio, losing)
        with pytest.raises(PurchaseUncertain):
            await bought(there, "dawn")
        with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
            state = await swept(there)
        assert losing.service.stats()["creates"] == 1
        office = await desk(there.settings())
    (purchase,) = await office.ledger.of_account(office.account)
    assert (state.name, purchase.state) == ("Swept", Stand.UNCERTAIN)
    assert state.message is not None
    assert state.message.startswith("1 uncertain. ")
    assert f"{purchase.short} (shot 'dawn')" in state.message
    assert "`prefect-kling ledger resolve TOKEN --task-id ID` or `--never-created`" in state.message

    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    told = [state.message, str(await state.aresult()), *await logged(flow_run_id, purchase.short)]
    assert not [text for text in told if purchase.token in text]


async def test_what_was_lost_is_told_with_what_to_do(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(seed=1, shrink=8, generation_seconds=0.0, faults="expired=1")) as losing:
        there = at(studio, losing)
        purchase = await bought(there, "dawn")
        async with asyncio.timeout(60):
            while not (await (state := await swept(there)).aresult())["lost"]:
                pass
    assert state.name == "Swept"
    assert state.message is not None
    assert state.message.startswith(f"1 lost. {purchase.short} was paid for")
    assert "--retake" in state.message


async def test_what_does_not_pass_by_itself_fails_the_run(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(seed=1, shrink=8, api_key="sk-sweep-77af01")) as server:
        there = at(studio, server)
        purchase = await bought(there, "dawn")
        wrong = KlingCredentials(api_key="sk-wrong", base_url=server.base_url)
        state = await swept(there.model_copy(update={"credentials": wrong}))
    assert (state.type.value, state.name) == ("FAILED", "Partial")
    assert state.message is not None
    assert state.message.startswith("1 to be tried again. ")
    assert f"{purchase.short}: The gateway refuses the key" in state.message


async def test_a_gateway_that_is_away_for_a_while_does_not(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(seed=1, shrink=8)) as server:
        there = at(studio, server)
        await bought(there, "dawn")
    state = await swept(there)
    assert (state.type.value, state.name) == ("COMPLETED", "Swept")
    assert state.message is not None
    assert state.message.startswith("1 to be tried again. ")


async def test_without_a_studio_it_takes_the_environments(studio: KlingStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_LEDGER_URL", studio.ledger_url.get_secret_value())
    state: State[Any] = await sweep(return_state=True)
    assert state.type.value == "FAILED"
    with pytest.raises(AuthenticationFailed, match="APIMODELS_API_KEY"):
        await state.aresult()
