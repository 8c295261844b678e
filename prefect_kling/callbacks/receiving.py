"""The receiver of the gateway's calls: a small ASGI application (gateway.md, "Callback").

Its path holds the purchase's token, which is all that tells the gateway from a stranger; and even so a call is only
written down, never believed. It needs the ledger, not the gateway's key.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from prefect_kling.callbacks.events import callback_received
from prefect_kling.callbacks.hearing import Hearing
from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES, NoCallback, read_callback
from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.hints import Call, Heard
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.settings import StudioSettings

__all__ = ["receiver"]

BODY_SECONDS: Final = 5.0
_TOKEN: Final = re.compile(r"/kling/([0-9a-f]{32})")
_HEALTH: Final = "/kling/health"
_HEALTH_SECONDS: Final = 1.0
_PATIENCE: Final = 2.0
OnHeard = Callable[[Ledger, Call, Heard], None]


def receiver(settings: StudioSettings, *, on_heard: OnHeard = callback_received) -> Starlette:
    """An ASGI application that takes the gateway's calls at `/kling/TOKEN`; it can be mounted in another one.

    It answers 200 once a call is written down; 404 to what names no purchase, whatever it is; 400, 408 or 413 where the
    body is no callback of the gateway's; 503 where the ledger cannot be written, and then the gateway calls again.
    `/kling/health` says whether the ledger can be used, and which one it is.

    Args:
        settings: its `ledger_url` and `home` are used, and no others.
        on_heard: is called after the commit, for each call that is news. By default a Prefect event is sent.
    """
    return Starlette(routes=[Mount("/", app=_Receiver(settings, on_heard))])


class _Receiver:
    def __init__(self, settings: StudioSettings, on_heard: OnHeard) -> None:
        self._settings, self._on_heard = settings, on_heard
        self._hearing: Hearing | None = None
        self._opening: asyncio.Task[Desk] | None = None
        self._examining: asyncio.Task[Response] | None = None
        self._examined_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        request = Request(scope, receive)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        try:
            answer = await self._answer(request, path)
        except LedgerUnavailable:
            answer = _unavailable()
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    async def _answer(self, request: Request, path: str) -> Response:
        if path == _HEALTH and request.method in ("GET", "HEAD"):
            return await self._healthy()
        named = _TOKEN.fullmatch(path)
        if named is None or request.method != "POST":
            return _not_found()
        call, refusal = await _call(named[1], request)
        ledger = await self._ledger()
        heard = await self._heard(ledger, call)
        if heard.purchase is None:
            return _not_found()
        if call.task_id is None:
            return JSONResponse({"error": "not a callback"}, refusal)
        if not heard.kept:
            raise LedgerUnavailable("this purchase has been named too many tasks")
        if heard.fresh:
            self._on_heard(ledger, call, heard)
        return JSONResponse({"ok": True})

    async def _ledger(self) -> Ledger:
        # One opening at a time, and nobody waits for its end: a database that is away may take minutes to say so.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(desk(self._settings))
            self._opening.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        opening = self._opening
        await asyncio.wait([opening], timeout=_PATIENCE)
        if not opening.done():
            raise LedgerUnavailable("the ledger is not open yet")
        return opening.result().ledger

    async def _heard(self, ledger: Ledger, call: Call) -> Heard:
        if self._hearing is None or self._hearing.ledger is not ledger:
            self._hearing = Hearing(ledger)
        return await self._hearing.hear(call)

    async def _healthy(self) -> Response:
        # Anybody may ask, as often as they like; the ledger is asked now and then, well or not, by one at a time.
        now, examining = time.monotonic(), self._examining
        if examining is None or (examining.done() and now - self._examined_at > _HEALTH_SECONDS):
            self._examining = examining = asyncio.create_task(self._examined())
        return await asyncio.shield(examining)

    async def _examined(self) -> Response:
        try:
            ledger = await self._ledger()
            await ledger.time(patience=_PATIENCE)
            return JSONResponse({"status": "ok", "ledger": ledger_mark(ledger.id)})
        except LedgerUnavailable:
            return _unavailable()
        finally:
            self._examined_at = time.monotonic()


async def _call(token: str, request: Request) -> tuple[Call, int]:
    """What a request says, and with what it is refused where that is no callback and its token is known."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for some in request.stream():
                body += some
                if len(body) > MAX_CALLBACK_BYTES:
                    return Call(token), 413
        said = read_callback(bytes(body))
    except TimeoutError:
        return Call(token), 408
    except NoCallback:
        return Call(token), 400
    return Call(token, said.taskId, said.state), 200


def _not_found() -> Response:
    return PlainTextResponse("Not Found", 404)


def _unavailable() -> Response:
    return JSONResponse({"error": "try again later"}, 503, {"Retry-After": "5"})
