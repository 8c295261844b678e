"""Probing honest clips, and everything that only claims to be one."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import probe as probing
from prefect_kling.media import untrusted
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.probe import ProbeLimits, probe, probe_one

MakeClip = Callable[..., Path]


async def test_a_clip_is_described_as_it_is(shots: list[Path]) -> None:
    [found] = await probe([shots[0]])
    video, audio = found.video, found.audio
    assert (found.path, found.bytes, found.seconds) == (shots[0], shots[0].stat().st_size, Fraction(1, 2))
    assert (video.codec, video.tag, video.profile) == ("h264", "avc1", "High")
    assert (video.width, video.height, video.pixel_format) == (320, 180, "yuv420p")
    assert (video.frames, video.packets, video.frame_rate) == (12, 12, Fraction(24))
    assert (video.constant, video.starts_clean, video.parameters_inside) == (True, True, False)
    assert video.delay * video.time_base == Fraction(2, 24)
    assert audio is not None
    assert (audio.codec, audio.rate, audio.channels) == ("aac", 44_100, 2)


async def test_many_clips_come_back_in_their_order_even_if_one_comes_twice(shots: list[Path]) -> None:
    wanted = [shots[2], shots[0], shots[2]]
    assert [found.path for found in await probe(wanted)] == wanted


async def test_no_clips_are_no_facts() -> None:
    assert await probe([]) == []


async def test_packets_hidden_by_an_edit_list_are_counted(without_start: Path) -> None:
    [found] = await probe([without_start])
    assert (found.video.frames, found.video.packets, found.video.starts_clean) == (8, 12, False)


async def test_rotation_is_read_clockwise(shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    ffmpeg("-display_rotation", "90", "-i", shots[0], "-c", "copy", tmp_path / "turned.mp4")
    [found] = await probe([tmp_path / "turned.mp4"])
    assert (found.video.rotation, found.video.mirrored, found.video.shown_size) == (270, False, (180, 320))


async def test_uneven_spacing_is_noticed(make_clip: MakeClip) -> None:
    [found] = await probe([make_clip(frames=6, times=[0, 1, 2, 4, 5, 6])])
    assert not found.video.constant
    assert found.video.frames == 6


async def test_x264_tells_its_settings(shots: list[Path]) -> None:
    [found] = await probe([shots[0]])
    encoder = found.video.encoder
    assert encoder is not None
    assert encoder.startswith("x264 - core ")
    assert " - options: cabac=1 ref=3 deblock=1:0:0 " in encoder
    assert encoder.endswith("aq=1:1.00")


@pytest.mark.parametrize("odd", [b"cabac=\n", b"cabac=\xff"])
async def test_settings_that_are_no_plain_text_are_none(shots: list[Path], tmp_path: Path, odd: bytes) -> None:
    (tmp_path / "odd.mp4").write_bytes(shots[0].read_bytes().replace(b"cabac=1", odd))
    [found] = await probe([tmp_path / "odd.mp4"])
    assert found.video.encoder is None


async def test_what_x264_did_not_make_tells_none(make_clip: MakeClip) -> None:
    [found] = await probe([make_clip(codec="libx265", options={"x265-params": "log-level=none"})])
    assert (found.video.codec, found.video.encoder) == ("hevc", None)


# --- Limits; test_hostile.py has what is no clip at all -----------------------------------------------------------


@pytest.mark.parametrize("lie", [False, True], ids=["openly", "while its container says 320x180"])
async def test_a_huge_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, ffmpeg: Callable[..., None], lie: bool
) -> None:
    huge = tmp_path / "huge.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=s=12000x10000:r=1:d=1", "-frames:v", "1", "-preset", "ultrafast", huge)
    if lie:
        data = bytearray(huge.read_bytes())
        at = data.index(b"avc1", data.index(b"stsd")) + 28
        data[at : at + 4] = struct.pack(">HH", 320, 180)
        huge.write_bytes(data)
    with pytest.raises(InvalidMedia, match="12000x10000 pixels"):
        await probe([huge], limits=replace(ProbeLimits(), memory=300 * 2**20))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ProbeLimits(file_bytes=100), "at most 100 are taken"),
        (ProbeLimits(pixels=1000), "at most 1000 in all"),
        (ProbeLimits(frame_rate=20), "24 frames a second; at most 20"),
        (ProbeLimits(packets=10), "more than 10 packets"),
        (ProbeLimits(duration=0), "at most 0 s"),
        (ProbeLimits(memory=60 * 2**20), "memory|cannot be read"),
    ],
)
async def test_each_limit_holds(shots: list[Path], limits: ProbeLimits, reason: str) -> None:
    with pytest.raises(InvalidMedia, match=reason):
        await probe([shots[0]], limits=limits)


async def test_every_bad_clip_is_named_at_once(shots: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InvalidMedia) as caught:
        await probe([tmp_path / "empty.mp4", shots[0], tmp_path / "gone.mp4"])
    assert "empty.mp4 is empty" in str(caught.value)
    assert "gone.mp4 cannot be opened" in str(caught.value)
    assert "shot1" not in str(caught.value)


# --- A child that dies -------------------------------------------------------------------------------------------


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the child, one that a file whose name has `killer` in it kills; its siblings are described truly."""
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, runpy, signal, subprocess, sys\n"
        "job = json.load(sys.stdin)\n"
        "for number, clip in enumerate(job['clips']):\n"
        "    if 'killer' in clip['path']:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    done = subprocess.run([sys.executable, '-I', *{untrusted.CHILD!r}], check=True, text=True,\n"
        "        input=json.dumps({**job, 'clips': [clip]}), stdout=subprocess.PIPE)\n"
        "    print(json.dumps({**json.loads(done.stdout), 'clip': number}), flush=True)\n"
    )
    monkeypatch.setattr(untrusted, "CHILD", [str(child)])
    path = tmp_path / "killer.mp4"
    path.write_bytes(b"boom")
    return path


