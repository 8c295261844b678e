"""Loudness: measured as the standard has it, reached in the film as it is played; peaks that stay below their limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import aac
from prefect_kling.media.loudness import Gain, Loudness, gain_for, measure

Wave = NDArray[np.float32]

RATE = 48_000
SECONDS = 3


def written(path: Path, wave: NDArray[np.floating]) -> Path:
    wave.astype(np.float32).tofile(path)
    return path


def clock() -> NDArray[np.float64]:
    return np.arange(SECONDS * RATE) / RATE


def both(wave: NDArray[np.floating]) -> Wave:
    """The same left and right, with a film's 5 ms fades at its ends."""
    rise = np.minimum(1, np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / 240)
    return np.stack([wave * rise] * 2, 1).astype(np.float32)


def tone(hertz: float, level: float = 1.0) -> Wave:
    return both(level * np.sin(2 * np.pi * hertz * clock()))


def noise(seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(SECONDS * RATE)


def pink() -> NDArray[np.float64]:
    spectrum = np.fft.rfft(noise())
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    wave = np.fft.irfft(spectrum)
    found: NDArray[np.float64] = wave / np.abs(wave).max()
    return found


def clicks(each: int) -> Wave:
    wave = np.zeros(SECONDS * RATE)
    wave[each // 2 :: each] = 1
    return both(wave)


# --- Measuring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "loudness"), [(-23, -23.0), (-33, -33.0), (-40, -40.0), (-3, -3.0)], ids=lambda value: f"{value:g}"
)
async def test_a_tone_has_the_loudness_of_the_standard(tmp_path: Path, level: float, loudness: float) -> None:
    """EBU Tech 3341: 1 kHz in both channels at -23 dBFS is at -23 LUFS, within 0.1."""
    measured = await measure(written(tmp_path / "tone.f32", tone(1000, 10 ** (level / 20))))
    assert measured.integrated == pytest.approx(loudness, abs=0.1)
    assert measured.true_peak == pytest.approx(level, abs=0.1)


async def test_quiet_parts_are_gated_away(tmp_path: Path) -> None:
    """EBU Tech 3341's third case in short: what is far below the rest does not count; it would take 5 LU off."""
    quiet = tone(1000, 10 ** (-50 / 20))
    wave = np.concatenate([quiet, tone(1000, 10 ** (-23 / 20)), quiet])
    assert (await measure(written(tmp_path / "tone.f32", wave))).integrated == pytest.approx(-23, abs=0.4)


async def test_a_peak_between_two_samples_counts(tmp_path: Path) -> None:
    """EBU Tech 3341: a quarter of the sample rate, by an eighth of a wave off, peaks 3 dB above its samples."""
    wave = both(0.5 * np.sin(2 * np.pi * 12_000 * clock() + np.pi / 4))
    assert np.abs(wave).max() == pytest.approx(0.5 * 0.5**0.5, abs=1e-3)
    assert (await measure(written(tmp_path / "tone.f32", wave))).true_peak == pytest.approx(-6, abs=0.4)


@pytest.mark.parametrize("samples", [1, SECONDS * RATE], ids=lambda samples: f"{samples} samples")
async def test_silence_has_no_loudness(tmp_path: Path, samples: int) -> None:
    measured = await measure(written(tmp_path / "silence.f32", np.zeros((samples, 2))))
    assert measured.integrated == -70
    assert gain_for(measured, -16).db == 0


async def test_what_is_too_short_to_be_measured_has_a_peak(tmp_path: Path) -> None:
    """The standard's blocks are of 400 ms."""
    measured = await measure(written(tmp_path / "short.f32", tone(1000)[: RATE // 3]))
    assert measured.integrated == -70
    assert measured.true_peak == pytest.approx(0, abs=0.1)


async def test_what_is_not_there_cannot_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "odd '%d\n-y.f32"
    with pytest.raises(FileNotFoundError):
        await measure(path)
    written(path, tone(1000, 0.1))
    assert (await measure(path)).integrated == pytest.approx(-20, abs=0.1)
    with pytest.raises(InvalidMedia, match="The film's loudness cannot be measured: ffmpeg ended with status"):
        await measure(tmp_path)


# --- The gain -----------------------------------------------------------------------------------------------------

SILENCE = Loudness(-70, -math.inf)


@pytest.mark.parametrize(
    ("loudness", "target", "db", "remark"),
    [
        pytest.param(Loudness(-20, -10), -16, 4, "", id="up"),
        pytest.param(Loudness(-10, -0.5), -16, -6, "", id="down"),
        pytest.param(Loudness(-16, -4), -16, 0, "", id="there already"),
        pytest.param(Loudness(-16, -2), -16, 0, "", id="there already, and peaks just so"),
        pytest.param(Loudness(-20, -5.9), -16, 3.9, "brought to -16.1 LUFS, not -16", id="peaks a little too high"),
        pytest.param(Loudness(-30, -3), -16, 1, "brought to -29.0 LUFS, not -16", id="far below its peaks"),
        pytest.param(Loudness(-30, 2), -16, -4, "its peaks would pass -1 dBTP", id="peaks past full scale"),
        pytest.param(Loudness(-4, 1), -6, -6, "brought to -10.0 LUFS, not -6", id="dense, whose peaks AAC lifts more"),
        pytest.param(Loudness(-20, -10), None, 0, "", id="as it is"),
        pytest.param(Loudness(-70, 3), None, 0, "", id="as it is, whatever it is"),
        pytest.param(SILENCE, -16, 0, "at -70.0 LUFS, next to silence, and is left as it is", id="silence"),
        pytest.param(Loudness(-60.1, -50), -16, 0, "next to silence", id="hiss"),
        pytest.param(Loudness(-60, -50), -16, 44, "", id="soft"),
        pytest.param(Loudness(-70, -1), -16, -1, "not -16: its peaks would pass", id="one loud moment"),
    ],
)
def test_one_gain(loudness: Loudness, target: float | None, db: float, remark: str) -> None:
    gain = gain_for(loudness, target)
    assert gain.db == pytest.approx(db)
    assert bool(gain.remark) == bool(remark)
    assert remark in gain.remark


@pytest.mark.parametrize("crest", range(15))
def test_minus_sixteen_is_reached_by_all_whose_peaks_allow_it(crest: int) -> None:
    """What is kept free for the coder costs a film of the usual loudness nothing."""
    assert gain_for(Loudness(-30, -30 + crest), -16) == Gain(14, "")


# --- The film as it is played -------------------------------------------------------------------------------------

Played = Callable[[Wave, float], Wave]


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """What a player makes of a sound with so many dB of gain."""

    def play(wave: Wave, db: float) -> Wave:
        film = tmp_path / "film.mp4"
        with av.open(str(film), "w", format="mp4") as out:
            track = out.add_stream("aac", rate=RATE, layout="stereo", format="fltp", options=dict(aac.OPTIONS))
            for packet in aac.encoded(written(tmp_path / "film.f32", wave), db, lambda: None):
                packet.stream = track
                out.mux(packet)
        with av.open(str(film)) as container:
            return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1).T[: len(wave)]

    return play


HARD: dict[str, Callable[[], Wave]] = {
    "speech-like bursts": lambda: both(np.where(clock() % 0.7 < 0.3, pink() * np.sin(9 * clock()) ** 2, 0)),
    "pink noise": lambda: both(pink()),
    "clipped pink noise": lambda: both(np.clip(pink() * 8, -1, 1)),
    "clipped noise, wide": lambda: np.clip(np.stack([noise(1), noise(2)], 1) * 2, -1, 1).astype(np.float32),
    "signs": lambda: both(np.sign(noise())),
    "50 Hz": lambda: tone(50),
    "15 kHz": lambda: tone(15_000),
    "square, 100 Hz": lambda: both(np.sign(np.sin(2 * np.pi * 100 * clock() + 0.1))),
    "two clicks a second": lambda: clicks(24_000),
    "a drum": lambda: both(np.sin(2 * np.pi * 60 * clock()) * np.exp(-(clock() % 0.5) * 12)),
    "a horn in near silence": lambda: both(np.where(clock() % 3 < 0.4, np.sin(2 * np.pi * 300 * clock()), 1e-3)),
}


@pytest.mark.parametrize("name", HARD)
async def test_the_film_has_its_loudness_and_its_peaks(tmp_path: Path, played: Played, name: str) -> None:
    wave = HARD[name]()
    before = await measure(written(tmp_path / "before.f32", wave))
    for target in (-16, -6):
        gain = gain_for(before, target)
        film = await measure(written(tmp_path / "after.f32", played(wave, gain.db)))
        assert film.integrated == pytest.approx(before.integrated + gain.db, abs=0.5)
        assert gain.remark or film.integrated == pytest.approx(target, abs=0.5)
        assert film.true_peak <= -1


@pytest.mark.parametrize("hertz", [50, 440, 8000])
def test_a_loud_tone_is_not_distorted(played: Played, hertz: float) -> None:
    """The quicker of the coders clips what is above half of full scale and has no noise beside it."""
    wave = tone(hertz, 0.89)
    wave[: RATE * SECONDS // 2] *= 0.1
    error = played(wave, 0)[4096:-4096] - wave[4096:-4096]
    for part in np.array_split(error, 50):
        assert np.sqrt(np.mean(part**2)) < 0.89 * 0.5**0.5 * 10 ** (-25 / 20)
