"""Films: every frame once and in order, every sound where its picture is, nothing left behind when it goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import join as joining
from prefect_kling.media import reencode as reencoding
from prefect_kling.media import room as rooms
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.join import Film, join
from prefect_kling.media.probe import probe
from prefect_kling.media.timeline import Chapter, lay_out

MakeClip = Callable[..., Path]
Watch = Callable[[Path], Any]


async def film_of(clips: Sequence[Path], out: Path) -> Film:
    return await join([CutClip(path, f"Shot {n}") for n, path in enumerate(clips, 1)], out)


# --- Copy --------------------------------------------------------------------------------------------------------


async def test_alike_clips_are_copied_bit_by_bit(shots: list[Path], tmp_path: Path, watch: Watch, beep: float) -> None:
    out = tmp_path / "film.mp4"
    film = await join([CutClip(shots[0], "Dawn"), CutClip(shots[1], "Stürm"), CutClip(shots[2], "灯台")], out)
    seen = watch(out)
    assert film == Film(
        path=out,
        frames=36,
        seconds=Fraction(3, 2),
        width=320,
        height=180,
        frame_rate=Fraction(24),
        bytes=out.stat().st_size,
        sha256=hashlib.sha256(out.read_bytes()).hexdigest(),
        method="copy",
        reason=film.reason,
        sound=film.sound,
        timeline=film.timeline,
    )
    assert film.timeline.chapters == (Chapter("Dawn", 0, 12), Chapter("Stürm", 12, 24), Chapter("灯台", 24, 36))
    assert seen.marks == [(shot, number) for shot in (1, 2, 3) for number in range(12)]
    assert seen.pixels == [pixels for shot in shots for pixels in watch(shot).pixels]
    assert seen.times == [Fraction(n, 24) for n in range(36)]
    assert seen.chapters == ["Dawn", "Stürm", "灯台"]
    for start in (0, 0.5, 1):
        assert seen.onset(start, start + 0.5) == pytest.approx(beep, abs=0.005)


async def test_one_clip_makes_a_film_and_one_may_come_twice(shots: list[Path], tmp_path: Path, watch: Watch) -> None:
    await film_of([shots[1]], tmp_path / "one.mp4")
    assert watch(tmp_path / "one.mp4").marks == [(2, n) for n in range(12)]
    film = await film_of([shots[1], shots[0], shots[1]], tmp_path / "two.mp4")
    assert film.method == "copy"
    assert watch(tmp_path / "two.mp4").marks == [(shot, n) for shot in (2, 1, 2) for n in range(12)]


async def test_hevc_is_copied_as_hvc1(make_clip: MakeClip, tmp_path: Path, watch: Watch) -> None:
    options = {"x265-params": "log-level=none"}
    clips = [make_clip(f"{n}.mp4", shot=n, codec="libx265", options=options) for n in (1, 2)]
    film = await film_of(clips, tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert (film.method, seen.tag) == ("copy", "hvc1")
    assert seen.marks == [(shot, n) for shot in (1, 2) for n in range(12)]


async def test_clips_without_sound_make_a_film_without_a_sound_track(
    make_clip: MakeClip, tmp_path: Path, watch: Watch
) -> None:
    await film_of([make_clip("a.mp4"), make_clip("b.mp4", shot=2)], tmp_path / "film.mp4")
    assert watch(tmp_path / "film.mp4").sound is None


async def test_a_silent_clip_among_sounding_ones_is_silent_and_moves_nothing(
    make_clip: MakeClip, tmp_path: Path, watch: Watch, beep: float
) -> None:
    clips = [
        make_clip("a.mp4", sound=0.5),
        make_clip("b.mp4", shot=2),
        make_clip("c.mp4", shot=3, sound=0.45, sound_rate=48_000, layout="mono"),
    ]
    film = await film_of(clips, tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert film.method == "copy"
    assert np.abs(seen.sound[24_500:47_500]).max() < 0.01
    assert seen.onset(0, 0.5) == pytest.approx(beep, abs=0.005)
    assert seen.onset(1, 1.5) == pytest.approx(beep, abs=0.005)
    assert abs(len(seen.sound) / 48_000 - 1.5) < 0.05


async def test_sound_longer_or_shorter_than_its_picture_never_adds_up(
    make_clip: MakeClip, tmp_path: Path, watch: Watch, beep: float
) -> None:
    """Sixteen joins at a rate whose frames are no whole number of samples."""
    clips = [make_clip(f"{n}.mp4", shot=n, frames=7, rate=23, sound=0.31 + n % 3 * 0.2) for n in range(3)]
    await film_of([clips[n % 3] for n in range(17)], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert [shot for shot, _ in seen.marks] == [n % 3 for n in range(17) for _ in range(7)]
    for n in range(17):
        assert seen.onset(n * 7 / 23, (n + 1) * 7 / 23) == pytest.approx(beep, abs=0.005)


async def test_rotation_survives_copying(
    shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None], watch: Watch
) -> None:
    for n in (0, 1):
        ffmpeg("-display_rotation", "90", "-i", shots[n], "-c", "copy", tmp_path / f"{n}.mp4")
    film = await film_of([tmp_path / "0.mp4", tmp_path / "1.mp4"], tmp_path / "film.mp4")
    assert (film.method, watch(tmp_path / "film.mp4").rotation) == ("copy", 90)


# --- Encode ------------------------------------------------------------------------------------------------------


async def test_a_clip_with_an_edit_list_is_encoded_like_the_others_and_what_it_hides_stays_hidden(
    shots: list[Path], without_start: Path, tmp_path: Path, watch: Watch, beep: float
) -> None:
    film = await film_of([shots[1], without_start, shots[2]], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert film.method == "normalise"
    assert "clip 2 (edit.mp4) shows 8 of its 12 coded frames (edit list)" in film.reason
    assert seen.marks == [*[(2, n) for n in range(12)], *[(1, n) for n in range(4, 12)], *[(3, n) for n in range(12)]]
    # Four frames are gone, and the beep of that clip comes as much earlier.
    assert seen.onset(0.5, 0.5 + 8 / 24) == pytest.approx(beep - 4 / 24, abs=0.005)
    assert seen.onset(20 / 24, 32 / 24) == pytest.approx(beep, abs=0.005)


async def test_mixed_sizes_and_codecs_are_encoded_with_every_frame_once(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, beep: float
) -> None:
    large = make_clip("large.mp4", shot=4, size=(640, 360), sound=0.5)
    hevc = make_clip("hevc.mp4", shot=5, codec="libx265", options={"x265-params": "log-level=none"}, frames=9)
    film = await film_of([shots[0], large, hevc, shots[1]], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert (film.method, film.frames, film.width, film.height) == ("encode", 45, 320, 180)
    assert "clip 2 (large.mp4) has size 640x360 instead of 320x180" in film.reason
    assert "clip 3 (hevc.mp4) has codec hevc" in film.reason
    assert seen.marks == [(shot, n) for shot, frames in ((1, 12), (4, 12), (5, 9), (2, 12)) for n in range(frames)]
    assert seen.times == [Fraction(n, 24) for n in range(45)]
    for start in (0, 0.5, 33 / 24):
        assert seen.onset(start, start + 0.5) == pytest.approx(beep, abs=0.005)
    assert film.timeline.chapters[2] == Chapter("Shot 3", 24, 33)


async def test_a_long_encode_in_parts_is_the_same_film(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reencoding, "CLIPS_AT_ONCE", 2)
    single = make_clip("single.mp4", shot=8, frames=1, size=(640, 360))
    told: list[int] = []
    cuts = [CutClip(path, path.stem) for path in (*shots, shots[0], single)]
    smaller = Cut(size=(160, 90))
    film = await join(cuts, tmp_path / "film.mp4", smaller, on_progress=lambda done, total: told.append(done))
    seen = watch(tmp_path / "film.mp4")
    assert film.method == "encode"
    assert seen.marks == [*[(shot, n) for shot in (1, 2, 3, 1) for n in range(12)], (8, 0)]
    assert seen.times == [Fraction(n, 24) for n in range(49)]
    assert told == sorted(set(told))


async def test_another_frame_rate_keeps_its_length_and_its_sound(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, beep: float
) -> None:
    fast = make_clip("fast.mp4", shot=6, rate=30, frames=15, sound=0.5)
    film = await film_of([shots[0], fast, shots[1]], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert (film.method, film.frames, film.frame_rate) == ("normalise", 36, Fraction(24))
    assert "has frame rate 30 instead of 24" in film.reason
    numbers = [number for shot, number in seen.marks if shot == 6]
    assert (numbers[0], len(numbers)) == (0, 12)
    assert numbers == sorted(numbers)
    assert seen.marks[24:] == [(2, n) for n in range(12)]
    assert seen.onset(1, 1.5) == pytest.approx(beep, abs=0.005)


async def test_uneven_frames_are_evened_out_to_exactly_their_length(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch
) -> None:
    uneven = make_clip("uneven.mp4", shot=7, frames=8, times=[0, 1, 2, 3, 6, 7, 8, 11])
    film = await film_of([shots[0], uneven, shots[1]], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert "unevenly spaced" in film.reason
    assert film.frames == len(seen.marks) == 36
    assert [n for shot, n in seen.marks if shot == 7] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6, 7]


async def test_a_turned_clip_stands_upright_between_bars(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, ffmpeg: Callable[..., None], watch: Watch
) -> None:
    ffmpeg("-display_rotation", "90", "-i", shots[0], "-c", "copy", tmp_path / "turned.mp4")
    film = await film_of([shots[1], tmp_path / "turned.mp4"], tmp_path / "film.mp4")
    seen = watch(tmp_path / "film.mp4")
    assert film.method == "encode"
    luma = np.frombuffer(seen.pixels[18], np.uint8)[: 320 * 180].reshape(180, 320)
    width = 102  # 180 lines of 9:16, even
    assert luma[:, : 160 - width // 2 - 4].max() < 24
    assert luma[:, 160 + width // 2 + 4 :].max() < 24
    assert luma[:, 160 - width // 4 : 160 + width // 4].mean() > 50


# --- What comes in and goes out ----------------------------------------------------------------------------------


async def test_progress_rises_to_all_frames_in_the_callers_loop(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path
) -> None:
    for clips in (shots, [*shots, make_clip("odd.mp4", size=(640, 360))]):
        told: list[tuple[int, int]] = []
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            assert asyncio.get_running_loop() is loop  # noqa: B023 - called within this round only
            told.append((done, total))  # noqa: B023 - called within this round only

        cuts = [CutClip(path, path.stem) for path in clips]
        film = await join(cuts, tmp_path / "film.mp4", on_progress=tell)
        assert told == sorted(set(told))
        assert told[-1] == (film.frames, film.frames)


async def test_facts_that_fit_are_used_and_stale_ones_are_not(shots: list[Path], tmp_path: Path, watch: Watch) -> None:
    known = await probe(shots)
    stale = replace(known[0], bytes=1, video=replace(known[0].video, frames=99))
    cuts = [CutClip(shots[0], "a", stale), CutClip(shots[1], "b", known[1])]
    assert (await join(cuts, tmp_path / "film.mp4")).frames == 24


async def test_odd_names_are_only_names(shots: list[Path], tmp_path: Path, watch: Watch) -> None:
    names = ["-y.mp4", "concat:a|b.mp4", "100%d 'quoted'\n.mp4"]
    for name, shot in zip(names, shots, strict=True):
        (tmp_path / name).write_bytes(shot.read_bytes())
    out = tmp_path / "crypto:film,%03d.mp4"
    await film_of([tmp_path / name for name in names], out)
    assert len(watch(out).marks) == 36


async def test_an_older_film_is_replaced_only_by_a_whole_one(shots: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    out.write_bytes(b"older")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    with pytest.raises(InvalidMedia, match=r"broken\.mp4 is empty"):
        await film_of([shots[0], broken], out)
    assert out.read_bytes() == b"older"
    await film_of(shots, out)
    assert out.stat().st_size > 10_000


async def test_a_film_never_takes_the_place_of_its_own_clip(shots: list[Path], tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(shots[0].read_bytes())
    (tmp_path / "link.mp4").symlink_to(clip)
    with pytest.raises(InvalidMedia, match="is itself a part of this film"):
        await film_of([shots[1], clip], tmp_path / "link.mp4")
    assert clip.read_bytes() == shots[0].read_bytes()


# --- When it goes wrong ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the film would be: nothing else is in it."""
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


