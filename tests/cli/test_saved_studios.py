"""`--studio NAME`: the commands at a studio that is saved as a block, and not at the environment's."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings
from prefect.states import AwaitingRetry
from pydantic import SecretStr

from prefect_kling import KlingCredentials, KlingStudio, cli_studio
from prefect_kling.cli import run
from prefect_kling.cli_studio import told
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

pytestmark = pytest.mark.timeout(240)

Said = tuple[int, str, str]
"""An exit code, stdout, stderr."""
Command = Callable[..., Said]

KEY = "sk-films-77d0e3"
COMMAND = str(Path(sys.executable).with_name("prefect-kling"))
NOWHERE = "http://127.0.0.1:9/v1"
BOARD = """\
title: Small
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: night
    prompt: At night
    base: dawn
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(BOARD)
    return path


@pytest.fixture
def command(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs `prefect-kling` in this process; the environment's studio has no key, and its gateway is not there."""
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    monkeypatch.setenv("APIMODELS_BASE_URL", NOWHERE)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        return code, out, err

    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}):
        yield call


@pytest.fixture
def python(server_environment: dict[str, str], tmp_path: Path) -> Command:
    """Runs Python in a process of its own, with the same home and as little in the environment."""

    def call(*arguments: object, **environment: str) -> Said:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=server_environment | {"APIMODELS_BASE_URL": NOWHERE} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert KEY not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def faults() -> str:
    """What goes wrong at the gateway."""
    return ""


@pytest.fixture
async def gateway(faults: str) -> AsyncIterator[Running]:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8, faults=faults)) as server:
        yield server


@pytest.fixture
def films(command: Command, gateway: Running, tmp_path: Path) -> str:
    """Saves a studio whose account, ledger and storage are not the environment's; its name."""
    name = f"films-{uuid.uuid4().hex[:8]}"
    studio = KlingStudio(
        credentials=KlingCredentials(api_key=SecretStr(KEY), base_url=gateway.base_url, account="films"),
        storage_url=str(tmp_path / "elsewhere"),
        ledger_url=SecretStr(f"sqlite:///{tmp_path / 'elsewhere.db'}"),
        poll_interval=0.1,
    )
    studio.save(name)
    return name


async def _latest_run(url: str, *, again: bool = False) -> FlowRun:
    async with PrefectClient(url) as client:
        (found,) = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        if again:
            await client.set_flow_run_state(found.id, AwaitingRetry(), force=True)
        return found


# rendering


@pytest.mark.parametrize("faults", ["failed=@1"])
def test_a_render_is_stored_with_a_reference_to_the_block_and_can_be_retried_by_prefect(
    python: Command, films: str, board: Path, gateway: Running, prefect_server: str
) -> None:
    code, _, err = python(COMMAND, "render", board, "--studio", films)
    assert code == 7, err
    assert "dawn: The gateway made no clip" in err
    flow_run = asyncio.run(_latest_run(prefect_server, again=True))
    assert flow_run.parameters["studio"].keys() == {"$ref"}
    stored = json.dumps(flow_run.parameters)
    assert KEY not in stored
    assert "elsewhere" not in stored

    entrypoint = "prefect_kling.flows.storyboard:render_storyboard"
    code, out, err = python("-m", "prefect.engine", flow_run.id, PREFECT__FLOW_ENTRYPOINT=entrypoint)
    assert code == 0, out + err
    assert gateway.service.stats()["creates"] == 3
    film = board.parent / "elsewhere" / "films" / "main" / "small.mp4"
    assert film.is_file()

    code, out, err = python(COMMAND, "render", board, "--studio", films, "--out", "film.mp4", "--json")
    assert code == 0, err
    assert [shot["status"] for shot in json.loads(out)["shots"]] == ["kept", "kept"]
    assert (board.parent / "film.mp4").read_bytes() == film.read_bytes()
    assert gateway.service.stats()["creates"] == 3


