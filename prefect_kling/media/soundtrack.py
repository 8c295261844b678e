"""The film's sound: its clips' laid out in a row, mixed with music and voices, measured, and its gain known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from prefect_kling.media.cancelling import in_thread
from prefect_kling.media.cut import Cut
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.loudness import Gain, Loudness, gain_for, measure
from prefect_kling.media.mix import mix
from prefect_kling.media.pcm import Track, decode_track
from prefect_kling.media.programme import write_programme
from prefect_kling.media.room import CuttingRoom
from prefect_kling.media.timeline import SAMPLE_RATE, Timeline, samples

__all__ = ["Soundtrack", "soundtrack"]


@dataclass(frozen=True)
class Soundtrack:
    """The film's sound before its gain.

    Attributes:
        pcm: raw interleaved float32, stereo, 48 kHz, as long as the film.
        loudness: as measured.
        gain: what it is turned up by, and why.
        lengths: seconds of the music and of each narration, as far as the film goes, by their paths.
    """

    pcm: Path
    loudness: Loudness
    gain: Gain
    lengths: Mapping[Path, Fraction] = field(default_factory=dict)


async def soundtrack(timeline: Timeline, cut: Cut, room: CuttingRoom) -> Soundtrack | None:
    """Makes the film's sound in the room's folder; None where nothing is to be heard.

    Raises:
        InvalidMedia: a clip's sound, the music or a narration cannot be decoded.
        OSError: the folder cannot be written.
    """
    tracks = await _clip_tracks(timeline, cut, room)
    voices, lengths = await _narrations(timeline, room)
    if not any(tracks) and not voices and cut.music is None:
        return None
    programme: Path | None = None
    if any(tracks):
        programme = room.new_file(".f32")
        await in_thread(lambda checkpoint: write_programme(timeline, tracks, programme, checkpoint))
    pcm = programme
    if voices or cut.music is not None or pcm is None:
        pcm = room.new_file(".f32")
        bed = None
        if cut.music is not None:
            bed = await decode_track(cut.music.path, room.new_folder(), longest=timeline.seconds)
            lengths[cut.music.path] = timeline.seconds if cut.music.loop else _seconds(bed)
        await mix(programme, samples(timeline.frames, timeline.rate), cut.music, bed, voices, pcm)
    loudness = await measure(pcm)
    return Soundtrack(pcm, loudness, gain_for(loudness, cut.loudness), lengths)


async def _clip_tracks(timeline: Timeline, cut: Cut, room: CuttingRoom) -> Sequence[Track | None]:
    clips = [scene.source for scene in timeline.scenes if isinstance(scene.source, MediaFacts)]
    heard = dict(zip((clip.path for clip in clips), await room.tracks(clips), strict=True)) if cut.sound else {}
    return [heard.get(scene.source.path) if isinstance(scene.source, MediaFacts) else None for scene in timeline.scenes]


async def _narrations(timeline: Timeline, room: CuttingRoom) -> tuple[list[tuple[Track, int]], dict[Path, Fraction]]:
    """Each narration with the film's sample at which it begins; how many seconds of each file are heard."""
    voices, lengths = [], {}
    for scene in timeline.scenes:
        if scene.narration is not None:
            left = timeline.seconds - scene.start / timeline.rate
            track = await decode_track(scene.narration, room.new_folder(), longest=left)
            voices.append((track, samples(scene.start, timeline.rate)))
            lengths[scene.narration] = _seconds(track)
    return voices, lengths


def _seconds(track: Track) -> Fraction:
    return Fraction(track.samples, SAMPLE_RATE)
