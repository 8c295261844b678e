"""Writes the film: coded picture copied packet by packet, and one continuous sound track made anew.

Offsets advance by frame count, never by a container's duration: sound tracks are longer or shorter than their picture,
and durations are rounded; 19 joins by ffmpeg's concat demuxer gave 19 disordered timestamps and 38 gaps in the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cancelling import Checkpoint
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.sound import SAMPLE_RATE, Block, clip_sound

__all__ = ["Chapter", "Scene", "splice"]

SOUND_BIT_RATE = 192_000
# The default coder, twoloop, takes three times as long; measured at 192 kb/s on tones, fast is the better of the two.
SOUND_OPTIONS = {"aac_coder": "fast"}
# Edit lists are counted in the movie's own ticks, and a thousandth of a second, the default, is no whole frame.
CONTAINER_OPTIONS = {"movflags": "+faststart", "movie_timescale": "90000"}


@dataclass(frozen=True)
class Chapter:
    """Where a shot lies in the film: its title, and its first frame and the one after its last, in frames."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Scene:
    """A clip as it is heard in the film.

    Attributes:
        clip: where its sound comes from.
        title: of its chapter.
        frames: how many frames of the film it takes.
    """

    clip: MediaFacts
    title: str
    frames: int


def splice(
    pictures: Sequence[MediaFacts],
    scenes: Sequence[Scene],
    out: Path,
    checkpoint: Checkpoint,
    on_frames: Callable[[int], None],
) -> tuple[Chapter, ...]:
    """Writes the film into `out`. Blocking; memory does not grow with the number of clips.

    Args:
        pictures: clips with equal copy keys (but for the delay), safe to splice; in a row they are the film's picture.
        scenes: whose sounds in a row are the film's, and whose titles are its chapters. As many frames as `pictures`.
        out: the work file.
        checkpoint: called between packets.
        on_frames: called with the number of frames written so far.

    Returns:
        The chapters.

    Raises:
        InvalidMedia: a clip changed since it was probed, or its sound cannot be decoded.
        OSError: the film cannot be written.
    """
    chapters = _chapters(scenes)
    try:
        _splice(pictures, scenes, chapters, out, checkpoint, on_frames)
    except av.FFmpegError as error:
        # Whatever reading raised is InvalidMedia by now; what is left comes from the muxer and the encoder.
        raise OSError(error.errno, f"The film cannot be written: {error.strerror}") from error
    return chapters


def _splice(
    pictures: Sequence[MediaFacts],
    scenes: Sequence[Scene],
    chapters: Sequence[Chapter],
    out: Path,
    checkpoint: Checkpoint,
    on_frames: Callable[[int], None],
) -> None:
    rate = pictures[0].video.frame_rate
    with ExitStack() as stack:
        film = stack.enter_context(av.open(f"file:{out}", "w", format="mp4", container_options=CONTAINER_OPTIONS))
        template = stack.enter_context(_opened(pictures[0]))
        track = _picture_track(film, template, pictures[0])
        sound: AudioStream | None = None
        blocks: Iterator[Block] = iter(())
        if any(scene.clip.audio for scene in scenes):
            sound = film.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", format="fltp", options=SOUND_OPTIONS)
            sound.bit_rate = SOUND_BIT_RATE
            blocks = stack.enter_context(closing(_film_sound(scenes, rate)))
        film.set_chapters(
            [
                {"id": n, "start": c.start, "end": c.end, "time_base": 1 / rate, "metadata": {"title": c.title}}
                for n, c in enumerate(chapters)
            ]
        )
        heard = 0
        for shown, packet in enumerate(_film_packets(pictures), 1):
            checkpoint()
            packet.stream = track
            film.mux(packet)
            # Sound is made only as far as the picture is: the muxer would keep in memory whichever runs ahead.
            while sound is not None and heard * rate < shown * SAMPLE_RATE:
                block = next(blocks, None)
                if block is None:
                    break
                film.mux(_encoded(sound, block, heard))
                heard += block.shape[1]
            on_frames(shown)
        if sound is not None:
            film.mux(sound.encode(None))


def _chapters(scenes: Sequence[Scene]) -> tuple[Chapter, ...]:
    chapters, start = [], 0
    for scene in scenes:
        chapters.append(Chapter(scene.title, start, start + scene.frames))
        start += scene.frames
    return tuple(chapters)


def _opened(clip: MediaFacts) -> InputContainer:
    try:
        return av.open(f"file:{clip.path.absolute()}", "r", format="mov", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise _changed(clip, error.strerror or "unreadable") from error


def _changed(clip: MediaFacts, how: str) -> InvalidMedia:
    return InvalidMedia(f"{clip.path} changed since it was probed: {how}.")


def _picture_track(film: OutputContainer, template: InputContainer, clip: MediaFacts) -> VideoStream:
    source = template.streams[clip.video.index]
    if not isinstance(source, VideoStream):
        raise _changed(clip, "its tracks are others")
    # opaque: parameters are taken over as they are, no encoder of that name has to exist.
    track = film.add_stream_from_template(source, opaque=True)
    if clip.video.codec == "hevc":
        # PyAV's template drops the tag and the muxer then writes hev1, which Apple's players refuse.
        track.codec_context.codec_tag = "hvc1"
    return track


def _film_packets(pictures: Sequence[MediaFacts]) -> Iterator[Packet[Any]]:
    """All pictures' packets on one clock, counted in frames."""
    before, delay = 0, max(clip.video.delay for clip in pictures)
    for clip in pictures:
        video = clip.video
        step = 1 / (video.frame_rate * video.time_base)
        if step.denominator != 1:
            raise InvalidMedia(f"{clip.path} cannot be spliced: its frames do not lie on its own clock.")
        ticks, count = int(step), 0
        with _opened(clip) as container:
            for packet in _coded(container, clip):
                packet.pts += before * ticks
                # Decoding may always begin earlier, and has to where the clip before needs more time for reordering.
                packet.dts += before * ticks - (delay - video.delay)
                packet.duration = ticks
                count += 1
                yield packet
        if count != video.frames:
            raise _changed(clip, f"it has {count} frames instead of {video.frames}")
        before += count


def _coded(container: InputContainer, clip: MediaFacts) -> Iterator[Any]:
    """The picture's packets, less the empty one that ends the stream."""
    try:
        for packet in container.demux(container.streams[clip.video.index]):
            if packet.pts is not None and packet.dts is not None:
                yield packet
    except av.FFmpegError as error:
        raise _changed(clip, error.strerror or "unreadable") from error


def _film_sound(scenes: Sequence[Scene], rate: Fraction) -> Generator[Block, None, None]:
    start = 0
    for scene in scenes:
        # Each boundary is rounded by itself, from the film's start: rounding each length would add up.
        first, end = (round(frames * SAMPLE_RATE / rate) for frames in (start, start + scene.frames))
        yield from clip_sound(scene.clip, end - first)
        start += scene.frames


def _encoded(sound: AudioStream, block: Block, position: int) -> list[Packet[Any]]:
    frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
    frame.sample_rate = SAMPLE_RATE
    frame.time_base = Fraction(1, SAMPLE_RATE)
    frame.pts = position
    return sound.encode(frame)
