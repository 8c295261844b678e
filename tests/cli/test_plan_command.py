"""`prefect-kling plan`: the tree and its totals, the flowchart, the document; nothing is bought by any of them."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from prefect_kling import Clip, KlingStudio
from prefect_kling.cli import run
from prefect_kling.flows.reckoning import Reckoner
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.states import Event
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import read_storyboard

Said = tuple[int, str, str]
"""An exit code, stdout, stderr."""
Command = Callable[..., Said]

SETTING = "PREFECT_INTEGRATIONS_KLING_"
BOARD = """\
title: Storm "at" sea
defaults:
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: At night, in a storm
    base: dawn
    takes: 2
  - id: calm
    prompt: It is over
    continues: storm
    end_frame: dawn
  - id: sketch
    prompt: A sketch of the coast
    model: kling-video-o1
    mode: pro
    duration: 5
    in_cut: false
"""
CLIP = Clip(
    path="/srv/films/dawn.mp4",
    sha256="ab" * 32,
    bytes=1_234_567,
    seconds=3.04,
    frames=73,
    width=1280,
    height=720,
    task_id="t-1",
    url="https://gateway.test/t-1.mp4",
    url_expires_at=datetime(2026, 11, 29, tzinfo=UTC),
)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A storyboard; the environment names a studio with a ledger of its own, and no key."""
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    monkeypatch.setenv("APIMODELS_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", str(tmp_path / "storage"))
    path = tmp_path / "storm.yaml"
    path.write_text(BOARD)
    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}):
        yield path


