"""The receiver as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prefect_kling.callbacks.events import callback_received
from prefect_kling.callbacks.receiving import receiver
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.hints import Call, Heard
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.serving import Server, listen, origin_of, serve_until_signal
from prefect_kling.settings import StudioSettings

__all__ = ["serve"]


def serve(settings: StudioSettings, host: str, port: int, *, announce: Callable[[str], None]) -> None:
    """Receives calls until SIGINT or SIGTERM.

    Args:
        settings: whose ledger they are written into.
        host, port: where to listen; port 0 for any free one.
        announce: is called with each line that somebody watching may want to read, the address first.

    Raises:
        OSError: the port is taken.
        LedgerUnavailable: the ledger cannot be used.
    """
    # Before there is an address: one that nobody can write to is told now, not to the gateway.
    asyncio.run(desk(settings))
    listener = listen(host, port)

    def heard(ledger: Ledger, call: Call, what: Heard) -> None:
        announce(f"{what.short}: task {call.task_id} is said to be {call.state}")
        callback_received(ledger, call, what)

    app = receiver(settings, on_heard=heard)
    server = Server(
        app, lambda: announce(f"{origin_of(listener)}/kling"), lifespan="off", timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    try:
        serve_until_signal(server, listener)
    finally:
        asyncio.run(close_ledgers())
