"""What a clip hands on to clips that use it: its scene, and where its ball was on the last frame.

It rides in the file's metadata, so that any simulator knows the clips of any other. A still has no such place: for
those the simulator remembers what its clips end on (`Remembered`), and else looks for the ball in the picture.
"""

from __future__ import annotations

import json
import threading
from dataclasses import astuple, dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from prefect_kling.simulator.ball import Ball
from prefect_kling.simulator.planes import Floats, Planes, from_rgb
from prefect_kling.simulator.scene import Scene

__all__ = ["Remembered", "Trace", "planes_of", "read_planes", "read_rgb", "read_trace", "read_video_end"]

THUMB = (64, 36)
ALIKE = 5.0
"""Mean difference of luma, 0 to 255, below which two stills are the same picture; scaling and JPEG stay under it."""


@dataclass(frozen=True)
class Trace:
    """How a clip ends.

    Attributes:
        scene: the last one in it.
        ball: on its last frame.
        frame: how many frames the scene's motion has behind it.
        steady: every frame shows this scene alone, so that the scene can be taken out of them.
    """

    scene: Scene
    ball: Ball
    frame: int
    steady: bool

    def as_text(self) -> str:
        """For a file's comment."""
        data = {"scene": self.scene.as_json(), "ball": astuple(self.ball), "frame": self.frame, "steady": self.steady}
        return json.dumps({"prefect-kling-simulator": data})

    @classmethod
    def from_text(cls, text: str) -> Trace | None:
        """The inverse of `as_text`; None for any other comment."""
        try:
            data = json.loads(text)["prefect-kling-simulator"]
            return cls(Scene.from_json(data["scene"]), Ball(*data["ball"]), data["frame"], data["steady"])
        except (ValueError, KeyError, TypeError):
            return None


def read_trace(path: Path) -> Trace | None:
    """The trace in a clip's file, where a simulator made it."""
    with av.open(str(path), format="mov") as container:
        return Trace.from_text(container.metadata.get("comment", ""))


def read_video_end(path: Path) -> Planes:
    """A video's last frame."""
    last = None
    with av.open(str(path), format="mov") as container:
        for frame in container.decode(container.streams.video[0]):
            last = frame
    if last is None:
        raise ValueError(f"{path.name} has no frames")
    return planes_of(last)


def planes_of(frame: av.VideoFrame) -> Planes:
    """A decoded frame as planes; an odd last row or column is lost to scaling."""
    even = frame.reformat(frame.width // 2 * 2, frame.height // 2 * 2, format="yuv420p")
    return Planes.of(even.to_ndarray().astype(np.uint8, copy=False))


def read_planes(path: Path, size: tuple[int, int]) -> Planes:
    """A still, scaled to fill `size` and cut at its edges."""
    return from_rgb(read_rgb(path, size))


def read_rgb(path: Path, size: tuple[int, int]) -> Floats:
    """As `read_planes`, of shape (height, width, 3), 0 to 1."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    scale = max(size[0] / picture.width, size[1] / picture.height)
    large = (max(round(picture.width * scale), size[0]), max(round(picture.height * scale), size[1]))
    if large != picture.size:
        picture = picture.resize(large, Image.Resampling.BICUBIC)
    left, top = (large[0] - size[0]) // 2, (large[1] - size[1]) // 2
    cut = picture.crop((left, top, left + size[0], top + size[1]))
    return np.asarray(cut, np.float32) / 255


class Remembered:
    """The last frames of the clips made so far, as thumbnails. Safe to use from several threads."""

    def __init__(self) -> None:
        self._seen: list[tuple[Floats, Trace]] = []
        self._lock = threading.Lock()

    def add(self, last: Planes, trace: Trace) -> None:
        """Remembers what a clip ends on."""
        with self._lock:
            self._seen.append((_thumb(last), trace))

    def find(self, path: Path) -> Trace | None:
        """The trace of the clip that ends on this still, if one does."""
        with Image.open(path) as image:
            size = image.width // 2 * 2, image.height // 2 * 2
        wanted = _thumb(read_planes(path, size))
        with self._lock:
            found = [(float(np.abs(thumb - wanted).mean()), trace) for thumb, trace in self._seen]
        difference, trace = min(found, key=lambda pair: pair[0], default=(ALIKE, None))
        return trace if difference < ALIKE else None


def _thumb(planes: Planes) -> Floats:
    return np.asarray(Image.fromarray(planes.y).resize(THUMB, Image.Resampling.BOX), np.float32)