async def test_nothing_is_left_of_a_film_of_nothing(folder: Path) -> None:
    with pytest.raises(InvalidMedia, match="at least one clip"):
        await join([], folder / "film.mp4")
    assert list(folder.iterdir()) == []


async def test_a_place_that_cannot_be_written_is_an_oserror(shots: list[Path], folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await film_of(shots, folder / "missing" / "film.mp4")
    with pytest.raises(IsADirectoryError):
        await film_of(shots, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("method", ["copy", "encode"])
async def test_a_full_disk_leaves_nothing(
    shots: list[Path], make_clip: MakeClip, folder: Path, nothing_left: Callable[[Path], None], method: str
) -> None:
    clips = shots if method == "copy" else [*shots, make_clip("odd.mp4", size=(640, 360))]
    cuts = [CutClip(path, "", facts) for path, facts in zip(clips, await probe(clips), strict=True)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(OSError, match="cannot be written"):
            await join(cuts, folder / "film.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    nothing_left(folder)


@pytest.mark.parametrize("method", ["copy", "encode"])
async def test_cancelling_in_the_middle_leaves_no_file_and_no_process(
    shots: list[Path], make_clip: MakeClip, folder: Path, nothing_left: Callable[[Path], None], method: str
) -> None:
    clips = shots * 20 if method == "copy" else [make_clip("odd.mp4", size=(640, 360)), *shots * 20]
    told: list[int] = []

    def cancel(done: int, total: int) -> None:
        told.append(done)
        assert done < total
        task.cancel()

    cuts = [CutClip(path, path.stem) for path in clips]
    task = asyncio.ensure_future(join(cuts, folder / "film.mp4", on_progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told
    nothing_left(folder)


async def test_an_interrupt_at_the_terminal_leaves_no_file_and_no_process(
    shots: list[Path], make_clip: MakeClip, folder: Path, nothing_left: Callable[[Path], None]
) -> None:
    """SIGINT to a process that joins by `asyncio.run`, once ffmpeg is at work."""
    clips = [make_clip("odd.mp4", size=(640, 360)), *shots * 20]
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from prefect_kling.media.cut import CutClip\n"
        "from prefect_kling.media.join import join\n"
        "out, *clips = map(Path, sys.argv[1:])\n"
        "asyncio.run(join([CutClip(clip, '') for clip in clips], out, on_progress=lambda *_: print('.', flush=True)))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, folder / "film.mp4", *clips, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b".\n"
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert process.returncode != 0
    assert stderr.rstrip().endswith(b"KeyboardInterrupt")
    nothing_left(folder)


async def test_damage_behind_the_first_frame_stops_an_encode_and_names_no_film(
    shots: list[Path], make_clip: MakeClip, folder: Path, nothing_left: Callable[[Path], None]
) -> None:
    """Bytes whose lengths add up pass the probe; the decoder objects, and its words reach the operator."""
    damaged = make_clip("damaged.mp4", frames=12, size=(640, 360), options={"bf": "0"})
    data = bytearray(damaged.read_bytes())
    sizes = data.index(b"stsz") + 16
    lengths = [int.from_bytes(data[sizes + 4 * n : sizes + 4 * n + 4], "big") for n in range(12)]
    start = data.index(b"mdat") + 4 + sum(lengths[:5])
    unit = int.from_bytes(data[start : start + 4], "big")
    data[start + 5 : start + 4 + unit] = b"\xff" * (unit - 1)
    damaged.write_bytes(data)
    with pytest.raises(InvalidMedia, match="cannot be encoded"):
        await film_of([shots[0], damaged], folder / "film.mp4")
    nothing_left(folder)


async def test_a_clip_that_changes_under_our_hands_is_noticed(
    shots: list[Path], make_clip: MakeClip, folder: Path
) -> None:
    clip = make_clip(sound=0.5)
    [facts] = await probe([clip])
    wrong = replace(facts, video=replace(facts.video, frames=11, packets=11))
    with pytest.raises(InvalidMedia, match=r"clip\.mp4 changed since it was probed: it has 12 frames instead of 11"):
        await join([CutClip(clip, "", wrong)], folder / "film.mp4")
    assert list(folder.iterdir()) == []


async def test_no_hostile_file_gets_into_a_film(
    hostile: Any, shots: list[Path], folder: Path, nothing_left: Callable[[Path], None]
) -> None:
    """Each is named with its reason; the other clip is untouched, and nothing is left."""
    before = shots[0].read_bytes()
    with pytest.raises(InvalidMedia, match=re.escape(f"{hostile.path} ") + hostile.reason):
        await film_of([shots[0], hostile.path], folder / "film.mp4")
    assert shots[0].read_bytes() == before
    nothing_left(folder)


# --- As clips arrive -----------------------------------------------------------------------------------------------


async def test_what_was_done_to_a_clip_when_it_arrived_is_not_done_again(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the encoding of an odd one, which begins once more than half of the film is known to be alike."""
    odd = make_clip("odd.mp4", shot=4, size=(640, 360), sound=0.5)
    clips = [CutClip(path, path.stem) for path in (*shots, odd)]
    (tmp_path / "work").mkdir()
    room = rooms.CuttingRoom(tmp_path / "work", Cut(), expected=4)
    for clip in (clips[3], *clips[:3]):
        room.arrived(clip)
    facts = await room.facts(clips)
    early = room.early(lay_out(clips, facts, Cut(), Fraction(24)).scenes[3], facts[0])
    assert await early is not None

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(joining, "normalise", refuse)
    for name in ("probe", "decode_sound"):
        kept = getattr(rooms, name)
        monkeypatch.setattr(rooms, name, lambda some, *rest, kept=kept: kept(some, *rest) if not some else refuse())
    film = await join(clips, tmp_path / "film.mp4", room=room)
    await room.end()
    assert film.method == "normalise"
    seen = watch(tmp_path / "film.mp4")
    assert seen.marks == [(shot, n) for shot in (1, 2, 3, 4) for n in range(12)]


async def test_an_odd_clip_that_cannot_be_encoded_like_the_others_is_encoded_with_them(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise InvalidMedia("ffmpeg does not take these settings.")

    monkeypatch.setattr(joining, "normalise", refuse)
    odd = make_clip("odd.mp4", shot=4, size=(640, 360))
    film = await film_of([*shots, odd], tmp_path / "film.mp4")
    assert film.method == "encode"
    assert "did not come out like the others: ffmpeg does not take these settings." in film.reason
    assert watch(film.path).marks == [(shot, n) for shot in (1, 2, 3, 4) for n in range(12)]


async def test_a_clip_that_was_replaced_after_it_arrived_is_looked_at_again(
    shots: list[Path], tmp_path: Path, watch: Watch
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(shots[0].read_bytes())
    (tmp_path / "work").mkdir()
    room = rooms.CuttingRoom(tmp_path / "work", Cut(), expected=1)
    room.arrived(CutClip(clip, "a"))
    await room.facts([CutClip(clip, "a")])
    clip.write_bytes(shots[1].read_bytes())
    await join([CutClip(clip, "a")], tmp_path / "film.mp4", room=room)
    await room.end()
    assert watch(tmp_path / "film.mp4").marks == [(2, n) for n in range(12)]


async def test_a_broken_clip_that_arrives_is_told_at_the_join(shots: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"")
    (tmp_path / "work").mkdir()
    room = rooms.CuttingRoom(tmp_path / "work", Cut(), expected=2)
    clips = [CutClip(shots[0], "a"), CutClip(tmp_path / "broken.mp4", "b"), CutClip(tmp_path / "gone.mp4", "c")]
    for clip in clips:
        room.arrived(clip)
    with pytest.raises(InvalidMedia, match=r"broken\.mp4 is empty.*gone\.mp4 cannot be opened"):
        await join(clips, tmp_path / "film.mp4", room=room)
    await room.end()
