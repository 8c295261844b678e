"""Writing a clip's file: what `MediaSpec` says about codec, timing and tracks, done with PyAV."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.planes import Planes

__all__ = ["AUDIO_RATE", "Abandoned", "ClipWriter"]

AUDIO_RATE = 44_100
BT709 = 1
LIMITED_RANGE = 1
AAC_FRAME = 1024


class Abandoned(Exception):
    """Nobody wants the clip any more: the simulator ends."""


class ClipWriter:
    """One MP4 being written: frames one by one, then sound.

    Args:
        path: where to; the moov box comes last, as the gateway's files most likely have it.
        size: width and height, even.
        media: codec, tag, options; `media.fps` unless `rate` is given.
        comment: goes into the file's metadata.
        sound: whether there will be a track of samples (`write_samples`).
        copied: an input whose audio is copied instead (`copy_sound`).
        rate: frames per second where they follow an input.
        time_base: of the presentation times, where they follow an input.
        abandoned: asked before each frame; once it is true, writing ends with `Abandoned`.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        media: MediaSpec,
        *,
        comment: str,
        sound: bool = False,
        copied: InputContainer | None = None,
        rate: Fraction | None = None,
        time_base: Fraction | None = None,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._abandoned = abandoned
        self._container = av.open(str(path), "w", format="mp4")
        self._container.metadata["comment"] = comment
        self._hidden = media.hidden_frames
        self.rate = rate or Fraction(media.fps)
        self._video = self._video_stream(size, media, time_base or 1 / self.rate)
        self._audio: AudioStream | None = None
        self._copied = copied
        if copied is not None:
            self._template = copied.streams.audio[0]
            self._audio = self._container.add_stream_from_template(self._template)
        elif sound:
            self._audio = self._container.add_stream("aac", rate=AUDIO_RATE, layout="stereo")

    def _video_stream(self, size: tuple[int, int], media: MediaSpec, time_base: Fraction) -> VideoStream:
        options = dict(pair.split("=", 1) for pair in media.options.split(":") if pair)
        if media.codec == "hevc":
            options = {"x265-params": ":".join(["log-level=error", *filter(None, [media.options])])}
        elif options:
            options = {"x264-params": media.options}
        stream = self._container.add_stream(
            "libx265" if media.codec == "hevc" else "libx264", rate=self.rate, options=options
        )
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        # The simulator renders one clip a core; and with one thread the bytes are the same on every machine.
        context.thread_count = 1
        context.time_base = time_base
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        tag = media.tag or ("hvc1" if media.codec == "hevc" else None)
        if tag is not None:
            context.codec_tag = tag
        return stream

    def write(self, planes: Planes, pts: int) -> None:
        """Encodes one frame, shown at `pts` in the stream's time base."""
        if self._abandoned():
            raise Abandoned
        frame = av.VideoFrame.from_ndarray(planes.whole, format="yuv420p")
        frame.pts = pts
        frame.color_range = LIMITED_RANGE
        frame.colorspace = BT709
        self._mux(self._video.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._hidden:
                # Times before zero make the muxer write an edit list that starts after them.
                shift = int(self._hidden / self.rate / packet.time_base)
                packet.pts -= shift
                packet.dts -= shift
            self._container.mux(packet)

    def write_samples(self, samples: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Encodes the whole sound: shape (2, n), float32 in -1 to 1, at `AUDIO_RATE`."""
        if self._audio is None:
            raise ValueError("this clip was opened without sound")
        for start in range(0, samples.shape[1], AAC_FRAME):
            piece = np.ascontiguousarray(samples[:, start : start + AAC_FRAME])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate = AUDIO_RATE
            frame.pts = start
            frame.time_base = Fraction(1, AUDIO_RATE)
            self._container.mux(self._audio.encode(frame))
        self._container.mux(self._audio.encode(None))

    def copy_sound(self, *, until: float | None = None) -> None:
        """Copies the packets of the input given as `copied`; those that begin before `until` seconds, where given."""
        if self._copied is None or self._audio is None:
            raise ValueError("this clip was opened without an input to copy from")
        for packet in self._copied.demux(self._template):
            if packet.dts is None or (until is not None and packet.dts * packet.time_base >= until):
                continue
            packet.stream = self._audio
            self._container.mux(packet)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._mux(self._video.encode(None))
        finally:
            self._container.close()
