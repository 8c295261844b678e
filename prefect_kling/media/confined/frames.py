"""Frames of a clip as images, exact to the frame, and how bright those at its end are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_kling.media.confined.images import write_image
from prefect_kling.media.confined.opening import Refused, Task, open_clip
from prefect_kling.media.confined.pictures import (
    decoded,
    mean_luma,
    orientation,
    plausible_aspect,
    square_rgb,
    upright,
)

__all__ = ["frame_at", "frames_from", "last_frame", "lumas", "one_frame", "shown_frames"]

BEGINNING = -1 << 40  # ticks, before any clip's first
LONGEST_END = 16  # seconds: the longest clip there is, and more than any fade


def last_frame(path: str, task: Task) -> dict[str, Any]:
    """Writes the last frame that a player shows as an image into `out`; how many are shown, and its mean luma."""
    container, video, _ = open_clip(path, task["limits"])
    with container:
        shown = shown_frames(container, video)
        frame = frame_at(container, video, *max(shown.items()))
        return {**written(frame, video, task["out"]), "number": len(shown), "luma": mean_luma(frame)}


def one_frame(path: str, task: Task) -> dict[str, Any]:
    """Writes the frame that is shown at a time in ticks, likewise."""
    container, video, _ = open_clip(path, task["limits"])
    with container:
        shown = shown_frames(container, video)
        position = task["position"]
        if position not in shown:
            raise Refused("changed while it was read")
        return written(frame_at(container, video, position, shown[position]), video, task["out"])


def lumas(path: str, task: Task) -> dict[str, Any]:
    """When the frames at the end are shown, in ticks, and how bright each is; and their rate."""
    container, video, _ = open_clip(path, task["limits"])
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
