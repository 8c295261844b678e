"""Everything that opens a file nobody has vouched for; run by path as a process of its own, never imported.

Imports only the standard library, av and Pillow: this package would bring Prefect, which costs seconds. It reads one
JSON job from standard input and writes one JSON line per clip to standard output, as soon as that clip is done:

    {"job": "probe", "clips": ["/a.mp4", …], "limits": {…}}           → {"clip": 0, "found": {facts}}
    {"job": "last-frame", "clips": ["/a.mp4"], "out": "/x", "limits"} → {"clip": 0, "found": {"suffix", "width", …}}
    {"job": "frame", …, "position": 512}: the frame at that time      → {"clip": 0, "found": {"suffix", "width", …}}
    {"job": "lumas", "clips": ["/a.mp4"], "limits"}: of its end       → {"clip": 0, "found": {"rate", "lumas"}}
    {"job": "fit", "clips": ["/a.webp"], "out": "/x", "limits"}       → {"clip": 0, "found": {"suffix", "width", …}}
                                                                    or → {"clip": 0, "refused": "why, in words"}
                                                                    or → {"clip": 0, "unwritable": errno}

A clip that exhausts a limit inside a decoder ends this process; the line that is missing says which clip it was.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Fewer decoders, less to attack. Everything a phone, a browser, an editor or a generator puts into an MP4 is here.
VIDEO_CODECS = ("h264", "hevc", "av1", "libdav1d", "vp9", "mpeg4", "prores")
AUDIO_CODECS = ("aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac", "pcm_s16le", "pcm_s24le")
# NAL unit types: ITU-T H.264 table 7-1, H.265 table 7-1.
IDR = {"h264": {5}, "hevc": {19, 20}}
PARAMETER_SETS = {"h264": {7, 8, 13, 15}, "hevc": {32, 33, 34}}
NEW_SAMPLE_ENTRY = -1  # our own mark, among those types, for a packet that begins another sample entry
# The eight ways in which a display matrix can turn and flip (the signs of a, b, c, d): mirrored first, then turned
# clockwise.
ORIENTATIONS = {
    (1, 0, 0, 1): (False, 0),
    (0, 1, -1, 0): (False, 90),
    (-1, 0, 0, -1): (False, 180),
    (0, -1, 1, 0): (False, 270),
    (-1, 0, 0, 1): (True, 0),
    (0, -1, -1, 0): (True, 90),
    (1, 0, 0, -1): (True, 180),
    (0, 1, 1, 0): (True, 270),
}
BEGINNING = -1 << 40  # ticks, before any clip's first
LONGEST_END = 16  # seconds: the longest clip there is, and more than any fade
# gateway.md: an image sent to the gateway has at most 10 MB, and sides of at least 300 pixels.
MOST_IMAGE_BYTES = 10 * 1024 * 1024
LEAST_SIDE = 300
LONGEST_SIDE = 4096  # of an image that is made anew; twice what the largest clip has
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # no EPS: reading one runs a program
READABLE = "JPEG, PNG, WebP, BMP, TIFF and GIF"
MOST_OUTPUT_BYTES = 256 * 1024 * 1024


class Refused(Exception):
    """Why a clip is not taken: the end of a sentence that begins with its name."""


class Unwritable(Exception):
    """The image cannot be written, which is nobody's fault but the disk's; carries the system's error number."""


