"""The endpoints: paths, envelope, statuses faults of the wire (gateway.md, table of calls, "Answers")."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from prefect_kling.simulator.clock import Clock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.faults import (
    ACCEPTED_FAULTS,
    DOWNLOAD_FAULTS,
    POLL_FAULTS,
    REFUSED_FAULTS,
    UPLOAD_FAULTS,
)
from prefect_kling.simulator.life import create_data
from prefect_kling.simulator.moderation import PROMPT_REFUSED
from prefect_kling.simulator.multipart import parts
from prefect_kling.simulator.service import Refusal, Service
from prefect_kling.simulator.store import Store, Stored
from prefect_kling.simulator.wire import Receive, Scope, Send, drop_connection, gone

__all__ = ["BASE_PATH", "create_app"]

BASE_PATH = "/api/v1"
PROXY_PAGE = "<html><head><title>Just a moment…</title></head><body><h1>Checking your browser</h1></body></html>"
MAX_BODY = 256 * 1024 * 1024
SLOW_PIECES = 20

Handler = Callable[[Request, Service], Awaitable[Response]]


def create_app(config: SimulatorConfig | None = None, *, clock: Clock | None = None) -> Starlette:
    """The simulator as an ASGI application.

    Its `state.service` is the `Service` behind it, once the application has started.

    Args:
        config: what it is like; None for the defaults.
        clock: its time; None for the machine's.
    """
    settings = config or SimulatorConfig()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Service(settings, clock) as service:
            app.state.service = service
            yield

    def route(path: str, handler: Handler, method: str = "GET", *, key: bool = True) -> Route:
        async def endpoint(request: Request) -> Response:
            service: Service = request.app.state.service
            if key:
                _authorize(request, settings.api_key)
            return await handler(request, service)

        return Route(path, endpoint, methods=[method])

    return Starlette(
        routes=[
            route(f"{BASE_PATH}/video/generations", _create, "POST"),
            route(f"{BASE_PATH}/video/generations", _poll),
            route(f"{BASE_PATH}/files", _upload, "POST"),
            route(f"{BASE_PATH}/balance", _balance),
            route(f"{BASE_PATH}/models", _models),
            route("/results/{name}.mp4", _result, key=False),
            route("/files/{key}/{name}", _hosted, key=False),
            route("/_sim/stats", _stats, key=False),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _no_such_call},
        lifespan=lifespan,
    )


def _authorize(request: Request, accepted: str | None) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Refusal(401, "a bearer key is needed: Authorization: Bearer KEY")
    if accepted is not None and key.strip() != accepted:
        raise Refusal(401, "invalid api key")


def _answer(data: Any) -> Response:
    return JSONResponse({"code": 200, "msg": "success", "data": data})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - registered for this type alone; Starlette's signature is wider
    return JSONResponse({"code": error.status, "msg": error.msg}, error.status, headers=error.headers)


async def _no_such_call(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    msg = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse({"code": error.status_code, "msg": msg}, error.status_code, headers=error.headers)


def _origin(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _status_fault(fault: str) -> Refusal:
    if fault == "moderated":
        return Refusal(400, PROMPT_REFUSED)
    status = int(fault.rpartition("-")[2])
    if status == 429:
        return Refusal(429, "upstream error 1302: too many requests, slow down", {"Retry-After": "1"})
    return Refusal(status, f"simulated trouble: {fault}")


async def _create(request: Request, service: Service) -> Response:
    service.counts["posts"] += 1
    if (fault := service.faults.first(REFUSED_FAULTS)) is not None:
        raise _status_fault(fault)
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    try:
        task = await service.create(body, _origin(request))
    except Refusal:
        service.counts["refused"] += 1
        raise
    fault = service.faults.first(ACCEPTED_FAULTS)
    if fault == "lost-answer":
        return _Dropped()
    if fault == "hung-answer":
        return _Hung(service.closing)
    if fault == "html":
        return HTMLResponse(PROXY_PAGE)
    if fault is not None:
        raise _status_fault(fault)
    return _answer(create_data(task))


async def _poll(request: Request, service: Service) -> Response:
    service.counts["polls"] += 1
    fault = service.faults.first(POLL_FAULTS)
    if fault == "poll-html":
        return HTMLResponse(PROXY_PAGE)
    if fault is not None:
        raise _status_fault(fault)
    wanted = request.query_params.get("task_id")
    if not wanted:
        raise Refusal(400, "task_id: needed in the query")
    return _answer(service.poll(wanted, _origin(request)))


async def _upload(request: Request, service: Service) -> Response:
    if (fault := service.faults.first(UPLOAD_FAULTS)) is not None:
        raise _status_fault(fault)
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise Refusal(413, f"file: at most {MAX_BODY // 1024 // 1024} MB are hosted")
    try:
        form = parts(request.headers.get("content-type", ""), await request.body())
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    file = next((part for part in form if part.name == "file" and part.content), None)
    if file is None:
        raise Refusal(400, "file: this form field is needed, and may not be empty")
    return _answer(service.upload(file, _origin(request)))


async def _balance(_request: Request, service: Service) -> Response:
    return _answer(service.balance())


async def _models(_request: Request, service: Service) -> Response:
    return _answer(service.models())


async def _stats(_request: Request, service: Service) -> Response:
    return JSONResponse(service.stats())


async def _result(request: Request, service: Service) -> Response:
    service.counts["downloads"] += 1
    stored = _find(service.results, request.path_params["name"])
    fault = service.faults.first(DOWNLOAD_FAULTS)
    response = _file(stored)
    if fault == "slow-download":
        return _Interrupted(response, pause=service.config.slow_seconds / SLOW_PIECES)
    if fault == "truncated-download":
        return _Interrupted(response, stop_at=0.5)
    if fault is not None:
        raise _status_fault(fault)
    return response


async def _hosted(request: Request, service: Service) -> Response:
    return _file(_find(service.files, request.path_params["key"]))


def _find(store: Store, key: str) -> Stored:
    try:
        stored = store.get(key)
    except LookupError as error:
        raise Refusal(410, str(error)) from error
    if stored is None:
        raise Refusal(404, f"not found: {key}")
    return stored


def _file(stored: Stored) -> FileResponse:
    return FileResponse(stored.path, media_type=stored.content_type, headers={"ETag": f'"{stored.sha256}"'})


class _Dropped(Response):
    """The connection ends, and nothing was said."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI gives it; silence needs none
        await drop_connection(scope, receive)


