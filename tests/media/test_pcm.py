"""Decoded sound: aligned with its picture to the sample, of any kind, and music and narration of any usual file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import pcm, untrusted
from prefect_kling.media.confined.sound import aligned
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.pcm import Track, decode_sound, decode_track
from prefect_kling.media.probe import probe

MakeClip = Callable[..., Path]
Ffmpeg = Callable[..., None]

RATE = 48_000


def wave(track: Track | None) -> NDArray[np.float32]:
    """Left and right of each sample."""
    assert track is not None
    samples = np.fromfile(track.path, np.float32).reshape(-1, 2)
    assert len(samples) == track.samples
    return samples


def onset(samples: NDArray[np.float32], least: float = 0.1) -> float:
    """Seconds at which it is first loud."""
    loud = np.abs(samples).max(axis=1) > least
    assert loud.any()
    return int(np.argmax(loud)) / RATE


# --- Clips --------------------------------------------------------------------------------------------------------


async def test_a_beep_stays_where_it_is_beside_its_picture(make_clip: MakeClip, tmp_path: Path, beep: float) -> None:
    clips = [
        make_clip("a.mp4", sound=0.5),
        make_clip("b.mp4", sound=0.5, sound_rate=48_000),
        make_clip("c.mp4", sound=0.5, sound_rate=22_050, layout="mono"),
        make_clip("d.mp4", sound=0.5, rate=30, frames=15),
    ]
    for track in await decode_sound(await probe(clips), tmp_path):
        samples = wave(track)
        assert len(samples) == RATE // 2
        assert onset(samples) == pytest.approx(beep, abs=0.002)
        assert np.abs(samples[: int((beep - 0.005) * RATE)]).max() < 0.01


async def test_each_clip_has_its_own_sound_cut_where_its_picture_ends(shots: list[Path], tmp_path: Path) -> None:
    """The sounds are as long as the pictures, shorter and longer; one clip comes twice."""
    facts = await probe([shots[2], shots[0], shots[1], shots[2]])
    tracks = await decode_sound(facts, tmp_path)
    lengths = [track.samples if track else None for track in tracks]
    assert lengths[:2] == [RATE // 2, RATE // 2]
    assert lengths[2] is not None
    assert 0.35 * RATE <= lengths[2] < 0.40 * RATE
    assert tracks[3] == tracks[0]


async def test_clips_without_sound_cost_no_child(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await probe([make_clip("a.mp4"), make_clip("b.mp4")])
    monkeypatch.setattr(untrusted, "CHILD", ["-m", "there_is_no_such_child"])
    assert await decode_sound(facts, tmp_path) == [None, None]


async def test_two_children_give_what_one_gives(
    shots: list[Path], make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await probe([shots[0], make_clip(), shots[1], shots[2]])
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = await decode_sound(facts, one)
    monkeypatch.setattr(pcm, "WORTH_A_CHILD", 0)
    second = await decode_sound(facts, two)
    assert [track and track.path.read_bytes() for track in first] == [
        track and track.path.read_bytes() for track in second
    ]
    assert first[1] is second[1] is None


async def test_an_edit_list_that_hides_the_start_hides_its_sound(without_start: Path, tmp_path: Path) -> None:
    """What is left begins 4 frames of 24 a second later than the clip that beeps after 0.2 s."""
    samples = wave((await decode_sound(await probe([without_start]), tmp_path))[0])
    assert onset(samples) == pytest.approx(0.2 - 4 / 24, abs=0.002)


async def test_sound_that_begins_later_has_silence_before_it(
    shots: list[Path], tmp_path: Path, ffmpeg: Ffmpeg, beep: float
) -> None:
    late = tmp_path / "late.mp4"
    ffmpeg("-i", shots[0], "-itsoffset", "0.15", "-i", shots[0], "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    samples = wave((await decode_sound(await probe([late]), tmp_path))[0])
    assert onset(samples) == pytest.approx(beep + 0.15, abs=0.002)
    assert not samples[: int(0.14 * RATE)].any()


async def test_sound_that_begins_earlier_loses_what_lies_before_the_picture(
    shots: list[Path], tmp_path: Path, ffmpeg: Ffmpeg, beep: float
) -> None:
    early, plain = tmp_path / "early.mov", tmp_path / "plain.mov"
    ffmpeg("-i", shots[0], "-c:v", "copy", "-c:a", "pcm_s16le", plain)
    ffmpeg("-itsoffset", "0.15", "-i", plain, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", early)
    samples = wave((await decode_sound(await probe([early]), tmp_path))[0])
    assert onset(samples) == pytest.approx(beep - 0.15, abs=0.002)


async def test_any_coding_and_any_number_of_channels_become_stereo(
    shots: list[Path], tmp_path: Path, ffmpeg: Ffmpeg, beep: float
) -> None:
    codings = {"aac": "6", "ac3": "6", "libopus": "1", "alac": "2", "libmp3lame": "1"}
    outs: list[str | Path] = []
    for codec, channels in codings.items():
        outs += ["-c:v", "copy", "-c:a", codec, "-ac", channels, "-ar", "48000", tmp_path / f"{codec}.mp4"]
    ffmpeg("-i", shots[0], *outs)
    facts = await probe([tmp_path / f"{codec}.mp4" for codec in codings])
    assert [clip.audio and clip.audio.channels for clip in facts] == [6, 6, 1, 2, 1]
    for track in await decode_sound(facts, tmp_path):
        samples = wave(track)
        assert onset(samples) == pytest.approx(beep, abs=0.003)
        assert np.abs(samples[:, 0] - samples[:, 1]).max() < 0.05


def test_sound_whose_rate_changes_stays_beside_its_picture() -> None:
    """At 44.1 kHz for 0.1 s, then at 22.05 kHz: nothing is missing and nothing is put between."""
    frames = []
    for rate, start, samples in ((44_100, 0, 4410), (22_050, 2205, 2205), (22_050, 4410, 2205)):
        frame = AudioFrame(format="s16", layout="mono", samples=samples)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start
        frames.append(frame)
    assert [frame.samples for frame in aligned(frames, Fraction(0))] == [4410, 2205, 2205]


async def broken_sound(clip: Path, out: Path) -> MediaFacts:
    """A clip whose picture is whole, and whose sound is noise."""
    data = bytearray(clip.read_bytes())
    noise = np.random.default_rng(3)
    with av.open(str(clip)) as container:
        for entry in container.streams.audio[0].index_entries:
            data[entry.pos : entry.pos + entry.size] = noise.bytes(entry.size)
    out.write_bytes(data)
    [facts] = await probe([out])
    return facts


async def test_sounds_that_cannot_be_decoded_are_all_named_and_others_are_not(
    shots: list[Path], tmp_path: Path
) -> None:
    broken = [await broken_sound(shots[0], tmp_path / name) for name in ("one.mp4", "two.mp4")]
    [whole] = await probe([shots[1]])
    with pytest.raises(InvalidMedia) as caught:
        await decode_sound([broken[0], whole, broken[1]], tmp_path)
    assert f"{tmp_path}/one.mp4 is damaged: its sound cannot be decoded (Invalid data" in str(caught.value)
    assert f"{tmp_path}/two.mp4 is damaged: its sound" in str(caught.value)
    assert "shot" not in str(caught.value)


async def test_a_sound_that_costs_too_much_is_named(shots: list[Path], tmp_path: Path) -> None:
    facts = await probe([shots[0]])
    with pytest.raises(InvalidMedia, match=r"shot1\.mp4 takes too long to read"):
        await decode_sound(facts, tmp_path, untrusted.ProbeLimits(seconds=0.000_1))


async def test_a_folder_that_is_not_there_is_no_fault_of_the_clip(shots: list[Path], tmp_path: Path) -> None:
    facts = await probe([shots[0]])
    with pytest.raises(FileNotFoundError, match="gone"):
        await decode_sound(facts, tmp_path / "gone")


async def test_no_more_is_written_than_the_picture_is_long(
    shots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's limit on the file is exactly that; here it is told too little."""
    facts = await probe([shots[0]])
    monkeypatch.setattr(pcm, "SAMPLE_BYTES", 7)
    with pytest.raises(OSError, match="File too large"):
        await decode_sound(facts, tmp_path)
    assert (tmp_path / "clip0.f32").stat().st_size == RATE // 2 * 7


