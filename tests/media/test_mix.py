"""Music and voices in the film's sound: each at its sample and its level, the film's own sound untouched."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Music
from prefect_kling.media.mix import mix
from prefect_kling.media.pcm import Track

Wave = NDArray[np.float32]

RATE = 48_000
BARE = Music(Path("music.mp3"), gain=0.0, fade=Fraction(0), ducking=False)
"""Music that nothing is done to; the file was decoded before."""


@dataclass(frozen=True)
class Desk:
    """Mixes sounds in one folder."""

    folder: Path

    def track(self, wave: Wave) -> Track:
        # A name that means something else to most programs.
        path = self.folder / f"-y concat:a|{len(list(self.folder.iterdir()))} 'b'%d.f32"
        wave.astype(np.float32).tofile(path)
        return Track(path, len(wave))

    async def mixed(
        self,
        own: Wave | None,
        length: int,
        music: Music | None = None,
        bed: Wave | None = None,
        voices: Sequence[tuple[Wave, int]] = (),
    ) -> Wave:
        programme = None if own is None else self.track(own).path
        out = self.folder / "mixed.f32"
        placed = [(self.track(voice), start) for voice, start in voices]
        await mix(programme, length, music, None if bed is None else self.track(bed), placed, out)
        return np.fromfile(out, np.float32).reshape(-1, 2)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk")


def noise(length: int, seed: int, level: float = 0.1) -> Wave:
    return (np.random.default_rng(seed).standard_normal((length, 2)) * level).clip(-0.99, 0.99).astype(np.float32)


def steady(length: int, level: float = 0.5) -> Wave:
    return np.full((length, 2), level, np.float32)


def buzz(length: int, level: float) -> Wave:
    """A square wave, whose level in dB is the same at any moment."""
    wave = np.sign(np.sin(2 * np.pi * 110 * (np.arange(length) + 0.5) / RATE)) * 10 ** (level / 20)
    return np.stack([wave, wave], 1).astype(np.float32)


def same(heard: Wave, expected: NDArray[np.floating]) -> bool:
    """Down to -120 dBFS, which is below what AAC keeps."""
    return heard.shape == expected.shape and bool(np.abs(heard - expected).max(initial=0) < 1e-6)


def decibels(wave: NDArray[np.floating]) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64))))


# --- Where --------------------------------------------------------------------------------------------------------

LENGTH = 70_011


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("bed", [1, 10_007, 48_000, LENGTH, 90_000])
async def test_music_lies_under_the_whole_film(desk: Desk, bed: int, loop: bool) -> None:
    """It starts again, without a gap, ends in silence, or is cut off, to the sample."""
    own, wave = noise(LENGTH, 1), noise(bed, 2)
    music = Music(BARE.path, gain=0.0, loop=loop, fade=Fraction(0), ducking=False)
    heard = await desk.mixed(own, LENGTH, music, wave)
    under = np.zeros((LENGTH, 2), np.float32)
    under[:bed] = wave[:LENGTH]
    if loop:
        under = np.tile(wave, (-(-LENGTH // bed), 1))[:LENGTH]
    assert same(heard, own + under)


async def test_voices_begin_at_their_samples_and_end_with_the_film(desk: Desk) -> None:
    own = noise(LENGTH, 1)
    voices = [(noise(5_000, 2), 0), (noise(9_001, 3), 12_345), (noise(9_001, 4), 25_000), (noise(99, 5), 29_999)]
    expected = np.zeros((LENGTH + 10_000, 2))
    for voice, start in voices:
        expected[start : start + len(voice)] += voice
    assert same(await desk.mixed(own, LENGTH, voices=voices), own + expected[:LENGTH])
    assert same(await desk.mixed(None, LENGTH, voices=voices), expected[:LENGTH])
    assert same(await desk.mixed(None, LENGTH, voices=voices[1:2]), _alone(voices[1]))


def _alone(voice: tuple[Wave, int]) -> Wave:
    wave = np.zeros((LENGTH, 2), np.float32)
    wave[voice[1] : voice[1] + len(voice[0])] = voice[0]
    return wave


@pytest.mark.parametrize("music", [None, BARE], ids=["no music", "music"])
async def test_what_has_nothing_to_say_is_silence(desk: Desk, music: Music | None) -> None:
    empty = steady(0)
    bed = None if music is None else empty
    assert same(await desk.mixed(None, LENGTH, music, bed, [(empty, 100)]), np.zeros((LENGTH, 2)))
    own = noise(LENGTH, 1)
    assert same(await desk.mixed(own, LENGTH, music, bed, [(empty, 100)]), own)


async def test_many_voices_and_a_film_of_one_sample(desk: Desk) -> None:
    assert same(await desk.mixed(None, 1, BARE, steady(9), [(steady(5, 0.01), 0)] * 40), steady(1, 0.9))


# --- How loud -----------------------------------------------------------------------------------------------------


async def test_nothing_is_limited_here(desk: Desk) -> None:
    """One gain is set afterwards, and a peak that passes 1 comes down with the rest."""
    heard = await desk.mixed(steady(LENGTH, 0.9), LENGTH, BARE, steady(LENGTH, 0.8), [(steady(LENGTH, 0.7), 0)])
    assert same(heard, steady(LENGTH, 2.4))


async def test_left_and_right_stay_apart(desk: Desk) -> None:
    left, right = steady(LENGTH, 0.5), steady(LENGTH, 0.25)
    left[:, 1] = right[:, 0] = 0
    assert same(await desk.mixed(left, LENGTH, BARE, right), left + right)
    assert same(await desk.mixed(right, LENGTH, voices=[(left, 0)]), left + right)


@pytest.mark.parametrize("gain", [-12.0, 0.0, 6.0, -0.1])
async def test_music_has_its_gain(desk: Desk, gain: float) -> None:
    wave = noise(LENGTH, 2)
    heard = await desk.mixed(None, LENGTH, Music(BARE.path, gain=gain, fade=Fraction(0)), wave)
    assert decibels(heard) == pytest.approx(decibels(wave) + gain, abs=0.01)


@pytest.mark.parametrize(
    ("bed", "loop", "lasts"), [(50_007, True, LENGTH), (20_000, False, 20_000)], ids=["looped", "once"]
)
async def test_music_comes_and_goes_where_it_begins_and_ends(desk: Desk, bed: int, loop: bool, lasts: int) -> None:
    music = Music(BARE.path, gain=0.0, loop=loop, fade=Fraction(1, 10))
    heard = (await desk.mixed(None, LENGTH, music, steady(bed)))[:, 0]
    rise = np.arange(4_800) / 4_800 * 0.5
    assert heard[:4_800] == pytest.approx(rise, abs=1e-3)
    assert heard[4_800 : lasts - 4_800] == pytest.approx(0.5, abs=1e-3)
    assert heard[lasts - 4_800 : lasts] == pytest.approx(rise[::-1], abs=1e-3)
    assert not heard[lasts:].any()


async def test_music_that_is_all_fades_peaks_in_its_middle(desk: Desk) -> None:
    heard = (await desk.mixed(None, LENGTH, Music(BARE.path, gain=0.0), steady(99)))[:, 0]
    assert heard[[0, LENGTH // 4, LENGTH // 2, LENGTH * 3 // 4, -1]] == pytest.approx([0, 0.25, 0.5, 0.25, 0], abs=1e-3)


# --- Ducking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["clip", "voice"])
async def test_music_steps_back_where_something_is_heard(desk: Desk, who: str) -> None:
    """A second at -20 dBFS, the level of speech, in four: 14 dB above where music begins to step back."""
    length, start, end = 4 * RATE, RATE, 2 * RATE
    own, bed = np.zeros((length, 2), np.float32), steady(length, 0.05)
    own[start:end] = buzz(end - start, -20)
    music = Music(BARE.path, gain=0.0, fade=Fraction(0))
    if who == "clip":
        heard = await desk.mixed(own, length, music, bed)
    else:
        heard = await desk.mixed(np.zeros_like(own), length, music, bed, [(own[start:end], start)])
    level = (heard - own)[:, 0].astype(np.float64) / 0.05
    change = 20 * np.log10(level[[RATE - 1, RATE * 11 // 10, 2 * RATE - 1, RATE * 24 // 10, -1]])
    assert change == pytest.approx([0, -14 * 7 / 8, -14 * 7 / 8, -6, 0], abs=1)
    assert np.abs(np.diff(level)).max() < 0.01  # no click


async def test_music_does_not_step_back_before_what_is_hardly_heard_or_where_it_is_not_wanted(desk: Desk) -> None:
    music, own, bed = Music(BARE.path, gain=0.0, fade=Fraction(0)), buzz(LENGTH, -40), noise(LENGTH, 2)
    assert same(await desk.mixed(own, LENGTH, music, bed), own + bed)
    own = buzz(LENGTH, -6)
    assert same(await desk.mixed(own, LENGTH, BARE, bed), own + bed)


# --- What goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 1e30])
async def test_damage_in_a_sound_stays_where_it_is(desk: Desk, damage: float) -> None:
    own, bed, voice = noise(LENGTH, 1), noise(LENGTH, 2, 0.01), noise(LENGTH, 3, 0.01)
    bed[9_000] = voice[20_000] = damage
    heard = await desk.mixed(own, LENGTH, BARE, bed, [(voice, 0)])
    whole = np.delete(np.arange(LENGTH), [9_000, 20_000])
    assert same(heard[whole], (own + bed + voice)[whole])
    assert np.abs(heard[[9_000, 20_000]]).max() <= 2


async def test_what_cannot_be_read_or_written_is_said(desk: Desk) -> None:
    own, out = desk.track(noise(LENGTH, 1)), desk.folder / "mixed.f32"
    missing = Track(desk.folder / "missing.f32", 9)
    with pytest.raises(InvalidMedia, match=r"The sound cannot be mixed: ffmpeg ended with .*No such file"):
        await mix(own.path, LENGTH, None, None, [(missing, 0)], out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
    try:
        with pytest.raises(OSError, match="The sound cannot be written: File too large"):
            await mix(own.path, LENGTH, None, None, [(own, 0)], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_cancelling_kills_ffmpeg(desk: Desk, tmp_path: Path, nothing_left: Callable[[Path], None]) -> None:
    """In its middle: what it writes to is read only so far."""
    own, out = desk.track(noise(10 * RATE, 1)), tmp_path / "mixed.f32"
    os.mkfifo(out)
    task = asyncio.ensure_future(mix(own.path, 10 * RATE, None, None, [(own, 0)], out))
    with await asyncio.to_thread(out.open, "rb") as reader:
        assert len(await asyncio.to_thread(reader.read, 10_000)) == 10_000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    own.path.unlink()
    nothing_left(desk.folder)