@pytest.fixture
def command(board: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run(["plan", str(board), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def buy(board: Path, shot: str, *events: Event) -> None:
    """Writes a shot's purchase into the ledger, and what happened to it; no gateway is asked."""
    facts: dict[Event, dict[str, Any]] = {
        Event.ACCEPTED: {"task_id": f"task-{shot}"},
        Event.COMPLETED: {"result_url": CLIP.url, "expires_at": CLIP.url_expires_at},
        Event.DOWNLOADED: {"clip": CLIP},
    }

    async def work() -> None:
        document = read_storyboard(board)
        planned = plan(document)
        there = await desk(KlingStudio.from_environment().settings())
        try:
            wanted = next(found for found in planned.shots if found.id == shot)
            clips = dict.fromkeys(wanted.needs, (CLIP.sha256, CLIP.seconds))
            choice = await Reckoner(there, document, planned, "main").choice(wanted, clips)
            reserved = await there.ledger.reserve(there.account, choice.order(1), Limits(in_flight=99))
            purchase = reserved.purchase
            assert purchase is not None
            for event in (Event.SEND, Event.ACCEPTED, *events):
                purchase = await there.ledger.happened(purchase, event, **facts.get(event, {}))
        finally:
            await close_ledgers()

    asyncio.run(work())


def test_all_is_new(command: Command) -> None:
    code, out, err = command()
    assert code == 0
    assert out.splitlines() == [
        "  shot        how          s     USD  is",
        "* dawn                     3  0.1899  new",
        "* └─ storm    base       2x3  0.3798  new, 2 takes to buy",
        "*    └─ calm  continues    3  0.1899  new; with end frame of dawn",
        "  sketch                   5  0.4265  new; not in the film; kling-video-o1 pro",
        "4 shots, kling-v3-omni std and kling-video-o1 pro: 4 new",
        "4 of 4 shots to buy, 17 s to generate, 1.19 USD",
        "* critical path: dawn → storm → calm",
        "expected time: about 8 min, 25 min if slow (5 to generate, up to 20 at once)",
    ]
    assert err == ""


def test_what_is_there_costs_no_money_and_no_time(command: Command, board: Path) -> None:
    buy(board, "dawn", Event.COMPLETED, Event.DOWNLOADED)
    buy(board, "storm")
    _, out, _ = command()
    assert out.splitlines()[1:] == [
        "  dawn                   3          kept",
        "* └─ storm    base       3  0.1899  running, 1 take to buy",
        "*    └─ calm  continues  3  0.1899  new; with end frame of dawn",
        "  sketch                 5  0.4265  new; not in the film; kling-video-o1 pro",
        "4 shots, kling-v3-omni std and kling-video-o1 pro: 2 new, 1 kept, 1 running",
        "3 of 4 shots to buy, 11 s to generate, 0.81 USD",
        "* critical path: storm → calm",
        "expected time: about 5 min, 17 min if slow (4 to generate, up to 20 at once)",
    ]


def test_with_all_of_it_there_only_the_film_takes_time(command: Command, board: Path) -> None:
    board.write_text("title: T\nshots:\n  - id: dawn\n    prompt: A lighthouse at dawn\n")
    buy(board, "dawn", Event.COMPLETED, Event.DOWNLOADED)
    _, out, _ = command()
    assert out.splitlines()[1:] == [
        "  dawn  5       kept",
        "1 shot, kling-v3-omni std: 1 kept",
        "0 of 1 shot to buy, 0 s to generate, 0.00 USD",
        "expected time: about 10 s, 10 s if slow (nothing to generate, only the film)",
    ]


def test_a_long_critical_path_is_shortened(command: Command, board: Path) -> None:
    shots = "".join(f"  - id: s{n}\n    prompt: x\n" + (f"    base: s{n - 1}\n" if n else "") for n in range(12))
    board.write_text(f"title: T\nshots:\n{shots}")
    code, out, err = command()
    assert code == 0
    assert "* critical path: s0 → s1 → s2 → s3 → s4 → … → s10 → s11 (12 shots)\n" in out
    assert "warning: s11: 11 clips in a row" in err


def test_as_a_flowchart(command: Command, board: Path) -> None:
    buy(board, "dawn", Event.COMPLETED, Event.DOWNLOADED)
    code, out, err = command("--mermaid")
    assert (code, err) == (0, "")
    assert out.startswith("flowchart LR\n")
    assert '  s4["sketch<br/>5 s, 0.43 USD"]\n' in out
    assert '    s2["2 · storm<br/>2 x 3 s, 0.38 USD"]\n' in out
    assert "  s2 ==>|continues| s3\n" in out
    assert '  cut --> film(["Storm #34;at#34; sea<br/>3 shots, by number"])\n' in out
    assert "  class s1 kept\n" in out


def test_a_flowchart_that_pages_refuse_says_so_on_stderr(command: Command, board: Path) -> None:
    shots = "".join(f"  - id: shot-number-{n}\n    prompt: x {n}\n" for n in range(1000))
    board.write_text(f"title: T\nshots:\n{shots}")
    code, out, err = command("--mermaid")
    assert code == 0
    assert out.startswith("flowchart LR\n")
    assert "GitHub draws up to 50000" in err


def test_a_thousand_shots_are_drawn(command: Command, board: Path) -> None:
    """How long that takes is measured by `benchmarks/planning.py`, part by part."""
    shots = "".join(
        f"  - id: s{n}\n    prompt: Scene {n}\n" + (f"    base: s{n - 1}\n" if n % 4 else "") for n in range(1000)
    )
    board.write_text(f"title: T\nshots:\n{shots}")
    code, out, _ = command()
    assert code == 0
    assert all(f"s{n} " in out for n in range(1000))
    assert "1000 of 1000 shots to buy" in out


def test_as_a_document(command: Command, board: Path) -> None:
    buy(board, "dawn", Event.COMPLETED, Event.DOWNLOADED)
    code, out, _ = command("--json")
    found = json.loads(out)
    assert code == 0
    assert [(shot["id"], shot["status"], shot["takes_to_buy"]) for shot in found["shots"]] == [
        ("dawn", "kept", 0),
        ("storm", "new", 2),
        ("calm", "new", 1),
        ("sketch", "new", 1),
    ]
    assert found["edges"] == [
        {"from": "dawn", "to": "storm", "kind": "base"},
        {"from": "storm", "to": "calm", "kind": "continues"},
        {"from": "dawn", "to": "calm", "kind": "end frame"},
    ]
    assert found["critical_path"] == ["storm", "calm"]
    assert 2 * 142 < found["expected_seconds"] < 2 * 160 < 2 * 486 < found["expected_seconds_if_slow"] < 2 * 510
    assert found["usd"] == pytest.approx(3 * 0.1899 + 0.4265)
    assert found["shots"][1] == {
        "id": "storm", "status": "new", "through": None, "shares": None, "take": 1, "takes_to_buy": 2,
        "needs": ["dawn"], "model": "kling-v3-omni", "mode": "std", "seconds": 3, "usd": 0.1899,
        "usd_at_most": 0.1899, "warnings": [],
    }  # fmt: skip


def test_one_document_at_a_time(command: Command) -> None:
    code, out, err = command("--json", "--mermaid")
    assert (code, out) == (2, "")
    assert "either --mermaid or --json" in err


def test_a_stdout_without_line_drawing_gets_plain_letters(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", written)
    assert run(["plan", str(board)]) == 0
    written.seek(0)
    said = written.read()
    assert "* `- storm" in said
    assert "critical path: dawn > storm > calm" in said


def test_some_shots_and_a_draft_can_be_planned_too(command: Command) -> None:
    code, out, err = command("--only", "storm", "--draft", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(shot["id"], shot["mode"], shot["takes_to_buy"]) for shot in found["shots"]] == [
        ("dawn", "std", 1),
        ("storm", "std", 1),
    ]
    code, _, err = command("--only", "strom")
    assert (code, "there is no shot 'strom'" in err) == (2, True)
