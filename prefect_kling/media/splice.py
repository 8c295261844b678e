"""Writes the film: coded picture copied packet by packet, and one continuous sound track made anew.

Offsets advance by frame count, never by a container's duration: sound tracks are longer or shorter than their picture,
and durations are rounded; 19 joins by ffmpeg's concat demuxer gave 19 disordered timestamps and 38 gaps in the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import aac
from prefect_kling.media.cancelling import Checkpoint
from prefect_kling.media.confined.opening import ANY_TITLES
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.timeline import SAMPLE_RATE, Timeline

__all__ = ["splice"]

# Edit lists are counted in the movie's own ticks, and a thousandth of a second, the default, is no whole frame.
CONTAINER_OPTIONS = {"movflags": "+faststart", "movie_timescale": "90000"}


def splice(
    pictures: Sequence[MediaFacts],
    timeline: Timeline,
    sound: Path | None,
    gain_db: float,
    text: Path | None,
    out: Path,
    checkpoint: Checkpoint,
    on_frames: Callable[[int], None],
) -> None:
    """Writes the film into `out`. Blocking; memory does not grow with the number of clips.

    Args:
        pictures: clips with equal copy keys (but for the delay), safe to splice; in a row they are the film's picture.
        timeline: where everything lies in the film; its chapters, and as many frames as `pictures`.
        sound: the film's sound, raw interleaved float32, stereo, 48 kHz, as long as the picture; None for none.
        gain_db: what the sound is turned up by.
        text: a file with the captions' track in it; None for none.
        out: the work file.
        checkpoint: called between packets.
        on_frames: called with the number of frames written so far.

    Raises:
        InvalidMedia: a clip changed since it was probed.
        OSError: the film cannot be written.
    """
    try:
        with ExitStack() as stack:
            _splice(pictures, timeline, sound, gain_db, text, out, checkpoint, on_frames, stack)
    except av.FFmpegError as error:
        # Whatever reading raised is InvalidMedia by now; what is left comes from the muxer and the encoder.
        raise OSError(error.errno, f"The film cannot be written: {error.strerror}") from error


def _splice(
    pictures: Sequence[MediaFacts],
    timeline: Timeline,
    sound: Path | None,
    gain_db: float,
    text: Path | None,
    out: Path,
    checkpoint: Checkpoint,
    on_frames: Callable[[int], None],
    stack: ExitStack,
) -> None:
    rate = timeline.rate
    film = stack.enter_context(av.open(f"file:{out}", "w", format="mp4", container_options=CONTAINER_OPTIONS))
    track = _picture_track(film, stack.enter_context(_opened(pictures[0])), pictures[0])
    # What lies beside the picture, each in the order of its time: a stream's packets, and when the next one begins.
    beside: list[_Beside] = []
    if sound is not None:
        heard = film.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", format="fltp", options=dict(aac.OPTIONS))
        heard.bit_rate = aac.BIT_RATE
        # All of it first, at 24 kB a second: threads that encode while this one muxes keep it waiting for its turn.
        beside.append(_Beside(heard, iter(aac.encoded(sound, gain_db, checkpoint))))
    if text is not None:
        words = stack.enter_context(av.open(f"file:{text}", "r", format="mov"))
        source = words.streams.subtitles[0]
        copied = (packet for packet in words.demux(source) if packet.pts is not None)
        beside.append(_Beside(film.add_stream_from_template(source, opaque=True), copied))
    film.set_chapters(
        [
            {"id": n, "start": c.start, "end": c.end, "time_base": 1 / rate, "metadata": {"title": c.title}}
            for n, c in enumerate(timeline.chapters)
        ]
    )
    for shown, packet in enumerate(_film_packets(pictures), 1):
        checkpoint()
        packet.stream = track
        film.mux(packet)
        # The rest comes only as far as the picture is: the muxer would keep in memory whichever runs ahead.
        for other in beside:
            other.mux_until(film, shown / rate)
        on_frames(shown)
    for other in beside:
        other.mux_until(film, None)


class _Beside:
    """One stream beside the picture: its packets, each muxed when the picture has come so far."""

    def __init__(self, stream: Stream, packets: Iterator[Packet[Any]]) -> None:
        self.stream, self.packets = stream, packets
        self.next = next(packets, None)

    def mux_until(self, film: OutputContainer, seconds: Fraction | None) -> None:
        """Muxes what begins before that time; None for all that is left."""
        while self.next is not None and (seconds is None or _begins(self.next) < seconds):
            self.next.stream = self.stream
            film.mux(self.next)
            self.next = next(self.packets, None)


def _opened(clip: MediaFacts) -> InputContainer:
    try:
        size = clip.path.stat().st_size
        options = {"protocol_whitelist": "file"}
        found: InputContainer = av.open(
            f"file:{clip.path.absolute()}", "r", format="mov", options=options, **ANY_TITLES
        )
    except (av.FFmpegError, OSError) as error:
        raise _changed(clip, error.strerror or "unreadable") from error
    if size != clip.bytes:
        found.close()
        raise _changed(clip, f"it has {size} bytes instead of {clip.bytes}")
    return found


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


def _begins(packet: Packet[Any]) -> Fraction:
    return (packet.pts or 0) * (packet.time_base or Fraction(0))
