"""Files outside of a document's folder: taken where the run is told to, by whichever way it is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prefect_kling import KlingStudio
from prefect_kling.cli import run
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.preparing import Wish, prepare
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.simulator.server import Running

TOLD = r"film\.yaml:8:10: shot 'coast': images\.p: '\.\./harbour\.png' is outside the document's folder"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    Image.new("RGB", (400, 300), "navy").save(tmp_path / "harbour.png")
    path = tmp_path / "films" / "film.yaml"
    path.parent.mkdir()
    path.write_text(
        "title: T\ndefaults:\n  duration: 3\nshots:\n  - id: coast\n    prompt: In {p}\n"
        "    images:\n      p: ../harbour.png\n"
    )
    return path


async def test_preparing(board: Path, studio: KlingStudio) -> None:
    with pytest.raises(StoryboardError, match=TOLD):
        await prepare(str(board), studio, {}, Wish())
    prepared = await prepare(str(board), studio, {}, Wish(), allow_outside=True)
    assert [entry.source for entry in prepared.plan.shots[0].inputs] == [str(board.parent.parent / "harbour.png")]


async def test_the_flow(board: Path, studio: KlingStudio, simulator: Running, prefect_server: str) -> None:
    with pytest.raises(StoryboardError, match=TOLD):
        await render_storyboard(str(board), studio)
    assert simulator.service.stats()["creates"] == 0
    state: Any = await render_storyboard(str(board), studio, allow_outside=True, return_state=True)
    rendering = await state.aresult(raise_on_failure=False)
    assert isinstance(rendering, Rendering)
    assert [shot.status for shot in rendering.shots] == ["stored"]
    assert rendering.film is not None


@pytest.mark.parametrize("command", ["render", "plan"])
def test_the_commands_refuse(
    board: Path,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    assert run([command, str(board)]) == 2
    assert "allow it with --allow-outside" in capsys.readouterr().err


def test_the_commands_can_be_told_to(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    assert run(["plan", str(board), "--allow-outside"]) == 0
    capsys.readouterr()
    # The document is fine, and what is missing next is the key.
    assert run(["render", str(board), "--allow-outside"]) == 3
    assert "There is no API key" in capsys.readouterr().err
