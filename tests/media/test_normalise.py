"""Scenes encoded like the film's other clips, whatever those are: what is copied stays as it is, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.join import join

MakeClip = Callable[..., Path]
Ffmpeg = Callable[..., None]
Watch = Callable[[Path], Any]
FrameSums = Callable[[Path], list[str]]

# How most of the film's clips are encoded.
USUAL = {
    "ten bits": ("-pix_fmt", "yuv420p10le"),
    "another clock": ("-video_track_timescale", "90000"),
    "no tags": ("-vf", "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown:range=unknown"),
    "a bit rate": ("-b:v", "600k", "-maxrate", "1M", "-bufsize", "1M", "-preset", "veryfast"),
    "baseline": ("-profile:v", "baseline"),
    "24000/1001 a second": ("-vf", "setpts=N/(24000/1001)/TB", "-r", "24000/1001"),
}


@pytest.mark.parametrize("kind", USUAL)
async def test_cards_parts_and_words_are_made_like_clips_of_any_kind(
    shots: list[Path], tmp_path: Path, ffmpeg: Ffmpeg, watch: Watch, frame_sums: FrameSums, kind: str
) -> None:
    usual = [tmp_path / shot.name for shot in shots]
    for shot, clip in zip(shots, usual, strict=True):
        ffmpeg("-i", shot, "-an", *USUAL[kind], clip)
    rate = Fraction(24000, 1001) if "1001" in kind else Fraction(24)
    cut = Cut(title="A", card_seconds=4 / rate, captions="burn", fade_in=3 / rate)
    clips = [
        CutClip(usual[0], "whole"),
        CutClip(usual[1], "part", trim=(3 / rate, 8 / rate)),
        CutClip(usual[2], "words", caption="Hello"),
        CutClip(shots[0], "odd", trim=(Fraction(1, 24), Fraction(7, 24))),
        CutClip(usual[1], "whole"),
        CutClip(usual[2], "whole"),
    ]
    film = await join(clips, tmp_path / "film.mp4", cut)
    assert film.method == "normalise", film.reason
    ffmpeg("-xerror", "-err_detect", "explode", "-i", film.path, "-f", "null", "-")
    seen, sums = watch(film.path), frame_sums(film.path)
    *_, second, third = (frame_sums(clip) for clip in usual)
    assert sums[4:16] == frame_sums(usual[0])
    assert sums[-24:] == [*second, *third]
    assert seen.marks[16:21] == [(2, n) for n in range(3, 8)]
    assert seen.marks[21:33] == [(3, n) for n in range(12)]
    assert sums[21:33] != third
    assert {shot for shot, _ in seen.marks[33:-24]} == {1}
    assert len(seen.marks) == film.frames == 4 + 12 + 5 + 12 + 6 + 24


async def test_a_fade_darkens_its_own_clip_alone(
    shots: list[Path], tmp_path: Path, watch: Watch, frame_sums: FrameSums
) -> None:
    cut = Cut(fade_in=Fraction(4, 24), fade_out=Fraction(4, 24))
    film = await join([CutClip(shot, "") for shot in shots], tmp_path / "film.mp4", cut)
    assert film.method == "normalise"
    assert frame_sums(film.path)[12:24] == frame_sums(shots[1])
    lumas = [np.frombuffer(frame, np.uint8)[: 320 * 180].mean() for frame in watch(film.path).pixels]
    assert lumas[0] == pytest.approx(16, abs=1)
    assert lumas[-1] == pytest.approx(16, abs=1)
    assert lumas[:5] == sorted(lumas[:5])
    assert lumas[-4:] == sorted(lumas[-4:], reverse=True)
    assert min(lumas[4:-4]) > 80