def main() -> None:
    """Does the job that standard input describes."""
    job = json.load(sys.stdin)
    limits = job["limits"]
    confine(limits)
    for number, path in enumerate(job["clips"]):
        start_clock(limits)
        try:
            answer = {"clip": number, "found": done(job, path)}
        except Refused as refusal:
            answer = {"clip": number, "refused": str(refusal)}
        except Unwritable as failure:
            answer = {"clip": number, "unwritable": failure.args[0]}
        except MemoryError:
            answer = {"clip": number, "refused": f"needs more than {limits['memory'] // 2**20} MB of memory"}
        except (av.FFmpegError, OSError) as error:
            answer = {"clip": number, "refused": f"cannot be read: {error.strerror or error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def done(job: dict[str, Any], path: str) -> dict[str, Any]:
    """What the job finds in one file."""
    limits, out = job["limits"], job["out"]
    match job["job"]:
        case "probe":
            return facts(path, limits)
        case "last-frame":
            return last_frame(path, out, limits)
        case "frame":
            return one_frame(path, out, limits, job["position"])
        case "lumas":
            return lumas(path, limits)
        case "fit":
            return fit(path, out, limits)
    raise ValueError(f"there is no job {job['job']}")


def confine(limits: dict[str, Any]) -> None:
    """Takes away what no honest clip needs, before the first byte of one is read."""
    av.logging.set_level(None)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, MOST_OUTPUT_BYTES)
    if sys.platform == "linux":  # macOS refuses to limit the address space; the other limits hold there too
        lower(resource.RLIMIT_AS, limits["memory"])


def lower(what: int, most: int) -> None:
    """Sets a limit of this process, unless the one it was born with is lower already."""
    set_by_others = [limit for limit in resource.getrlimit(what) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min([most, *set_by_others]), resource.getrlimit(what)[1]))


def start_clock(limits: dict[str, Any]) -> None:
    """Gives the next clip its own wall time and CPU time; the kernel ends this process when one is used up."""
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + limits["cpu_seconds"]
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


# --- Opening -----------------------------------------------------------------------------------------------------


def open_clip(path: str, limits: dict[str, Any]) -> tuple[InputContainer, VideoStream, int]:
    """Opens a clip as MOV/MP4 and nothing else; its one video track and its size in bytes come with it."""
    size = regular_file_size(path)
    if size == 0:
        raise Refused("is empty")
    if size > limits["file_bytes"]:
        raise Refused(f"has {size} bytes; at most {limits['file_bytes']} are taken")
    check_boxes(path, size)
    options = {
        "protocol_whitelist": "file",
        "codec_whitelist": ",".join(VIDEO_CODECS + AUDIO_CODECS),
        "max_pixels": str(limits["pixels"]),
    }
    try:
        # Always an absolute file: address, as "concat:a|b.mp4" or "-y.mp4" would mean something else to ffmpeg.
        container = av.open(f"file:{path}", "r", format="mov", options=options)
    except av.FFmpegError as error:
        raise Refused(f"is not a readable MP4: {error.strerror}") from error
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if len(pictures) != 1:
        raise Refused(f"has {len(pictures) or 'no'} video tracks; exactly one is needed")
    video = pictures[0]
    if video.codec_context is None or video.codec_context.name not in VIDEO_CODECS:
        raise Refused(f"has a video track in a format that is not taken ({video.codec_context and video.name})")
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


# --- Probing -----------------------------------------------------------------------------------------------------


class Coded(NamedTuple):
    """One coded frame or block of sound: its times in ticks, and which kinds of NAL units it holds."""

    pts: int
    dts: int
    duration: int
    keyframe: bool
    hidden: bool
    kinds: frozenset[int]


