"""Clips held against what was ordered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import checks, processes
from prefect_kling.media.checks import Wanted, Watched, decoding_command, faults, faults_of, read_watched
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.probe import probe
from prefect_kling.media.processes import Ended

Ffmpeg = Callable[..., None]
MakeClip = Callable[..., Path]

ALL = Wanted(seconds=2, size=(160, 90), frames=True, decodes=True, black=0.3, frozen=0.6, sound=True)
MOVING = "testsrc2=s=160x90:r=24:d=2"
TONE = "sine=440:r=48000:d=2"


@pytest.fixture
def film(tmp_path: Path, ffmpeg: Ffmpeg) -> Callable[..., Path]:
    """`film(filters, picture=…, sound=…)` makes a clip of two seconds; `sound=None` leaves it without."""

    def make(filters: str = "null", *, picture: str = MOVING, sound: str | None = TONE, options: Any = ()) -> Path:
        out = tmp_path / "clip.mp4"
        heard = [] if sound is None else ["-f", "lavfi", "-i", sound]
        ffmpeg("-f", "lavfi", "-i", picture, *heard, "-vf", filters, "-pix_fmt", "yuv420p", *options, out)
        return out

    return make


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({}, ()),
        ({"filters": "drawbox=t=fill:c=black:enable='lt(t,0.5)'"}, ("it is black from 0.00 to 0.50 s",)),
        ({"filters": "drawbox=t=fill:c=black:enable='gte(t,1.5)'"}, ("it is black from 1.50 to 2.00 s",)),
        ({"filters": "drawbox=t=fill:c=black:enable='between(t,1,1.2)'"}, ()),
        ({"filters": "loop=24:1:12"}, ("it is 3.00 s long instead of 2 s", "it is frozen from 0.46 to 1.50 s")),
        ({"filters": "tpad=stop=1,trim=duration=2,loop=-1:1:0,trim=duration=2"}, ("it is frozen from 0.00 to 2.00 s",)),
        ({"picture": "color=black:s=160x90:r=24:d=2"}, ("it is black from 0.00 to 2.00 s",)),
        ({"sound": None}, ("it has no sound",)),
        ({"sound": "anullsrc=d=2"}, ("its sound cannot be heard: it has -70.0 LUFS, and -60 or less is silence",)),
        (
            {"sound": TONE + ",volume=0.01"},
            ("its sound cannot be heard: it has -61.8 LUFS, and -60 or less is silence",),
        ),
        ({"sound": TONE + ",volume=0.1"}, ()),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said_with_its_times(film: Any, what: dict[str, Any], said: tuple[str, ...]) -> None:
    assert await faults_of(film(**what), ALL) == said


async def test_a_dark_scene_is_not_black(film: Any) -> None:
    night = film("lutyuv=y='16+(val-16)*0.12':u=128:v=128")
    assert await faults_of(night, replace(ALL, frozen=None)) == ()


async def test_a_scene_in_which_little_moves_is_not_frozen(film: Any) -> None:
    """A small block on its way through a steady picture."""
    picture = "color=0x808060:s=160x90:r=24:d=2[a];color=0x303030:s=4x4:r=24:d=2[b];[a][b]overlay=x=10+t*20:y=40"
    assert await faults_of(film(picture=picture), ALL) == ()


async def test_size_and_sound_are_as_a_player_has_them(film: Any, tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    ffmpeg("-display_rotation", "90", "-i", film(), "-c", "copy", tmp_path / "turned.mp4")
    assert await faults_of(tmp_path / "turned.mp4", replace(ALL, size=(90, 160))) == ()
    assert await faults_of(tmp_path / "turned.mp4", ALL) == ("it is 90x160 pixels instead of 160x90",)


async def test_frames_that_an_edit_list_hides_are_not_missed(without_start: Path) -> None:
    assert await faults_of(without_start, Wanted(frames=True, decodes=True)) == ()


async def test_uneven_frames_are_counted(make_clip: MakeClip) -> None:
    clip = make_clip(frames=6, times=[0, 1, 2, 4, 5, 6])
    assert await faults_of(clip, Wanted(frames=True, decodes=True)) == (
        "its frames are not evenly spaced: 6 in 0.29 s, on average 20.57 a second",
    )


# --- What cannot be decoded --------------------------------------------------------------------------------------


@pytest.fixture
def damaged(film: Any) -> Path:
    """Noise in a coded frame past the middle, where only a decoder meets it."""
    clip: Path = film(sound=None, options=("-bf", "0", "-g", "300"))
    data = bytearray(clip.read_bytes())
    start, end = data.index(b"mdat"), data.index(b"moov")
    units, position = [], start + 4
    while position < end - 4:
        units.append(position)
        position += 4 + int.from_bytes(data[position : position + 4], "big")
    for unit in units[30:33]:
        length = int.from_bytes(data[unit : unit + 4], "big")
        data[unit + 5 : unit + 4 + length] = bytes((7 * n) % 251 for n in range(length - 1))
    clip.write_bytes(data)
    return clip


async def test_a_frame_that_does_not_decode_is_a_fault_and_no_exception(damaged: Path) -> None:
    [said] = await faults_of(damaged, replace(ALL, sound=False))
    assert said.startswith("it cannot be decoded after ")
    assert " of 48 frames: ffmpeg ended with status " in said
    assert "h264: " in said
    assert str(damaged) not in said


async def test_what_is_not_asked_is_not_looked_at(damaged: Path) -> None:
    assert await faults_of(damaged, Wanted()) == ()
    assert await faults_of(damaged, Wanted(seconds=2, size=(160, 90), frames=True)) == ()
    assert await faults_of(damaged, Wanted(black=0.3)) == ()


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", b"\x00\x00\x00\x08ftyp" * 9])
async def test_what_is_no_video_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(InvalidMedia, match=r"clip\.mp4"):
        await faults_of(path, ALL)


@pytest.mark.parametrize("why", ["takes too long", "is killed", "says too much"])
async def test_trouble_of_the_machine_is_no_verdict(
    film: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    script = tmp_path / "ffmpeg"
    act = {"takes too long": "sleep 600", "is killed": "kill -9 $$", "says too much": "exec yes"}[why]
    script.write_text(f"#!/bin/sh\n{act}\n")
    script.chmod(0o755)
    clip = film()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(script))
    monkeypatch.setattr(checks, "STARTING", 0.3 if why == "takes too long" else 30)
    monkeypatch.setattr(checks, "SLOWEST", 0.0)
    monkeypatch.setattr(processes, "MOST_STDOUT", 2**20)
    with pytest.raises(InvalidMedia, match=r"clip\.mp4 cannot be checked: "):
        await faults_of(clip, ALL)


async def test_cancelling_ends_it(
    film: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_left: Any
) -> None:
    clip, script, began = film(), tmp_path / "ffmpeg", tmp_path / "began"
    script.write_text(f"#!/bin/sh\ntouch {began}\nsleep 600 # {tmp_path}\n")
    script.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(script))
    task = asyncio.create_task(faults_of(clip, ALL))
    while not began.exists():
        assert not task.done(), task
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (tmp_path / "empty").mkdir()
    nothing_left(tmp_path / "empty")


async def test_a_file_is_opened_as_mp4_on_this_disk_and_nothing_else(film: Any) -> None:
    [clip] = await probe([film()])
    command = decoding_command(clip, ALL)
    before = command[: command.index("-i")]
    for pair in (
        ("-f", "mov"),
        ("-protocol_whitelist", "file"),
        ("-max_pixels", "9000000"),
        ("-err_detect", "explode"),
    ):
        assert pair in itertools.pairwise(before)
    assert command[command.index("-i") + 1] == f"file:{clip.path}"
    assert {"-xerror", "-nostdin"} <= set(command)


# --- Pure --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Ffmpeg) -> MediaFacts:
    """The facts of five seconds of 24 frames a second with sound."""
    out = tmp_path_factory.mktemp("facts") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=24:d=5", "-f", "lavfi", "-i", "sine=d=5", out)
    return asyncio.run(probe([out]))[0]


def lasting(clip: MediaFacts, frames: int) -> MediaFacts:
    seconds = Fraction(frames, 24)
    return replace(clip, seconds=seconds, video=replace(clip.video, frames=frames, seconds=seconds))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (120, ()),
        (121, ()),  # what the gateway gives for "5"
        (123, ()),  # 0.125 s over: a tenth and a part of a frame
        (124, ("it is 5.17 s long instead of 5 s",)),
        (118, ()),
        (117, ("it is 4.88 s long instead of 5 s",)),
        (60, ("it is 2.50 s long instead of 5 s",)),
    ],
)
def test_length_may_be_a_little_off(clip: MediaFacts, frames: int, said: tuple[str, ...]) -> None:
    assert faults(lasting(clip, frames), Watched(), Wanted(seconds=5)) == said


def test_a_tenth_less_passes_exactly(clip: MediaFacts) -> None:
    assert faults(replace(clip, seconds=Fraction(49, 10)), Watched(), Wanted(seconds=5)) == ()


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        (Watched(120, loudness=-20.0), ()),
        (Watched(119, loudness=-20.0), ("only 119 of its 120 frames can be decoded",)),
        (Watched(120, black=((0.0, 0.5),), loudness=-20.0), ()),
        (Watched(120, black=((1.0, 1.51),), loudness=-20.0), ("it is black from 1.00 to 1.51 s",)),
        (Watched(120, black=((0.0, 0.2), (4.0, None)), loudness=-20.0), ("it is black from 4.00 to 5.00 s",)),
        (Watched(120, frozen=((1.0, 3.0),), loudness=-20.0), ()),
        (Watched(120, frozen=((1.0, None),), loudness=-20.0), ("it is frozen from 1.00 to 5.00 s",)),
        (
            Watched(120, black=((1.0, 4.0),), frozen=((1.0, 4.0),), loudness=-20.0),
            ("it is black from 1.00 to 4.00 s",),
        ),
        (
            Watched(120, black=((1.0, 2.0),), frozen=((1.0, 4.0),), loudness=-20.0),
            ("it is black from 1.00 to 2.00 s", "it is frozen from 1.00 to 4.00 s"),
        ),
        (Watched(120), ("it has no sound",)),
        (Watched(120, loudness=-60.0), ("its sound cannot be heard: it has -60.0 LUFS, and -60 or less is silence",)),
        (Watched(120, loudness=-59.9), ()),
        (
            Watched(120, loudness=float("-inf")),
            ("its sound cannot be heard: it has -inf LUFS, and -60 or less is silence",),
        ),
        (
            Watched(30, black=((0.0, None),), failure="ended with status 1 (h264: no)"),
            ("it cannot be decoded after 30 of 120 frames: ffmpeg ended with status 1 (h264: no)",),
        ),
        (Watched(failure="ended with status 1"), ("it cannot be decoded: ffmpeg ended with status 1",)),
    ],
    ids=str,
)
def test_what_was_seen_is_held_against_what_is_wanted(
    clip: MediaFacts, watched: Watched, said: tuple[str, ...]
) -> None:
    wanted = Wanted(seconds=5, frames=True, decodes=True, black=0.5, frozen=2.0, sound=True)
    assert faults(clip, watched, wanted) == said


def test_a_clip_with_all_faults_is_told_all_of_them(clip: MediaFacts) -> None:
    bad = lasting(replace(clip, audio=None), 60)
    bad = replace(bad, video=replace(bad.video, constant=False))
    said = faults(bad, Watched(59, black=((0.0, 1.0),), frozen=((1.0, None),)), replace(ALL, size=(1280, 720)))
    assert len(said) == 7 == len(set(said))


SUMMARY = (
    "[Parsed_ebur128_3 @ 0x5f] Summary:\n\n  Integrated loudness:\n    I:         {} LUFS\n    Threshold: -31.8 LUFS\n"
)


@pytest.mark.parametrize(
    ("lines", "stderr", "watched"),
    [
        ([], "", Watched()),
        (["frame=12", "progress=continue", "frame=120", "progress=end"], "", Watched(120)),
        (
            ["frame:0    pts:0       pts_time:0", "lavfi.black_start=0", "lavfi.black_end=2.083333", "frame=50"],
            "",
            Watched(50, black=((0.0, 2.083333),)),
        ),
        (
            [
                "lavfi.black_start=0",
                "lavfi.freezedetect.freeze_start=0",
                "lavfi.black_end=2",
                "lavfi.freezedetect.freeze_duration=3",
                "lavfi.freezedetect.freeze_end=3",
                "lavfi.black_start=4.5",
            ],
            "",
            Watched(black=((0.0, 2.0), (4.5, None)), frozen=((0.0, 3.0),)),
        ),
        ([], SUMMARY.format("-21.8"), Watched(loudness=-21.8)),
        ([], SUMMARY.format("-inf"), Watched(loudness=float("-inf"))),
        # A title that says so is nobody's loudness: the summary is the last to speak.
        ([], "    I:  -1.0 LUFS\n" + SUMMARY.format("-70.0"), Watched(loudness=-70.0)),
        (["frame=N/A"], "", Watched()),
    ],
)
def test_what_ffmpeg_says_is_read(lines: list[str], stderr: str, watched: Watched) -> None:
    assert read_watched(lines, Ended(0, False, stderr)) == watched


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("", "ended with status 183 (it did not say why)"),
        (
            (
                "Input #0, mov, from 'file:/private/corrupt.mp4':\n"
                "[h264 @ 0x55d0] error while decoding MB 3 4, bytestream -5\n"
                "[h264 @ 0x66d0] error while decoding MB 3 4, bytestream -5\n"
                "[Parsed_blackdetect_0 @ 0x7f] black_start:0 black_end:1 black_duration:1\n"
                "[dec:h264 @ 0x55d1] Error submitting packet to decoder: Invalid data found\n"
                "[out#0/null @ 0x55d2] video:50KiB audio:431KiB\n"
                "Conversion failed!\n"
            ),
            (
                "ended with status 183 (h264: error while decoding MB 3 4, bytestream -5 / "
                "dec:h264: Error submitting packet to decoder: Invalid data found)"
            ),
        ),
    ],
)
def test_a_failure_is_told_in_the_decoders_words(stderr: str, said: str) -> None:
    assert read_watched([], Ended(183, False, stderr)).failure == said
