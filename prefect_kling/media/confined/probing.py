"""What a clip is, as its packets and its first frame tell it; facts.py says what each fact means."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, NamedTuple

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_kling.media.confined.nal import NEW_SAMPLE_ENTRY, unit_types, x264_settings
from prefect_kling.media.confined.opening import AUDIO_CODECS, Limits, Refused, Task, open_clip
from prefect_kling.media.confined.pictures import decoded, orientation, plausible_aspect

__all__ = ["facts"]

# NAL unit types: ITU-T H.264 table 7-1, H.265 table 7-1.
IDR = {"h264": {5}, "hevc": {19, 20}}
PARAMETER_SETS = {"h264": {7, 8, 13, 15}, "hevc": {32, 33, 34}}


class Coded(NamedTuple):
    """One coded frame or block of sound: its times in ticks, and which kinds of NAL units it holds."""

    pts: int
    dts: int
    duration: int
    keyframe: bool
    hidden: bool
    kinds: frozenset[int]


def facts(path: str, task: Task) -> dict[str, Any]:
    """Reads every packet of a clip and decodes its first frame."""
    container, video, size = open_clip(path, task["limits"])
    with container:
        audio = container.streams.audio[0] if container.streams.audio else None
        if audio is not None and (audio.codec_context is None or audio.codec_context.name not in AUDIO_CODECS):
            raise Refused("has a sound track in a format that is not taken")
        pictures, sounds, first, encoder = read_packets(container, video, task["limits"])
        check_index(video, len(pictures), size)
        if audio is not None:
            check_index(audio, len(sounds), size)
        shown = {
            **picture_facts(video, pictures, first, task["limits"]),
            **configuration_facts(video, pictures),
            "encoder": encoder,
            # AVCLevelIndication, ISO/IEC 14496-15, 5.3.3.1: of a record as `x264_settings` has found it to be.
            "level": None if encoder is None else (video.codec_context.extradata or bytes(4))[3],
        }
        return {
            "path": path,
            "bytes": size,
            "container": container.metadata.get("major_brand", "").encode("ascii", "replace").decode().strip(),
            "seconds": shown["seconds"],
            "video": shown,
            "audio": None if audio is None or not sounds else sound_facts(audio, sounds),
        }


def read_packets(
    container: InputContainer, video: VideoStream, limits: Limits
) -> tuple[list[Coded], list[Coded], VideoFrame, str | None]:
    """Every packet of the picture and of the first sound track, the first frame, and what x264 says in its packet."""
    pictures: list[Coded] = []
    sounds: list[Coded] = []
    first: VideoFrame | None = None
    encoder: str | None = None
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
        kinds = frozenset[int]()
        if picture:
            kinds = frozenset(unit_types(packet, video))
            if not pictures:
                encoder = x264_settings(packet, video)
        (pictures if picture else sounds).append(
            Coded(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_discard, kinds)
        )
        if len(pictures) + len(sounds) > limits["packets"]:
            raise Refused(f"has more than {limits['packets']} packets")
    if first is None:
        raise Refused("has a video track without a picture in it")
    return pictures, sounds, first, encoder


def check_index(stream: Stream, read: int, size: int) -> None:
    """Every packet that the index promises has been read and lies within the file."""
    entries = stream.index_entries
    if read < len(entries):
        raise Refused(f"is cut off: only {read} of {len(entries)} {stream.type} packets can be read")
    if any(entry.pos + entry.size > size for entry in entries):
        raise Refused(f"is cut off: {stream.type} packets lie behind the end of the file")


def picture_facts(video: VideoStream, packets: list[Coded], first: VideoFrame, limits: Limits) -> dict[str, Any]:
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
        "aspect_stated": bool(video.sample_aspect_ratio),
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