async def test_cancelling_leaves_no_child(shots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = await probe([shots[0], shots[1]])
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, signal, sys\n"
        "out = json.load(sys.stdin)['clips'][0]['out']\n"
        "open(out, 'w').write(str(os.getpid()) + '\\n')\n"
        "signal.pause()\n"
    )
    monkeypatch.setattr(untrusted, "CHILD", [str(child)])
    monkeypatch.setattr(pcm, "WORTH_A_CHILD", 0)
    task = asyncio.create_task(decode_sound(facts, tmp_path))
    told = [tmp_path / "clip0.f32", tmp_path / "clip1.f32"]
    while not all(path.exists() and path.read_text().endswith("\n") for path in told):  # noqa: ASYNC110 - other processes are waited for
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for path in told:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


# --- Music and narration ------------------------------------------------------------------------------------------


FORMS = {
    "a.mp3": ("-c:a", "libmp3lame"),
    "a.wav": ("-ac", "2"),
    "phone.wav": ("-c:a", "pcm_mulaw", "-ar", "8000"),
    "24.wav": ("-c:a", "pcm_s24le", "-ar", "96000"),
    "three.wav": ("-ac", "3"),
    "a.flac": (),
    "vorbis.ogg": ("-c:a", "libvorbis"),
    "a.opus": ("-c:a", "libopus"),
    "a.m4a": ("-c:a", "aac"),
    "alac.m4a": ("-c:a", "alac"),
    "a.mov": ("-c:a", "pcm_s16be"),
    "a.aac": ("-c:a", "aac"),
    "named.jpg": ("-c:a", "libmp3lame", "-f", "mp3"),
}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory, ffmpeg: Ffmpeg) -> dict[str, Path]:
    """A second of a tone that begins after 0.2 s, in each of these forms, and in two that are not taken."""
    folder = tmp_path_factory.mktemp("songs")
    outs: list[str | Path] = []
    for name, options in {**FORMS, "odd.mka": ("-c:a", "flac"), "odd.wav": ("-c:a", "adpcm_ms")}.items():
        outs += [*options, folder / name]
    ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.5*sin(880*PI*t)*gte(t\\,0.2):s=44100:d=1", *outs)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", FORMS)
