"""Is this file the film that was meant? Asked before it gets its name, however it was made."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cancelling import Checkpoint
from prefect_kling.media.timeline import Chapter

__all__ = ["Expected", "faults", "verify"]

SOUND_TOLERANCE = Fraction(50, 1000)
EMPTY_TEXT = 2  # bytes of a text sample that says nothing: the length of its text
CHAPTER_TOLERANCE = Fraction(2, 1000)  # chapters are stored in milliseconds


@dataclass(frozen=True)
class Expected:
    """What the film has to be.

    Attributes:
        frames, frame_rate: how many, and how many a second.
        width, height: as coded, in pixels.
        sound: whether it has any.
        chapters: of its shots.
        captions: how many are in its text track; 0 for no such track.
    """

    frames: int
    frame_rate: Fraction
    width: int
    height: int
    sound: bool
    chapters: tuple[Chapter, ...]
    captions: int = 0


@dataclass(frozen=True)
class Measured:
    """What a film turned out to be.

    Attributes:
        pictures: number of video tracks.
        size: of the picture in pixels, as coded.
        presentation, decoding: times of the shown frames in seconds, each in its track's order.
        sound: seconds from the film's start to the end of its sound, or None.
        gaps: how often the sound breaks off and goes on later, or overlaps itself.
        chapters: titles with start and end in seconds.
        faststart: whether the index comes before the pictures.
        captions: how many texts its text track shows.
    """

    pictures: int
    size: tuple[int, int]
    presentation: tuple[Fraction, ...]
    decoding: tuple[Fraction, ...]
    sound: Fraction | None
    gaps: int
    chapters: tuple[tuple[str, Fraction, Fraction], ...]
    faststart: bool
    captions: int


def verify(film: Path, expected: Expected, checkpoint: Checkpoint) -> None:
    """Reads the whole film and compares. Blocking.

    Raises:
        InvalidMedia: the text says everything that is off.
    """
    try:
        measured = measure(film, checkpoint)
    except av.FFmpegError as error:
        raise InvalidMedia(f"The film that was written cannot be read back: {error}.") from error
    found = faults(measured, expected)
    if found:
        raise InvalidMedia(f"The film that was written is not right, so it was thrown away: {'; '.join(found)}.")


def measure(film: Path, checkpoint: Checkpoint) -> Measured:
    """Reads the film's packets. Blocking."""
    with av.open(f"file:{film.absolute()}", "r", format="mov", options={"protocol_whitelist": "file"}) as container:
        videos, sounds, texts = container.streams.video, container.streams.audio, container.streams.subtitles
        presentation, decoding = [], []
        sound_ticks, gaps, captions = None, 0, 0
        for packet in container.demux(*videos[:1], *sounds[:1], *texts):
            checkpoint()
            if packet.pts is None or packet.dts is None:
                continue
            if packet.stream.type == "audio":
                gaps += sound_ticks is not None and packet.pts != sound_ticks
                sound_ticks = packet.pts + (packet.duration or 0)
            elif packet.stream.type == "subtitle":
                captions += packet.size > EMPTY_TEXT
            else:
                decoding.append(packet.dts * packet.time_base)
                if not packet.is_discard:
                    presentation.append(packet.pts * packet.time_base)
        chapters = tuple(
            (
                chapter["metadata"].get("title", ""),
                chapter["start"] * (chapter["time_base"] or Fraction(0)),
                chapter["end"] * (chapter["time_base"] or Fraction(0)),
            )
            for chapter in container.chapters()
        )
        # While the file is open: a stream of a closed one says anything.
        sound_end = None if sound_ticks is None else sound_ticks * (sounds[0].time_base or Fraction(0))
        size = (videos[0].codec_context.width, videos[0].codec_context.height) if videos else (0, 0)
    return Measured(
        pictures=len(videos),
        size=size,
        presentation=tuple(presentation),
        decoding=tuple(decoding),
        sound=sound_end,
        gaps=gaps,
        chapters=chapters,
        faststart=_index_first(film),
        captions=captions,
    )


def faults(measured: Measured, expected: Expected) -> list[str]:
    """Everything in which the film is not what it has to be, in words. Pure."""
    found = []
    times = sorted(measured.presentation)
    if measured.pictures != 1:
        found.append(f"it has {measured.pictures} video tracks instead of one")
    if measured.size != (expected.width, expected.height):
        found.append(f"it is {measured.size[0]}x{measured.size[1]} instead of {expected.width}x{expected.height}")
    if len(times) != expected.frames:
        found.append(f"it shows {len(times)} frames instead of {expected.frames}")
    elif times != [Fraction(n) / expected.frame_rate for n in range(expected.frames)]:
        first = f"{float(times[0]):.3f}" if times else "never"
        found.append(f"its frames are not evenly spaced from 0 on (the first is shown at {first})")
    if any(later <= earlier for earlier, later in zip(measured.decoding, measured.decoding[1:], strict=False)):
        found.append("its decoding times do not rise strictly")
    if measured.captions != expected.captions:
        found.append(f"it has {measured.captions} captions instead of {expected.captions}")
    if not measured.faststart:
        found.append("its index comes after its pictures, so it cannot be played while it loads")
    return [*found, *_sound_faults(measured, expected), *_chapter_faults(measured, expected)]


def _sound_faults(measured: Measured, expected: Expected) -> list[str]:
    found = []
    length = expected.frames / expected.frame_rate
    if (measured.sound is not None) != expected.sound:
        found.append("it has no sound" if expected.sound else "it has sound although there is none to be heard")
    if measured.sound is not None and abs(measured.sound - length) > SOUND_TOLERANCE:
        found.append(f"its sound ends at {float(measured.sound):.3f} s, its picture at {float(length):.3f} s")
    if measured.gaps:
        found.append(f"its sound breaks off {measured.gaps} times")
    return found


def _chapter_faults(measured: Measured, expected: Expected) -> list[str]:
    wanted = [(c.title, c.start / expected.frame_rate, c.end / expected.frame_rate) for c in expected.chapters]
    if len(measured.chapters) != len(wanted):
        return [f"it has {len(measured.chapters)} chapters instead of {len(wanted)}"]
    for got, want in zip(measured.chapters, wanted, strict=True):
        if got[0] != want[0] or any(abs(a - b) > CHAPTER_TOLERANCE for a, b in zip(got[1:], want[1:], strict=True)):
            return [f"its chapter {got[0]!r} at {float(got[1]):.3f} s should be {want[0]!r} at {float(want[1]):.3f} s"]
    return []


def _index_first(film: Path) -> bool:
    with film.open("rb") as file:
        while head := file.read(8):
            if head[4:] in (b"moov", b"mdat"):
                return head[4:] == b"moov"
            file.seek(max(int.from_bytes(head[:4], "big") - 8, 0), 1)
    return False
