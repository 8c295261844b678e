"""What a probe found in a clip: plain values, no more. Light to import, and they travel as JSON.

They come out of a child process and are kept in the ledger, so reading them back is strict: a wrong type is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, TypeVar

__all__ = ["AudioFacts", "MediaFacts", "VideoFacts"]

T = TypeVar("T")


@dataclass(frozen=True)
class VideoFacts:
    """The one video track of a clip.

    Attributes:
        index: number of the stream in its file.
        codec: as ffmpeg names it, `h264`, `hevc`.
        tag: the sample entry, `avc1`, `hvc1`, `hev1`.
        profile: as ffmpeg names it, or None.
        width, height: coded size in pixels, before `rotation` and `sample_aspect`.
        rotation: degrees clockwise that a player turns the picture by: 0, 90, 180 or 270.
        mirrored: whether a player also flips it left to right, before turning it.
        sample_aspect: width of a pixel over its height.
        pixel_format: as ffmpeg names it.
        field_order: ffmpeg's number; 1 is progressive, 0 unknown.
        colour: ffmpeg's numbers of range, primaries, transfer and matrix; 2 (range: 0) is unspecified.
        frame_rate: frames a second; the mean one where `constant` is false.
        time_base: seconds of one tick.
        start: seconds at which the first frame is shown.
        seconds: how long the picture lasts, from its first frame on.
        frames: frames that a player shows.
        packets: coded frames in the file, shown or not.
        delay: ticks between the first packet's decoding and its frame's showing.
        constant: frames are spaced by the same whole number of ticks, in showing and in decoding order.
        starts_clean: the first packet is an IDR picture shown at time 0.
        parameters_inside: parameter sets also travel between the pictures, or there is more than one sample entry.
        extradata_bytes, extradata_sha256: the decoder configuration record.
        encoder: what x264 says of itself and its settings, `x264 - core … - options: cabac=1 …`; None where the clip
            says nothing, or was probed before this was asked.
        aspect_stated: whether it says that its pixels are of `sample_aspect`, or nothing, which means square ones.
        level: what H.264 asks of a decoder, times ten: 31 is level 3.1; None for others and where `encoder` is None.
    """

    index: int
    codec: str
    tag: str
    profile: str | None
    width: int
    height: int
    rotation: int
    mirrored: bool
    sample_aspect: Fraction
    pixel_format: str
    field_order: int
    colour: tuple[int, ...]
    frame_rate: Fraction
    time_base: Fraction
    start: Fraction
    seconds: Fraction
    frames: int
    packets: int
    delay: int
    constant: bool
    starts_clean: bool
    parameters_inside: bool
    extradata_bytes: int
    extradata_sha256: str
    encoder: str | None = None
    aspect_stated: bool = True
    level: int | None = None

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height in square pixels, as a player shows it; the side that `sample_aspect` stretches grows."""
        width, height = self.width, self.height
        if self.sample_aspect > 1:
            width = round(width * self.sample_aspect)
        elif self.sample_aspect < 1:
            height = round(height / self.sample_aspect)
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @property
    def copy_key(self) -> tuple[tuple[str, str], ...]:
        """What has to be equal for two clips to be spliced by copying: pairs of a name for people and a value."""
        return (
            ("codec", f"{self.codec} ({self.tag})"),
            ("profile", self.profile or "unknown"),
            ("size", f"{self.width}x{self.height}"),
            ("pixel format", self.pixel_format),
            ("field order", str(self.field_order)),
            ("frame rate", str(self.frame_rate)),
            ("time base", str(self.time_base)),
            ("sample aspect", str(self.sample_aspect)),
            ("rotation", f"{self.rotation}{' mirrored' if self.mirrored else ''}"),
            ("colour tags", "/".join(map(str, self.colour))),
            ("parameter sets", f"{self.extradata_bytes} bytes, sha256 {self.extradata_sha256}"),
            ("reordering delay", str(self.delay)),
        )


@dataclass(frozen=True)
class AudioFacts:
    """The first audio track of a clip.

    Attributes:
        index: number of the stream in its file.
        codec, profile: as ffmpeg names them.
        rate: samples a second.
        channels: how many.
        packets: coded blocks in the file.
        start: seconds at which it begins, on the clip's own clock; negative for priming.
        seconds: from `start` to its end.
    """

    index: int
    codec: str
    profile: str | None
    rate: int
    channels: int
    packets: int
    start: Fraction
    seconds: Fraction


@dataclass(frozen=True)
class MediaFacts:
    """One clip as probed.

    Attributes:
        path: the file.
        bytes: its size.
        container: its major brand, `isom`, `mp42`, `qt`.
        seconds: how long its picture lasts.
        video: its video track; a clip has exactly one.
        audio: its first audio track, or None.
    """

    path: Path
    bytes: int
    container: str
    seconds: Fraction
    video: VideoFacts
    audio: AudioFacts | None

    @property
    def copy_key(self) -> tuple[tuple[str, str], ...]:
        """See `VideoFacts.copy_key`; sound has no part in it, as it is always rebuilt."""
        return self.video.copy_key

    def to_json(self) -> dict[str, Any]:
        """These facts as JSON-native values; fractions are text like `24000/1001`."""
        document: dict[str, Any] = _plain(self)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave.

        Raises:
            ValueError: a field is missing, unknown or of another type.
        """
        return _read(cls, document)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (Fraction, Path)):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _read(kind: type[T], document: object) -> T:
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is one
    # A field with a default came later than facts that are kept already.
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if not isinstance(document, Mapping) or not needed <= document.keys() <= fields.keys():
        raise ValueError(f"{kind.__name__} needs exactly the fields {', '.join(fields)}")
    values = {}
    for name in document:
        try:
            values[name] = _READERS[str(fields[name].type)](document[name])
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{kind.__name__}.{name}: {error}") from error
    return kind(**values)


def _exactly(kind: type[T]) -> Callable[[object], T]:
    def read(value: object) -> T:
        # bool is an int to isinstance; a flag in a number's place is a mistake all the same.
        if type(value) is not kind:
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return read


def _whole_numbers(value: object) -> tuple[int, ...]:
    return tuple(map(_exactly(int), _exactly(list)(value)))


# Keyed by the annotations above, as written: a new field of a new type fails loudly in the first test that reads it.
_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _exactly(int),
    "bool": _exactly(bool),
    "str": _exactly(str),
    "str | None": lambda value: None if value is None else _exactly(str)(value),
    "int | None": lambda value: None if value is None else _exactly(int)(value),
    "Fraction": lambda value: Fraction(_exactly(str)(value)),
    "Path": lambda value: Path(_exactly(str)(value)),
    "tuple[int, ...]": _whole_numbers,
    "VideoFacts": lambda value: _read(VideoFacts, value),
    "AudioFacts | None": lambda value: None if value is None else _read(AudioFacts, value),
}
