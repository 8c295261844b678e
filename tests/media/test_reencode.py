"""The picture encoded anew: through black, keyframes, cuts to the frame, and what is said where it had to be."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from prefect_kling.media import normalise as normalising
from prefect_kling.media.cut import CutClip
from prefect_kling.media.join import join
from prefect_kling.media.probe import probe
from prefect_kling.media.transitions import Transition

MakeClip = Callable[..., Path]
Watch = Callable[[Path], Any]
FOUR = Fraction(4, 24)


def crossed(path: Path) -> CutClip:
    return CutClip(path, path.stem, transition=Transition("crossfade", FOUR))


# --- Transitions -------------------------------------------------------------------------------------------------


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


# --- Odd clips -----------------------------------------------------------------------------------------------------


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
