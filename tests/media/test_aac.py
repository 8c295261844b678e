"""Sound coded in parts side by side: no seam to be heard, no packet missing, nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from numpy.typing import NDArray

from prefect_kling.media import aac
from prefect_kling.media.splice import CONTAINER_OPTIONS

Wave = NDArray[np.float32]

RATE, PACKET = 48_000, 1024


def never() -> None:
    """A checkpoint of work that is wanted."""


def music(seconds: float, level: float = 0.1) -> Wave:
    """Chords that change, with some noise: what is hard enough for errors to show."""
    time = np.arange(round(seconds * RATE)) / RATE
    step = 1.06 ** np.floor(time * 3)
    tones = sum(np.sin(2 * np.pi * hertz * step * time) for hertz in (220, 277, 330, 1900))
    left = level * tones + 0.02 * np.random.default_rng(1).standard_normal(len(time))
    return np.stack([left, 0.7 * left + level * np.sin(2 * np.pi * 97 * time)], 1).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Wave], Path]:
    def into(wave: Wave) -> Path:
        path = tmp_path / "sound.f32"
        wave.astype(np.float32).tofile(path)
        return path

    return into


def decoded(packets: list[Packet[Any]], folder: Path) -> Wave:
    """As a player hears it."""
    path = folder / "sound.mp4"
    with av.open(str(path), "w", format="mp4", container_options=CONTAINER_OPTIONS) as out:
        track = out.add_stream("aac", rate=RATE, layout="stereo", format="fltp", options=dict(aac.OPTIONS))
        for packet in packets:
            packet.stream = track
            out.mux(packet)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].pts == 0
    return np.concatenate([frame.to_ndarray() for frame in frames], 1).T


def errors(wave: Wave, heard: Wave) -> NDArray[np.float64]:
    """The power of what is wrong in each packet's samples, in dB beside the power of all that there is."""
    wrong = np.square(heard[: len(wave)].astype(np.float64) - wave).mean(axis=1)
    blocks = wrong[: len(wave) // PACKET * PACKET].reshape(-1, PACKET).mean(axis=1)
    found: NDArray[np.float64] = 10 * np.log10(blocks / np.square(wave, dtype=np.float64).mean())
    return found


def test_seams_are_as_exact_as_the_rest(
    write: Callable[[Wave], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = music(6)
    whole = errors(wave, decoded(aac.encoded(write(wave), 0, never), tmp_path))
    monkeypatch.setattr(aac, "PART", 40)
    parts = errors(wave, decoded(aac.encoded(write(wave), 0, never), tmp_path))
    seams = sorted({seam - 1 + near for seam in range(40, len(parts) - 2, 40) for near in (-2, -1, 0, 1)})
    away = np.setdiff1d(np.arange(len(parts)), seams)
    assert len(seams) > 20
    assert parts[seams].max() <= parts[away].max() + 1
    assert np.mean(parts[seams]) <= np.mean(parts[away]) + 1
    assert parts.max() <= whole.max() + 1
    assert whole.max() < -10


def test_a_part_coded_in_another_way_fits_its_neighbours(
    write: Callable[[Wave], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tone that is too loud for the quick coder in every second part, the same tone softly between them."""
    monkeypatch.setattr(aac, "PART", 40)
    time = np.arange(6 * RATE)
    level = np.where(time // (40 * PACKET) % 2, 0.8, 0.1)
    level = np.convolve(np.pad(level, 1200, mode="edge"), np.hanning(2401) / np.hanning(2401).sum(), "valid")
    tone = level * np.sin(2 * np.pi * 440 * time / RATE)
    wave = np.stack([tone, tone], 1).astype(np.float32)
    heard = errors(wave, decoded(aac.encoded(write(wave), 0, never), tmp_path))
    assert heard[4:-4].max() < -30


@pytest.mark.parametrize("part", [1, 4, 468])
@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 4 * 1024 - 1, 4 * 1024, 4 * 1024 + 1, 9 * 1024 + 5])
def test_packets_follow_each_other_and_end_with_the_sound(
    write: Callable[[Wave], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, part: int
) -> None:
    monkeypatch.setattr(aac, "PART", part)
    wave = music(1)[:length]
    packets = aac.encoded(write(wave), 0, never)
    times = [(packet.pts, packet.dts, packet.duration) for packet in packets]
    starts = list(range(-PACKET, length, PACKET)) if length else []
    assert times == [(start, start, min(PACKET, length - start)) for start in starts]
    assert all(packet.size for packet in packets)
    if length:
        heard = decoded(packets, tmp_path)
        # A player decodes whole packets, and what MP4 says of the sound's length ends it.
        assert length <= len(heard) < length + PACKET
        assert errors(wave, heard).max(initial=-99) < 0


def test_a_click_stays_at_its_sample(write: Callable[[Wave], Path], tmp_path: Path) -> None:
    wave = np.zeros((RATE, 2), np.float32)
    marks = [1500, 20_000, 46_000]
    wave[marks] = 0.9
    heard = decoded(aac.encoded(write(wave), 0, never), tmp_path)
    for mark in marks:
        assert mark - 400 + int(np.argmax(np.abs(heard[mark - 400 : mark + 400, 0]))) == mark


def test_the_gain_is_in_it(write: Callable[[Wave], Path], tmp_path: Path) -> None:
    wave = music(1)
    heard = decoded(aac.encoded(write(wave), -12, never), tmp_path)
    level = np.square(heard).mean() / np.square(wave).mean()
    assert 10 * np.log10(level) == pytest.approx(-12, abs=0.1)


def test_work_that_is_not_wanted_ends_with_its_threads(
    write: Callable[[Wave], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aac, "PART", 10)
    made: list[int] = []
    part = aac._part

    def counted(*arguments: Any) -> list[Packet[Any]]:
        made.append(arguments[3])
        return part(*arguments)

    monkeypatch.setattr(aac, "_part", counted)
    asked = iter([None, None])
    with pytest.raises(StopIteration):
        aac.encoded(write(music(20)), 0, lambda: next(asked))
    assert len(made) < 90  # of 94
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("aac")] == []


def test_a_part_that_fails_ends_the_others(write: Callable[[Wave], Path]) -> None:
    wave = music(1)
    wave[30_000] = np.nan
    with pytest.raises(av.FFmpegError):
        aac.encoded(write(wave), 0, never)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("aac")] == []


def test_the_same_sound_gives_the_same_packets(write: Callable[[Wave], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads there are, and whichever is first."""
    monkeypatch.setattr(aac, "PART", 20)
    wave = music(2)
    first = [bytes(packet) for packet in aac.encoded(write(wave), 0, never)]
    monkeypatch.setattr(aac, "MOST_THREADS", 1)
    assert [bytes(packet) for packet in aac.encoded(write(wave), 0, never)] == first
