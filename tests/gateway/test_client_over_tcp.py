"""The client against a real server on loopback: connections that are refused, cut, silent or kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.gateway import client as client_module
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import GatewayUnavailable, KlingError, PurchaseUncertain

if TYPE_CHECKING:
    from tests.gateway.conftest import RawServer, Serve

KEY = "sk-0123456789abcdef"
BODY = {"model": "kling-v3-omni", "prompt": "A fox", "aspect_ratio": "16:9"}
TASK = {"code": 200, "msg": "success", "data": {"taskId": "t1", "state": "pending"}}
Answer = Callable[..., bytes]


async def no_sleep(seconds: float) -> None:
    assert seconds > 0


def to(url: str, **options: Any) -> KlingClient:
    return KlingClient(KEY, base_url=f"{url}/api/v1", sleep=no_sleep, **options)


async def outcome(server: RawServer, call: str) -> KlingError:
    async with to(server.url) as client:
        with pytest.raises(KlingError) as caught:
            await (client.create(BODY) if call == "create" else client.get("t1"))
    return caught.value


def posts(server: RawServer) -> int:
    return sum(request.startswith(b"POST /api/v1/video/generations ") for request in server.requests)


async def test_a_create_and_polls_work_over_the_wire(serve: Serve, answer: Answer) -> None:
    server = await serve((answer(TASK),))
    async with to(server.url) as client:
        assert (await client.create(BODY)).task_id == "t1"
        assert (await client.get("t1")).task_id == "t1"
    assert server.requests[0].startswith(b"POST /api/v1/video/generations HTTP/1.1\r\n")
    assert server.requests[1].startswith(b"GET /api/v1/video/generations?task_id=t1 HTTP/1.1\r\n")
    assert all(f"Authorization: Bearer {KEY}".encode() in request for request in server.requests)


async def test_every_create_comes_by_a_connection_of_its_own_and_polls_share_one(serve: Serve, answer: Answer) -> None:
    server = await serve((answer(TASK),))
    async with to(server.url) as client:
        for _ in range(3):
            await client.create(BODY)
        assert server.connections == 3
        for _ in range(3):
            await client.get("t1")
    assert server.connections == 4


@pytest.mark.parametrize("call", ["create", "get"])
async def test_a_refused_connection_bought_nothing(call: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        async with to(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
            with pytest.raises(GatewayUnavailable) as caught:
                await (client.create(BODY) if call == "create" else client.get("t1"))
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert caught.value.retryable


async def test_a_server_that_speaks_no_tls_bought_nothing(serve: Serve, answer: Answer) -> None:
    server = await serve((answer(TASK),))
    async with to(f"https://127.0.0.1:{server.port}", attempts=1) as client:
        with pytest.raises(GatewayUnavailable, match="nothing was bought") as caught:
            await client.create(BODY)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert server.requests == []
    assert isinstance(client_module.tls(), ssl.SSLContext)


LOST: dict[str, Callable[[Answer], tuple[Any, ...]]] = {
    "no answer": lambda answer: ("close",),
    "half a status line": lambda answer: (b"HTTP/1.1 20", "close"),
    "half the headers": lambda answer: (b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    "headers alone": lambda answer: (b"HTTP/1.1 200 OK\r\ncontent-length: 80\r\n\r\n", "close"),
    "half the body": lambda answer: (answer(TASK)[:-20], "close"),
    "half of a body whose length is not said": lambda answer: (
        b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"code": 200, "data": {"taskId": "t',
        "close",
    ),
    "half a chunk": lambda answer: (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\n{", "close"),
    "no HTTP": lambda answer: (b"220 mail.example.com ESMTP\r\n", "close"),
    "two lengths": lambda answer: (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}", "close"),
    "broken gzip": lambda answer: (answer(TASK, content_encoding="gzip"),),
    "a proxy's page": lambda answer: (answer(b"<html>", 502, content_type="text/html"), "close"),
    "a proxy's page that says all is well": lambda answer: (answer(b"<html>", content_type="text/html"),),
}


@pytest.mark.parametrize("kind", LOST)
async def test_a_create_whose_answer_is_lost_was_posted_once_and_is_uncertain(
    serve: Serve, answer: Answer, kind: str
) -> None:
    server = await serve(LOST[kind](answer))
    error = await outcome(server, "create")
    assert type(error) is PurchaseUncertain
    assert "not sent again by itself" in str(error)
    assert (posts(server), len(server.requests)) == (1, 1)


@pytest.mark.parametrize("kind", LOST)
async def test_a_get_whose_answer_is_lost_is_repeated(serve: Serve, answer: Answer, kind: str) -> None:
    server = await serve(LOST[kind](answer))
    assert type(await outcome(server, "get")) is GatewayUnavailable
    assert len(server.requests) == 4


async def test_a_get_survives_a_kept_connection_that_died(serve: Serve, answer: Answer) -> None:
    server = await serve((answer(TASK),), ("close",), (answer(TASK),))
    async with to(server.url) as client:
        await client.get("t1")
        assert (await client.get("t1")).task_id == "t1"
    assert len(server.requests) == 3


SILENT: dict[str, Callable[[Answer], tuple[Any, ...]]] = {
    "nothing": lambda answer: ("hang",),
    "the headers, then nothing": lambda answer: (answer(TASK)[:-80], "hang"),
    "all but the last byte": lambda answer: (answer(TASK)[:-1], "hang"),
    "the start of a page without end": lambda answer: (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 100_000, "hang"),
}


@pytest.mark.parametrize("kind", SILENT)
async def test_a_create_that_is_never_answered_ends_by_its_deadline_and_is_uncertain(
    serve: Serve, answer: Answer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CREATE_SECONDS", 0.1)
    server = await serve(SILENT[kind](answer))
    assert type(await outcome(server, "create")) is PurchaseUncertain
    assert posts(server) == 1


@pytest.mark.parametrize("kind", SILENT)
async def test_a_get_that_is_never_answered_times_out_and_is_repeated(
    serve: Serve, answer: Answer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_TIMEOUT", httpx.Timeout(5.0, read=0.05))
    server = await serve(SILENT[kind](answer), (answer(TASK),))
    async with to(server.url) as client:
        assert (await client.get("t1")).task_id == "t1"
    assert len(server.requests) == 2


async def test_a_cancelled_create_says_nothing_of_its_own(serve: Serve) -> None:
    server = await serve(("hang",))
    async with to(server.url) as client:
        creating = asyncio.ensure_future(client.create(BODY))
        await server.asked.wait()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
    assert posts(server) == 1


async def test_an_answer_that_is_no_http_and_quotes_the_key_is_told_without_it(serve: Serve) -> None:
    server = await serve((f"ERR Authorization: Bearer {KEY}\r\n\r\n".encode(), "close"))
    for call in ("create", "get"):
        error: BaseException | None = await outcome(server, call)
        assert "ERR" in str(error)
        while error is not None:
            assert KEY not in f"{error} {error!r} {error.args}"
            error = error.__cause__ or error.__context__
