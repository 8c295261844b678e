"""Decodes sound into raw files: interleaved float32, stereo, 48 kHz. Its length costs no memory.

Works on bytes of samples without numpy, whose import costs a child as much as decoding a minute of sound does.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from io import FileIO
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from prefect_kling.media.confined.opening import AUDIO_CODECS, Refused, Task, Unwritable, open_clip, open_sound

__all__ = ["sound", "track"]

RATE = 48_000
SAMPLE_BYTES = 2 * 4
SILENCE = 4096  # samples of the source that are made at once
MOST_SPOILED = 10  # of a track's packets, one in so many may be no sound: tags behind it, a cut end


def sound(path: str, task: Task) -> dict[str, Any]:
    """Writes a clip's sound, from its first shown frame on, into `out`.

    What the picture's start cuts off is dropped, and where the sound begins later there is silence. It ends with the
    picture or before.

    Args:
        path: the clip.
        task: `bytes`: its size when it was probed; `stream`: its sound track's number; `start`: seconds at which its
            first frame is shown; `samples`: how many there are at most.
    """
    container, _, size = open_clip(path, task["limits"])
    with container:
        if size != task["bytes"]:
            raise Refused(f"has changed: it had {task['bytes']} bytes when it was probed, and now has {size}")
        stream = container.streams[task["stream"]] if task["stream"] < len(container.streams) else None
        if not isinstance(stream, AudioStream) or stream.codec_context.name not in AUDIO_CODECS:
            raise Refused("changed while it was read")
        stream.codec_context.thread_count = 1
        frames = (frame for packet in container.demux(stream) for frame in heard(packet))
        write(resampled(aligned(frames, Fraction(task["start"]))), task["out"], task["samples"])
    return {}


def track(path: str, task: Task) -> dict[str, Any]:
    """Writes the sound of any file from its start into `out`.

    Args:
        path: the file.
        task: `samples`: how many are wanted at most.
    """
    container, stream = open_sound(path, task["limits"])
    with container:
        stream.codec_context.thread_count = 1
        if not write(resampled(playable(container.demux(stream))), task["out"], task["samples"]):
            raise Refused("has no sound in it that can be decoded")
    return {}


def heard(packet: Packet[AudioStream]) -> list[AudioFrame]:
    """The sound that a packet completes."""
    try:
        frames: list[AudioFrame] = packet.decode()
    except av.EOFError:
        return []
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise Refused(f"is damaged: its sound cannot be decoded ({getattr(error, 'strerror', error)})") from error
    return frames


def playable(packets: Iterable[Packet[AudioStream]]) -> Iterator[AudioFrame]:
    """All the sound there is; as in a player, what is no sound among it is stepped over, unless it is too much."""
    spoiled = 0
    for read, packet in enumerate(packets, 1):
        try:
            yield from heard(packet)
        except Refused:
            spoiled += 1
            if spoiled > 2 and spoiled * MOST_SPOILED > read:
                raise


def aligned(frames: Iterable[AudioFrame], picture_start: Fraction) -> Iterator[AudioFrame]:
    """Gapless sound from the picture's first frame on; leading silence where it begins later."""
    position, rate = 0, 0  # in samples of the source, from the picture's start
    for frame in frames:
        if frame.sample_rate != rate:
            position = round(position * Fraction(frame.sample_rate, rate)) if rate else 0
            rate = frame.sample_rate
        # The decoder has dropped priming and what edit lists hide, and moved the times accordingly.
        start = position
        if frame.pts is not None:
            time = frame.pts * (frame.time_base or Fraction(1, frame.sample_rate)) - picture_start
            start = round(time * frame.sample_rate)
        tolerance = frame.sample_rate // 500  # coarse time bases jitter by up to a millisecond
        if start > position + tolerance:
            yield from silence_like(frame, start - position)
            position = start
        early = position - start if start < position - tolerance else 0
        if early < frame.samples:
            position += frame.samples - early
            yield without_start(frame, early) if early else frame


def silence_like(frame: AudioFrame, samples: int) -> Iterator[AudioFrame]:
    """So many samples of silence, in pieces, as what the header says may be hours."""
    zero = b"\x80" if frame.format.name in ("u8", "u8p") else b"\0"
    for done in range(0, samples, SILENCE):
        count = min(SILENCE, samples - done)
        yield made_like(frame, [zero * (count * sample_bytes(frame))] * len(frame.planes), count)


def without_start(frame: AudioFrame, samples: int) -> AudioFrame:
    """What is left of a frame behind its first samples."""
    first, last = samples * sample_bytes(frame), frame.samples * sample_bytes(frame)
    return made_like(frame, [bytes(plane)[first:last] for plane in frame.planes], frame.samples - samples)


def made_like(frame: AudioFrame, planes: list[bytes], samples: int) -> AudioFrame:
    """A new frame in the form of another."""
    new = AudioFrame(format=frame.format.name, layout=frame.layout.name, samples=samples)
    new.sample_rate = frame.sample_rate
    for plane, data in zip(new.planes, planes, strict=True):
        plane.update(data.ljust(plane.buffer_size, b"\0"))
    return new


def sample_bytes(frame: AudioFrame) -> int:
    """Bytes of one sample in one plane: of one channel, or of all of them interleaved."""
    return frame.format.bytes * (1 if frame.format.is_planar else frame.layout.nb_channels)


def resampled(frames: Iterable[AudioFrame]) -> Iterator[bytes]:
    """The sound as it is written: stereo, 48 kHz, whatever it was, even where it changes on its way."""
    for _, alike in itertools.groupby(frames, form):
        resampler = AudioResampler(format="flt", layout="stereo", rate=RATE)
        for frame in itertools.chain(alike, [None]):
            if frame is not None:
                # Our own count of samples is the clock; times would make the resampler guess.
                frame.pts = None
            try:
                ready = resampler.resample(frame)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError, OSError) as error:
                raise Refused(f"has sound that cannot be converted ({getattr(error, 'strerror', error)})") from error
            for block in ready:
                yield bytes(block.planes[0])[: block.samples * SAMPLE_BYTES]


def form(frame: AudioFrame) -> tuple[str, str, int]:
    """What a resampler is made for: MP3s in one file, or AAC that finds its upper band late, go on in another."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def write(blocks: Iterable[bytes], out: str, samples: int) -> int:
    """Writes at most so many samples; how many bytes it were."""
    left = samples * SAMPLE_BYTES
    with created(out) as file:
        for block in blocks:
            append(file, block[:left])
            left -= min(len(block), left)
            if not left:
                break
    return samples * SAMPLE_BYTES - left


def created(out: str) -> FileIO:
    """A new file, without a buffer: one that cannot be written would raise once more when it is closed."""
    try:
        return FileIO(out, "w")
    except OSError as error:
        raise Unwritable(error.errno or errno.EIO) from error


def append(file: FileIO, data: bytes) -> None:
    """Writes all of it."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise Unwritable(error.errno or errno.EIO) from error
