"""The `prefect-kling` command: what it prints, where, and with which exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from prefect_kling import cli
from prefect_kling.cli import exit_code, run
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

COMMAND = str(Path(sys.executable).with_name("prefect-kling"))
BOARD = """\
title: Small
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse in the {{ weather }}
  - id: night
    prompt: At night
    base: dawn
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board" / "small.yaml"
    path.parent.mkdir()
    path.write_text(BOARD)
    return path


async def command(*arguments: object, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own and lets it end."""
    return await asyncio.to_thread(
        subprocess.run,
        [COMMAND, *map(str, arguments)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def at(env: dict[str, str], base_url: str, key: str = "sk-cli-41f7aa") -> dict[str, str]:
    return env | {
        "APIMODELS_API_KEY": key,
        "APIMODELS_BASE_URL": base_url,
        "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.1",
    }


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        (["InvalidMedia"], 6),
        (["InvalidMedia", "GenerationFailed"], 7),
        (["GenerationTimeout", "InvalidRequest"], 3),
        (["InvalidRequest", "InsufficientCredits"], 4),
        (["BudgetExceeded", "PurchaseUncertain"], 5),
        (["AuthenticationFailed"], 3),
        (["GatewayUnavailable"], 3),
        (["RateLimited"], 3),
        (["StoryboardError"], 2),
        (["LedgerUnavailable"], 2),
        (["LedgerUnavailable", "PurchaseUncertain"], 5),
        (["OSError"], 2),
    ],
)
def test_several_errors_give_the_first_code_of_the_documented_order(errors: list[str], code: int) -> None:
    assert exit_code(errors) == code


def test_plan_prints_every_shot_and_the_total(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(board), "--set", "weather=fog"]) == 0
    out = capsys.readouterr().out
    assert "dawn" in out
    assert "2 of 2 shots to buy, 6 s to generate, 0.38 USD" in out


def test_plan_as_json_is_one_document(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(board), "--set", "weather=fog", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["usd"] == pytest.approx(0.3798)
    assert [(shot["id"], shot["status"], shot["seconds"], shot["needs"]) for shot in planned["shots"]] == [
        ("dawn", "new", 3, []),
        ("night", "new", 3, ["dawn"]),
    ]


def test_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() >= {"title", "shots"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["render"], "FILE"),
        (["render", "nowhere.yaml"], "nowhere.yaml"),
        (["render", "small.yaml"], "weather"),
        (["render", "small.yaml", "--set", "weather=fog", "--set", "wether=fog"], "wether"),
        (["render", "small.yaml", "--set", "weather"], "name=value"),
        (["render", "small.yaml", "--budget", "-1"], "--budget"),
        (["render", "small.yaml", "--budget", "lots"], "lots"),
        (["render", "small.yaml", "--out", "."], "is a folder"),
        (["render", "small.yaml", "--out", "../board/small.yaml"], "would replace it"),
        (["render", "small.yaml", "--out", "small.yaml/film.mp4"], "small.yaml: is a file, not a folder"),
        (["render", "small.yaml", "--out", f"{'x' * 300}.mp4"], "too long"),
        (["join", "a.mp4", "--out", "small.yaml/film.mp4"], "small.yaml: is a file, not a folder"),
        (["dance"], "dance"),
        (["join", "--out", "film.mp4"], "at least one clip"),
        (["simulate", "--faults", "no-such-fault=1"], "no-such-fault"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_is_wrong(
    board: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(board.parent)
    monkeypatch.setenv("APIMODELS_API_KEY", "sk-cli-41f7aa")
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_without_a_key_render_says_what_to_set(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    assert run(["render", str(board), "--set", "weather=fog"]) == 3
    assert "APIMODELS_API_KEY" in capsys.readouterr().err


def test_join_of_something_that_is_no_video_exits_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.mp4").write_text("<html>not a film</html>")
    assert run(["join", str(tmp_path / "page.mp4"), "--out", str(tmp_path / "film.mp4")]) == 6
    assert "page.mp4" in capsys.readouterr().err
    assert not (tmp_path / "film.mp4").exists()


async def test_render_talks_to_the_gateway_that_the_environment_names(
    board: Path, simulator: Running, server_environment: dict[str, str]
) -> None:
    done = await command(
        "render",
        board,
        "--set",
        "weather=fog",
        "--out",
        "film.mp4",
        "--json",
        env=at(server_environment, simulator.base_url),
        cwd=board.parent,
    )
    assert done.returncode == 0, done.stderr
    rendered: dict[str, Any] = json.loads(done.stdout)
    assert rendered["film"] == str(board.parent / "film.mp4")
    assert rendered["frames"] == 2 * 73
    assert [shot["status"] for shot in rendered["shots"]] == ["stored", "stored"]
    assert rendered["usd"] == pytest.approx(0.3798)
    assert simulator.service.stats()["creates"] == 2
    assert "sk-cli-41f7aa" not in done.stdout + done.stderr
    assert "night" in done.stderr
    assert "Film: " in done.stderr


async def test_a_failed_shot_exits_with_7_and_names_it(board: Path, server_environment: dict[str, str]) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="failed=1")) as failing:
        done = await command(
            "render",
            board,
            "--set",
            "weather=fog",
            "--out",
            "film.mp4",
            env=at(server_environment, failing.base_url),
            cwd=board.parent,
        )
    assert done.returncode == 7, done.stderr
    assert "dawn: The gateway made no clip" in done.stderr
    assert not (board.parent / "film.mp4").exists()


@pytest.mark.parametrize(
    ("config", "code"),
    [({"balance": "0.1"}, 4), ({"api_key": "another"}, 3), ({"faults": "lost-answer=1"}, 5), ({"faults": "html=1"}, 5)],
)
async def test_what_the_gateway_refuses_decides_the_exit_code(
    board: Path, server_environment: dict[str, str], config: dict[str, Any], code: int
) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, **config)) as server:
        done = await command(
            "render", board, "--set", "weather=fog", env=at(server_environment, server.base_url), cwd=board.parent
        )
    assert done.returncode == code, done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that lets nobody write")
def test_a_film_that_could_not_be_put_there_is_not_bought(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIMODELS_API_KEY", "sk-cli-41f7aa")
    assert run(["render", str(board), "--set", "weather=fog", "--out", "/proc/film.mp4"]) == 2
    assert capsys.readouterr().err.startswith("/proc/film.mp4: cannot be written")


def test_where_the_film_cannot_be_copied_to_is_told_with_where_it_is_kept(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"film")
    with pytest.raises(OSError, match="it is kept at s3://films/film") as refused:
        cli._copy(tmp_path / "film.mp4", tmp_path / "gone" / "out.mp4", "s3://films/film.mp4")
    assert refused.value.filename == str(tmp_path / "gone" / "out.mp4")


def test_a_setting_that_cannot_be_used_is_named(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_MAX_IN_FLIGHT", "0")
    assert run(["plan", str(board), "--set", "weather=fog"]) == 2
    assert "PREFECT_INTEGRATIONS_KLING_MAX_IN_FLIGHT cannot be '0'" in capsys.readouterr().err


async def test_a_prefect_server_that_is_not_there_is_named_before_anything_is_bought(
    board: Path, simulator: Running, server_environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    environment = at(server_environment, simulator.base_url) | {"PREFECT_API_URL": url}
    done = await command("render", board, "--set", "weather=fog", env=environment, cwd=board.parent)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"The Prefect server at {url} (PREFECT_API_URL) does not answer")
    assert simulator.service.stats()["creates"] == 0


async def test_an_unreachable_gateway_exits_with_3(board: Path, server_environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = await command(
        "render",
        board,
        "--set",
        "weather=fog",
        env=at(server_environment, f"http://127.0.0.1:{port}/v1"),
        cwd=board.parent,
    )
    assert done.returncode == 3, done.stderr
    assert "nothing was bought" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_render_exits_with_130_and_leaves_no_process(
    board: Path, server_environment: dict[str, str], number: int
) -> None:
    with subprocess.Popen(
        [COMMAND, "render", str(board), "--set", "weather=fog", "--simulate"],
        env=server_environment,
        cwd=board.parent,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        before = []
        for line in process.stderr:
            before.append(line)
            if "generating" in line:
                break
        else:
            pytest.fail("it ended before there was anything to interrupt:\n" + "".join(before))
        process.send_signal(number)
        rest = process.stderr.read()
        code = process.wait(60)
    assert code == 130, rest
    assert rest.strip().splitlines()[-1] == "interrupted; clips that were finished are kept"
    assert "Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_simulate_serves_until_it_is_told_to_stop(server_environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [COMMAND, "simulate", "--seed", "1"], env=server_environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        answer = httpx.get(f"{url}/balance", headers={"Authorization": "Bearer any"}, trust_env=False)
        process.terminate()
        assert process.wait(30) in (0, 130)
    assert answer.json()["data"]["balance"]