async def test_the_clip_that_kills_the_child_is_found_and_named(shots: list[Path], killer: Path) -> None:
    with pytest.raises(InvalidMedia) as caught:
        await probe([shots[0], killer, shots[1]])
    assert f"{killer} cannot be read: the process that tried was ended by SIGKILL" in str(caught.value)
    assert "shot" not in str(caught.value)


async def test_a_single_clip_that_kills_the_child_is_named(killer: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"killer\.mp4 cannot be read"):
        await probe([killer])


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the child, one that writes its id to the file and then waits for a signal for ever."""
    child, told = tmp_path / "child.py", tmp_path / "pid"
    child.write_text(f"import os, signal\nopen({str(told)!r}, 'w').write(str(os.getpid()) + '\\n')\nsignal.pause()\n")
    monkeypatch.setattr(untrusted, "CHILD", [str(child)])
    return told


async def test_cancelling_kills_the_child(stuck: Path, shots: list[Path]) -> None:
    task = asyncio.create_task(probe(shots))
    while not (stuck.exists() and stuck.read_text().endswith("\n")):  # noqa: ASYNC110 - another process is waited for
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(stuck.read_text()), 0)


async def test_a_child_that_never_answers_is_stopped(
    stuck: Path, shots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "STARTING", 0.5)
    with pytest.raises(InvalidMedia, match="takes too long"):
        await probe([shots[0]], limits=ProbeLimits(seconds=0.1))


async def test_the_kernel_ends_what_takes_too_long(shots: list[Path]) -> None:
    with pytest.raises(InvalidMedia, match="takes too long"):
        await probe([shots[0]], limits=ProbeLimits(seconds=0.000_1))


async def test_the_child_knows_nothing_of_the_environment(
    tmp_path: Path, shots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, told = tmp_path / "child.py", tmp_path / "environment"
    child.write_text(f"import os\nopen({str(told)!r}, 'w').write(' '.join(os.environ))\n")
    monkeypatch.setattr(untrusted, "CHILD", [str(child)])
    monkeypatch.setenv("APIMODELS_API_KEY", "made-up")
    with pytest.raises(InvalidMedia, match="ended with status 0"):
        await probe([shots[0]])
    assert "APIMODELS_API_KEY" not in told.read_text()
    assert "PATH" in told.read_text()


async def test_those_who_come_while_a_child_works_share_the_next(
    shots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered for itself: a broken one among them is told to whoever asked about it."""
    asked, begun = list[int](), asyncio.Event()

    async def counted(job: Any, clips: Sequence[Path], limits: ProbeLimits) -> Any:
        asked.append(len(clips))
        begun.set()
        return await untrusted.ask_each(job, clips, limits)

    monkeypatch.setattr(probing, "ask_each", counted)
    first = asyncio.create_task(probe_one(shots[0]))
    await begun.wait()
    others = [asyncio.create_task(probe_one(path)) for path in (*shots, tmp_path / "gone.mp4", shots[0])]
    given_up = asyncio.create_task(probe_one(tmp_path / "given-up.mp4"))
    await asyncio.sleep(0)
    given_up.cancel()
    found = await asyncio.gather(first, *others, given_up, return_exceptions=True)
    assert asked == [1, len(shots) + 2]
    assert [facts.path for facts in found if isinstance(facts, MediaFacts)] == [shots[0], *shots, shots[0]]
    broken, cancelled = [facts for facts in found if not isinstance(facts, MediaFacts)]
    assert isinstance(broken, InvalidMedia)
    assert "gone.mp4" in str(broken)
    assert isinstance(cancelled, asyncio.CancelledError)


async def test_a_child_that_cannot_be_had_is_told_to_everybody(
    shots: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = untrusted.ask_each, iter([OSError("no more processes")])

    async def failing(*arguments: Any) -> Any:
        for error in tries:
            raise error
        return await real(*arguments)

    monkeypatch.setattr(probing, "ask_each", failing)
    found = await asyncio.gather(*[probe_one(shots[0]) for _ in range(2)], return_exceptions=True)
    assert [type(error) for error in found] == [OSError, OSError]
    assert (await probe_one(shots[0])).path == shots[0]
