"""The picture encoded anew, and one odd clip encoded like the others: every frame where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from prefect_kling.media import normalise as normalising
from prefect_kling.media import reencode as reencoding
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.join import join
from prefect_kling.media.probe import probe
from prefect_kling.media.transitions import Transition

MakeClip = Callable[..., Path]
Watch = Callable[[Path], Any]
FrameSums = Callable[[Path], list[str]]
FOUR = Fraction(4, 24)


def crossed(path: Path, kind: str = "crossfade", **said: Any) -> CutClip:
    return CutClip(path, path.stem, transition=Transition(kind, FOUR), **said)


# --- Transitions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [8, 2])
async def test_every_frame_outside_of_transitions_is_there_once_in_order(
    shots: list[Path], tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """In one part, and in parts that begin in the middle of clips."""
    monkeypatch.setattr(reencoding, "CLIPS_AT_ONCE", at_once)
    clips = [crossed(shots[0]), crossed(shots[1]), CutClip(shots[2], "cut"), crossed(shots[0], "wipe")]
    film = await join(clips, tmp_path / "film.mp4")
    assert (film.method, film.frames) == ("encode", 4 * 12 - 2 * 4)
    marks = watch(tmp_path / "film.mp4").marks
    scenes = film.timeline.scenes
    for scene, shot in zip(scenes, (1, 2, 3, 1), strict=True):
        own = range(scene.before, scene.frames - scene.after)
        assert [marks[scene.start + n] for n in own] == [(shot, n) for n in own]
    assert watch(tmp_path / "film.mp4").times == [Fraction(n, 24) for n in range(40)]


async def test_through_black_and_white_the_middle_is_neither_shot(make_clip: MakeClip, tmp_path: Path) -> None:
    clips = [make_clip(f"{n}.mp4", shot=n, frames=12) for n in (1, 2)]
    seconds = Fraction(8, 24)
    for kind, extreme in (("black", np.min), ("white", np.max)):
        cuts = [CutClip(clips[0], "a"), CutClip(clips[1], "b", transition=Transition(kind, seconds))]
        film = await join(cuts, tmp_path / f"{kind}.mp4")
        means = _means(film.path)
        assert extreme(means) in means[5:11]
        assert (min(means) < 30) if kind == "black" else (max(means) > 220)


async def test_chapters_begin_on_keyframes(shots: list[Path], tmp_path: Path) -> None:
    film = await join([crossed(shot) for shot in shots], tmp_path / "film.mp4")
    with av.open(str(film.path)) as container:
        video = container.streams.video[0]
        base = video.time_base or Fraction(1)
        keys = [round((p.pts or 0) * base * 24) for p in container.demux(video) if p.is_keyframe and p.size]
    assert {chapter.start for chapter in film.timeline.chapters} <= set(keys)


# --- Shape and edges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "corner", "middle"), [("pad", True, False), ("crop", False, False), ("stretch", False, False)]
)
async def test_fit_decides_what_fills_the_film(
    make_clip: MakeClip, tmp_path: Path, fit: Any, corner: bool, middle: bool
) -> None:
    clip = make_clip(frames=2)
    film = await join([CutClip(clip, "a")], tmp_path / "film.mp4", Cut(size=(180, 320), fit=fit))
    luma = _lumas(film.path)[0]
    assert luma.shape == (320, 180)
    assert bool(luma[:20, :20].max() < 24) is corner
    assert bool(luma[150:170, 80:100].max() < 24) is middle


async def test_a_crop_shows_the_middle(make_clip: MakeClip, tmp_path: Path) -> None:
    """The barcode's sixteen blocks are 20 pixels wide: at twice the scale, 4.5 of them are seen."""
    clip = make_clip(frames=2, shot=0b00000011)
    film = await join([CutClip(clip, "a")], tmp_path / "film.mp4", Cut(size=(160, 180), fit="crop"))
    row = _lumas(film.path)[0][67] > 128
    # Blocks 4 to 11, of which 6 and 7 are light.
    assert [bool(row[n * 20 + 10]) for n in range(8)] == [False, False, True, True, False, False, False, False]


