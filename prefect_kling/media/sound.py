"""One clip's sound as exactly as many samples as its picture lasts: decoded, aligned, faded, and never all at once."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts

__all__ = ["SAMPLE_RATE", "Block", "clip_sound"]

SAMPLE_RATE = 48_000
FADE = SAMPLE_RATE * 5 // 1000  # measured: a hard join clicks at -41 dB above 4 kHz, one with 5 ms fades at -54 dB
SILENCE = SAMPLE_RATE // 10

Block: TypeAlias = NDArray[np.float32]
"""Stereo samples, shape (2, n), full scale ±1, 48 kHz."""


def clip_sound(clip: MediaFacts, samples: int) -> Generator[Block, None, None]:
    """The clip's sound from its first shown frame on: `samples` samples, in blocks.

    What the picture's start cuts off is dropped, what is missing at either end is silence, and where the sound begins
    and ends it is faded over 5 ms. A clip without sound gives silence.

    Raises:
        InvalidMedia: the sound cannot be decoded.
    """
    given = 0
    try:
        for block in _faded(_cut(_decoded(clip), samples)):
            given += block.shape[1]
            yield block
    except (av.FFmpegError, ValueError) as error:
        raise InvalidMedia(f"{clip.path} is damaged: its sound cannot be decoded ({error}).") from error
    while given < samples:
        silence = np.zeros((2, min(SILENCE, samples - given)), np.float32)
        given += silence.shape[1]
        yield silence


def _decoded(clip: MediaFacts) -> Iterator[Block]:
    """Gapless sound from the picture's first frame on; leading silence where it begins later."""
    if clip.audio is None:
        return
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
    path = f"file:{clip.path.absolute()}"
    with av.open(path, "r", format="mov", options={"protocol_whitelist": "file"}) as container:
        position = 0  # in samples of the source, from the picture's start
        for frame in container.decode(container.streams[clip.audio.index]):
            if not isinstance(frame, av.AudioFrame):
                raise InvalidMedia(f"{clip.path} changed while it was read.")
            # The decoder has dropped priming and what edit lists hide, and moved the times accordingly.
            start = position if frame.pts is None else _sample(frame, clip.video.start)
            tolerance = frame.sample_rate // 500  # coarse time bases jitter by up to a millisecond
            if start > position + tolerance:
                yield from _resampled(resampler, _silent_like(frame, start - position))
                position = start
            heard = frame if start >= position - tolerance else _without_start(frame, position - start)
            position += heard.samples
            if heard.samples:
                yield from _resampled(resampler, heard)
        yield from _resampled(resampler, None)


def _sample(frame: av.AudioFrame, picture_start: Fraction) -> int:
    time = (frame.pts or 0) * (frame.time_base or Fraction(1, frame.sample_rate)) - picture_start
    return round(time * frame.sample_rate)


def _like(frame: av.AudioFrame, data: NDArray[np.generic]) -> av.AudioFrame:
    new = av.AudioFrame.from_ndarray(data, format=frame.format.name, layout=frame.layout.name)  # type: ignore[arg-type]  # av lists dtypes
    new.sample_rate = frame.sample_rate
    return new


def _silent_like(frame: av.AudioFrame, samples: int) -> av.AudioFrame:
    data = frame.to_ndarray()
    # Planar: one row a channel. Packed: one row, channels interleaved.
    columns = samples * (data.shape[1] // frame.samples)
    return _like(frame, np.full((data.shape[0], columns), 128 if data.dtype == np.uint8 else 0, data.dtype))


def _without_start(frame: av.AudioFrame, samples: int) -> av.AudioFrame:
    data = frame.to_ndarray()
    return _like(frame, np.ascontiguousarray(data[:, samples * (data.shape[1] // frame.samples) :]))


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[Block]:
    if frame is not None:
        # Our own count of samples is the clock; times would make the resampler guess.
        frame.pts = None
    for made in resampler.resample(frame):
        if made is not None:
            yield made.to_ndarray().astype(np.float32, copy=False)


def _cut(blocks: Iterator[Block], samples: int) -> Iterator[Block]:
    left = samples
    for block in blocks:
        if left <= 0:
            return
        yield block[:, :left]
        left -= block.shape[1]


def _faded(blocks: Iterator[Block]) -> Iterator[Block]:
    """Fades the first and the last 5 ms; holds 5 ms back, as only the end tells which samples are the last."""
    ramp = (np.arange(FADE, dtype=np.float32) + 0.5) / FADE
    held = np.zeros((2, 0), np.float32)
    begun = 0
    for block in blocks:
        rising = ramp[begun : begun + block.shape[1]]
        begun += len(rising)
        held = np.concatenate((held, block[:, : len(rising)] * rising, block[:, len(rising) :]), axis=1)
        if held.shape[1] > FADE:
            yield held[:, :-FADE]
            held = held[:, -FADE:]
    if held.shape[1]:
        yield held * ramp[::-1][-held.shape[1] :].astype(np.float32)
