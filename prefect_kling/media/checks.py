"""Is this clip what was ordered? Its facts and one pass of ffmpeg over it, held against what is wanted.

A clip that fails may be bought again, so what is doubtful passes: the tolerances below err on that side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.probe import probe
from prefect_kling.media.processes import Ended, run

__all__ = ["Wanted", "Watched", "decoding_command", "faults", "faults_of", "read_watched"]

MOST_PIXELS = 9_000_000
# gateway.md, "Output sizes": clips run over by about 0.1 s, and the last frame is shown for its own time on top of it.
# Below, nobody misses a tenth of a second either.
OVER, UNDER = 0.1, 0.1
# A pixel is black below this share of full luma. Half of ffmpeg's own 0.1, under which night skies fall as well.
BLACK_PIXEL = 0.05
# A picture stands still below this mean difference, as a share of the range. A third of ffmpeg's own 0.001, under which
# a desert stands still although a ball rolls through it; what coding adds to a still picture is less (x264, CRF 28).
STILL_PIXEL = 0.0003
SILENCE = -60.0  # LUFS; design.md, "Cutting room": tracks below are taken for silent, and left alone
# Seconds until ffmpeg is given up: at the start, and for each second of clip (measured: 0.15 at 1080p on one core).
STARTING, SLOWEST = 60.0, 30.0

_LOUDNESS: Final = re.compile(r"^\s+I:\s+(-?[\d.]+|-inf|nan) LUFS$", re.MULTILINE)
# What a decoder says; the filters and the output have only news.
_COMPLAINT: Final = re.compile(r"^\[(?!Parsed_|out#)(\S+) @ 0x[0-9a-f]+\] *(.*\S)", re.MULTILINE)

Stretch = tuple[float, float | None]
"""From when to when, in seconds; None where it lasts to the end."""


@dataclass(frozen=True)
class Wanted:
    """What a clip is held against; what is not said is not looked at.

    Attributes:
        seconds: how long it should be; 0.1 s less passes, and so do 0.1 s and one frame more.
        size: width and height in pixels, as a player shows it.
        frames: its frames are evenly spaced, so that there are as many as its length and rate call for.
        decodes: every frame and all sound decodes without an error.
        black: the longest stretch of black that passes, in seconds: 98 % of the picture darker than 5 % of white.
        frozen: the longest stretch without motion that passes, in seconds: pixels differ by 0.03 % on average.
        sound: there is sound, and it is louder than -60 LUFS.
    """

    seconds: float | None = None
    size: tuple[int, int] | None = None
    frames: bool = False
    decodes: bool = False
    black: float | None = None
    frozen: float | None = None
    sound: bool = False

    @property
    def watches(self) -> bool:
        """Whether its picture has to be decoded for this."""
        return self.decodes or self.black is not None or self.frozen is not None

    def listens(self, clip: MediaFacts) -> bool:
        """Whether the clip's sound has to be decoded for this."""
        return clip.audio is not None and (self.sound or self.decodes)


@dataclass(frozen=True)
class Watched:
    """What decoding a clip showed.

    Attributes:
        frames: how many frames came out of the decoder; 0 where only its sound was decoded.
        black, frozen: stretches in seconds on the clip's own clock, in their order.
        loudness: integrated, in LUFS (EBU R 128), or None where no sound was measured.
        failure: how decoding failed, in words; empty where it went to the end.
    """

    frames: int = 0
    black: tuple[Stretch, ...] = ()
    frozen: tuple[Stretch, ...] = ()
    loudness: float | None = None
    failure: str = ""


async def faults_of(file: Path, wanted: Wanted) -> tuple[str, ...]:
    """What is wrong with a clip, a short sentence each with its numbers and times; empty where it passes.

    Args:
        file: a clip, not trusted: probed in a confined child process, decoded by ffmpeg as MOV/MP4 on this disk alone.
        wanted: what it is held against. Whatever needs decoding is done in one pass. Cancelling ends it.

    Raises:
        InvalidMedia: it is no video at all, or too much to look at; the text names it and says why.
        OSError: ffmpeg cannot be started.
    """
    [clip] = await probe([file])
    return faults(clip, await _watch(clip, wanted), wanted)


async def _watch(clip: MediaFacts, wanted: Wanted) -> Watched:
    if not wanted.watches and not wanted.listens(clip):
        return Watched()
    lines: list[str] = []
    timeout = STARTING + SLOWEST * float(clip.seconds)
    try:
        ended = await run(decoding_command(clip, wanted), timeout=timeout, on_line=lines.append)
    except ValueError as error:
        raise InvalidMedia(f"{clip.path} cannot be checked: {error}.") from error
    if ended.timed_out or ended.status < 0:
        # A machine that is busy or out of memory does the same. That is no verdict, which would buy another clip.
        raise InvalidMedia(f"{clip.path} cannot be checked: ffmpeg {ended.why}.")
    return read_watched(lines, ended)


