"""What the packets of H.264 and HEVC hold, without decoding them: the types of their NAL units, and x264's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from av.packet import Packet
from av.video.stream import VideoStream

from prefect_kling.media.confined.opening import Refused

__all__ = ["NEW_SAMPLE_ENTRY", "unit_types", "x264_settings"]

NEW_SAMPLE_ENTRY = -1  # our own mark, among those types, for a packet that begins another sample entry
EXTRADATA = {"h264": 7, "hevc": 23}  # bytes that a decoder configuration record has at least
SEI = 6  # ITU-T H.264 table 7-1
# x264 signs its pictures: a user data SEI of this UUID, and in it the settings as text (x264's encoder/set.c).
X264 = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef")
SETTINGS = re.compile(rb"(x264 - core [ -~]{1,3900} - options: [ -~]{1,3900})\0")


def unit_types(packet: Packet[Any], video: VideoStream) -> Iterator[int]:
    """The types of the NAL units in a packet (ITU-T H.264 table 7-1, H.265 table 7-1); none in other codecs."""
    if packet.has_sidedata("new_extradata"):
        yield NEW_SAMPLE_ENTRY
    for unit in units(packet, video):
        yield unit[0] & 31 if video.codec_context.name == "h264" else unit[0] >> 1 & 63


def x264_settings(packet: Packet[Any], video: VideoStream) -> str | None:
    """What x264 says in a clip's first packet: `x264 - core … - options: cabac=1 …`; None where it says nothing."""
    if video.codec_context.name == "h264":
        for unit in units(packet, video):
            if unit[0] & 31 == SEI:
                # Neither the UUID nor the text has zeros, so that there is nothing to be unescaped.
                found = SETTINGS.match(bytes(unit[:16_384]).partition(X264)[2])
                if found:
                    return found[1].decode("ascii")
    return None


def units(packet: Packet[Any], video: VideoStream) -> Iterator[memoryview]:
    """The NAL units in a packet, whose lengths have to add up: zeros from a sparse download do not."""
    codec, extradata = video.codec_context.name, video.codec_context.extradata or b""
    # Anything else than a decoder configuration record would be another way to tell units apart than by their length.
    if codec not in EXTRADATA or extradata[:1] != b"\x01" or len(extradata) < EXTRADATA[codec]:
        return
    width = (extradata[4 if codec == "h264" else 21] & 3) + 1
    data = memoryview(bytes(packet))
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + width], "big")
        position += width
        if length == 0 or position + length > len(data):
            raise Refused("is damaged: the bytes of a coded frame make no sense")
        yield data[position : position + length]
        position += length