def facts(path: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Reads every packet of a clip and decodes its first frame; see facts.py for what the fields mean."""
    container, video, size = open_clip(path, limits)
    with container:
        audio = container.streams.audio[0] if container.streams.audio else None
        if audio is not None and (audio.codec_context is None or audio.codec_context.name not in AUDIO_CODECS):
            raise Refused("has a sound track in a format that is not taken")
        pictures, sounds, first = read_packets(container, video, limits)
        check_index(video, len(pictures), size)
        if audio is not None:
            check_index(audio, len(sounds), size)
        shown = {**picture_facts(video, pictures, first, limits), **configuration_facts(video, pictures)}
        return {
            "path": path,
            "bytes": size,
            "container": container.metadata.get("major_brand", "").strip(),
            "seconds": shown["seconds"],
            "video": shown,
            "audio": None if audio is None or not sounds else sound_facts(audio, sounds),
        }


def read_packets(
    container: InputContainer, video: VideoStream, limits: dict[str, Any]
) -> tuple[list[Coded], list[Coded], VideoFrame]:
    """Every packet of the picture and of the first sound track, and the first frame that is shown."""
    pictures: list[Coded] = []
    sounds: list[Coded] = []
    first: VideoFrame | None = None
    kinds_of = nal_reader(video)
    for packet in container.demux(video, *container.streams.audio[:1]):
        picture = packet.stream is video
        if picture and first is None:
            first = next(iter(decoded(packet, "its first frame")), None)
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            raise Refused(f"is cut off: a packet of its {'picture' if picture else 'sound'} is incomplete")
        if packet.pts is None or packet.dts is None:
            raise Refused(f"has {'pictures' if picture else 'sound'} without a time")
        kinds = kinds_of(packet) if picture else frozenset[int]()
        (pictures if picture else sounds).append(
            Coded(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_discard, kinds)
        )
        if len(pictures) + len(sounds) > limits["packets"]:
            raise Refused(f"has more than {limits['packets']} packets")
    if first is None:
        raise Refused("has a video track without a picture in it")
    return pictures, sounds, first


def decoded(packet: Packet[Any], what: str) -> list[VideoFrame]:
    """The frames that a packet completes."""
    try:
        frames: list[VideoFrame] = packet.decode()
    except av.EOFError:
        return []
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise Refused(f"is damaged: {what} cannot be decoded ({error})") from error
    return frames


def check_index(stream: Stream, read: int, size: int) -> None:
    """Every packet that the index promises has been read and lies within the file."""
    entries = stream.index_entries
    if read < len(entries):
        raise Refused(f"is cut off: only {read} of {len(entries)} {stream.type} packets can be read")
    if any(entry.pos + entry.size > size for entry in entries):
        raise Refused(f"is cut off: {stream.type} packets lie behind the end of the file")


def picture_facts(
    video: VideoStream, packets: list[Coded], first: VideoFrame, limits: dict[str, Any]
) -> dict[str, Any]:
    """When frames are shown, how many, and how large."""
    shown = sorted((packet.pts, packet.duration) for packet in packets if not packet.hidden)
    if not shown or video.time_base is None:
        raise Refused("shows no picture")
    times = [pts for pts, _ in shown]
    step = times[1] - times[0] if len(times) > 1 else shown[0][1]
    constant = step > 0 and evenly(times, step) and evenly([packet.dts for packet in packets], step)
    ticks = step * len(times) if constant else times[-1] + shown[-1][1] - times[0]
    seconds = ticks * video.time_base
    if not 0 < seconds <= limits["duration"]:
        raise Refused(f"is {float(seconds):g} s long; more than none and at most {limits['duration']} s are taken")
    rate = len(times) / seconds
    if rate > limits["frame_rate"]:
        raise Refused(f"has {float(rate):g} frames a second; at most {limits['frame_rate']} are taken")
    aspect = plausible_aspect(video)
    width, height = video.codec_context.width, video.codec_context.height
    if width * height * max(aspect, 1 / aspect) > limits["pixels"]:
        raise Refused(f"is shown larger than {limits['pixels']} pixels")
    mirrored, rotation = orientation(first)
    return {
        "index": video.index,
        "width": width,
        "height": height,
        "rotation": rotation,
        "mirrored": mirrored,
        "sample_aspect": str(aspect),
        "frame_rate": str(rate if constant else rate.limit_denominator(10_000)),
        "time_base": str(video.time_base),
        "start": str(times[0] * video.time_base),
        "seconds": str(seconds),
        "frames": len(times),
        # An edit list can also drop packets from the index, so that reading never meets them.
        "packets": max(len(packets), video.frames),
        "constant": constant,
    }


def evenly(times: list[int], step: int) -> bool:
    """Whether each time is one step after the one before."""
    return all(after - before == step for before, after in itertools.pairwise(times))


def plausible_aspect(video: VideoStream) -> Fraction:
    """Width of a pixel over its height."""
    aspect = video.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:
        raise Refused(f"has pixels {aspect.numerator} wide and {aspect.denominator} high, as no camera makes them")
    return aspect


def orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Whether a player mirrors the picture, and how many degrees clockwise it then turns it."""
    # Taken by name: iterating gives the data itself up to av 18, and its types from av 19 on.
    side_data: Any = frame.side_data
    try:
        matrix = bytes(side_data["DISPLAYMATRIX"])
    except KeyError:
        return False, 0
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    if signs not in ORIENTATIONS:
        raise Refused("is turned by an angle that is no quarter turn")
    return ORIENTATIONS[signs]


def configuration_facts(video: VideoStream, packets: list[Coded]) -> dict[str, Any]:
    """How the picture is coded, and whether the clip could be spliced at all."""
    codec = video.codec_context
    extradata = codec.extradata or b""
    first = packets[0]
    idr = first.kinds & IDR.get(codec.name, set())
    inside = PARAMETER_SETS.get(codec.name, set()) | {NEW_SAMPLE_ENTRY}
    return {
        "codec": codec.name,
        "tag": codec.codec_tag,
        "profile": video.profile,
        "pixel_format": codec.pix_fmt or "unknown",
        "field_order": int(codec.field_order),
        "colour": [int(n) for n in (codec.color_range, codec.color_primaries, codec.color_trc, codec.colorspace)],
        "delay": first.pts - first.dts,
        "starts_clean": bool(idr) and first.pts == 0 and first.keyframe and not first.hidden,
        "parameters_inside": any(packet.kinds & inside for packet in packets),
        "extradata_bytes": len(extradata),
        "extradata_sha256": hashlib.sha256(extradata).hexdigest(),
    }


def nal_reader(video: VideoStream) -> Callable[[Packet[Any]], frozenset[int]]:
    """What finds the kinds of NAL units in this stream's packets; nothing in codecs that have none."""
    codec, extradata = video.codec_context.name, video.codec_context.extradata or b""
    has_units = codec in IDR and extradata[:1] == b"\x01" and len(extradata) >= 23 - 16 * (codec == "h264")
    width = (extradata[4 if codec == "h264" else 21] & 3) + 1 if has_units else 0

    def kinds_of(packet: Packet[Any]) -> frozenset[int]:
        kinds = {NEW_SAMPLE_ENTRY} if packet.has_sidedata("new_extradata") else set()
        if has_units:
            heads = nal_heads(bytes(packet), width)
            kinds.update(byte & 31 if codec == "h264" else byte >> 1 & 63 for byte in heads)
        return frozenset(kinds)

    return kinds_of


def nal_heads(data: bytes, width: int) -> Iterator[int]:
    """First bytes of the NAL units in a packet, whose lengths have to add up: zeros from a sparse download do not."""
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + width], "big")
        position += width
        if length == 0 or position + length > len(data):
            raise Refused("is damaged: the bytes of a coded frame make no sense")
        yield data[position]
        position += length


