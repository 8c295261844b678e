"""The clips' sounds laid out in a row as one file: each where its picture is, to the sample, and no click between them.

Reads and writes in blocks of a second, so that memory does not grow with the film.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prefect_kling.media.cancelling import Checkpoint
from prefect_kling.media.pcm import Track
from prefect_kling.media.timeline import SAMPLE_RATE, Scene, Timeline, samples

__all__ = ["write_programme"]

FADE = SAMPLE_RATE * 5 // 1000  # measured: a hard join clicks at -41 dB above 4 kHz, one with 5 ms fades at -54 dB
BLOCK = SAMPLE_RATE
HIGHEST = 4.0  # a decoder may pass 1, and a gain may bring that back; what is higher is damage, and so is NaN

Curve: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class _Part:
    """A scene's sound in the film, in samples.

    Attributes:
        track: the sound.
        first: the track's sample that it begins with.
        start: the film's sample at which it begins.
        length: how long it may be heard.
        rising, falling: how long the transitions at its ends take; 0 for a hard cut.
        rises_late, falls_early: whether these go through silence.
    """

    track: Track
    first: int
    start: int
    length: int
    rising: int
    falling: int
    rises_late: bool
    falls_early: bool

    @property
    def heard(self) -> int:
        """How much of it there is: a sound may end before its picture does."""
        return max(min(self.length, self.track.samples - self.first), 0)


def write_programme(timeline: Timeline, tracks: Sequence[Track | None], out: Path, checkpoint: Checkpoint) -> None:
    """Writes the film's own sound, raw interleaved float32, stereo, 48 kHz. Blocking.

    Where a clip is cut hard, or its sound ends early, it comes and goes in 5 ms; over a transition it comes and goes
    with equal power, or one after the other where the picture does so as well; the film's fades are linear.

    Args:
        timeline: where everything lies.
        tracks: each scene's sound, or None for silence.
        out: to write; exactly as long as the film.
        checkpoint: called between blocks.

    Raises:
        OSError: it cannot be written.
    """
    total = samples(timeline.frames, timeline.rate)
    fades = samples(timeline.fade_in, timeline.rate), samples(timeline.fade_out, timeline.rate)
    parts = list(_parts(timeline, tracks))
    waves: dict[int, NDArray[np.float32]] = {}
    with out.open("wb") as file:
        for start in range(0, total, BLOCK):
            checkpoint()
            end = min(start + BLOCK, total)
            block = np.zeros((end - start, 2), np.float32)
            here = {n: part for n, part in enumerate(parts) if part.start < end and part.start + part.heard > start}
            waves = {n: waves[n] if n in waves else _opened(part.track) for n, part in here.items()}
            for n, part in here.items():
                _add(block, start, part, waves[n])
            block *= _film_fades(np.arange(start, end), total, *fades)[:, None]
            file.write(block.tobytes())


def _parts(timeline: Timeline, tracks: Sequence[Track | None]) -> Iterator[_Part]:
    def at(frame: int) -> int:
        return samples(frame, timeline.rate)

    following: Sequence[Scene | None] = [*timeline.scenes[1:], None]
    for scene, track, after in zip(timeline.scenes, tracks, following, strict=True):
        if track is not None and track.samples:
            yield _Part(
                track=track,
                first=at(scene.first),
                start=at(scene.start),
                length=at(scene.end) - at(scene.start),
                rising=at(scene.start + scene.before) - at(scene.start),
                falling=at(scene.end) - at(scene.end - scene.after),
                rises_late=scene.transition.through,
                falls_early=after is not None and after.transition.through,
            )


def _opened(track: Track) -> NDArray[np.float32]:
    return np.memmap(track.path, np.float32, "r", shape=(track.samples, 2))


def _add(block: NDArray[np.float32], start: int, part: _Part, wave: NDArray[np.float32]) -> None:
    begin, end = max(part.start - start, 0), min(part.start + part.heard - start, len(block))
    position = np.arange(begin, end) + (start - part.start)
    first = part.first + start + begin - part.start
    sound = np.clip(np.nan_to_num(wave[first : first + end - begin]), -HIGHEST, HIGHEST)
    block[begin:end] += sound * _curve(position, part)[:, None]


def _curve(position: NDArray[np.int64], part: _Part) -> Curve:
    """How loud each sample of a part is, 0 to 1."""
    if part.rising:
        curve = _risen((position + 0.5) / part.rising, late=part.rises_late)
    else:
        curve = np.clip((position + 0.5) / FADE, 0, 1)
    if part.falling:
        curve = curve * _risen((part.length - position - 0.5) / part.falling, late=part.falls_early)
    if not part.falling or part.heard < part.length:
        curve = curve * np.clip((part.heard - position - 0.5) / FADE, 0, 1)
    return curve.astype(np.float32)


def _risen(progress: NDArray[np.float64], *, late: bool) -> NDArray[np.float64]:
    """Equal power: what comes and what goes are different sounds, whose powers add up."""
    risen: NDArray[np.float64] = np.sin(np.pi / 2 * np.clip(progress * 2 - 1 if late else progress, 0, 1))
    return risen


def _film_fades(position: NDArray[np.int64], total: int, fade_in: int, fade_out: int) -> Curve:
    curve = np.ones(len(position), np.float32)
    if fade_in:
        curve *= np.clip((position + 0.5) / fade_in, 0, 1).astype(np.float32)
    if fade_out:
        curve *= np.clip((total - position - 0.5) / fade_out, 0, 1).astype(np.float32)
    return curve
