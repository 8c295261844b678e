"""Transitions in real films: each takes the frames that it is given, and the frames around it are all there once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.media import reencode as reencoding
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.join import Film, join
from prefect_kling.media.transitions import Transition

MakeClip = Callable[..., Path]
Watch = Callable[[Path], Any]
Lumas = list[NDArray[np.int16]]

SMALL = (160, 90)


def crossing(path: Path, frames: int, rate: Fraction, kind: str = "crossfade", **said: Any) -> CutClip:
    return CutClip(path, path.stem, transition=Transition(kind, frames / rate), **said)


def own_frames(film: Film) -> dict[int, tuple[Path, int]]:
    """Which clip's frame each of the film's is, but for those of transitions, cards and the film's fades."""
    timeline, found = film.timeline, {}
    for scene in timeline.scenes:
        for n in range(scene.before, scene.frames - scene.after):
            at = scene.start + n
            if isinstance(scene.source, MediaFacts) and timeline.fade_in <= at < film.frames - timeline.fade_out:
                found[at] = (scene.source.path, scene.first + n)
    return found


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30), Fraction(24000, 1001), Fraction(23)], ids=str)
async def test_every_frame_outside_of_transitions_is_there_once_whatever_the_rate_and_the_parts(
    make_clip: MakeClip, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, rate: Fraction
) -> None:
    """Hard cuts, transitions, a card, a trim, a repeated frame, a clip twice in a part, single frames, fades."""
    monkeypatch.setattr(reencoding, "CLIPS_AT_ONCE", 3)
    one, two, single = (
        make_clip(f"{shot}.mp4", shot=shot, frames=frames, rate=rate, size=SMALL)
        for shot, frames in ((1, 10), (2, 10), (3, 1))
    )
    clips = [
        crossing(one, 2, rate),
        crossing(two, 3, rate, "wipe"),
        crossing(two, 1, rate, "slideup", trim=(1 / rate, 9 / rate)),
        CutClip(single, "single"),
        CutClip(one, "again", repeats=True),
        crossing(one, 4, rate, "circleopen"),
        crossing(two, 2, rate, "dissolve"),
        CutClip(single, "single"),
        CutClip(one, "hard"),
    ]
    cut = Cut(title="A", card_seconds=5 / rate, fade_in=3 / rate, fade_out=2 / rate)
    film = await join(clips, tmp_path / "film.mp4", cut)
    seen = watch(film.path)
    assert (film.method, film.frames) == ("encode", 5 + 10 + 10 + 8 + 1 + 9 + 10 + 10 + 1 + 10 - 2 - 3 - 1 - 4 - 2)
    assert len(seen.marks) == film.frames
    assert seen.times == pytest.approx([n / rate for n in range(film.frames)], abs=1e-4)
    shots = {one: 1, two: 2, single: 3}
    expected = {at: (shots[path], number) for at, (path, number) in own_frames(film).items()}
    assert {at: seen.marks[at] for at in expected} == expected
    assert len(expected) == film.frames - 3 - (2 + 3 + 1 + 4 + 2) - 2


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Callable[..., None]) -> tuple[Path, Path]:
    """A dark and a light clip of eight frames."""
    folder = tmp_path_factory.mktemp("plain")
    clips = folder / "dark.mp4", folder / "light.mp4"
    for clip, colour in zip(clips, ("0x303030", "0xd0d0d0"), strict=True):
        ffmpeg("-f", "lavfi", "-i", f"color={colour}:s=160x90:r=24", "-frames:v", "8", "-pix_fmt", "yuv420p", clip)
    return clips


@pytest.mark.parametrize(
    "kind", ["crossfade", "wipe", "black", "white", "dissolve", "circleopen", "hblur", "revealdown", "coverleft"]
)
async def test_a_transition_shows_both_shots_in_exactly_its_frames(
    plain: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    """The first of them is still the shot before: each shows how far it has come when it begins."""
    dark, light = plain
    film = await join([CutClip(dark, "a"), crossing(light, 4, Fraction(24), kind)], tmp_path / "film.mp4")
    pictures = lumas(film.path)
    assert film.frames == len(pictures) == 12
    before, after = pictures[0], pictures[-1]
    assert [unlike(before, picture) for picture in pictures] == [False] * 5 + [True] * 7
    assert [unlike(after, picture) for picture in pictures] == [True] * 8 + [False] * 4


async def test_a_crossfade_goes_evenly_from_one_to_the_other(plain: tuple[Path, Path], tmp_path: Path) -> None:
    dark, light = plain
    film = await join([CutClip(dark, "a"), crossing(light, 4, Fraction(24))], tmp_path / "film.mp4")
    levels = [float(picture.mean()) for picture in lumas(film.path)]
    low, high = levels[0], levels[-1]
    assert high - low > 150
    assert levels == pytest.approx([*[low] * 4, *[low + (high - low) * n / 4 for n in range(4)], *[high] * 4], abs=3)


async def test_clips_of_every_shape_and_clock_cross_over(make_clip: MakeClip, tmp_path: Path, watch: Watch) -> None:
    """Another size, rate and codec, uneven frames and wide pixels, each with its neighbours."""
    clips = [
        make_clip("plain.mp4", shot=1, size=SMALL),
        make_clip("large.mp4", shot=2, size=(320, 180)),
        make_clip("fast.mp4", shot=3, size=SMALL, rate=48, frames=24),
        make_clip("hevc.mp4", shot=4, size=SMALL, codec="libx265", options={"x265-params": "log-level=none"}),
        make_clip("uneven.mp4", shot=5, size=SMALL, frames=8, times=[0, 1, 2, 3, 6, 7, 8, 11], options={"bf": "0"}),
        make_clip("wide.mp4", shot=6, size=(80, 90), aspect=Fraction(2)),
        make_clip("last.mp4", shot=7, size=SMALL),
    ]
    film = await join([crossing(clip, 2, Fraction(24)) for clip in clips], tmp_path / "film.mp4")
    assert (film.method, film.frames) == ("encode", 7 * 12 - 6 * 2)
    marks = watch(film.path).marks
    numbers = {shot: list(range(12)) for shot in range(1, 8)}
    numbers[3] = list(range(0, 24, 2))
    numbers[5] = [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6, 7]
    for scene, shot in zip(film.timeline.scenes, range(1, 8), strict=True):
        own = range(scene.before, scene.frames - scene.after)
        assert [marks[scene.start + n] for n in own] == [(shot, numbers[shot][n]) for n in own]


def lumas(path: Path) -> Lumas:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="gray").astype(np.int16) for frame in film.decode(video=0)]


def unlike(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    """Whether some part of two pictures differs."""
    return bool(np.abs(one - other).max() > 8)
