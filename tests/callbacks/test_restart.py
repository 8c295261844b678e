"""A Prefect server that goes away and comes back: callbacks are heard of all the while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_kling.callbacks import listening
from prefect_kling.callbacks.listening import Listener, listener_of
from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.hints import Call, hear
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.settings import StudioSettings

if TYPE_CHECKING:
    from tests.callbacks.conftest import Bought

SENDS = """
import json, sys
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

said = json.loads(sys.argv[1])
emit_event("kling.callback.received", resource={"prefect.resource.id": "kling.shot.x"}, payload=said)
EventsWorker.drain_all()
"""
"""What a receiver elsewhere does; here, Prefect would remember the server for the tests that follow."""
BASE = "http://127.0.0.1:9/kling"
SOON = 60.0


@contextlib.asynccontextmanager
async def prefect_server(port: int, home: Path) -> AsyncIterator[None]:
    """A server that ends as one that is killed does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        *command,
        env=kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(SOON):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{port}/api/health")).status_code == httpx.codes.OK:
                        break
                await asyncio.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def sent(port: int, ledger: Ledger, call: Call, purchase: Purchase) -> None:
    said = {"ledger": ledger_mark(ledger.id), "purchase": purchase.id, "task_id": call.task_id, "state": call.state}
    environment = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDS, json.dumps(said), env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def connected(listener: Listener, *, wanted: bool) -> None:
    async with asyncio.timeout(SOON):
        while listener.hears_events is not wanted:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_callbacks_are_heard_of_before_while_and_after_the_server_is_away(
    ours: Desk, settings: StudioSettings, bought: Bought, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS_WITH_EVENTS", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    purchase = await bought("fox", callback=BASE)
    call = Call(purchase.token, "t-fox", "completed")
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        async with prefect_server(port, tmp_path / "server"):
            listener = await listener_of(ours)
            assert listener is not None
            await connected(listener, wanted=True)
            async with listener.alarm(purchase) as alarm:
                await sent(port, ours.ledger, call, purchase)
                assert await alarm.wait(SOON)
        await connected(listener, wanted=False)
        async with listener.alarm(purchase) as alarm:
            await hear(ours.ledger, [call])
            assert await alarm.wait(SOON)
        async with prefect_server(port, tmp_path / "server"), listener.alarm(purchase) as alarm:
            await connected(listener, wanted=True)
            await alarm.wait(0)  # what the ledger says already
            await sent(port, ours.ledger, call, purchase)
            assert await alarm.wait(SOON)