async def test_the_film_fades_from_and_to_black(shots: list[Path], tmp_path: Path) -> None:
    cut = Cut(fade_in=FOUR, fade_out=FOUR)
    for clips in ([CutClip(shot, "") for shot in shots], [crossed(shot) for shot in shots]):
        means = _means((await join(clips, tmp_path / "film.mp4", cut)).path)
        assert means[0] < 20
        assert means[-1] < means[-2] < means[-3] < means[-5]
        assert means[-1] < 20
        assert means[len(means) // 2] > 60


async def test_cards_and_burnt_captions_are_seen_where_they_belong(shots: list[Path], tmp_path: Path) -> None:
    plain = await join([CutClip(shot, "") for shot in shots], tmp_path / "plain.mp4")
    cut = Cut(title="Hello", captions="burn", card_seconds=Fraction(1, 2))
    clips = [CutClip(shot, "", caption="Words" if n == 1 else "") for n, shot in enumerate(shots)]
    film = await join(clips, tmp_path / "film.mp4", cut)
    assert (film.method, film.frames) == ("normalise", 48)
    before, after = _lumas(plain.path), _lumas(film.path)
    assert after[0].max() > 200
    assert np.median(after[0]) < 20
    lower = slice(130, 175)
    changed = [np.abs(a[lower] - b[lower]).max() > 60 for a, b in zip(before, after[12:], strict=True)]
    assert changed == [False] * 12 + [True] * 12 + [False] * 12


# --- Odd clips -----------------------------------------------------------------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    "another size": {"size": (640, 360)},
    "another rate": {"rate": 30, "frames": 15},
    "no B-frames": {"options": {"bf": "0"}},
    "another profile": {"options": {"profile": "main"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "wide pixels": {"aspect": Fraction(4, 3)},
    "uneven frames": {"frames": 8, "times": [0, 1, 2, 3, 6, 7, 8, 11]},
    "one frame": {"frames": 1},
}


@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_clip_is_encoded_like_the_others_which_stay_as_they_are(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, beep: float, frame_sums: FrameSums, kind: str
) -> None:
    odd = make_clip("odd.mp4", shot=9, sound=0.5, **ODD[kind])
    film = await join([CutClip(path, path.stem) for path in (shots[0], odd, shots[1])], tmp_path / "film.mp4")
    frames = 1 if kind == "one frame" else 12
    if kind == "one frame":
        # It is alike, and copied.
        assert film.method in ("copy", "normalise")
    else:
        assert film.method == "normalise", film.reason
    assert film.frames == 24 + frames
    seen = watch(film.path)
    assert {shot for shot, _ in seen.marks[12 : 12 + frames]} == {9}
    sums = frame_sums(film.path)
    assert sums[:12] == frame_sums(shots[0])
    assert sums[12 + frames :] == frame_sums(shots[1])
    assert seen.times == [Fraction(n, 24) for n in range(24 + frames)]
    for start in (0, (12 + frames) / 24):
        assert seen.onset(start, start + 0.5) == pytest.approx(beep, abs=0.005)


async def test_a_trim_and_a_repeated_frame_are_cut_to_the_frame(
    shots: list[Path], tmp_path: Path, watch: Watch
) -> None:
    clips = [
        CutClip(shots[0], "whole"),
        CutClip(shots[1], "trimmed", trim=(Fraction(2, 24), Fraction(7, 24))),
        CutClip(shots[2], "again", repeats=True),
        CutClip(shots[0], "end", trim=(Fraction(9, 24), None)),
        CutClip(shots[1], "whole"),
    ]
    film = await join([*clips, *[CutClip(shots[2], "whole")] * 3], tmp_path / "film.mp4")
    assert film.method == "normalise"
    assert watch(film.path).marks == [
        *[(1, n) for n in range(12)],
        *[(2, n) for n in range(2, 7)],
        *[(3, n) for n in range(1, 12)],
        *[(1, n) for n in range(9, 12)],
        *[(2, n) for n in range(12)],
        *[(3, n) for n in range(12)] * 3,
    ]


async def test_what_does_not_come_out_alike_is_encoded_with_all_the_others_and_that_is_said(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalising, "parameters", lambda encoder, level: "ref=1:bframes=0")
    odd = make_clip("odd.mp4", shot=9, size=(640, 360))
    film = await join([CutClip(path, path.stem) for path in (*shots, odd)], tmp_path / "film.mp4")
    assert film.method == "encode"
    assert "odd clips did not come out like the others" in film.reason
    assert watch(film.path).marks == [(shot, n) for shot in (1, 2, 3, 9) for n in range(12)]


async def test_wide_pixels_that_all_clips_have_are_copied(make_clip: MakeClip, tmp_path: Path) -> None:
    clips = [make_clip(f"{n}.mp4", shot=n, aspect=Fraction(4, 3)) for n in (1, 2)]
    film = await join([CutClip(clip, "") for clip in clips], tmp_path / "film.mp4")
    (facts,) = await probe([film.path])
    assert (film.method, facts.video.sample_aspect) == ("copy", Fraction(4, 3))


def _lumas(path: Path) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]


def _means(path: Path) -> list[float]:
    return [float(luma.mean()) for luma in _lumas(path)]
