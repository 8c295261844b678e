"""`prefect-kling doctor`: each thing that can be wrong is told with what to do, beside all that is well."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec import AbstractFileSystem
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from prefect_kling import checkup, cli_codes, cli_doctor
from prefect_kling.checkup import Finding, examine, money_finding
from prefect_kling.cli import run
from prefect_kling.cli_doctor import worst_code
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.settings import StudioSettings
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from tests.cli.receiving import environment_in, receiving

Said = tuple[int, dict[str, Finding]]
Doctor = Callable[..., Said]

KEY = "sk-doctor-3f8a61"
PASSWORD = "hunter2-7c1e"
SETTING = "PREFECT_INTEGRATIONS_KLING_"
NAMES = ["studio", "key", "balance", "ledger", "storage", "journal", "ffmpeg", "av", "server", "receiver"]
FAILED = "failed"


@pytest.fixture(autouse=True)
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The environment names a studio with a home, a ledger and storage of its own, and no Prefect server."""
    monkeypatch.setenv("APIMODELS_API_KEY", KEY)
    monkeypatch.setenv("APIMODELS_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", str(tmp_path / "storage"))
    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}, restore_defaults={PREFECT_API_URL}):
        yield tmp_path


@pytest.fixture
def config() -> SimulatorConfig:
    return SimulatorConfig(seed=1, api_key=KEY)


