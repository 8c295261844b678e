"""`prefect-kling init`: what it writes is what is shipped, and works where it was written."""

from __future__ import annotations

import importlib.resources
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prefect_kling.cli import run
from prefect_kling.cli_init import FILES, PLACE
from prefect_kling.storyboard.reader import read_storyboard

ROOT = Path(__file__).parents[2]


def test_it_writes_all_that_is_shipped() -> None:
    shipped = {path.name for path in (ROOT / "deployments").iterdir() if path.suffix != ".py" and path.is_file()}
    assert set(FILES) == shipped
    assert all((importlib.resources.files("prefect_kling.deployments") / name).is_file() for name in FILES)


def test_what_it_writes_names_the_folder_it_is_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / 'a "new" folder'
    assert run(["init", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == set(FILES)
    deployments = YAML(typ="safe").load((folder / "prefect.yaml").read_text())["deployments"]
    (daily,) = [one for one in deployments if one["name"] == "daily"]
    assert daily["parameters"]["storyboard"] == str(folder / "storyboard.yaml")
    assert len(read_storyboard(daily["parameters"]["storyboard"]).storyboard.shots) == 3
    said = capsys.readouterr().err
    for name in FILES:
        assert str(folder / name) in said


def test_what_it_says_to_do_next_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a new; folder"
    assert run(["init", str(folder)]) == 0
    commands = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    typed = [shlex.split(command) for command in commands]
    assert ["prefect-kling", "render", str(folder / "storyboard.yaml"), "--simulate"] in typed
    assert ["prefect-kling", "automations", str(folder / "automations.yaml")] in typed
    assert ["cd", str(folder), "&&", "prefect", "--no-prompt", "deploy", "--all"] in typed
    # A worker has the environment that it is started in.
    assert commands[-2:] == ["export APIMODELS_API_KEY=…", "prefect worker start --pool kling"]


def test_what_is_there_is_not_written_over_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").write_text("mine")
    assert run(["init"]) == 2
    assert f"{tmp_path} has prefect.yaml already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.yaml"]
    assert run(["init", "--force"]) == 0
    assert (tmp_path / "prefect.yaml").read_text() != "mine"


@pytest.mark.parametrize("folder", ["a {{ folder }}", "file/under"])
def test_a_folder_that_cannot_be_used_is_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / folder)]) == 2


def test_the_place_that_is_filled_in_is_in_the_file_once() -> None:
    assert (ROOT / "deployments" / "prefect.yaml").read_text().count(PLACE) == 1
