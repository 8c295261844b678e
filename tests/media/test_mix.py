"""Music and voices under the film's own sound: each at its sample, as loud as asked for, and nothing left running."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Music
from prefect_kling.media.mix import mix, mix_command
from prefect_kling.media.pcm import Track

Wave = NDArray[np.float32]

RATE = 48_000
SONG = Path("song.mp3")
PLAIN = Music(SONG, gain=0, loop=False, fade=Fraction(0), ducking=False)


def noise(length: int, seed: int = 1, level: float = 0.1) -> Wave:
    return (level * np.random.default_rng(seed).standard_normal((length, 2))).astype(np.float32)


def steady(length: int, level: float = 0.5) -> Wave:
    return np.full((length, 2), level, np.float32)


def click(length: int, at: int) -> Wave:
    wave = np.zeros((length, 2), np.float32)
    wave[at] = 0.5
    return wave


def decibels(wave: Wave) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))))


def buzz(length: int, level: float) -> Wave:
    """A square wave, whose level in dB is the same at any moment."""
    wave = np.sign(np.sin(2 * np.pi * 110 * (np.arange(length) + 0.5) / RATE)) * 10 ** (level / 20)
    return np.stack([wave, wave], 1).astype(np.float32)


def close(film: Wave, expected: Wave) -> bool:
    """Equal but for rounding."""
    return film.shape == expected.shape and bool(np.abs(film - expected).max() < 1e-6)


class Desk:
    """Mixes sounds in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, 0

    def track(self, wave: Wave) -> Track:
        self.files += 1
        path = self.folder / f"{self.files}.f32"
        wave.astype(np.float32).tofile(path)
        return Track(path, len(wave))

    async def mixed(
        self,
        length: int,
        programme: Wave | None = None,
        music: Music | None = None,
        bed: Wave | None = None,
        voices: Sequence[tuple[Wave, int]] = (),
    ) -> Wave:
        own = None if programme is None else self.track(programme).path
        song = None if bed is None else self.track(bed)
        out = self.folder / "mixed.f32"
        await mix(own, length, music, song, [(self.track(voice), at) for voice, at in voices], out)
        film = np.fromfile(out, np.float32).reshape(-1, 2)
        assert len(film) == length
        return film


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- Alone --------------------------------------------------------------------------------------------------------


async def test_the_films_own_sound_is_not_touched(desk: Desk) -> None:
    """Not by silent music beside it, nor by a voice that says nothing; also what passes full scale."""
    own = noise(50_001, level=0.6)
    assert np.abs(own).max() > 2
    for ducking in (True, False):
        music = Music(SONG, gain=0, ducking=ducking)
        film = await desk.mixed(50_001, own, music, steady(1000, 0), [(steady(200, 0), 300)])
        assert np.array_equal(film, own)


@pytest.mark.parametrize("length", [1, 47_999, 48_001])
async def test_music_alone_is_as_long_as_the_film(desk: Desk, length: int) -> None:
    bed = noise(48_000)
    film = await desk.mixed(length, None, PLAIN, bed)
    whole = min(length, 48_000)
    assert close(film[:whole], bed[:whole])
    assert not film[whole:].any()


async def test_a_voice_alone_has_silence_around_it(desk: Desk) -> None:
    voice = noise(10_000)
    film = await desk.mixed(50_000, voices=[(voice, 12_345)])
    assert not film[:12_345].any()
    assert close(film[12_345:22_345], voice)
    assert not film[22_345:].any()


async def test_nothing_at_all_is_silence(desk: Desk) -> None:
    for music, bed, voices in ((None, None, []), (Music(SONG), steady(0), [(steady(0), 100)])):
        assert not (await desk.mixed(1234, None, music, bed, voices)).any()


