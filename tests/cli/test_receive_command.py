"""`prefect-kling receive` as a process: what it says, what it takes, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from prefect_kling import cli_codes
from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.hints import hints_of
from tests.cli.receiving import SETTING, bought, callback, environment_in, receiving, settings_in, started


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Desk]:
    yield await desk(settings_in(tmp_path))
    await close_ledgers()


async def ended(child: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Its exit code, and all that it still had to say."""
    out, err = await child.communicate()
    return child.returncode, (out + err).decode()


async def failure(*arguments: object, environment: dict[str, str]) -> tuple[int | None, str]:
    """The exit code of a receiver that cannot be, and the one line that it says."""
    child = await started(*arguments, environment=environment)
    try:
        code, said = await ended(child)
    finally:
        if child.returncode is None:
            child.kill()
    (line,) = said.splitlines()
    return code, line


async def test_it_takes_a_call_for_a_purchase_of_its_ledger(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    async with receiving(environment_in(tmp_path)) as (child, address), httpx.AsyncClient() as client:
        assert address.endswith("/kling")
        health = await client.get(f"{address}/health")
        assert health.json() == {"status": "ok", "ledger": ledger_mark(ours.ledger.id)}
        for _ in range(2):
            answer = await client.post(f"{address}/{purchase.token}", content=callback())
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        # Written down before it was answered, and no more than that.
        (hint,) = await hints_of(ours.ledger, [purchase.id])
        assert (hint.task_id, hint.state) == ("t-fox", "completed")
        assert await ours.ledger.get(purchase.id) == purchase
        assert (await client.post(f"{address}/{'0' * 32}", content=callback())).status_code == 404
        child.terminate()
        code, said = await ended(child)
    # A line for what was news, with as much of the token as people may see.
    assert (code, said) == (0, f"{purchase.short}: task t-fox is said to be completed\n")
    assert len(purchase.short) == 8


async def test_a_strangers_words_are_not_printed(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    async with receiving(environment_in(tmp_path)) as (child, address), httpx.AsyncClient() as client:
        for task_id in ("\x1b[2J", "t\nfox", ""):
            answer = await client.post(f"{address}/{purchase.token}", content=callback(task_id))
            assert answer.status_code == 400
        child.terminate()
        assert await ended(child) == (0, "")
    assert await hints_of(ours.ledger, [purchase.id]) == []


async def test_a_ledger_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    async with receiving(environment_in(tmp_path)) as (_, address), httpx.AsyncClient() as client:
        assert (await client.get(f"{address}/health")).status_code == 200
    assert (tmp_path / "ledger.db").is_file()


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_all_that_it_started(tmp_path: Path, name: signal.Signals) -> None:
    # Somebody keeps a connection open, as proxies do.
    async with receiving(environment_in(tmp_path)) as (child, address), httpx.AsyncClient() as client:
        assert (await client.get(f"{address}/health")).status_code == 200
        assert children_of(child.pid) == []
        child.send_signal(name)
        assert await ended(child) == (0, "")
        with pytest.raises(httpx.TransportError):
            await client.get(f"{address}/health")


def children_of(pid: int) -> list[str]:
    """The processes that a process has started."""
    return [
        number for task in Path(f"/proc/{pid}/task").iterdir() for number in (task / "children").read_text().split()
    ]


async def test_a_call_that_is_under_way_is_answered_first(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    async with receiving(environment_in(tmp_path)) as (child, address):
        port, body = httpx.URL(address).port, callback()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /kling/{purchase.token} HTTP/1.1\r\nHost: receiver\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")  # it has the head, and waits for the body
        child.terminate()
        writer.write(body)
        assert b"200 OK" in await reader.read()
        writer.close()
        code, said = await ended(child)
    assert (code, said) == (0, f"{purchase.short}: task t-fox is said to be completed\n")
    assert [hint.task_id for hint in await hints_of(ours.ledger, [purchase.id])] == ["t-fox"]


async def test_a_prefect_server_that_is_away_takes_nothing_from_a_call(ours: Desk, tmp_path: Path) -> None:
    purchase = await bought(ours)
    environment = environment_in(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    async with receiving(environment) as (child, address), httpx.AsyncClient() as client:
        for task_id in ("t-fox", "t-elk"):
            answer = await client.post(f"{address}/{purchase.token}", content=callback(task_id))
            assert answer.status_code == 200
        child.terminate()
        code, said = await ended(child)
    assert code == 0
    assert said.startswith(f"{purchase.short}: task t-fox is said to be completed\n")
    assert purchase.token not in said
    assert {hint.task_id for hint in await hints_of(ours.ledger, [purchase.id])} == {"t-fox", "t-elk"}


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    async with receiving(environment_in(tmp_path)) as (_, address):
        port = httpx.URL(address).port
        code, line = await failure("--port", port, environment=environment_in(tmp_path))
    assert code == cli_codes.USAGE
    assert line == f"Nothing can be received on 127.0.0.1:{port}: Address already in use"


async def test_a_host_of_another_machine_is_told(tmp_path: Path) -> None:
    code, line = await failure("--host", "192.0.2.1", environment=environment_in(tmp_path))
    assert code == cli_codes.USAGE
    assert line.startswith("Nothing can be received on 192.0.2.1:8787: ")


async def test_a_ledger_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.mkdir()
    code, line = await failure("--port", 0, environment=environment_in(tmp_path))
    assert code == cli_codes.USAGE
    assert str(ledger) in line


async def test_a_ledger_of_a_newer_version_is_told(ours: Desk, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE kling_version SET version_num = '9999'")
    code, line = await failure("--port", 0, environment=environment_in(tmp_path))
    assert code == cli_codes.USAGE
    assert "newer" in line


async def test_a_ledgers_password_is_not_told(tmp_path: Path) -> None:
    url = "mysql://kling:hunter2-7c1e@127.0.0.1/films"
    environment = environment_in(tmp_path, **{f"{SETTING}LEDGER_URL": url})
    code, line = await failure("--port", 0, environment=environment)
    assert code == cli_codes.USAGE
    assert "hunter2" not in line


async def test_a_port_that_is_none_is_told(tmp_path: Path) -> None:
    code, line = await failure("--port", 65536, environment=environment_in(tmp_path))
    assert (code, line) == (cli_codes.USAGE, "--port has to be from 0 to 65535, not 65536")
