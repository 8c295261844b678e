"""What clips are held against: no more than is known, since a clip that fails is bought again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows.checking import imported
from prefect_kling.flows.preparing import Wish, reckoned
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.simulator.standin import stand_in_video


@pytest.mark.parametrize(
    ("base", "seconds", "billed"),
    [("https://films.example.com/fox.mp4", None, 10), ("fox.mp4", pytest.approx(5.0417, abs=1e-3), 5)],
)
async def test_an_edit_is_as_long_as_its_video_where_that_is_known(
    tmp_path: Path, base: str, seconds: Any, billed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_video("fox", tmp_path / "fox.mp4")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    studio = KlingStudio(credentials=KlingCredentials(api_key="sk-checking-1d02"))
    board = tmp_path / "board.yaml"
    board.write_text(f"title: T\nshots:\n  - id: a\n    prompt: A\n    base: {base}\n    check: true\n")
    reckoner = await reckoned(str(board), studio.settings(), {}, Wish())
    (shot,) = reckoner.planned.shots
    choice = await reckoner.choice(shot, {})
    assert choice.look.wanted.seconds == seconds
    assert choice.worded[0].seconds == billed


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "raise RuntimeError('no')", "import nowhere_at_all"])
def test_a_module_that_cannot_be_imported_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    (tmp_path / "ending_checks.py").write_text(f"{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StoryboardError, match=r"check\.function: ending_checks:logo cannot be imported"):
        imported("ending_checks:logo")
    assert "ending_checks" not in sys.modules
