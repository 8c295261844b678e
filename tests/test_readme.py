"""The README's examples, run as they stand: its storyboard, its flow, its commands."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from prefect_kling import KlingStudio
from prefect_kling.media.probe import probe
from prefect_kling.simulator.server import Running

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_its_storyboard_is_one(tmp_path: Path) -> None:
    from prefect_kling.storyboard.plan import plan
    from prefect_kling.storyboard.reader import read_storyboard

    (text,) = blocks("yaml")
    (tmp_path / "readme.yaml").write_text(text)
    planned = plan(read_storyboard(tmp_path / "readme.yaml"))
    assert [shot.needs for shot in planned.shots] == [(), ("dawn",), ("dawn",), ("keeper",)]


@pytest.mark.usefixtures("prefect_server")
async def test_its_flow_makes_a_film_of_two_shots(studio: KlingStudio) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    film = await names["storm"](studio)
    (facts,) = await probe([Path(film.path)])
    assert facts.video.frames == film.frames == 2 * 121
    assert film.path.endswith("films/storm.mp4")


@pytest.mark.usefixtures("prefect_server")
def test_its_blocks_can_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    loaded = KlingStudio.load("films")
    assert isinstance(loaded, KlingStudio)
    assert loaded.settings() == names["studio"].settings()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the README's commands name."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "storyboards").symlink_to(ROOT / "storyboards")
    (folder / "storyboard.yaml").write_text(blocks("yaml")[0])
    for name, colour in (("a", "red"), ("b", "blue")):
        source = ["-f", "lavfi", "-i", f"color={colour}:s=320x180:r=24:d=1"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-pix_fmt", "yuv420p", f"{name}.mp4"]
        subprocess.run(command, cwd=folder, check=True)
    return folder


async def ran(lines: Iterable[str], environment: dict[str, str], folder: Path) -> list[list[str]]:
    """Runs commands as they are written, one after another, and returns what each begins with."""
    environment = environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    begun = []
    for command in lines:
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            environment[name] = value
            continue
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            shell=True,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        begun.append(command.split()[:2])
    return begun


@pytest.mark.timeout(300)
async def test_its_commands_on_the_simulator_run(server_environment: dict[str, str], clone: Path) -> None:
    lines = [command for command in commands() if "--simulate" in command]
    assert await ran(lines, server_environment, clone) == [["prefect-kling", "render"], ["prefect-kling", "series"]]
    films = Path(server_environment["PREFECT_HOME"]) / "kling" / "simulated" / "films" / "main"
    teasers = await probe(sorted(films.glob("*-teaser.mp4")))
    assert [facts.video.shown_size for facts in teasers] == [(720, 1280)] * 3


@pytest.mark.timeout(300)
async def test_its_other_commands_run(server_environment: dict[str, str], simulator: Running, clone: Path) -> None:
    """All but `make test`, which is what runs this, and `make film`, which is one of those above in a fresh `.venv`."""
    lines = [command for command in commands() if "--simulate" not in command and not command.startswith("make ")]
    environment = server_environment | {
        "APIMODELS_BASE_URL": simulator.base_url,
        "PREFECT_INTEGRATIONS_KLING_POLL_INTERVAL": "0.2",
    }
    assert await ran(lines, environment, clone) == [
        ["prefect-kling", "plan"],
        ["prefect-kling", "schema"],
        ["prefect-kling", "join"],
        ["prefect-kling", "doctor"],
        *[["prefect-kling", "render"]] * 4,
        ["prefect-kling", "ledger"],
        ["prefect-kling", "ledger"],
        ["prefect-kling", "sweep"],
        ["prefect", "block"],
        ["prefect-kling", "init"],
    ]
    assert (clone / "film.mp4").stat().st_size > 0


def test_what_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_storyboard_with_every_field_plans(tmp_path: Path) -> None:
    from prefect_kling.storyboard.document import Cut, Defaults, Music, Shot, Storyboard
    from prefect_kling.storyboard.plan import plan
    from prefect_kling.storyboard.reader import read_storyboard

    page = (ROOT / "docs" / "storyboard.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "fields.yaml").write_text(text)
    for name in re.findall(r"(?:file|font|narration): (\S+)", text):
        (tmp_path / name).touch()
    document = read_storyboard(tmp_path / "fields.yaml", variables={"city": "Lisbon"})
    plan(document)
    board = document.storyboard
    assert board.model_fields_set == set(Storyboard.model_fields)
    assert board.defaults.model_fields_set == set(Defaults.model_fields)
    assert set().union(*(shot.model_fields_set for shot in board.shots)) == set(Shot.model_fields)
    assert board.cut.model_fields_set == set(Cut.model_fields)
    assert board.cut.music.model_fields_set == set(Music.model_fields)
    fields = [*Shot.model_fields, *Cut.model_fields, *Music.model_fields]
    assert [name for name in fields if f"`{name}`" not in page] == []
