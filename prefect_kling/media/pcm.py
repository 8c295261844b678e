"""Decoded sound on disk: raw interleaved float32, stereo, 48 kHz, so that any part of it can be read at any time.

It is decoded by confined children, as all files it comes from are untrusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.timeline import SAMPLE_RATE
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["SOUND_LIMITS", "Track", "decode_sound", "decode_track"]

SAMPLE_BYTES = 2 * 4
WORTH_A_CHILD = 40  # seconds of sound that take as long to decode as a child takes to start

SOUND_LIMITS = ProbeLimits(seconds=180.0, cpu_seconds=120)
"""What one sound may cost to decode; `output_bytes` follow from how long it may be."""


@dataclass(frozen=True)
class Track:
    """One sound.

    Attributes:
        path: its raw samples.
        samples: how many, per channel.
    """

    path: Path
    samples: int


async def decode_sound(
    clips: Sequence[MediaFacts], folder: Path, limits: ProbeLimits | None = None
) -> list[Track | None]:
    """Decodes each clip's sound from its first shown frame on; no fades, no padding behind its end.

    Priming and edit lists are honoured; what begins later than the picture gets silence before it, and what lasts
    longer is cut where the picture ends. All clips share a child, or two. Cancelling kills them.

    Args:
        clips: as probed; one may come twice.
        folder: where the sounds go, named by us; nothing else of ours is in it yet.
        limits: what each clip may cost.

    Returns:
        One `Track` per clip, in their order; None for those of which nothing is to be heard.

    Raises:
        InvalidMedia: a sound is broken, or a clip has changed since it was probed; the text names each and says why.
        OSError: the folder cannot be written.
    """
    heard = [clip for clip in {clip.path: clip for clip in clips}.values() if clip.audio is not None]
    outs = {clip.path: folder / f"clip{number}.f32" for number, clip in enumerate(heard)}
    lengths = {clip.path: math.ceil(clip.video.seconds * SAMPLE_RATE) for clip in heard}
    if heard:
        known = [
            {
                "out": str(outs[clip.path]),
                "bytes": clip.bytes,
                "stream": clip.audio.index if clip.audio else None,
                "start": str(clip.video.start),
                "samples": lengths[clip.path],
            }
            for clip in heard
        ]
        allowed = replace(limits or SOUND_LIMITS, output_bytes=max(lengths.values()) * SAMPLE_BYTES)
        two = sum(clip.seconds for clip in heard[1:]) > WORTH_A_CHILD
        paths = [clip.path for clip in heard]
        await ask("sound", paths, allowed, out=folder, each=known, children=2 if two else 1)
    tracks = {path: _track(out) for path, out in outs.items()}
    return [tracks.get(clip.path) for clip in clips]


async def decode_track(path: Path, folder: Path, *, longest: Fraction, limits: ProbeLimits | None = None) -> Track:
    """Decodes the sound of any file from its start: music or a narration.

    Taken are MP3, WAV, FLAC, Ogg (Vorbis, Opus, FLAC), AAC and MP4 or MOV with these or their usual sound in them;
    what a file refers to is not opened. What is no sound among it, such as tags behind the end, is stepped over.

    Args:
        path: the file.
        folder: where the sound goes, named by us; nothing else of ours is in it yet.
        longest: seconds that are wanted at most.
        limits: what it may cost.

    Raises:
        InvalidMedia: it is no such file, or broken; the text names it and says why.
        OSError: the folder cannot be written.
    """
    out, samples = folder / "track.f32", math.ceil(longest * SAMPLE_RATE)
    allowed = replace(limits or SOUND_LIMITS, output_bytes=samples * SAMPLE_BYTES)
    await ask("track", [path], allowed, out=out, samples=samples)
    return Track(out, out.stat().st_size // SAMPLE_BYTES)


def _track(out: Path) -> Track | None:
    samples = out.stat().st_size // SAMPLE_BYTES
    return Track(out, samples) if samples else None
