"""`prefect-kling ledger adopt`: a clip that was bought elsewhere becomes a take of a shot."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from prefect_kling import KlingClient, KlingStudio, OmniVideoRequest
from prefect_kling.cli import run
from prefect_kling.flows.preparing import Wish, prepare
from prefect_kling.flows.standing import Standing
from prefect_kling.ledger.desk import close_ledgers
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

pytestmark = pytest.mark.timeout(120)

KEY = "sk-adopt-c4411e"
SETTING = "PREFECT_INTEGRATIONS_KLING_"
BOARD = """\
title: Adopted
defaults:
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: A storm at night
    base: dawn
"""
Said = tuple[int, str, str]


@pytest.fixture
def simulated() -> Iterator[Running]:
    """A simulator in a thread of its own, as the commands have loops of their own."""
    ready, done = threading.Event(), threading.Event()
    servers: list[Running] = []

    async def serve() -> None:
        async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8)) as server:
            servers.append(server)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield servers[0]
    finally:
        done.set()
        thread.join()


@pytest.fixture
def board(simulated: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A storyboard, and an environment that names the simulator and a ledger and storage of its own."""
    monkeypatch.setenv("APIMODELS_API_KEY", KEY)
    monkeypatch.setenv("APIMODELS_BASE_URL", simulated.base_url)
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", str(tmp_path / "storage"))
    monkeypatch.setenv(f"{SETTING}POLL_INTERVAL", "0.05")
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}):
        yield path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        return code, out, err

    return call


def bought_elsewhere(server: Running, **request: Any) -> str:
    """A task that this ledger knows nothing of."""

    async def buy() -> str:
        body = {"model": "kling-v3-omni", "aspect_ratio": "16:9", "duration": "3", **request}
        async with KlingClient(KEY, base_url=server.base_url) as client:
            return (await client.create(OmniVideoRequest.model_validate(body))).task_id

    return asyncio.run(buy())


def standing(board: Path) -> dict[str, Standing]:
    async def look() -> dict[str, Standing]:
        try:
            return dict((await prepare(str(board), KlingStudio.from_environment(), {}, Wish())).standings)
        finally:
            await close_ledgers()

    return asyncio.run(look())


def test_an_adopted_clip_is_the_shots_take_and_is_not_bought(
    board: Path, simulated: Running, command: Callable[..., Said]
) -> None:
    task = bought_elsewhere(simulated, prompt="A lighthouse in other words")
    code, out, err = command("ledger", "adopt", task, board, "--shot", "dawn", "--json")
    assert code == 0, err
    row = json.loads(out)
    assert (row["state"], row["shot"], row["take"], row["task_id"], row["usd"]) == ("stored", "dawn", 1, task, 0)
    found = standing(board)
    assert (found["dawn"].status, list(found["storm"].to_buy)) == ("kept", [1])
    assert simulated.service.stats()["creates"] == 1


def test_a_second_one_is_another_take_which_later_runs_use(
    board: Path, simulated: Running, command: Callable[..., Said]
) -> None:
    first, second = (bought_elsewhere(simulated, prompt=words) for words in ("one", "two"))
    assert command("ledger", "adopt", first, board, "--shot", "dawn")[0] == 0
    # The ledger knows the shot by now; its document is not needed any more.
    code, _, err = command("ledger", "adopt", second, "--shot", "dawn")
    assert (code, "take 2 of shot 'dawn'" in err) == (0, True)
    assert (standing(board)["dawn"].take, standing(board)["dawn"].status) == (2, "kept")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--shot", "storm"), "made of the clip of dawn, which is not there yet", 2),
        (("--shot", "dawm"), "there is no shot 'dawm'", 2),
        (("--shot", "dawn", "--set", "x"), "--set takes name=value", 2),
    ],
)
def test_what_cannot_be_adopted_is_told(
    board: Path, simulated: Running, command: Callable[..., Said], arguments: tuple[str, ...], said: str, code: int
) -> None:
    task = bought_elsewhere(simulated, prompt="one")
    found, _, err = command("ledger", "adopt", task, board, *arguments)
    assert (found, said in err) == (code, True), err


def test_without_a_document_a_shot_has_to_be_known(board: Path, command: Callable[..., Said]) -> None:
    code, _, err = command("ledger", "adopt", "t-1", "--shot", "dawn")
    assert code == 2
    assert "it was never asked for" in err
    code, _, err = command("ledger", "adopt", "t-1", board, "--shot", "dawn")
    assert (code, "t-1" in err) == (7, True)