# --- Music --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bed", [1, 7_777, 47_999, 48_000, 70_001])
async def test_short_music_starts_again_without_a_gap(desk: Desk, bed: int) -> None:
    """Shorter than a second or not: ffmpeg repeats the one in its memory, the other from its file."""
    wave = noise(bed)
    film = await desk.mixed(150_000, None, Music(SONG, gain=0, fade=Fraction(0)), wave)
    assert close(film, np.tile(wave, (-(-150_000 // bed), 1))[:150_000])


@pytest.mark.parametrize("db", [-12.0, -6.5, 3.0, 0.000_01])
async def test_music_has_its_gain(desk: Desk, db: float) -> None:
    bed = noise(20_000)
    film = await desk.mixed(20_000, None, Music(SONG, gain=db, loop=False, fade=Fraction(0)), bed)
    assert close(film, bed * 10 ** (db / 20))


@pytest.mark.parametrize("loop", [True, False])
async def test_music_comes_and_goes(desk: Desk, loop: bool) -> None:
    """At the film's ends where it is looped, at its own where it is not."""
    music = Music(SONG, gain=0, loop=loop, fade=Fraction(1))
    film = (await desk.mixed(240_000, None, music, steady(192_000)))[:, 0]
    ends = 240_000 if loop else 192_000
    seen = film[[0, 24_000, 48_000, ends - 48_001, ends - 24_000, ends - 1]]
    assert seen == pytest.approx([0, 0.25, 0.5, 0.5, 0.25, 0], abs=1e-3)
    assert not film[ends:].any()


async def test_fades_longer_than_the_film_meet_in_its_middle(desk: Desk) -> None:
    film = (await desk.mixed(48_000, None, Music(SONG, gain=0, fade=Fraction(5)), steady(1000)))[:, 0]
    assert film[[0, 12_000, 24_000, 36_000, 47_999]] == pytest.approx([0, 0.25, 0.5, 0.25, 0], abs=1e-3)


async def test_music_steps_back_while_the_clips_are_heard(desk: Desk) -> None:
    """And comes back; without ducking it stays."""
    own = np.zeros((6 * RATE, 2), np.float32)
    own[2 * RATE : 4 * RATE] = noise(2 * RATE, 2)
    bed = noise(6 * RATE, 3, 0.05)
    ducked = await desk.mixed(len(own), own, Music(SONG, gain=0, fade=Fraction(0)), bed) - own
    level = decibels(bed)
    assert decibels(ducked[: 2 * RATE]) == pytest.approx(level, abs=0.1)
    assert decibels(ducked[int(2.2 * RATE) : 4 * RATE]) < level - 8
    assert decibels(ducked[int(5.5 * RATE) :]) == pytest.approx(level, abs=0.5)
    stays = await desk.mixed(len(own), own, PLAIN, bed) - own
    assert close(stays, bed)


async def test_music_steps_back_for_a_voice_without_clips(desk: Desk) -> None:
    voice, bed = noise(2 * RATE, 2), noise(5 * RATE, 3, 0.05)
    film = await desk.mixed(5 * RATE, None, Music(SONG, gain=0, fade=Fraction(0)), bed, [(voice, RATE)])
    own = np.zeros_like(film)
    own[RATE : 3 * RATE] = voice
    assert decibels((film - own)[int(1.2 * RATE) : 3 * RATE]) < decibels(bed) - 8


async def test_music_steps_back_by_most_and_comes_back_slowly_without_a_click(desk: Desk) -> None:
    """A second at -20 dBFS, the level of speech, in four: 14 dB above where music begins to step back."""
    own, bed = np.zeros((4 * RATE, 2), np.float32), steady(4 * RATE, 0.05)
    own[RATE : 2 * RATE] = buzz(RATE, -20)
    film = await desk.mixed(len(own), own, Music(SONG, gain=0, fade=Fraction(0)), bed)
    level = (film - own)[:, 0].astype(np.float64) / 0.05
    change = 20 * np.log10(level[[RATE - 1, RATE * 11 // 10, 2 * RATE - 1, RATE * 24 // 10, -1]])
    assert change == pytest.approx([0, -14 * 7 / 8, -14 * 7 / 8, -6, 0], abs=1)
    assert np.abs(np.diff(level)).max() < 0.01


async def test_music_does_not_step_back_before_what_is_hardly_heard(desk: Desk) -> None:
    """And is heard to its very end, where ffmpeg's compressor alone would end it a tenth of a second early."""
    own, bed = buzz(70_001, -40), noise(70_001)
    assert close(await desk.mixed(70_001, own, Music(SONG, gain=0, fade=Fraction(0)), bed), own + bed)


# --- Voices -------------------------------------------------------------------------------------------------------


async def test_everything_is_at_its_sample(desk: Desk) -> None:
    """Several voices, one of which goes on behind the film's end and one begins with it, over clips and music."""
    own = click(100_000, 77_777)
    voices = [(click(500, 0), 0), (click(500, 17), 23_456), (click(90_000, 40_000), 50_000), (click(9, 0), 99_999)]
    film = await desk.mixed(100_000, own, PLAIN, click(2_000, 1_000), voices)
    marks = [0, 1_000, 23_473, 77_777, 90_000, 99_999]
    assert np.flatnonzero(np.abs(film[:, 0]) > 1e-6).tolist() == marks
    assert close(film[marks, 1], np.full(6, 0.5))


async def test_sounds_add_up_and_none_gets_softer(desk: Desk) -> None:
    own, first, second, bed = (noise(30_000, seed) for seed in range(4))
    film = await desk.mixed(30_000, own, PLAIN, bed, [(first, 0), (second, 0)])
    assert close(film, own + first + second + bed)


async def test_left_and_right_stay_apart(desk: Desk) -> None:
    left, right = steady(30_000, 0.5), steady(30_000, 0.25)
    left[:, 1] = right[:, 0] = 0
    assert close(await desk.mixed(30_000, left, PLAIN, right), left + right)
    assert close(await desk.mixed(30_000, right, voices=[(left, 0)]), left + right)


async def test_forty_voices_at_once(desk: Desk) -> None:
    assert close(await desk.mixed(99, None, voices=[(steady(200, 0.01), 0)] * 40), steady(99, 0.4))


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 1e30])
async def test_damage_stays_where_it_is(desk: Desk, damage: float) -> None:
    own, bed, voice = noise(30_000, 1), noise(30_000, 2, 0.01), noise(30_000, 3, 0.01)
    bed[9_000] = voice[20_000] = damage
    film = await desk.mixed(30_000, own, PLAIN, bed, [(voice, 0)])
    whole = np.delete(np.arange(30_000), [9_000, 20_000])
    assert close(film[whole], (own + bed + voice)[whole])
    assert np.abs(film[[9_000, 20_000]]).max() < 2


async def test_a_voice_of_what_is_no_number_does_not_silence_the_film(desk: Desk) -> None:
    voice, own = noise(20_000), noise(60_000, 2)
    voice[5_000:5_003, 0] = [np.nan, np.inf, 1e30]
    film = await desk.mixed(60_000, own, Music(SONG, fade=Fraction(0)), noise(60_000, 3), [(voice, 1_000)])
    assert np.isfinite(film).all()
    assert np.abs(film).max() < 3
    assert decibels(film[50_000:]) > -25


# --- ffmpeg -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['it\'s "so"', "100% %03d", "-y", "a\nb", "a,b;c[d]=e\\:f", "コンテナ"])
async def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    film = await Desk(folder).mixed(1_000, noise(1_000), Music(SONG), noise(500), [(noise(100), 50)])
    assert film.any()


async def test_relative_names_are_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = noise(1_000)
    own.tofile("-i.f32")
    await mix(Path("-i.f32"), 1_000, None, None, [], Path("-y.f32"))
    assert np.array_equal(np.fromfile("-y.f32", np.float32).reshape(-1, 2), own)


async def test_what_cannot_be_read_or_written_is_said(desk: Desk, tmp_path: Path) -> None:
    track = desk.track(noise(100))
    with pytest.raises(
        InvalidMedia, match=r"The sound cannot be mixed: ffmpeg ended with status \d+\. It said: .*No such"
    ):
        await mix(tmp_path / "gone.f32", 100, None, None, [], tmp_path / "out.f32")
    with pytest.raises(InvalidMedia, match="Is a directory"):
        await mix(None, 100, PLAIN, Track(tmp_path, 100), [], tmp_path / "out.f32")
    with pytest.raises(InvalidMedia, match="No such file"):
        await mix(track.path, 100, None, None, [], tmp_path / "gone" / "out.f32")


async def test_a_full_disk_is_said_to_be_one(desk: Desk) -> None:
    track = desk.track(noise(30_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(OSError, match="The sound cannot be written: File too large"):
            await mix(track.path, 30_000, None, None, [(track, 0)], desk.folder / "out.f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_nothing_is_asked_of_the_network(desk: Desk) -> None:
    track = desk.track(noise(10))
    bed, voice = desk.track(noise(10)), desk.track(noise(10))
    command = mix_command(track.path, 10, Music(SONG), bed, [(voice, 0)], desk.folder / "out.f32")
    inputs = [at for at, word in enumerate(command) if word == "-i"]
    assert len(inputs) == 3
    for before, at in zip([0, *inputs], inputs, strict=False):
        assert command[at + 1].startswith("file:/")
        whitelist = command.index("-protocol_whitelist", before, at)
        assert command[whitelist + 1] == "file"


async def test_cancelling_ends_ffmpeg(tmp_path: Path, nothing_left: Callable[[Path], None]) -> None:
    """It waits for a voice that never comes: a pipe that nobody writes to."""
    work, empty = tmp_path / "work", tmp_path / "empty"
    work.mkdir()
    empty.mkdir()
    os.mkfifo(work / "voice.f32")
    task = asyncio.create_task(mix(None, 1_000, None, None, [(Track(work / "voice.f32", 10), 0)], work / "out.f32"))
    # Once the pipe can be opened for writing, ffmpeg has it open for reading.
    writer = await asyncio.to_thread(os.open, work / "voice.f32", os.O_WRONLY)
    try:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        nothing_left(empty)
    finally:
        os.close(writer)
