"""Opens a clip as MOV/MP4 and nothing else, or a sound file as one of a few formats, or says why not."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

__all__ = [
    "ANY_TITLES",
    "AUDIO_CODECS",
    "VIDEO_CODECS",
    "Limits",
    "Refused",
    "Task",
    "Unwritable",
    "open_clip",
    "open_sound",
    "regular_file_size",
]

Limits: TypeAlias = Mapping[str, Any]
"""What a clip may cost: the fields of `ProbeLimits`."""
Task: TypeAlias = Mapping[str, Any]
"""What is asked of one clip: its `path`, its `limits`, and what its job needs to know."""

# Fewer decoders, less to attack. Everything a phone, a browser, an editor or a generator puts into an MP4 is here.
VIDEO_CODECS = ("h264", "hevc", "av1", "libdav1d", "vp9", "mpeg4", "prores")
AUDIO_CODECS = ("aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac", "pcm_s16le", "pcm_s24le")

# What music and narration come as, by ffmpeg's names. No playlists: they name other files, and addresses.
SOUND_FORMATS = ("mp3", "wav", "flac", "ogg", "mov", "aac")
SOUND_CODECS = (
    *AUDIO_CODECS,
    "vorbis",
    "libvorbis",
    "pcm_u8",
    "pcm_mulaw",
    "pcm_alaw",
    "pcm_s32le",
    "pcm_f32le",
    "pcm_s16be",
    "pcm_s24be",
)
READABLE_SOUNDS = "mp3, wav, flac, ogg, opus, aac, m4a, mp4 and mov can"

# A title may be in any encoding, which is no reason to refuse a clip; from av 19 on it is none by itself.
ANY_TITLES: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


class Refused(Exception):
    """Why a clip is not taken: the end of a sentence that begins with its name."""


class Unwritable(Exception):
    """The image cannot be written, which is nobody's fault but the disk's; carries the system's error number."""


def open_clip(path: str, limits: Limits) -> tuple[InputContainer, VideoStream, int]:
    """Opens a clip as MOV/MP4 and nothing else; its one video track and its size in bytes come with it."""
    size = checked_size(path, limits)
    check_boxes(path, size)
    options = {
        "protocol_whitelist": "file",
        "codec_whitelist": ",".join(VIDEO_CODECS + AUDIO_CODECS),
        "max_pixels": str(limits["pixels"]),
    }
    try:
        # Always an absolute file: address, as "concat:a|b.mp4" or "-y.mp4" would mean something else to ffmpeg.
        container = av.open(f"file:{path}", "r", format="mov", options=options, **ANY_TITLES)
    except av.FFmpegError as error:
        raise Refused(f"is not a readable MP4: {error.strerror}") from error
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if len(pictures) != 1:
        raise Refused(f"has {len(pictures) or 'no'} video tracks; exactly one is needed")
    video = pictures[0]
    if video.codec_context is None or video.codec_context.name not in VIDEO_CODECS:
        known = f" ({video.name})" if video.codec_context else ""
        raise Refused(f"has a video track in a format that is not taken{known}")
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > limits["pixels"]:
        raise Refused(f"is {width}x{height} pixels; at most {limits['pixels']} in all are taken")
    if width < 2 or height < 2:
        raise Refused("has a picture without a size")
    claimed = (container.duration or 0) // av.time_base
    if claimed > limits["duration"]:
        raise Refused(f"says it is {claimed} s long; at most {limits['duration']} s are taken")
    # One thread: each more holds its own frames, and a clip is a few seconds long.
    video.codec_context.thread_count = 1
    # The container may lie about the size: the decoder must refuse what the stream itself says, too.
    video.codec_context.options = {"max_pixels": str(limits["pixels"])}
    return container, video, size


def open_sound(path: str, limits: Limits) -> tuple[InputContainer, AudioStream]:
    """Opens anything with sound in it; its first sound track comes with it."""
    checked_size(path, limits)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(SOUND_FORMATS),
        "codec_whitelist": ",".join(SOUND_CODECS),
    }
    try:
        container = av.open(f"file:{path}", "r", options=options, **ANY_TITLES)
    except av.FFmpegError as error:
        raise Refused(f"is no sound file that can be read; {READABLE_SOUNDS}") from error
    if not container.streams.audio:
        raise Refused("has no sound in it")
    stream = container.streams.audio[0]
    if stream.codec_context is None or stream.codec_context.name not in SOUND_CODECS:
        raise Refused("has sound in a format that is not taken")
    return container, stream


def checked_size(path: str, limits: Limits) -> int:
    """The size of a regular file that is neither empty nor too large."""
    size = regular_file_size(path)
    if size == 0:
        raise Refused("is empty")
    if size > limits["file_bytes"]:
        raise Refused(f"has {size} bytes; at most {limits['file_bytes']} are taken")
    return size


def regular_file_size(path: str) -> int:
    """The size of a regular file. Looking at a FIFO does not hang, at a device does nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        # Sockets and some devices cannot even be opened.
        special = error.errno in (errno.ENXIO, errno.ENODEV)
        raise Refused("is no regular file" if special else f"cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("is no regular file")
    return status.st_size


def check_boxes(path: str, size: int) -> None:
    """Walks the outermost boxes: a cut download or a web page is named as such, where ffmpeg says "invalid data"."""
    kinds: list[bytes] = []
    position = 0
    with open(path, "rb") as file:  # noqa: PTH123 - paths are text here, as they came
        while position + 8 <= size and len(kinds) < 10_000:
            file.seek(position)
            head = file.read(16)
            length, kind = struct.unpack(">I4s", head[:8])
            if not kinds and kind not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"):
                start = head.lstrip()[:8].lower()
                what = "a web page" if start.startswith((b"<!doc", b"<html", b"<?xml")) else "no MP4"
                raise Refused(f"is {what}, whatever its name says")
            if length == 1 and len(head) == 16:
                length = struct.unpack(">Q", head[8:])[0]
            if length == 0:
                length = size - position
            if length < 8:
                break
            if position + length > size and kind in (b"moov", b"mdat", b"moof"):
                end = position + length
                raise Refused(f"is cut off: its {kind.decode()} box ends at byte {end}, the file at byte {size}")
            kinds.append(kind)
            position += length
    if b"moov" not in kinds:
        raise Refused("is cut off or damaged: it has no moov box")