@pytest.mark.parametrize("faults", ["lost-answer=@1"])
def test_the_commands_that_messages_name_work_as_printed(
    command: Command, python: Command, films: str, board: Path, gateway: Running
) -> None:
    at = ("--studio", films)
    code, out, err = python(COMMAND, "render", board, *at, "--json")
    assert code == 5, err
    (purchase,) = json.loads(command("ledger", "list", *at, "--json")[1])["purchases"]
    short = purchase["token"][:8]
    assert purchase["state"] == "uncertain"
    is_task, is_none = (f"ledger resolve {short} {how} --studio {films}" for how in ("--task-id ID", "--never-created"))
    for said in (err, json.loads(out)["shots"][0]["error"]):
        assert set(re.findall("`prefect-kling ([^`]*)`", said)) == {is_task, is_none}

    # The environment's studio knows nothing of it.
    nothing = f"Nothing was bought yet: the ledger of the account 'main' at {NOWHERE} is empty.\n"
    assert command("ledger", "list")[2] == nothing
    assert [shot["status"] for shot in _planned(command, board)] == ["new", "new"]
    assert _planned(command, board, *at)[0]["status"] == "uncertain"

    code, out, _ = command("ledger", "show", short, *at)
    assert code == 0
    assert [line.strip() for line in out.splitlines() if line.startswith("  prefect-kling")] == [
        f"prefect-kling {is_task}",
        f"prefect-kling {is_none}",
    ]
    whole = json.loads(command("ledger", "show", short, *at, "--json")[1])
    assert whole["resolve"] == [f"prefect-kling {is_task}", f"prefect-kling {is_none}"]
    assert f"`prefect-kling ledger list --state uncertain --studio {films}`" in command("ledger", "spend", *at)[1]
    code, _, err = command("sweep", *at)
    assert code == 5
    assert f"`prefect-kling ledger show TOKEN --studio {films}`" in err
    code, _, err = command("ledger", "show", "0" * 8, *at)
    assert code == 2
    assert f"`prefect-kling ledger list --studio {films}`" in err

    (task_id,) = gateway.service.tasks
    code, _, err = command(*is_task.replace(" ID ", f" {task_id} ").split())
    assert code == 0
    assert f"`prefect-kling sweep --studio {films}`" in err
    (purchase,) = json.loads(command("ledger", "list", *at, "--json")[1])["purchases"]
    assert (purchase["state"], purchase["task_id"]) == ("submitted", task_id)


def _planned(command: Command, board: Path, *at: str) -> list[dict[str, object]]:
    code, out, err = command("plan", board, *at, "--json")
    assert code == 0, err
    shots: list[dict[str, object]] = json.loads(out)["shots"]
    return shots


# trouble with the block


COMMANDS = [
    ("render", "small.yaml"),
    ("plan", "small.yaml"),
    ("ledger", "list"),
    ("ledger", "show", "0" * 8),
    ("ledger", "resolve", "0" * 8, "--never-created"),
    ("ledger", "spend"),
    ("sweep",),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_block_that_is_not_there_is_one_sentence(
    command: Command, board: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(board.parent)
    said = (
        f"There is no Kling Studio block 'no-such' on the Prefect server at {prefect_server} (PREFECT_API_URL); "
        "nothing was bought or changed\n"
    )
    assert command(*arguments, "--studio", "no-such") == (2, "", said)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_server_that_is_not_there_is_one_sentence(
    command: Command, board: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(board.parent)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        code, out, err = command(*arguments, "--studio", "films")
    assert (code, out) == (2, "")
    assert err.startswith(
        f"The Kling Studio block 'films' cannot be read from the Prefect server at {url} (PREFECT_API_URL): "
    )
    assert err.endswith("; nothing was bought or changed\n")
    assert err.count("\n") == 1


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_that(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_studio, "ANSWER_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}),
    ):
        code, _, err = command("ledger", "list", "--studio", "films")
    assert code == 2
    assert "(PREFECT_API_URL): no answer within 0.2 s; nothing was bought or changed" in err


def test_without_any_server_the_setting_is_named(command: Command) -> None:
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}, restore_defaults={PREFECT_API_URL}):
        code, _, err = command("ledger", "list", "--studio", "films")
    assert code == 2
    assert err.startswith(
        "The Kling Studio block 'films' cannot be read from this machine (PREFECT_API_URL is not set)"
    )


@pytest.mark.parametrize("name", ["", "../..", "Films 2"])
def test_a_name_that_no_block_can_have_is_one_sentence(command: Command, name: str) -> None:
    code, out, err = command("ledger", "list", "--studio", name)
    assert (code, out) == (2, "")
    assert f"'{name}'" in err
    assert err.count("\n") == 1


def test_a_saved_studio_and_the_simulator_exclude_each_other(command: Command, board: Path) -> None:
    code, out, err = command("render", board, "--studio", "films", "--simulate")
    assert (code, out) == (2, "")
    assert "either --studio or --simulate" in err


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("say `prefect-kling sweep`", "say `prefect-kling sweep --studio films`"),
        (
            "`prefect-kling ledger show T` and `--never-created`",
            "`prefect-kling ledger show T --studio films` and `--never-created`",
        ),
        ("`prefect-kling schema` knows no studio", "`prefect-kling schema` knows no studio"),
        ("prefect-kling sweeps", "prefect-kling sweeps"),
    ],
)
def test_commands_in_a_message_are_completed(text: str, completed: str) -> None:
    assert told(text, "films") == completed
    assert told(text, None) == text


# tables


def test_a_plan_in_a_pipe_is_cut_nowhere(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "a-very-long-name-for-a-shot-of-a-lighthouse-on-a-cliff"
    board = tmp_path / "long.yaml"
    board.write_text(BOARD.replace("dawn\n", f"{long}\n", 1).replace("base: dawn", f"base: {long}"))
    code, out, _ = command("plan", board)
    assert code == 0
    assert "…" not in out
    _, dawn, night, _, total, path, _ = out.splitlines()
    assert dawn.split() == ["*", long, "3", "0.1899", "new"]
    assert night.split() == ["*", "└─", "night", "base", "3", "0.1899", "new"]
    assert total.startswith("2 of 2 shots to buy")
    assert path == f"* critical path: {long} → night"
