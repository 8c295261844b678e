"""Clips of every kind in one film: odd ones are encoded like the usual ones, and no frame of either is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.media.cut import CutClip
from prefect_kling.media.join import join

Ffmpeg = Callable[..., None]
Watch = Callable[[Path], Any]
FrameSums = Callable[[Path], list[str]]

# How the second shot is encoded otherwise.
OTHERWISE = {
    "hev1": ("-c:v", "libx265", "-x265-params", "log-level=none", "-tag:v", "hev1"),
    "all colour": ("-pix_fmt", "yuv444p"),
    "ten bits": ("-pix_fmt", "yuv420p10le"),
    "full range": ("-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p"),
    "other tags": ("-vf", "scale=out_color_matrix=bt601", "-colorspace", "smpte170m"),
    "half the frames": ("-vf", "fps=12", "-frames:v", "6"),
    "shorter pixels": ("-vf", "scale=320:90,setsar=1/2"),
}


@pytest.fixture
def odd(shots: list[Path], tmp_path: Path, ffmpeg: Ffmpeg) -> list[Path]:
    """The second shot in other ways, at last upside down and turned back by its display matrix."""
    clips = [tmp_path / f"{kind}.mp4" for kind in OTHERWISE]
    for clip, options in zip(clips, OTHERWISE.values(), strict=True):
        ffmpeg("-i", shots[1], "-c:a", "copy", *options, clip)
    upside_down, turned = tmp_path / "upside down.mp4", tmp_path / "turned.mp4"
    ffmpeg("-i", shots[1], "-vf", "hflip,vflip", "-c:a", "copy", upside_down)
    ffmpeg("-display_rotation", "180", "-i", upside_down, "-c", "copy", turned)
    return [*clips, turned]


async def test_odd_clips_of_every_kind_go_between_usual_ones(
    shots: list[Path],
    odd: list[Path],
    without_start: Path,
    tmp_path: Path,
    watch: Watch,
    beep: float,
    frame_sums: FrameSums,
) -> None:
    pairs = [path for clip in odd for path in (clip, shots[2])]
    film = await join([CutClip(p, p.stem) for p in (shots[0], *pairs, without_start, shots[0])], tmp_path / "film.mp4")
    assert film.method == "normalise", film.reason
    seen, plain = watch(film.path), watch(shots[1])
    usual, sums = frame_sums(shots[2]), frame_sums(film.path)
    for number, clip in enumerate(odd):
        start = 12 + number * 24
        marks = watch(clip).marks
        if clip.stem == "turned":
            marks = plain.marks
        # At half the film's rate each frame is there twice.
        assert seen.marks[start : start + 12] == [mark for mark in marks for _ in range(12 // len(marks))], clip
        assert sums[start + 12 : start + 24] == usual
        if marks == plain.marks:
            # The same to a viewer: neither darker nor lighter, which would be 8 steps or more.
            assert np.abs(pixels(seen, start) - pixels(plain, 0)).mean() < 4, clip
        assert seen.onset(start / 24, start / 24 + 0.45) == pytest.approx(beep, abs=0.005)
    assert seen.marks[-20:] == [*[(1, n) for n in range(4, 12)], *[(1, n) for n in range(12)]]
    assert sums[:12] == sums[-12:] == frame_sums(shots[0])
    assert seen.times == [Fraction(n, 24) for n in range(film.frames)]
    assert film.frames == 12 + 8 * 24 + 8 + 12


def pixels(seen: Any, number: int) -> NDArray[np.int16]:
    return np.frombuffer(seen.pixels[number], np.uint8).astype(np.int16)


async def test_most_clips_may_have_lost_what_x264_says_of_itself(
    shots: list[Path], tmp_path: Path, watch: Watch, ffmpeg: Ffmpeg
) -> None:
    """One that still has it is enough, though it be an odd one itself."""
    silent = [tmp_path / f"{shot.stem} silent.mp4" for shot in shots[1:]]
    for shot, clip in zip(shots[1:], silent, strict=True):
        ffmpeg("-i", shot, "-c", "copy", "-bsf:v", "filter_units=remove_types=6", clip)
    trimmed = CutClip(shots[0], "", trim=(Fraction(1, 24), None))
    film = await join([trimmed, *(CutClip(clip, "") for clip in silent)], tmp_path / "film.mp4")
    assert film.method == "normalise", film.reason
    assert watch(film.path).marks == [(1, n) for n in range(1, 12)] + [(shot, n) for shot in (2, 3) for n in range(12)]


@pytest.mark.parametrize("decoder", ["h264", "libopenh264"])
async def test_two_decoders_play_it_without_a_complaint(
    shots: list[Path], odd: list[Path], tmp_path: Path, decoder: str
) -> None:
    film = await join([CutClip(p, "") for p in (shots[0], odd[0], shots[1], odd[1], shots[2])], tmp_path / "film.mp4")
    assert film.method == "normalise"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-c:v", decoder, "-i", str(film.path)]
    played = await asyncio.create_subprocess_exec(*command, "-f", "null", "-", stderr=asyncio.subprocess.PIPE)
    _, said = await played.communicate()
    assert (played.returncode, said) == (0, b"")
