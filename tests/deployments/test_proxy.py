"""The shipped Caddyfile, served by a real Caddy in front of a real `prefect-kling receive`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.hints import hints_of
from tests.cli.receiving import bought, callback, environment_in, receiving, settings_in

CADDYFILE = Path(__file__).parents[2] / "deployments" / "Caddyfile"


class Proxy(NamedTuple):
    """A Caddy that serves the shipped file."""

    client: httpx.AsyncClient
    """Knows its certificate, and no other."""
    log: Path
    """All that it says."""


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Desk]:
    yield await desk(settings_in(tmp_path))
    await close_ledgers()


async def configured(receiver: str, environment: dict[str, str], port: int) -> dict[str, Any]:
    """The shipped file as Caddy reads it, but on a port of loopback, with a CA that this machine does not trust."""
    environment = environment | {"KLING_CALLBACK_HOST": "localhost", "KLING_RECEIVER": receiver}
    command = ("caddy", "adapt", "--config", str(CADDYFILE), "--adapter", "caddyfile")
    pipes: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    child = await asyncio.create_subprocess_exec(*command, env=environment, **pipes)
    out, err = await child.communicate()
    assert (child.returncode, err) == (0, b""), err
    config: dict[str, Any] = json.loads(out)
    (server,) = config["apps"]["http"]["servers"].values()
    assert server["listen"] == [":443"]
    server |= {"listen": [f"127.0.0.1:{port}"], "automatic_https": {"disable_redirects": True}}
    config["apps"]["pki"] = {"certificate_authorities": {"local": {"install_trust": False}}}
    config["admin"] = {"disabled": True}
    return config


@asynccontextmanager
async def proxying(receiver: str, folder: Path) -> AsyncIterator[Proxy]:
    """Serves the shipped file until the end of the block, in front of a receiver at HOST:PORT."""
    if shutil.which("caddy") is None:
        pytest.fail("There is no caddy on this machine; `.ci/run` installs it")
    folder.mkdir()
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "caddy.json").write_text(json.dumps(await configured(receiver, environment, port)))
    command = ("caddy", "run", "--config", str(folder / "caddy.json"))
    with (folder / "log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        async with asyncio.timeout(30):
            while not (authority.exists() and b"certificate obtained successfully" in (folder / "log").read_bytes()):
                assert child.returncode is None, (folder / "log").read_text()
                await asyncio.sleep(0.05)
        trusted = ssl.create_default_context(cafile=str(authority))
        async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=trusted, timeout=20) as client:
            await served(client)
            yield Proxy(client, folder / "log")
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def served(client: httpx.AsyncClient) -> None:
    """Waits until the certificate that was obtained is the one in use."""
    async with asyncio.timeout(30):
        while True:
            with suppress(httpx.ConnectError):
                await client.get("/")
                return
            await asyncio.sleep(0.05)


def receiver_of(address: str) -> str:
    return httpx.URL(address).netloc.decode()


async def test_calls_come_through(ours: Desk, tmp_path: Path) -> None:
    purchase, other = await bought(ours), await bought(ours, "owl")
    async with (
        receiving(environment_in(tmp_path)) as (_, address),
        proxying(receiver_of(address), tmp_path / "caddy") as proxy,
    ):
        health = await proxy.client.get("/kling/health")
        assert health.json() == {"status": "ok", "ledger": ledger_mark(ours.ledger.id)}
        answer = await proxy.client.post(f"/kling/{purchase.token}", content=callback())
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
        assert [hint.task_id for hint in await hints_of(ours.ledger, [purchase.id])] == ["t-fox"]

        # What is no call for one of ours.
        for path in ("/kling/" + "0" * 32, f"/kling/{purchase.token}/", "/kling/", "/kling", "/", "/docs", "/health"):
            assert (await proxy.client.post(path, content=callback("t-elk"))).status_code == 404, path
        for method in ("GET", "HEAD", "PUT"):
            answer = await proxy.client.request(method, f"/kling/{purchase.token}")
            assert answer.status_code == 404, method

        # As large as the receiver takes, and larger, with and without saying so in advance.
        full = callback().ljust(MAX_CALLBACK_BYTES)
        assert (await proxy.client.post(f"/kling/{other.token}", content=full)).status_code == 200
        for content in (too_large(), pieces(too_large())):
            answer = await proxy.client.post(f"/kling/{other.token}", content=content)
            assert answer.status_code == 413
        with suppress(httpx.TransportError):  # hung up on while it is still being sent
            answer = await proxy.client.post(f"/kling/{other.token}", content=pieces(too_large(10_000_000)))
            assert answer.status_code in (413, 502)
        assert [hint.task_id for hint in await hints_of(ours.ledger, [purchase.id])] == ["t-fox"]
        assert [hint.task_id for hint in await hints_of(ours.ledger, [other.id])] == ["t-fox"]
    assert_no_token_in(proxy.log, purchase.token, other.token)


def too_large(size: int = MAX_CALLBACK_BYTES + 1) -> bytes:
    return callback("t-elk").ljust(size)


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body that does not tell its size in advance."""
    for start in range(0, len(body), 8192):
        yield body[start : start + 8192]


async def test_a_receiver_that_is_away_is_called_again_and_no_path_is_logged(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        async with proxying(f"127.0.0.1:{nobody.getsockname()[1]}", tmp_path / "caddy") as proxy:
            # No 2xx: the gateway calls again.
            answer = await proxy.client.post(f"/kling/{purchase.token}", content=callback())
            assert answer.status_code == 502
    # The operator is told what is wrong.
    assert "connection refused" in proxy.log.read_text()
    assert_no_token_in(proxy.log, purchase.token)


async def test_a_receiver_that_was_restarted_is_found_again(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    environment = environment_in(tmp_path)
    async with receiving(environment) as (first, address):
        port = receiver_of(address).rpartition(":")[2]
        async with proxying(receiver_of(address), tmp_path / "caddy") as proxy:
            assert (await proxy.client.get("/kling/health")).status_code == 200
            first.terminate()
            await first.communicate()
            assert (await proxy.client.get("/kling/health")).status_code == 502
            async with receiving(environment, port=int(port)):
                answer = await proxy.client.post(f"/kling/{purchase.token}", content=callback())
                assert answer.status_code == 200


def assert_no_token_in(log: Path, *tokens: str) -> None:
    said = log.read_text()
    assert "serving initial configuration" in said
    for token in tokens:
        assert token[8:] not in said
