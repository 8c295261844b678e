"""`prefect-kling join`: any clips, with the options of a storyboard's cut."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from prefect_kling.cli import run
from prefect_kling.media.probe import probe


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three clips of a second, the first of which has an odd name."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for name, colour in (("-y 'odd'.mp4", "red"), ("sea.mp4", "blue"), ("sky.mp4", "green")):
        source = ["-f", "lavfi", "-i", f"color={colour}:s=320x180:r=24:d=1", "-f", "lavfi", "-i", "sine=d=1"]
        path = folder / name
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-pix_fmt", "yuv420p", f"file:{path}"]
        subprocess.run(command, check=True)
        made.append(str(path))
    return made


def joined(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = run(["join", *arguments, "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    document: dict[str, Any] = json.loads(said.out)
    return document


def test_alike_clips_are_copied(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = joined(capsys, *clips, "--out", str(tmp_path / "film.mp4"))
    assert (film["method"], film["frames"], film["beside"]) == ("copy", 72, {})
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_every_option_of_the_cut_is_one_of_the_command(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = joined(
        capsys,
        *clips,
        *("--out", str(tmp_path / "new" / "film.mp4"), "--transition", "wipe", "--transition-length", "0.25"),
        *("--fade-in", "0.1", "--fade-out", "0.1", "--size", "180x320", "--fit", "crop", "--codec", "h264"),
        *("--loudness", "-20", "--music", clips[1], "--music-gain", "-20", "--no-music-loop", "--music-fade", "0.1"),
        *("--no-music-ducking", "--captions", "burn", "--title", "Three", "--end-card", "End", "--trim", "2=0.25,0"),
        *("--into", "3=circleopen", "--caption", "3=The sky", "--narration", f"1={clips[2]}", "--poster-at", "1"),
        *("--around", "--otio"),
    )
    # Two cards of 3 s, three clips less a trim, four transitions.
    assert film["frames"] == 2 * 72 + 3 * 24 - 6 - 4 * 6
    assert sorted(film["beside"]) == ["manifest.json", "otio", "poster.jpg", "preview.webp", "sheet.jpg", "srt", "vtt"]
    manifest = json.loads(Path(film["beside"]["manifest.json"]).read_text())
    assert [shot["id"] for shot in manifest["shots"]] == ["-y 'odd'", "sea", "sky"]
    assert [shot["transition"]["kind"] for shot in manifest["shots"]] == ["wipe", "wipe", "circleopen"]
    assert (tmp_path / "new" / manifest["shots"][1]["clip"]["file"]).samefile(clips[1])
    (facts,) = asyncio.run(probe([Path(film["film"])]))
    assert (facts.video.width, facts.video.height) == (180, 320)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--transition", "explode"], "--transition: "),
        (["--size", "321x180"], "--size: width and height have to be even"),
        (["--trim", "4=1,2"], "--trim takes NUMBER=VALUE with a clip's number, 1 to 3"),
        (["--trim", "2=1"], "--trim 2=…: takes two numbers"),
        (["--caption", "hello"], "--caption takes NUMBER=VALUE"),
        (["--music", "nowhere.mp3"], "there is no file nowhere.mp3"),
        (["--music-gain", "3"], "need --music FILE"),
        (["--music-gain", "99", "--music", __file__], "--music-gain: "),
        (["--into", "2=explode"], "--into 2=…: "),
    ],
)
def test_an_option_that_is_wrong_is_named(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert run(["join", *clips, "--out", str(tmp_path / "film.mp4"), *options]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "film.mp4").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trim", "2=3,0"], "Nothing is left of"),
        (["--transition", "crossfade", "--transition-length", "1"], "make transition_length shorter"),
        (["--music", __file__], "test_join_command.py"),
        (["--title", "灯台"], "does not have the letters"),
    ],
)
def test_a_cut_that_does_not_fit_the_clips_exits_with_6_and_leaves_nothing(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert run(["join", *clips, "--out", str(tmp_path / "film.mp4"), *options]) == 6
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


async def test_an_interrupt_leaves_no_file_and_no_process(clips: list[str], tmp_path: Path) -> None:
    """While ffmpeg encodes; what began in its session is gone as well."""
    command = Path(sys.executable).with_name("prefect-kling")
    process = await asyncio.create_subprocess_exec(
        command, "join", *clips * 30, "--out", tmp_path / "film.mp4", "--size", "1280x720"
    )
    try:
        while not any(path.suffix == ".mp4" and path.stat().st_size for path in tmp_path.rglob(".kling-*/*")):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 130
    finally:
        if process.returncode is None:
            process.kill()
    assert list(tmp_path.iterdir()) == []
    if Path("/proc").is_dir():
        assert [entry for entry in Path("/proc").glob("[0-9]*") if _works_for(entry, tmp_path)] == []


def _works_for(process: Path, folder: Path) -> bool:
    try:
        return str(folder) in (process / "cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("name", ["film.srt", "film.vtt", "film.otio"])
def test_a_film_is_not_replaced_by_what_lies_beside_it(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run(["join", clips[1], "--out", str(tmp_path / name), "--caption", "1=Sea", "--around", "--otio"]) == 2
    assert "name it film.mp4" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_text_and_those_of_several_lines(clips: list[str], tmp_path: Path) -> None:
    # As the system gives them to a program: PEP 383.
    one, two = tmp_path / "r\udcff.mp4", tmp_path / "s\nt.mp4"
    for path in (one, two):
        shutil.copyfile(clips[1], path)
    command = [str(Path(sys.executable).with_name("prefect-kling")), "join", str(one), str(two)]
    # A process of its own: what it prints on is not what pytest prints on.
    out = str(tmp_path / "f\udcff")
    done = subprocess.run(
        [*command, "--out", out, "--around", "--otio", "--json"], capture_output=True, check=True, timeout=60
    )
    film = json.loads(done.stdout.decode())
    manifest = json.loads(Path(film["beside"]["manifest.json"]).read_text("utf-8"))
    assert [shot["id"] for shot in manifest["shots"]] == ["r\N{REPLACEMENT CHARACTER}", "s\nt"]
    assert (tmp_path / manifest["shots"][0]["clip"]["file"]).samefile(one)
    assert json.loads(Path(film["beside"]["otio"]).read_text("utf-8"))["name"] == "f\N{REPLACEMENT CHARACTER}"


def test_a_poster_from_behind_the_end_is_told_before_the_film_is_joined(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["join", clips[1], "--out", str(tmp_path / "film.mp4"), "--around", "--poster-at", "1"]) == 6
    assert "There is no poster at 1 s" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