def sound_facts(audio: AudioStream, packets: list[Coded]) -> dict[str, Any]:
    """The sound track as its packets tell it."""
    if audio.time_base is None:
        raise Refused("has sound without a time")
    start = min(packet.pts for packet in packets)
    codec = audio.codec_context
    return {
        "index": audio.index,
        "codec": codec.name,
        "profile": audio.profile,
        "rate": codec.sample_rate,
        "channels": codec.channels,
        "packets": len(packets),
        "start": str(start * audio.time_base),
        "seconds": str((max(packet.pts + packet.duration for packet in packets) - start) * audio.time_base),
    }


# --- Frames ------------------------------------------------------------------------------------------------------


def last_frame(path: str, out: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Writes the last frame that a player shows as an image into `out`; how many are shown, and its mean luma."""
    container, video, _ = open_clip(path, limits)
    with container:
        shown = shown_frames(container, video)
        frame = frame_at(container, video, *max(shown.items()))
        return {**written(frame, video, out), "number": len(shown), "luma": mean_luma(frame)}


def one_frame(path: str, out: str, limits: dict[str, Any], position: int) -> dict[str, Any]:
    """Writes the frame that is shown at a time in ticks, likewise."""
    container, video, _ = open_clip(path, limits)
    with container:
        shown = shown_frames(container, video)
        if position not in shown:
            raise Refused("changed while it was read")
        return written(frame_at(container, video, position, shown[position]), video, out)


def lumas(path: str, limits: dict[str, Any]) -> dict[str, Any]:
    """When the frames at the end are shown, in ticks, and how bright each is; and their rate."""
    container, video, _ = open_clip(path, limits)
    with container:
        shown = shown_frames(container, video)
        last = max(shown)
        seconds = (last - min(shown)) * (video.time_base or 0)
        wanted = {pts for pts in shown if (last - pts) * (video.time_base or 0) <= LONGEST_END}
        found: dict[int, float] = {}
        # The keyframe before the first of them; from the beginning where that one is not enough.
        for start in (shown[min(wanted)], BEGINNING):
            for frame in frames_from(container, video, start):
                if frame.pts in wanted:
                    found[frame.pts] = mean_luma(frame)
            if len(found) == len(wanted):
                break
        else:
            raise Refused("is damaged: not all frames at its end can be decoded")
        return {"rate": float((len(shown) - 1) / seconds) if seconds else 1.0, "lumas": sorted(found.items())}


def shown_frames(container: InputContainer, video: VideoStream) -> dict[int, int]:
    """The times in ticks of the frames that a player shows, each with the keyframe at which its decoding begins."""
    shown: dict[int, int] = {}
    keyframe = BEGINNING
    for packet in container.demux(video):
        if packet.pts is None or packet.size == 0:
            continue
        if packet.is_keyframe:
            keyframe = packet.pts
        if not packet.is_discard:
            # The keyframe before it in decoding order is where its decoding has to begin.
            shown[packet.pts] = keyframe
    if not shown:
        raise Refused("shows no picture")
    return shown


def frames_from(container: InputContainer, video: VideoStream, start: int) -> Iterator[VideoFrame]:
    """The frames from a keyframe on."""
    container.seek(start, stream=video, backward=True)
    for packet in container.demux(video):
        yield from decoded(packet, "a frame before its end")


def frame_at(container: InputContainer, video: VideoStream, wanted: int, keyframe: int) -> VideoFrame:
    """Decodes from a keyframe until the frame with this time; from the beginning where that one is not enough."""
    for start in (keyframe, BEGINNING):
        for frame in frames_from(container, video, start):
            if frame.pts == wanted:
                return frame
    raise Refused("is damaged: its last frame cannot be decoded")


def written(frame: VideoFrame, video: VideoStream, out: str) -> dict[str, Any]:
    """Writes a frame as a player shows it."""
    mirrored, rotation = orientation(frame)
    return write_image(upright(square_rgb(frame, plausible_aspect(video)), mirrored, rotation), out)


def mean_luma(frame: VideoFrame) -> float:
    """How bright a frame is on average, from 0 for black to 1 for white."""
    from PIL import ImageStat

    small = frame.to_image(width=64, height=36, interpolation="AREA", dst_color_range="JPEG", threads=1)  # type: ignore[no-untyped-call]  # av's stub says no types here
    return float(ImageStat.Stat(small.convert("L")).mean[0]) / 255


def square_rgb(frame: VideoFrame, aspect: Fraction) -> Any:
    """The frame in RGB and square pixels; the side that the aspect stretches grows, so nothing is lost."""
    width, height = frame.width, frame.height
    if aspect > 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    # Untagged colour is what players take it for: BT.709 from 720 lines on, BT.601 below.
    matrix = ("ITU709" if frame.height >= 720 else "ITU601") if frame.colorspace == 2 else None
    return frame.to_image(  # type: ignore[no-untyped-call]  # av's stub says no types here
        width=width, height=height, src_colorspace=matrix, interpolation="LANCZOS", dst_color_range="JPEG", threads=1
    )


def upright(image: Any, mirrored: bool, rotation: int) -> Any:
    """The image as a player turns it. Pillow counts its turns the other way round."""
    from PIL.Image import Transpose

    if mirrored:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    turns = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
    return image.transpose(turns[rotation]) if rotation else image


def write_image(image: Any, out: str, *, lossless: bool = True) -> dict[str, Any]:
    """PNG where that fits the gateway, else JPEG at the best quality that does."""
    ways: list[dict[str, Any]] = [{"format": "JPEG", "quality": q, "subsampling": 0} for q in (97, 92, 85, 75)]
    if lossless:
        ways.insert(0, {"format": "PNG"})
    try:
        for way in ways:
            image.save(out, **way)
            if os.stat(out).st_size <= MOST_IMAGE_BYTES:  # noqa: PTH116 - paths are text here, as they came
                break
    except OSError as error:
        raise Unwritable(error.errno) from error
    return {"suffix": ".png" if way["format"] == "PNG" else ".jpg", "width": image.width, "height": image.height}


# --- Images that the gateway takes -------------------------------------------------------------------------------


def fit(path: str, out: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Writes an image into `out` in a way that the gateway takes it, unless it does already; then the suffix is ""."""
    size = regular_file_size(path)
    if size > limits["file_bytes"]:
        raise Refused(f"has {size} bytes; at most {limits['file_bytes']} are taken")
    image = open_image(path, limits)
    width, height = image.size
    fits = size <= MOST_IMAGE_BYTES and min(width, height) >= LEAST_SIDE and shape(width, height) == (width, height)
    if fits and image.format in ("JPEG", "MPO", "PNG"):
        return {"suffix": "", "width": width, "height": height}
    fitted = sized(cropped(flat(image)))
    found = write_image(fitted, out, lossless=image.format not in ("JPEG", "MPO"))
    while os.stat(out).st_size > MOST_IMAGE_BYTES:  # noqa: PTH116 - as above
        fitted = scaled(fitted, 0.75)
        found = write_image(fitted, out, lossless=False)
    return found


def open_image(path: str, limits: dict[str, Any]) -> Any:
    """Opens and decodes the first picture of an image file."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # ours is below, and refuses where Pillow's would warn
    try:
        image = Image.open(path, formats=IMAGE_FORMATS)
        if large := image.width * image.height > limits["pixels"]:
            image.close()
        else:
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # its readers raise whatever broken bytes lead them to
        raise Refused(f"is no image that can be read ({type(error).__name__}); {READABLE} can") from error
    if large:
        raise Refused(f"is {image.width}x{image.height} pixels; at most {limits['pixels']} in all are taken")
    return image


def flat(image: Any) -> Any:
    """Upright, in RGB, and on white where one could look through it."""
    from PIL import Image, ImageOps

    profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    image = image.convert("RGB")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def shape(width: int, height: int) -> tuple[int, int]:
    """The largest size within this one whose sides do not differ by more than the gateway takes."""
    return min(width, height * 5 // 2), min(height, width * 5 // 2)


def cropped(image: Any) -> Any:
    """Cut at both ends of its longer side where that is too long."""
    width, height = shape(*image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def sized(image: Any) -> Any:
    """Larger where it is too small; smaller where nobody would see the difference in a clip."""
    shorter, longer = min(image.size), max(image.size)
    if shorter < LEAST_SIDE:
        return scaled(image, LEAST_SIDE / shorter)
    return scaled(image, LONGEST_SIDE / longer) if longer > LONGEST_SIDE else image


def scaled(image: Any, factor: float) -> Any:
    """All of it, in another size."""
    from PIL.Image import Resampling

    width, height = shape(*(max(round(side * factor), LEAST_SIDE) for side in image.size))
    found = image.resize((width, height), Resampling.LANCZOS)
    found.info = image.info
    return found


def _not_a_module() -> NoReturn:
    raise ImportError("untrusted_child.py is run by path, in a process of its own")


if __name__ == "__main__":
    main()
else:
    _not_a_module()