def decoding_command(clip: MediaFacts, wanted: Wanted) -> list[str]:
    """The ffmpeg command that decodes what has to be, and tells what it sees on standard output. Pure."""
    strictly = {"err_detect": "explode"} if wanted.decodes else {}
    source = ffmpeg.input(
        f"file:{clip.path.absolute()}",
        # As in reencode.py: text named .mp4 is refused for sure only by a forced demuxer and file access alone.
        format="mov",
        protocol_whitelist="file",
        max_pixels=MOST_PIXELS,
        threads=1,
        **strictly,
    )
    outputs: list[Any] = []
    if wanted.watches:
        picture = source[str(clip.video.index)]
        if wanted.black is not None:
            picture = picture.filter("blackdetect", pix_th=BLACK_PIXEL)
        if wanted.frozen is not None:
            picture = picture.filter("freezedetect", n=STILL_PIXEL, d=f"{wanted.frozen:.6f}")
        # On the frames themselves, as what is still black at the end has no line in the log. Whole lines at a time.
        outputs.append(picture.filter("metadata", mode="print", file="-", direct=1))
    if clip.audio is not None and wanted.listens(clip):
        outputs.append(source[str(clip.audio.index)].filter("ebur128", framelog="quiet"))
    output = ffmpeg.output(*outputs, "-", format="null", fps_mode="passthrough")
    # Its summary of the loudness is an info; the frames' count comes with the progress.
    everywhere = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "info", "-progress", "pipe:1"]
    if wanted.decodes:
        everywhere.append("-xerror")
    command: list[str] = ffmpeg.compile(output.global_args(*everywhere), cmd=imageio_ffmpeg.get_ffmpeg_exe())
    return command


def read_watched(lines: Iterable[str], ended: Ended) -> Watched:
    """What ffmpeg told of a clip, on standard output by frame and on standard error at its end. Pure."""
    told = [line.partition("=")[::2] for line in lines]
    counts = [int(value) for name, value in told if name == "frame" and value.strip().isdecimal()]
    loudness = _LOUDNESS.findall(ended.stderr)
    return Watched(
        frames=counts[-1] if counts else 0,
        black=_stretches(told, "lavfi.black_"),
        frozen=_stretches(told, "lavfi.freezedetect.freeze_"),
        loudness=float(loudness[-1]) if loudness else None,
        failure="" if ended.status == 0 else _failure(ended),
    )


def faults(clip: MediaFacts, watched: Watched, wanted: Wanted) -> tuple[str, ...]:
    """What is wrong with a clip that was probed and watched. Pure."""
    if watched.failure:
        # What was seen of black, motion and sound until then says little about a clip that ended early.
        after = f" after {watched.frames} of {clip.video.frames} frames" if watched.frames else ""
        return (*_measured(clip, wanted), f"it cannot be decoded{after}: ffmpeg {watched.failure}")
    return (*_measured(clip, wanted), *_seen(clip, watched, wanted), *_heard(clip, watched, wanted))


def _measured(clip: MediaFacts, wanted: Wanted) -> Iterator[str]:
    """What the facts tell without decoding."""
    video, seconds = clip.video, float(clip.seconds)
    if wanted.seconds is not None:
        most = wanted.seconds + OVER + float(1 / video.frame_rate)
        # Fractions of a frame are not worth a purchase, and floats are not exact.
        if not wanted.seconds - UNDER - 1e-6 <= seconds <= most + 1e-6:
            yield f"it is {seconds:.2f} s long instead of {wanted.seconds:g} s"
    if wanted.size is not None and video.shown_size != tuple(wanted.size):
        shown, asked = ("x".join(map(str, size)) for size in (video.shown_size, wanted.size))
        yield f"it is {shown} pixels instead of {asked}"
    if wanted.frames and not video.constant:
        rate = f"{float(video.frame_rate):.2f}".rstrip("0").rstrip(".")
        yield f"its frames are not evenly spaced: {video.frames} in {seconds:.2f} s, on average {rate} a second"


def _seen(clip: MediaFacts, watched: Watched, wanted: Wanted) -> Iterator[str]:
    if wanted.decodes and watched.frames < clip.video.frames:
        yield f"only {watched.frames} of its {clip.video.frames} frames can be decoded"
    end = clip.video.start + clip.video.seconds
    black = list(_longer(watched.black, wanted.black, end))
    for start, until in black:
        yield f"it is black from {start:.2f} to {until:.2f} s"
    for start, until in _longer(watched.frozen, wanted.frozen, end):
        # Black does not move either, and one sentence will do.
        if not any(first - 0.05 <= start and until <= last + 0.05 for first, last in black):
            yield f"it is frozen from {start:.2f} to {until:.2f} s"


def _heard(clip: MediaFacts, watched: Watched, wanted: Wanted) -> Iterator[str]:
    if not wanted.sound:
        return
    if clip.audio is None or watched.loudness is None:
        yield "it has no sound"
    elif not watched.loudness > SILENCE:
        yield f"its sound cannot be heard: it has {watched.loudness:.1f} LUFS, and {SILENCE:g} or less is silence"


def _longer(stretches: Sequence[Stretch], most: float | None, end: Fraction) -> Iterator[tuple[float, float]]:
    if most is None:
        return
    for start, until in stretches:
        last = float(end) if until is None else until
        if last - start > most + 1e-3:  # ffmpeg rounds times to milliseconds and less
            yield start, last


def _stretches(told: Iterable[tuple[str, str]], name: str) -> tuple[Stretch, ...]:
    """Pairs of start and end; a start without an end lasts to the clip's end."""
    found: list[Stretch] = []
    for said, value in told:
        if said == f"{name}start":
            found.append((float(value), None))
        elif said == f"{name}end" and found:
            found[-1] = (found[-1][0], float(value))
    return tuple(found)


def _failure(ended: Ended) -> str:
    said = dict.fromkeys(f"{who}: {what}" for who, what in _COMPLAINT.findall(ended.stderr))
    return f"{ended.why} ({' / '.join(list(said)[:2]) or 'it did not say why'})"
