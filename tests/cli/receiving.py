"""`prefect-kling receive` as a process of its own, and purchases that it can be called for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import Event
from prefect_kling.settings import StudioSettings

SETTING = "PREFECT_INTEGRATIONS_KLING_"


def settings_in(folder: Path) -> StudioSettings:
    """What the environment of `environment_in` is resolved to, as far as a ledger needs it."""
    return StudioSettings(
        api_key=SecretStr("sk-nobody-asks"),
        storage_url=str(folder / "storage"),
        ledger_url=SecretStr(f"sqlite:///{folder / 'ledger.db'}"),
        home=folder / "prefect" / "kling",
        base_url="http://127.0.0.1:9/v1",
    )


def environment_in(folder: Path, **more: str) -> dict[str, str]:
    """An environment that names a ledger, and no key, gateway or Prefect server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "APIMODELS_"))}
    ours = {f"{SETTING}LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}", "PREFECT_HOME": str(folder / "prefect")}
    return kept | ours | more


async def bought(there: Desk, prompt: str = "fox") -> Purchase:
    """A purchase whose answer was lost: nobody knows its task."""
    request = OmniVideoRequest.model_validate({"model": "kling-v3-omni", "prompt": prompt, "aspect_ratio": "16:9"})
    body = canonical(request.body())
    order = Order("main", key_of(base_key(body), 1), body, "kling-v3-omni", 5, 316_500, shot="dawn")
    row = (await there.ledger.reserve(there.account, order, Limits())).purchase
    assert row is not None
    row = await there.ledger.happened(row, Event.SEND)
    return await there.ledger.happened(row, Event.ANSWER_LOST)


def callback(task_id: str = "t-fox") -> bytes:
    """What the gateway sends when a task is completed."""
    said = {"taskId": task_id, "model": "kling-video/kling-v3-omni", "state": "completed", "param": "{}"}
    return json.dumps({"code": 200, "msg": "success", "data": said}).encode()


async def started(*arguments: object, environment: dict[str, str]) -> asyncio.subprocess.Process:
    """`prefect-kling receive`, started; whatever it says goes to pipes."""
    return await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("prefect-kling"),
        "receive",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


async def address_of(child: asyncio.subprocess.Process) -> str:
    """The address that it prints first, with /kling at its end."""
    assert child.stderr is not None
    address = (await child.stderr.readline()).decode().strip()
    assert address.startswith("http://127.0.0.1:"), (address, await child.communicate())
    return address


@asynccontextmanager
async def receiving(
    environment: dict[str, str], port: int = 0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A receiver, on any free port, and its address; it is ended with the block where it is still there."""
    child = await started("--port", port, environment=environment)
    try:
        yield child, await address_of(child)
    finally:
        if child.returncode is None:
            child.terminate()
            await child.communicate()