async def test_any_usual_sound_file_is_decoded_from_its_start(
    songs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    samples = wave(await decode_track(songs[name], tmp_path, longest=Fraction(5)))
    # Blocks of AAC go on behind its end; ADTS does not even say how much of its start is priming.
    assert len(samples) / RATE == pytest.approx(1, abs=0.05)
    tolerance = 0.05 if name.endswith(".aac") else 0.004
    assert onset(samples, 0.2) == pytest.approx(0.2, abs=tolerance)
    assert np.abs(samples[:, 0] - samples[:, 1]).max() < 0.01


async def test_the_sound_of_a_film_can_be_music(shots: list[Path], tmp_path: Path, beep: float) -> None:
    samples = wave(await decode_track(shots[0], tmp_path, longest=Fraction(5)))
    assert onset(samples) == pytest.approx(beep, abs=0.002)


async def test_no_more_is_decoded_than_is_wanted(songs: dict[str, Path], tmp_path: Path) -> None:
    track = await decode_track(songs["a.flac"], tmp_path, longest=Fraction(1, 3))
    assert track.samples == 16_000
    assert track.path.stat().st_size == 16_000 * 8


SPOILED: dict[str, tuple[Callable[[bytes], bytes], float]] = {
    "a tag before it": (lambda song: b"ID3\x03\0\0\0\0\x10\0" + bytes(2048) + song, 1.0),
    "a tag behind it": (lambda song: song + b"APETAGEX" + bytes(range(256)) * 8, 1.0),
    "a cut end": (lambda song: song[: len(song) // 2], 0.5),
    "a cut start": (lambda song: song[len(song) // 2 :], 0.5),
}


@pytest.mark.parametrize("name", SPOILED)
async def test_what_players_step_over_is_stepped_over(songs: dict[str, Path], tmp_path: Path, name: str) -> None:
    spoil, seconds = SPOILED[name]
    path = tmp_path / "a.mp3"
    path.write_bytes(spoil(songs["a.mp3"].read_bytes()))
    track = await decode_track(path, tmp_path, longest=Fraction(5))
    assert track.samples / RATE == pytest.approx(seconds, abs=0.1)


async def test_a_sound_may_change_its_rate_and_its_channels_on_its_way(tmp_path: Path, ffmpeg: Ffmpeg) -> None:
    """MP3s of which one was appended to the other."""
    forms = {"first.mp3": ("2", "44100"), "second.mp3": ("1", "22050")}
    outs = [arg for name, (channels, rate) in forms.items() for arg in ("-ac", channels, "-ar", rate, tmp_path / name)]
    ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.5*sin(880*PI*t):s=44100:d=1", *outs)
    path = tmp_path / "both.mp3"
    path.write_bytes(b"".join((tmp_path / name).read_bytes() for name in forms))
    samples = wave(await decode_track(path, tmp_path, longest=Fraction(5)))
    assert len(samples) / RATE == pytest.approx(2, abs=0.15)
    middle = len(samples) // 2
    for part in (samples[: middle - RATE // 5], samples[middle + RATE // 5 :]):
        turns = np.count_nonzero(np.diff(np.signbit(part[:, 1])))
        assert turns / (len(part) / RATE) == pytest.approx(880, abs=20)


async def test_a_sound_that_is_mostly_damaged_is_refused(songs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    data = bytearray(songs["a.m4a"].read_bytes())
    first, last = data.index(b"mdat") + 400, data.index(b"moov") - 400
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    path.write_bytes(data)
    with pytest.raises(InvalidMedia, match=r"a\.m4a is damaged: its sound cannot be decoded"):
        await decode_track(path, tmp_path, longest=Fraction(5))


NO_SOUND: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda clip: b"", "is empty"),
    "words": (lambda clip: b"hello world " * 200, "is no sound file that can be read; mp3"),
    "noise": (lambda clip: np.random.default_rng(2).bytes(50_000), "is no sound file"),
    "a playlist": (lambda clip: b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n", "is no sound file"),
    "a picture": (lambda clip: b"\x89PNG\r\n\x1a\n" + bytes(100), "is no sound file"),
    "a clip without its index": (lambda clip: clip[: clip.index(b"moov") - 4], "is no sound file"),
    "a silent clip": (lambda clip: clip, "has no sound in it"),
}


@pytest.mark.parametrize("name", NO_SOUND)
async def test_what_has_no_sound_is_refused_by_name_and_reason(make_clip: MakeClip, tmp_path: Path, name: str) -> None:
    spoil, reason = NO_SOUND[name]
    path = make_clip("music.mp3.mp4")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidMedia, match=rf"music\.mp3\.mp4 {reason}"):
        await decode_track(path, tmp_path, longest=Fraction(5))


async def test_formats_that_are_not_taken_are_not_opened(songs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="is no sound file"):
        await decode_track(songs["odd.mka"], tmp_path, longest=Fraction(5))
    with pytest.raises(InvalidMedia, match="in a format that is not taken"):
        await decode_track(songs["odd.wav"], tmp_path, longest=Fraction(5))


async def test_a_fifo_is_no_music(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp3")
    with pytest.raises(InvalidMedia, match="is no regular file"):
        await decode_track(tmp_path / "fifo.mp3", tmp_path, longest=Fraction(5))
