"""The film's sound as AAC, encoded in parts side by side that fit together like one.

An AAC encoder's packets hold 1,024 samples each and overlap by as many; what it made of earlier ones hardly matters
after a few. So a part begins some packets early, and these are dropped (measured: its seams are as exact as the rest).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.packet import Packet
from numpy.typing import NDArray

from prefect_kling.media.cancelling import Checkpoint
from prefect_kling.media.timeline import SAMPLE_RATE

__all__ = ["BIT_RATE", "OPTIONS", "encoded"]

BIT_RATE = 192_000
# Measured at 192 kb/s: at ffmpeg's own cutoff, 18 kHz, noise loses 1.5 LU, at 22 kHz 0.3; shaping noise in time (TNS)
# makes single peaks of clipped noise up to 6 dB higher than without; intensity stereo costs wide noise 4 dB of SNR.
OPTIONS = {"aac_coder": "fast", "cutoff": "22000", "aac_tns": "0", "aac_is": "0"}
"""How nearly all of it is coded; `aac_coder=twoloop`, ffmpeg's default, takes three times as long and is no better."""
TONE = 0.35
"""Amplitude of the loudest tone left to `fast`, which distorts a pure one from 0.45 on (measured: down to 8 dB SNR)."""
PACKET = 1024
WINDOW = np.hanning(2 * PACKET).astype(np.float32)
PART = 468
"""Packets in a part: about ten seconds."""
LEAD_IN = 4
LOOK_AHEAD = 2
MOST_THREADS = 4
FED = 16 * PACKET
"""Samples given to the encoder at once."""


def encoded(pcm: Path, gain_db: float, checkpoint: Checkpoint) -> list[Packet[Any]]:
    """The packets of a raw sound (interleaved float32, stereo, 48 kHz), in order; 24 kB a second.

    The first one begins 1,024 samples before the sound, as AAC's encoders do: MP4 hides that by an edit list. The last
    one ends with it. Threads work side by side, as encoding does not hold the interpreter's lock.

    Args:
        pcm: the sound.
        gain_db: what it is turned up by.
        checkpoint: called between parts; what it raises ends the threads.
    """
    total = pcm.stat().st_size // 8
    if not total:
        return []
    count = -(-total // PACKET) + 1
    gain = np.float32(10 ** (gain_db / 20))
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS), thread_name_prefix="aac")
    try:
        parts = [
            pool.submit(_part, pcm, total, gain, first, min(first + PART, count)) for first in range(0, count, PART)
        ]
        packets: list[Packet[Any]] = []
        for part in parts:
            checkpoint()
            packets += part.result()
        return packets
    finally:
        pool.shutdown(cancel_futures=True)


def _part(pcm: Path, total: int, gain: np.float32, first: int, last: int) -> list[Packet[Any]]:
    """Packets `first` to `last` of the whole sound, counted from the one that begins before it."""
    lead_in = min(LEAD_IN, first)
    begin, end = (first - lead_in) * PACKET, min((last + LOOK_AHEAD) * PACKET, total)
    # Read, not mapped: what is mapped of a long film counts as this process's memory.
    wave = np.fromfile(pcm, np.float32, count=2 * (end - begin), offset=8 * begin).reshape(-1, 2) * gain
    coder = _coder({**OPTIONS, "aac_coder": "twoloop"} if _piercing(wave) else OPTIONS)
    made: list[Packet[Any]] = []
    for position in range(0, len(wave), FED):
        block = np.ascontiguousarray(wave[position : position + FED].T)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), position
        made += coder.encode(frame)
    made += coder.encode(None)
    packets = made[lead_in : lead_in + last - first]
    for number, packet in enumerate(packets, first):
        packet.pts = packet.dts = (number - 1) * PACKET
        packet.time_base = Fraction(1, SAMPLE_RATE)
        packet.duration = min(PACKET, total - packet.pts)
    return packets


def _piercing(wave: NDArray[np.float32]) -> bool:
    """Whether a single tone is louder than `TONE` somewhere in these samples."""
    for position in range(0, len(wave) - len(WINDOW) + 1, FED):
        block = wave[position : position + FED + PACKET].T
        power = np.lib.stride_tricks.sliding_window_view(np.square(block), len(WINDOW), axis=1)[:, ::PACKET] @ WINDOW
        windows = np.lib.stride_tricks.sliding_window_view(block, len(WINDOW), axis=1)[:, ::PACKET]
        # A window has no less power than the tone in it, and few have as much.
        strong = windows[power > TONE**2 / 2 * WINDOW.sum()]
        if len(strong) and np.abs(np.fft.rfft(strong * WINDOW)).max() > TONE * WINDOW.sum() / 2:
            return True
    return False


def _coder(options: dict[str, str]) -> AudioCodecContext:
    coder = av.CodecContext.create("aac", "w")
    assert isinstance(coder, AudioCodecContext)  # noqa: S101 - for the type checker; aac is sound
    coder.sample_rate, coder.layout, coder.format = SAMPLE_RATE, "stereo", "fltp"
    coder.bit_rate, coder.options = BIT_RATE, dict(options)
    return coder
