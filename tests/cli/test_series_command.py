"""`prefect-kling series`: what it prints, where, and with which exit code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.cli import run
from prefect_kling.simulator.server import Running

COMMAND = str(Path(sys.executable).with_name("prefect-kling"))
KEY = "sk-cli-5d1b07"
BOARD = """\
title: "{{ product }}"
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: turn
    prompt: "A {{ color }} {{ product }} turns"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    there = tmp_path / "boards"
    there.mkdir()
    (there / "board.yaml").write_text(BOARD)
    (there / "rows.csv").write_text("product;notes\nMug;\nforbiddenpicture;\n;nothing\n")
    (there / "twice.jsonl").write_text('{"product": "Mug"}\n{"product": "mug"}\n')
    monkeypatch.chdir(there)
    monkeypatch.setenv("APIMODELS_API_KEY", KEY)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    return there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["board.yaml"], "ROWS"),
        (["board.yaml", "nowhere.csv"], "nowhere.csv:1:1: there is no such file"),
        (["nowhere.yaml", "rows.csv"], "nowhere.yaml:1:1: there is no such file"),
        (["board.yaml", "rows.csv", "--set", "colour=red"], "did you mean 'color'?"),
        (["board.yaml", "rows.csv", "--at-once", "0"], "--at-once"),
        (["board.yaml", "rows.csv", "--budget", "-1"], "budget"),
        (["board.yaml", "rows.csv", "--budget", "lots"], "lots"),
        (["board.yaml", "rows.csv", "--studio", "films", "--simulate"], "either --studio or --simulate"),
        (["board.yaml", "twice.jsonl", "--set", "color=red"], "row 1 (twice.jsonl:1, Mug) and row 2 (twice.jsonl:2, m"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_is_wrong(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["series", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_budget_that_all_films_exceed_exits_with_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["series", "board.yaml", "rows.csv", "--set", "color=red", "--budget", "0.2"]) == 4
    assert "rows was not begun, and nothing was bought" in capsys.readouterr().err


async def test_each_row_is_told_and_the_worst_of_them_decides(
    folder: Path, simulator: Running, server_environment: dict[str, str]
) -> None:
    env = server_environment | {
        "APIMODELS_API_KEY": KEY,
        "APIMODELS_BASE_URL": simulator.base_url,
        "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.1",
    }
    arguments = [COMMAND, "series", "board.yaml", "rows.csv", "--set", "color=red", "--edition", "monday", "--json"]
    done = await asyncio.to_thread(
        subprocess.run, arguments, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=110
    )
    # The row without a product is bad usage (2), and a generation that failed comes before that.
    assert done.returncode == 7, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [row["status"] for row in found["rows"]] == ["rendered", "failed", "failed"]
    assert (found["films"], found["failed"], found["edition"]) == (1, 2, "monday")
    assert found["usd"] == pytest.approx(0.1899)
    assert Path(found["rows"][0]["film"]).name == "mug.mp4"
    assert "Columns that the storyboard does not use: notes" in done.stderr
    assert "Mug                              rendered   3.0 s, 0.19 USD" in done.stderr
    assert "row 3 (rows.csv:4): board.yaml:1:8: the variable 'product' is not given" in done.stderr
    assert "Summary: " in done.stderr
    assert KEY not in done.stdout + done.stderr