class _Hung(Response):
    """Nothing is said until the caller goes away, or the simulator does."""

    def __init__(self, closing: asyncio.Event) -> None:
        super().__init__()
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI gives it; silence needs none
        caller, end = asyncio.ensure_future(gone(receive)), asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({caller, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        if not caller.done():
            caller.cancel()
            await drop_connection(scope, receive)


class _Interrupted(Response):
    """A file that dribbles, or whose connection ends in the middle; ranges work as ever."""

    def __init__(self, inner: FileResponse, *, pause: float = 0.0, stop_at: float = 1.0) -> None:
        super().__init__()
        self._inner = inner
        self._pause = pause
        self._stop_at = stop_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = left = 0
        stopped = False

        async def slowly(message: Any) -> None:
            nonlocal length, left, stopped
            if stopped:
                return
            if message["type"] == "http.response.start":
                length = _content_length(message)
                left = int(length * self._stop_at)
            if message["type"] != "http.response.body":
                await send(message)
                return
            body: bytes = message.get("body", b"")
            piece = max(1, -(-length // SLOW_PIECES))
            for start in range(0, len(body), piece):
                chunk = body[start : start + piece][:left]
                left -= len(chunk)
                await asyncio.sleep(self._pause)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if not left and self._stop_at < 1:
                    stopped = True
                    return
            if not message.get("more_body"):
                await send({"type": "http.response.body", "body": b""})

        # Without this extension the file comes through `send` in pieces instead of by path.
        plain = {**scope, "extensions": {k: v for k, v in scope["extensions"].items() if k != "http.response.pathsend"}}
        await self._inner(plain, receive, slowly)
        if stopped:
            await drop_connection(scope, receive)


def _content_length(message: Mapping[str, Any]) -> int:
    return int(dict(message["headers"]).get(b"content-length", b"0"))