@pytest.fixture
async def gateway(config: SimulatorConfig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    async with running(config) as server:
        monkeypatch.setenv("APIMODELS_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs `prefect-kling doctor --json`, and sees to it that no secret is told."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(["doctor", "--json", *arguments])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        assert PASSWORD not in out + err
        found = json.loads(out)
        assert found["ok"] is (code == 0)
        findings = {check["name"]: Finding(**check) for check in found["checks"]}
        assert len(findings) == len(found["checks"])
        for finding in findings.values():
            assert finding.said
            assert bool(finding.do) is (finding.state != "ok")
        return code, findings

    return call


def failures(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.state == FAILED]


def test_all_is_well(gateway: Running, doctor: Doctor, office: Path) -> None:
    code, findings = doctor()
    assert code == 0
    assert list(findings) == NAMES
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["key"].said == f"accepted by the gateway at {gateway.base_url}"
    assert findings["balance"].said == "100.00 USD can be spent"
    assert findings["ledger"].said.startswith(f"{office / 'ledger.db'} can be read and written")
    assert "libx264, aac, blackdetect, freezedetect" in findings["ffmpeg"].said
    assert findings["receiver"].said == "no callback address is set: shots are polled"
    # Nothing is left of what was written, and nothing was bought.
    assert [path.name for path in (office / "storage").iterdir() if path.is_file()] == []
    assert list((office / "prefect" / "kling").iterdir()) == []
    assert gateway.service.stats()["creates"] == 0


def test_people_get_a_line_for_each(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in NAMES]
    assert err == "A run finds what it needs\n"


def test_people_are_told_what_failed_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if line.startswith("failed")]
    assert line.startswith("failed   key       The gateway at http://127.0.0.1:9/v1 cannot be reached")
    assert line.endswith("; see whether this machine reaches the gateway, and whether APIMODELS_BASE_URL is right")
    assert err == "Failed: key\n"


# The account.


def test_a_wrong_key(gateway: Running, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIMODELS_API_KEY", PASSWORD)
    code, findings = doctor()
    assert (code, failures(findings)) == (3, ["key"])
    assert findings["balance"].state == "warning"


@pytest.mark.parametrize(("key", "told"), [("", "there is no API key"), ("******", "is masked"), ("a b", "characters")])
def test_a_key_that_is_none(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, key: str, told: str) -> None:
    monkeypatch.setenv("APIMODELS_API_KEY", key)
    code, findings = doctor()
    assert (code, failures(findings)) == (3, ["key"])
    assert told in findings["key"].said
    assert "APIMODELS_API_KEY" in findings["key"].do


@pytest.mark.parametrize("config", [SimulatorConfig(seed=1, balance=Decimal(0))])
def test_an_account_without_credits(gateway: Running, doctor: Doctor) -> None:
    code, findings = doctor()
    assert (code, failures(findings)) == (4, ["balance"])
    assert "top the account up" in findings["balance"].do


@pytest.mark.parametrize(
    ("balance", "frozen", "state", "said"),
    [
        ("-1", "0", "failed", "-1.00 USD can be spent"),
        ("0", "2.5", "failed", "0.00 USD can be spent, 2.50 USD are held for running tasks"),
        ("0.01", "0", "warning", "0.01 USD can be spent"),
        ("0.99", "0", "warning", "0.99 USD can be spent"),
        ("1", "0", "ok", "1.00 USD can be spent"),
        ("12.345", "0.3", "ok", "12.34 USD can be spent, 0.30 USD are held for running tasks"),
    ],
)
def test_what_a_balance_means(balance: str, frozen: str, state: str, said: str) -> None:
    found = money_finding(Decimal(balance), Decimal(frozen))
    assert (found.state, found.said, bool(found.do)) == (state, said, state != "ok")


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Somebody on this machine, at the address given."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await task


@asynccontextmanager
async def answering(status: int, body: Any) -> AsyncIterator[str]:
    """A gateway that gives one answer to whoever asks for a balance."""

    async def balance(_request: object) -> JSONResponse:
        return JSONResponse(body, status)

    async with serving(Starlette(routes=[Route("/v1/balance", balance)])) as origin:
        yield f"{origin}/v1"


@pytest.mark.parametrize(
    ("status", "body", "key", "cause", "balance"),
    [
        (200, {"code": 200, "msg": "success", "data": {}}, "ok", "", "no number"),
        (200, {"code": 200, "msg": "success", "data": {"balance": "lots"}}, "ok", "", "no number"),
        (401, {"code": 401, "msg": f"no such key {KEY}"}, "failed", "key", "tells it to those with a key"),
        (404, {"code": 404, "msg": "not found"}, "warning", "", "not found"),
        (503, {"code": 503, "msg": "overloaded"}, "failed", "", "the gateway gives no answer"),
    ],
)
async def test_gateways_that_do_not_tell(
    tmp_path: Path, status: int, body: Any, key: str, cause: str, balance: str
) -> None:
    async with answering(status, body) as base_url:
        findings = await looked(tmp_path, base_url=base_url)
    assert (findings["key"].state, findings["key"].cause) == (key, cause)
    assert findings["balance"].state == "warning"
    assert balance in findings["balance"].said
    assert KEY not in str(findings)


# What a studio keeps.


async def looked(folder: Path, seconds: float = 10, **fields: Any) -> dict[str, Finding]:
    """What is found of a studio whose settings are given."""
    plain: dict[str, Any] = {
        "api_key": SecretStr(KEY),
        "base_url": "http://127.0.0.1:9/v1",
        "storage_url": str(folder / "storage"),
        "ledger_url": SecretStr(f"sqlite:///{folder / 'ledger.db'}"),
        "home": folder / "home",
    }
    return {found.name: found for found in await examine(StudioSettings(**plain | fields), seconds=seconds)}


def test_a_storage_that_cannot_be_written(
    gateway: Running, doctor: Doctor, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (office / "file").touch()
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", str(office / "file" / "storage"))
    code, findings = doctor()
    assert (code, failures(findings)) == (2, ["storage"])
    assert str(office / "file" / "storage") in findings["storage"].said
    assert f"{SETTING}STORAGE_URL" in findings["storage"].do


def test_a_storage_that_nobody_knows(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", f"nosuch://user:{PASSWORD}@host/films")
    _, findings = doctor()
    assert findings["storage"].state == FAILED
    assert "Protocol not known: nosuch" in findings["storage"].said


@pytest.mark.parametrize("state", ["folder", "text", "newer"])
def test_a_ledger_that_cannot_be_opened(gateway: Running, doctor: Doctor, office: Path, state: str) -> None:
    ledger = office / "ledger.db"
    if state == "folder":
        ledger.mkdir()
    elif state == "text":
        ledger.write_text("this is no database, however long one looks at it\n" * 100)
    else:
        asyncio.run(_of_a_newer_version(ledger))
    code, findings = doctor()
    assert (code, failures(findings)) == (2, ["ledger"])
    assert str(ledger) in findings["ledger"].said
    assert f"{SETTING}LEDGER_URL" in findings["ledger"].do


async def _of_a_newer_version(ledger: Path) -> None:
    from sqlalchemy import text

    from prefect_kling import KlingStudio

    try:
        there = await desk(KlingStudio.from_environment().settings())
        await there.ledger.db.write(lambda c: c.execute(text("UPDATE kling_version SET version_num = '9999'")))
    finally:
        await close_ledgers()
    assert ledger.is_file()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://kling:{PASSWORD}@127.0.0.1:9/films",
        f"postgresql://kling:{PASSWORD}@[::1/films",
        f"mysql://kling:{PASSWORD}@127.0.0.1/films",
        f"postgresql://kling:{PASSWORD.replace('-', '%2D')}@127.0.0.1:9/films?password={PASSWORD}",
    ],
)
def test_a_ledgers_password_is_told_to_nobody(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(checkup, "_PATIENCE", 0.0)
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", url)
    _, findings = doctor()
    assert findings["ledger"].state == FAILED


def test_a_journal_that_cannot_be_written(gateway: Running, doctor: Doctor, office: Path) -> None:
    (office / "prefect" / "kling" / "answers.jsonl").mkdir(parents=True)
    code, findings = doctor()
    assert (code, failures(findings)) == (2, ["journal"])
    assert "PREFECT_HOME" in findings["journal"].do


class _Talkative(AbstractFileSystem):  # type: ignore[misc] # ships no types
    """Says all it knows, as some drivers do."""

    protocol = "talkative"

    def put_file(self, *_args: object, **_options: object) -> None:
        raise RuntimeError(f"\x1b[2Jsignature\nmismatch: {self.storage_options}")


async def test_what_a_driver_quotes_of_its_options_is_told_to_nobody(tmp_path: Path) -> None:
    fsspec.register_implementation("talkative", _Talkative, clobber=True)
    options = {"secret": PASSWORD, "nested": {"keys": [f"{PASSWORD}-too"]}}
    found = (await looked(tmp_path, storage_url="talkative://films", storage_options=options))["storage"]
    assert found.state == FAILED
    assert "[2Jsignature mismatch: {'secret': '***', 'nested': {'keys': ['***']}}" in found.said
    assert found.said.isprintable()


# Where callbacks are received.


async def receiver_told(folder: Path, base: str = "", **fields: Any) -> Finding:
    """What is found of the receiver, with a gateway on this machine, which may call it."""
    return (await looked(folder, callback_base_url=base, **fields))["receiver"]


async def test_a_run_may_receive_its_calls_itself(tmp_path: Path) -> None:
    found = await receiver_told(tmp_path, receive_on="127.0.0.1:0")
    assert (found.state, found.said) == ("ok", "a run receives its calls itself")
    found = await receiver_told(tmp_path, "https://calls.example.org/kling", receive_on="0.0.0.0:8787")
    assert (found.state, found.do) == ("ok", "")
    assert "on 0.0.0.0:8787, as a proxy passes them on from https://calls.example.org/kling" in found.said


@pytest.mark.parametrize(
    ("base", "receive_on", "told"),
    [
        ("http://calls.example.org/kling", "", "it has to be https"),
        ("https://10.0.0.7/kling", "", "a private or reserved address"),
        ("https://calls.example.org/kling?key=", "", "no ?"),
        ("", "0.0.0.0:8787", "callback_base_url is not"),
        ("https://calls.example.org/kling", "8787", "HOST:PORT"),
    ],
)
async def test_a_callback_address_that_cannot_be(tmp_path: Path, base: str, receive_on: str, told: str) -> None:
    # Without a key nobody asks the gateway.
    public = {"base_url": "https://gateway.example.org/v1", "api_key": SecretStr("")}
    found = await receiver_told(tmp_path, base, receive_on=receive_on, **public)
    assert found.state == FAILED
    assert told in found.said
    assert f"{SETTING}CALLBACK_BASE_URL" in found.do
    assert f"{SETTING}RECEIVE_ON" in found.do


async def test_the_receiver_of_the_same_ledger(tmp_path: Path) -> None:
    async with receiving(environment_in(tmp_path)) as (_, base):
        found = await receiver_told(tmp_path, f"{base}/")
    assert (found.state, found.said, found.do) == ("ok", f"{base} answers, and writes to the same ledger", "")


async def test_the_receiver_of_another_ledger(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    async with receiving(environment_in(tmp_path / "theirs")) as (_, base):
        found = await receiver_told(tmp_path, base)
        assert (found.state, found.said) == ("warning", f"{base} answers, and writes to another ledger than runs do")
        assert "ledger URL" in found.do
        # While nobody can tell, it is not said to be wrong.
        (tmp_path / "folder.db").mkdir()
        found = await receiver_told(tmp_path, base, ledger_url=SecretStr(f"sqlite:///{tmp_path / 'folder.db'}"))
        assert (found.state, found.do) == ("warning", "see what is said of the ledger")


async def test_a_receiver_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        base = f"http://127.0.0.1:{nobody.getsockname()[1]}/kling"
        found = await receiver_told(tmp_path, base)
    assert found.state == "warning"
    assert found.said.startswith(f"{base} does not answer from here: ")
    assert "prefect-kling receive" in found.do


async def test_the_password_of_a_callback_address_is_not_told(tmp_path: Path) -> None:
    found = await receiver_told(tmp_path, "http://kling:s3cret-word@127.0.0.1:9/kling")
    assert "does not answer from here" in found.said
    assert "s3cret-word" not in f"{found.said} {found.do}"


async def test_a_receiver_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}/kling"
        found = await receiver_told(tmp_path, base)
    assert (found.state, found.said) == ("warning", f"{base} does not answer from here: ReadTimeout")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, {"error": "try again later"}),
        (404, "Not Found"),
        (301, {"ledger": "0123456789abcdef"}),
        (200, {"status": "ok"}),
        (200, {"status": "ok", "ledger": 7}),
        (200, ["ok"]),
        (200, None),
    ],
)
async def test_what_is_no_receiver_in_good_health(tmp_path: Path, status: int, body: Any) -> None:
    async def health(_request: object) -> Response:
        return PlainTextResponse("<h1>It works!</h1>", status) if body is None else JSONResponse(body, status)

    async with serving(Starlette(routes=[Route("/kling/health", health)])) as origin:
        found = await receiver_told(tmp_path, f"{origin}/kling")
    assert found.state == "warning"
    assert found.said.startswith(f"{origin}/kling/health answers {status}, and not as")
    assert "whether the address ends with its /kling path" in found.do


