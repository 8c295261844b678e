"""Studios whose ledgers hold purchases that await their callbacks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import Event
from prefect_kling.settings import StudioSettings

KEY = "sk-callbacks-c3e1f0"
BASE = "http://127.0.0.1:9/kling"


@pytest.fixture
def settings(tmp_path: Path) -> StudioSettings:
    """A studio on loopback with a ledger in SQLite."""
    return StudioSettings(
        api_key=SecretStr(KEY),
        storage_url=str(tmp_path / "storage"),
        ledger_url=SecretStr(f"sqlite:///{tmp_path / 'ledger.db'}"),
        home=tmp_path / "home",
        base_url="http://127.0.0.1:9/api/v1",
        callback_base_url=BASE,
    )


@pytest.fixture
async def ours(settings: StudioSettings) -> AsyncIterator[Desk]:
    """The studio's desk."""
    yield await desk(settings)
    await close_ledgers()


Bought = Callable[..., Awaitable[Purchase]]


def order_of(prompt: str) -> tuple[Order, OmniVideoRequest]:
    """A plain text shot of five seconds."""
    request = OmniVideoRequest.model_validate({"model": "kling-v3-omni", "prompt": prompt, "aspect_ratio": "16:9"})
    body = canonical(request.body())
    order = Order("main", key_of(base_key(body), 1), body, "kling-v3-omni", 5, 316_500, shot="dawn")
    return order, request


@pytest.fixture
def bought(ours: Desk) -> Bought:
    """Rows as they are after their POST: submitted as `t-PROMPT`, unless told otherwise."""

    async def make(prompt: str = "fox", *events: Event, callback: str = BASE) -> Purchase:
        row = (await ours.ledger.reserve(ours.account, order_of(prompt)[0], Limits(in_flight=2000))).purchase
        assert row is not None
        row = await ours.ledger.happened(row, Event.SEND, callback=callback)
        for event in events or (Event.ACCEPTED,):
            facts: dict[str, Any] = {"task_id": f"t-{prompt}"} if event is Event.ACCEPTED else {}
            row = await ours.ledger.happened(row, event, **facts)
        return row

    return make
