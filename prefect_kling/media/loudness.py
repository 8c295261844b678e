"""How loud the film is, and the one gain that brings it to its target (EBU R 128, ITU-R BS.1770)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.processes import run
from prefect_kling.media.timeline import SAMPLE_RATE

__all__ = ["Gain", "Loudness", "gain_for", "measure"]

QUIETEST = -60.0
"""LUFS: what is softer is noise, or silence, and not turned up."""
HIGHEST_PEAK = -1.0
"""dBTP of the finished film (EBU R 128)."""
# dB by which AAC may lift a peak, by how far peaks are above the loudness. Measured at 192 kb/s: speech, tones and
# drums 0.2, lone clicks and bursts 1.3; but clipped noise, which it codes with 8 dB of SNR, up to 4. Only what is as
# dense can be that; between the two, a target of -16 LUFS loses nothing by it.
LEAST_LIFT, MOST_LIFT, NO_LIFT_FROM = 1.0, 4.0, 15.0
# Seconds until ffmpeg is given up: at the start, and for each second of sound (measured: 0.003).
STARTING, SLOWEST = 60.0, 1.0
BYTES_A_SECOND = SAMPLE_RATE * 2 * 4
_SUMMARY = re.compile(
    r"Integrated loudness:\s+I:\s+(?P<loudness>\S+) LUFS.*True peak:\s+Peak:\s+(?P<peak>\S+) dBFS", re.DOTALL
)


@dataclass(frozen=True)
class Loudness:
    """A sound as measured: integrated loudness in LUFS (-70 for silence), true peak in dBTP (-inf for silence)."""

    integrated: float
    true_peak: float


@dataclass(frozen=True)
class Gain:
    """What a sound is turned up by in dB, negative for down, and what there is to say about it; empty for nothing."""

    db: float
    remark: str


async def measure(pcm: Path) -> Loudness:
    """Measures a raw sound (interleaved float32, stereo, 48 kHz) by ffmpeg's `ebur128`.

    Raises:
        InvalidMedia: it cannot be measured.
    """
    ended = await run(_command(pcm), timeout=STARTING + SLOWEST * _seconds(pcm))
    found = _SUMMARY.search(ended.stderr)
    if ended.status or found is None:
        raise InvalidMedia(f"The film's loudness cannot be measured: ffmpeg {ended.why}")
    return Loudness(float(found["loudness"]), float(found["peak"]))


def _seconds(pcm: Path) -> float:
    return pcm.stat().st_size / BYTES_A_SECOND


def _command(pcm: Path) -> list[str]:
    sound = ffmpeg.input(f"file:{pcm.absolute()}", format="f32le", ar=SAMPLE_RATE, ac=2, protocol_whitelist="file")
    measured = sound.filter("ebur128", peak="true", framelog="quiet").output("-", format="null")
    # Without -xerror a sound that cannot be read is one that ends there.
    everywhere = ("-nostdin", "-hide_banner", "-nostats", "-xerror")
    command: list[str] = ffmpeg.compile(measured.global_args(*everywhere), cmd=imageio_ffmpeg.get_ffmpeg_exe())
    return command


def gain_for(loudness: Loudness, target: float | None) -> Gain:
    """The gain that brings a sound to its target, as far as its peaks allow. Pure.

    Args:
        loudness: as measured.
        target: LUFS; None leaves the level as it is.
    """
    if target is None:
        return Gain(0.0, "")
    above = loudness.true_peak - loudness.integrated
    lift = min(max(NO_LIFT_FROM - above, LEAST_LIFT), MOST_LIFT)
    wanted, most = target - loudness.integrated, HIGHEST_PEAK - lift - loudness.true_peak
    if loudness.integrated < QUIETEST:
        if most >= 0:
            return Gain(0.0, f"The sound is at {loudness.integrated:.1f} LUFS, next to silence, and is left as it is.")
        wanted = 0.0  # too short, or too seldom loud, for a loudness; its peaks count all the same
    if wanted <= most:
        return Gain(wanted, "")
    reached = loudness.integrated + most
    return Gain(
        most,
        f"The sound is brought to {reached:.1f} LUFS, not {target:g}: its peaks would pass {HIGHEST_PEAK:g} dBTP.",
    )