# What does not answer.


class _Stuck(AbstractFileSystem):  # type: ignore[misc] # ships no types
    """Waits for somebody who does not come."""

    protocol = "stuck"
    released = threading.Event()

    def put_file(self, *_args: object, **_options: object) -> None:
        self.released.wait(60)


@pytest.mark.timeout(20)
def test_what_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    fsspec.register_implementation("stuck", _Stuck, clobber=True)
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            silent = f"127.0.0.1:{listening.getsockname()[1]}"
            with temporary_settings({PREFECT_API_URL: f"http://{silent}/api"}):
                findings = asyncio.run(
                    looked(
                        tmp_path,
                        seconds=2,
                        base_url=f"http://{silent}/v1",
                        storage_url="stuck://films",
                        ledger_url=SecretStr(f"postgresql://kling:{PASSWORD}@{silent}/films"),
                    )
                )
    finally:
        _Stuck.released.set()
    silent_ones = ["key", "balance", "ledger", "storage", "server"]
    assert failures(findings) == silent_ones
    assert {findings[name].said for name in silent_ones} == {"no answer within 2 s"}
    assert all(findings[name].do for name in silent_ones)


# What this machine has.


def test_a_prefect_server_that_is_not_there(gateway: Running, doctor: Doctor) -> None:
    with temporary_settings({PREFECT_API_URL: f"http://kling:{PASSWORD}@127.0.0.1:9/api"}):
        code, findings = doctor()
    assert (code, failures(findings)) == (2, ["server"])
    assert "PREFECT_API_URL" in findings["server"].do


