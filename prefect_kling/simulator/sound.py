"""The sound of a clip: a quiet chord whose pitch comes from the prompt. Pure."""

from __future__ import annotations

import numpy as np

from prefect_kling.simulator.planes import Floats

__all__ = ["chord", "silence"]

# A pentatonic scale never sounds wrong beside another clip's chord.
SCALE = (0, 2, 4, 7, 9)
CHORD = ((1.0, 0.5), (1.5, 0.28), (2.0, 0.16), (2.5, 0.1), (3.0, 0.05))
FADE_SECONDS = 0.06


def chord(chance: np.random.Generator, seconds: float, rate: int) -> Floats:
    """Stereo samples of shape (2, n), float32, peaking near 0.35."""
    root = 130.81 * 2 ** (SCALE[int(chance.integers(len(SCALE)))] / 12)
    t = np.arange(round(seconds * rate), dtype=np.float32) / rate
    channels = []
    for side in (-1, 1):
        channel = np.zeros_like(t)
        for n, (ratio, level) in enumerate(CHORD):
            # A few cents apart on either side, and a slow swell: wide and alive instead of a test tone.
            pitch = root * ratio * (1 + side * 0.0007)
            swell = 0.75 + 0.25 * np.sin(2 * np.pi * (0.11 + 0.05 * n) * t + n + side)
            channel += level * swell * np.sin(2 * np.pi * pitch * t + chance.uniform(0, 6.28))
        channels.append(channel)
    edge = np.clip(np.minimum(t, t[::-1]) / FADE_SECONDS, 0, 1) if t.size else t
    return (0.32 * np.stack(channels) * edge).astype(np.float32)


def silence(seconds: float, rate: int) -> Floats:
    """Stereo samples of nothing."""
    return np.zeros((2, round(seconds * rate)), np.float32)
