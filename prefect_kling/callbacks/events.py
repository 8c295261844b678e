"""The Prefect event of a callback: it wakes whoever waits in another process, and automations may act on it."""

from __future__ import annotations

from typing import Final

from prefect.events import emit_event
from prefect.settings import get_current_settings

from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.ledger.hints import Call, Heard
from prefect_kling.ledger.ledger import Ledger

__all__ = ["RECEIVED", "callback_received", "server_is_shared"]

RECEIVED: Final = "kling.callback.received"


def server_is_shared() -> bool:
    """Whether this process talks to a Prefect server that others can talk to as well."""
    return get_current_settings().api.url is not None


def callback_received(ledger: Ledger, call: Call, heard: Heard) -> None:
    """Sends the event, where there is a server to send it to. The token's first 8 characters are all that it shows."""
    if server_is_shared():
        emit_event(
            RECEIVED,
            resource={"prefect.resource.id": f"kling.shot.{heard.short}", "prefect.resource.name": heard.short},
            payload={
                "ledger": ledger_mark(ledger.id),
                "purchase": heard.purchase,
                "task_id": call.task_id,
                "state": call.state,
            },
        )
