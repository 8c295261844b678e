"""A storyboard's cut, from its document to the film and what lies beside it; nothing of it is bought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from prefect_kling import KlingStudio
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.pcm import Track, decode_sound
from prefect_kling.media.probe import probe
from prefect_kling.simulator.server import Running

pytestmark = pytest.mark.usefixtures("prefect_server")

BOARD = """
title: Harbour
defaults:
  duration: 3
shots:
  - id: quay
    prompt: A quay
    caption: Every morning begins the same.
  - id: boat
    prompt: A boat
    trim: [1, 0]
    narration: voice.wav
  - id: wave
    prompt: A wave
    continues: boat
cut:
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The document, and a sound beside it."""
    with av.open(str(tmp_path / "voice.wav"), "w") as file:
        track = file.add_stream("pcm_s16le", rate=48_000, layout="mono")
        wave = (np.sin(np.arange(48_000) / 20) * 8000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = 48_000
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    (tmp_path / "harbour.yaml").write_text(BOARD + "  transition: cut\n")
    return tmp_path / "harbour.yaml"


async def rendered(board: Path, studio: KlingStudio, **wish: Any) -> Rendering:
    state = await render_storyboard(str(board), studio, return_state=True, **wish)
    found = await state.aresult(raise_on_failure=False)
    assert isinstance(found, Rendering), found
    assert found.film is not None, found.sentence()
    return found


async def test_the_film_is_cut_as_the_document_says_and_its_manifest_tells_how(
    board: Path, studio: KlingStudio, simulator: Running
) -> None:
    film = (await rendered(board, studio)).film
    assert film is not None
    # 73 frames each, of which the trim takes the first 24.
    assert (film.method, film.frames) == ("normalise", 73 + 49 + 73)
    assert sorted(film.beside) == ["manifest.json", "poster.jpg", "preview.webp", "sheet.jpg", "srt", "vtt"]
    assert all(Path(path).stat().st_size for path in film.beside.values())
    document = json.loads(Path(film.beside["manifest.json"]).read_text())
    shots = {shot["id"]: shot for shot in document["shots"]}
    assert [shot["start_frame"] for shot in shots.values()] == [0, 73, 73 + 49]
    boat = shots["boat"]
    assert (boat["clip"]["first_frame"], boat["narration"]) == (24, "voice.wav")
    source = boat["source"]
    assert (source["prompt"], source["model"], source["take"], source["usd"]) == ("A boat", "kling-v3-omni", 1, 0.1899)
    assert source["task_id"]
    clip = Path(film.path).parent / boat["clip"]["file"]
    assert (await probe([clip]))[0].video.frames == 73
    assert "Every morning begins the same." in Path(film.beside["srt"]).read_text()
    assert simulator.service.stats()["creates"] == 3


async def test_another_cut_of_the_same_clips_is_another_film_and_buys_nothing(
    board: Path, studio: KlingStudio, simulator: Running
) -> None:
    first = (await rendered(board, studio)).film
    again = (await rendered(board, studio)).film
    assert again == first
    assert first is not None
    Path(first.beside["poster.jpg"]).unlink()
    assert (await rendered(board, studio)).film == first
    assert Path(first.beside["poster.jpg"]).is_file()
    more = "  transition: crossfade\n  drop_repeat: true\n  end_card: The end\n  captions: burn\n  music: voice.wav\n"
    board.write_text(BOARD + more)
    found = await rendered(board, studio)
    film = found.film
    assert film is not None
    assert film.method == "encode"
    assert not found.usd
    # Three crossfades of half a second, into the card as well; wave's first frame repeats boat's last.
    assert film.frames == 73 + 49 + 72 + 72 - 3 * 12
    assert film.path == first.path
    assert simulator.service.stats()["creates"] == 3
    (board.parent / "voice.wav").write_bytes(_shorter((board.parent / "voice.wav").read_bytes()))
    assert (await rendered(board, studio)).film != film


def _shorter(wave: bytes) -> bytes:
    return wave[:-2000]


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ("  title: 灯台\n", "does not have the letters"),
        ("  music: words.mp3\n", "words.mp3"),
        ("  font: words.ttf\n  title: Harbour\n", "words.ttf"),
    ],
)
async def test_words_and_sounds_that_cannot_be_used_stop_it_before_anything_is_bought(
    board: Path, studio: KlingStudio, simulator: Running, cut: str, says: str
) -> None:
    for name in ("words.mp3", "words.ttf"):
        (board.parent / name).write_text("These are words.")
    board.write_text(BOARD + cut)
    state = await render_storyboard(str(board), studio, return_state=True)
    with pytest.raises(InvalidMedia, match=says):
        await state.aresult()
    assert simulator.service.stats()["creates"] == 0


async def test_clips_are_worked_on_as_they_arrive_and_not_again_at_the_join(
    board: Path, studio: KlingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_kling.media import room as rooms

    arrivals: list[str] = []
    decoded: list[int] = []
    arrived = rooms.CuttingRoom.arrived

    def noted(self: rooms.CuttingRoom, clip: CutClip) -> None:
        arrivals.append(clip.title)
        arrived(self, clip)

    async def counted(clips: Sequence[MediaFacts], folder: Path) -> list[Track | None]:
        decoded.append(len(clips))
        return await decode_sound(clips, folder)

    monkeypatch.setattr(rooms.CuttingRoom, "arrived", noted)
    monkeypatch.setattr(rooms, "decode_sound", counted)
    board.write_text(BOARD.replace("duration: 3\n", "duration: 3\n  sound: on\n") + "  loudness: -20\n")
    await rendered(board, studio)
    assert sorted(arrivals) == ["boat", "quay", "wave"]
    assert sorted(decoded) == [0, 1, 1, 1]
    assert not list((tmp_path / "storage" / ".incoming").iterdir())