def test_a_prefect_server_that_is_there(gateway: Running, doctor: Doctor, prefect_server: str) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        code, findings = doctor()
    assert code == 0
    assert findings["server"].said == f"the Prefect server at {prefect_server} answers"


def test_a_studio_that_cannot_be_read_leaves_the_rest_to_be_looked_at(doctor: Doctor) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, findings = doctor("--studio", "films")
    assert (code, failures(findings)) == (2, ["studio", "server"])
    assert list(findings) == ["studio", "ffmpeg", "av", "server"]
    assert "The Kling Studio block 'films' cannot be read" in findings["studio"].said


def test_a_studio_that_takes_too_long_to_read(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor, "STUDIO_SECONDS", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        monkeypatch.setattr(checkup, "SECONDS", 2.2)
        with temporary_settings({PREFECT_API_URL: url}):
            code, findings = doctor("--studio", "films")
    assert (code, failures(findings)) == (2, ["studio", "server"])
    assert "within 0.2 s" in findings["studio"].said


def test_settings_that_cannot_be_used(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SETTING}MAX_IN_FLIGHT", "many")
    code, findings = doctor()
    assert (code, failures(findings)) == (2, ["studio"])
    assert f"{SETTING}MAX_IN_FLIGHT cannot be 'many'" in findings["studio"].said


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("#!/bin/sh\nexit 3\n", "-version ended with status 3"),
        ("#!/bin/sh\necho 'ffmpeg version 2 Copyright'; echo ' V libx264 x'; echo ' A aac x'\n", "lacks blackdetect"),
        (None, "it cannot be run"),
    ],
)
async def test_an_ffmpeg_that_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, told: str
) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    if program is not None:
        ffmpeg.write_text(program)
        ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    found = (await looked(tmp_path))["ffmpeg"]
    assert found.state == FAILED
    assert told in found.said


# The exit code.


@pytest.mark.parametrize(
    ("causes", "code"),
    [
        ([], 0),
        (["", ""], cli_codes.USAGE),
        (["key"], cli_codes.REFUSED),
        (["", "key"], cli_codes.REFUSED),
        (["credits"], cli_codes.MONEY),
        (["key", "", "credits"], cli_codes.MONEY),
    ],
)
def test_the_worst_failure_decides_the_exit_code(causes: list[Any], code: int) -> None:
    others = [Finding("balance", "warning", "low", "top up", "credits"), Finding("av", "ok", "there")]
    assert worst_code([*others, *(Finding("x", "failed", "said", "do", cause) for cause in causes)]) == code
