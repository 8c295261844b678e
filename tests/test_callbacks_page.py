"""docs/callbacks.md: its application takes calls, its service starts, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from prefect_kling import KlingStudio
from prefect_kling.blocks.environment import KlingEnvironment
from prefect_kling.callbacks.events import RECEIVED
from prefect_kling.callbacks.receiving import BODY_SECONDS
from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.hints import AGAIN_SECONDS, MOST_HINTS, hints_of
from tests.cli.receiving import SETTING, address_of, bought, callback, environment_in, settings_in, started

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "callbacks.md").read_text()


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(text)


async def test_its_application_takes_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    names: dict[str, Any] = {}
    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}, restore_defaults={PREFECT_API_URL}):
        exec(compile(block("python"), "callbacks.md", "exec"), names)
        there = await desk(settings_in(tmp_path))
        purchase = await bought(there)
        # The address that the page tells to set, and a token after it.
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://films/films/kling") as client:
            assert (await client.get("/health")).json()["status"] == "ok"
            assert (await client.post(f"/{purchase.token}", content=callback())).status_code == 200
        assert [hint.task_id for hint in await hints_of(there.ledger, [purchase.id])] == ["t-fox"]
        await close_ledgers()


async def test_its_service_starts_and_stops(tmp_path: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", block("ini"), flags=re.MULTILINE)
    program, command, *arguments = shlex.split(line)
    assert (Path(program).name, command) == ("prefect-kling", "receive")
    child = await started(*arguments, "--port", 0, environment=environment_in(tmp_path))
    await address_of(child)
    child.terminate()
    await child.communicate()
    assert child.returncode == 0


def test_its_settings_are_there() -> None:
    settings = set(re.findall(rf"`{SETTING}([A-Z_]+)`", PAGE)) | set(re.findall(rf"{SETTING}([A-Z_]+)=", PAGE))
    assert settings == {"CALLBACK_BASE_URL", "RECEIVE_ON", "LEDGER_URL"}
    for name in settings:
        assert name.lower() in KlingEnvironment.model_fields
        assert name.lower() in KlingStudio.model_fields


def test_its_proxys_variables_are_there() -> None:
    variables = set(re.findall(r"KLING_(?:CALLBACK_HOST|RECEIVER)\b", PAGE))
    assert variables == set(re.findall(r"\{\$([A-Z_]+)", (ROOT / "deployments" / "Caddyfile").read_text()))


def test_its_numbers_are_ours() -> None:
    assert f"larger than {MAX_CALLBACK_BYTES // 1024} kB" in PAGE
    assert f"slower than {BODY_SECONDS:g} s" in PAGE
    assert f"again within {AGAIN_SECONDS:g} s" in PAGE
    assert f"keeps {MOST_HINTS} hints" in PAGE
    assert f"`{RECEIVED}`" in PAGE


def test_what_it_points_to_is_there() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
