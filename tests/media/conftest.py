"""Small real clips whose frames say which they are, and what reads a film back.

Every frame carries a barcode of sixteen grey blocks: eight bits of the shot's number, eight of the frame's. Every sound
is silence with one beep that begins `BEEP` seconds after the clip's picture does.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from prefect_kling.media.facts import MediaFacts, VideoFacts

BEEP = 0.2
RATE = 48_000

MakeClip = Callable[..., Path]


@dataclass(frozen=True)
class Seen:
    """A film as a viewer gets it: `(shot, frame)` and pixels of every picture, its sound, and what its tracks are."""

    marks: list[tuple[int, int]]
    pixels: list[bytes]
    times: list[Fraction]
    sound: NDArray[np.float32] | None
    tag: str
    size: tuple[int, int]
    rotation: int
    chapters: list[str]

    def onset(self, start: float, end: float) -> float:
        """When, in seconds from `start`, it is first loud."""
        assert self.sound is not None
        window = np.abs(self.sound[round(start * RATE) : round(end * RATE)])
        assert window.max() > 0.1, "there is no beep"
        return int(np.argmax(window > 0.1)) / RATE


def write_clip(
    path: Path,
    *,
    shot: int = 1,
    frames: int = 12,
    rate: int = 24,
    size: tuple[int, int] = (320, 180),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: float | None = None,
    sound_rate: int = 44_100,
    layout: str = "stereo",
    aspect: Fraction | None = None,
    times: Sequence[int] | None = None,
    noise: bool = False,
) -> Path:
    """Makes an MP4; `sound` is its seconds of sound (None: no track), `times` its frames' times in 1/`rate` s."""
    with av.open(str(path), "w", format="mp4") as clip:
        picture = clip.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(picture, av.VideoStream)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        # The clips of the gateway are tagged; untagged ones are a case of their own.
        picture.codec_context.colorspace = picture.codec_context.color_primaries = picture.codec_context.color_trc = 1
        if aspect is not None:
            picture.codec_context.sample_aspect_ratio = aspect
        track = clip.add_stream("aac", rate=sound_rate, layout=layout, format="fltp") if sound is not None else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture_of(shot, number, size, noise), format="yuv420p")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, rate)
            clip.mux(picture.encode(frame))
        if track is not None and sound is not None:
            wave = np.zeros((2 if layout == "stereo" else 1, round(sound * sound_rate)), np.float32)
            first, last = round(BEEP * sound_rate), round((BEEP + 0.1) * sound_rate)
            wave[:, first:last] = 0.5 * np.cos(2 * np.pi * 1000 * np.arange(last - first) / sound_rate)[: wave.shape[1]]
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            heard.sample_rate, heard.pts, heard.time_base = sound_rate, 0, Fraction(1, sound_rate)
            clip.mux(track.encode(heard))
            clip.mux(track.encode(None))
        clip.mux(picture.encode(None))
    return path


def picture_of(shot: int, number: int, size: tuple[int, int], noise: bool = False) -> NDArray[np.uint8]:
    """One frame as planar yuv420p."""
    width, height = size
    if noise:
        return np.random.default_rng(number).integers(16, 236, (height * 3 // 2, width), np.uint8)
    plane = np.full((height * 3 // 2, width), 128, np.uint8)
    plane[:height] = (np.arange(width) * 100 // width + 60 + shot * 7 % 40).astype(np.uint8)
    for bit in range(16):
        value = (shot << 8 | number) >> (15 - bit) & 1
        plane[height // 4 : height // 2, bit * width // 16 : (bit + 1) * width // 16] = 215 if value else 40
    return plane


def read_mark(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Shot and frame number from a frame's barcode."""
    height, width = grey.shape
    bits = 0
    for bit in range(16):
        bits = bits << 1 | int(grey[height * 3 // 8, (2 * bit + 1) * width // 32] > 128)
    return bits >> 8, bits & 255


@pytest.fixture(scope="session")
def beep() -> float:
    """Seconds from a clip's start to its beep."""
    return BEEP


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """`make_clip(name, **what)` makes one in this test's directory; see `write_clip`."""

    def make(name: str = "clip.mp4", **what: Any) -> Path:
        return write_clip(tmp_path / name, **what)

    return make


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three alike shots of 12 frames at 24 a second with B-frames; their sounds are as long, shorter and longer."""
    folder = tmp_path_factory.mktemp("shots")
    return [write_clip(folder / f"shot{n}.mp4", shot=n, sound=s) for n, s in ((1, 0.5), (2, 0.35), (3, 0.8))]


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """`ffmpeg("-i", a, b)` runs it."""

    def run(*arguments: str | Path) -> None:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def frame_sums() -> Callable[[Path], list[str]]:
    """The MD5 of each decoded frame of a film's picture, by ffmpeg's `framemd5`."""

    def sums(path: Path) -> list[str]:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(path)]
        command += ["-map", "0:v", "-f", "framemd5", "-"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        return [line.rpartition(",")[2].strip() for line in listed.splitlines() if not line.startswith("#")]

    return sums


@pytest.fixture
def without_start(shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None]) -> Path:
    """The first shot from its fifth frame on, cut as editors cut: all is still there, an edit list hides the start."""
    out = tmp_path / "edit.mp4"
    ffmpeg("-ss", f"{4 / 24:.4f}", "-i", shots[0], "-c", "copy", out)
    return out


@pytest.fixture(scope="session")
def watch() -> Callable[[Path], Seen]:
    """Decodes a whole film."""

    def look(path: Path) -> Seen:
        marks, pixels, times, rotation = [], [], [], 0
        with av.open(str(path)) as film:
            video = film.streams.video[0]
            for frame in film.decode(video):
                marks.append(read_mark(frame.to_ndarray(format="gray").astype(np.uint8)))
                pixels.append(frame.to_ndarray().tobytes())
                assert frame.pts is not None
                assert frame.time_base is not None
                times.append(frame.pts * frame.time_base)
                rotation = frame.rotation
            tag, size = video.codec_context.codec_tag, (video.width, video.height)
            chapters = [chapter["metadata"]["title"] for chapter in film.chapters()]
        sound: NDArray[np.float32] | None = None
        with av.open(str(path)) as film:
            if film.streams.audio:
                resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
                blocks = [b for f in film.decode(audio=0) for b in resampler.resample(f)] + resampler.resample(None)
                sound = np.concatenate([b.to_ndarray().astype(np.float32)[0] for b in blocks])
        return Seen(marks, pixels, times, sound, tag, size, rotation, chapters)

    return look


@pytest.fixture
def nothing_left(tmp_path: Path) -> Callable[[Path], None]:
    """Asserts that a directory holds nothing and that no process works for this test any more."""

    def check(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        if Path("/proc").is_dir():
            others = [e for e in Path("/proc").glob("[0-9]*/cmdline") if int(e.parent.name) != os.getpid()]
            assert [command for command in map(_text, others) if str(tmp_path) in command] == []

    return check


def _text(entry: Path) -> str:
    # A process may end while we look.
    try:
        return entry.read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(scope="session")
def as_probed() -> Callable[..., MediaFacts]:
    """`as_probed(path, frames=120, rate=Fraction(24))`: what a probe says of such a 720p clip; there need be none."""

    def say(path: str | Path, frames: int = 120, rate: Fraction = Fraction(24)) -> MediaFacts:
        video = VideoFacts(
            index=0,
            codec="h264",
            tag="avc1",
            profile="High",
            width=1280,
            height=720,
            rotation=0,
            mirrored=False,
            sample_aspect=Fraction(1),
            pixel_format="yuv420p",
            field_order=1,
            colour=(1, 1, 1, 1),
            frame_rate=rate,
            time_base=Fraction(1, 12_288),
            start=Fraction(0),
            seconds=frames / rate,
            frames=frames,
            packets=frames,
            delay=1024,
            constant=True,
            starts_clean=True,
            parameters_inside=False,
            extradata_bytes=49,
            extradata_sha256="a" * 64,
        )
        return MediaFacts(Path(path), 1000, "isom", frames / rate, video, None)

    return say


# --- Hostile and broken ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hostile:
    """What only claims to be a clip.

    Attributes:
        path: where it is.
        reason: what a refusal says about it, as a pattern.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Workbench:
    """What hostile files are made with: where the next one goes, an honest clip, and ffmpeg."""

    path: Path
    clip: bytes
    ffmpeg: Callable[..., None]

    def before(self, box: bytes) -> bytes:
        """The honest clip up to a box."""
        return self.clip[: self.clip.index(box) - 4]

    def patched(self, box: bytes, offset: int, *numbers: int) -> bytes:
        """The honest clip with other numbers in its first box of a kind, behind version and flags."""
        at = self.clip.index(box) + 8 + offset
        data = struct.pack(f">{len(numbers)}I", *numbers)
        return self.clip[:at] + data + self.clip[at + len(data) :]

    def with_index_first(self) -> bytes:
        """moov before mdat, without correcting the offsets: sizes stay true."""
        moov = self.clip.index(b"moov") - 4
        media = self.clip.index(b"mdat") - 4
        return self.clip[:media] + self.clip[moov:] + self.clip[media:moov]


def _missing_pictures(bench: Workbench) -> bytes:
    # The index is first and the last box ends where the file ends, but its last pictures are not there.
    clip = bench.with_index_first()
    at = clip.index(b"mdat") - 4
    short = len(clip) - at - 3_000
    return clip[:at] + struct.pack(">I", short) + clip[at + 4 : at + short]


def _zeros(bench: Workbench) -> bytes:
    moov = bench.clip.index(b"moov")
    return bench.clip[:200] + bytes(moov - 304) + bench.clip[moov - 104 :]


def _sound_alone(bench: Workbench) -> None:
    source = bench.path.with_suffix(".source")
    source.write_bytes(bench.clip)
    bench.ffmpeg("-i", source, "-vn", "-c", "copy", bench.path)


def _still(size: str, *options: str) -> Callable[[Workbench], None]:
    picture = ("-f", "lavfi", "-i", f"color=s={size}:r=1:d=1", "-frames:v", "1", *options)
    return lambda bench: bench.ffmpeg(*picture, bench.path)


HOSTILE: dict[str, tuple[Callable[[Workbench], bytes | Path | None], str]] = {
    "nothing": (lambda bench: None, "cannot be opened: No such file"),
    "an empty file": (lambda bench: b"", "is empty"),
    "a few bytes": (lambda bench: bench.clip[:5], "is cut off or damaged"),
    "noise": (lambda bench: np.random.default_rng(5).bytes(5_000), "is no MP4"),
    "an error page": (lambda bench: b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", "is a web page"),
    "an HLS playlist": (lambda bench: b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "is no MP4"),
    "an ffconcat script": (lambda bench: b"ffconcat version 1.0\nfile /etc/passwd\n", "is no MP4"),
    "a clip without its index": (lambda bench: bench.before(b"moov"), "is cut off or damaged: it has no moov box"),
    "a clip cut within its index": (
        lambda bench: bench.clip[: bench.clip.index(b"moov") + 300],
        "is cut off: its moov box",
    ),
    "a clip cut within its pictures": (lambda bench: bench.with_index_first()[:-2_000], "is cut off: its mdat box"),
    "a clip without its last pictures": (_missing_pictures, "is (cut off|damaged)"),
    "zeros where pictures were": (_zeros, "is damaged"),
    "an index of noise": (
        lambda bench: bench.clip.replace(b"stbl", b"stbX"),
        "has a video track in a format that is not taken",
    ),
    "an index without an end": (
        lambda bench: bench.patched(b"stsz", 0, 10, 0x0FFF_FFFF),
        "has a video track without a picture",
    ),
    "more packets than bytes": (lambda bench: bench.patched(b"stsz", 4, 0x3FFF_FFFF), "is not a readable MP4"),
    "frames of a day": (
        lambda bench: bench.patched(b"stts", 8, 0x7FFF_FFFF),
        "is [0-9]+ s long; more than none and at most",
    ),
    "a box longer than any disk": (
        lambda bench: bench.before(b"moov") + struct.pack(">I4sQ", 1, b"moov", 1 << 62) + bench.clip[-300:],
        "is cut off: its moov box",
    ),
    "boxes without an end": (
        lambda bench: struct.pack(">I4s", 8, b"free") * 20_000 + bench.clip,
        "is cut off or damaged",
    ),
    "boxes in boxes": (
        lambda bench: b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(100_000, 0, -1)),
        "is not a readable MP4",
    ),
    "ten hours": (
        lambda bench: write_clip(bench.path, frames=2, times=[0, 36_000 * 24]),
        "says it is 36000 s long; at most",
    ),
    "sound alone": (_sound_alone, "has no video tracks"),
    "an 8K frame": (_still("7680x4320", "-preset", "ultrafast"), "is 7680x4320 pixels; at most"),
    "an unexpected codec": (_still("64x64", "-c:v", "mjpeg"), "has a video track in a format that is not taken"),
    "a directory": (lambda bench: bench.path.mkdir(), "is no regular file"),
    "a FIFO": (lambda bench: os.mkfifo(bench.path), "is no regular file"),
    "a link to a device": (lambda bench: bench.path.symlink_to("/dev/zero"), "is no regular file"),
    "a link to nothing": (lambda bench: bench.path.symlink_to("gone.mp4"), "cannot be opened"),
    "a link to itself": (lambda bench: bench.path.symlink_to(bench.path), "cannot be opened"),
}
"""What each is (its bytes, or what makes it), and what is said about it. No test may change any of them."""


@pytest.fixture(scope="session")
def hostile_files(
    shots: list[Path], tmp_path_factory: pytest.TempPathFactory, ffmpeg: Callable[..., None]
) -> dict[str, Hostile]:
    """Every case of the table, by its name."""
    folder, clip = tmp_path_factory.mktemp("hostile"), shots[0].read_bytes()
    found = {}
    for number, (name, (make, reason)) in enumerate(HOSTILE.items()):
        bench = Workbench(folder / f"{number}.mp4", clip, ffmpeg)
        made = make(bench)
        if isinstance(made, bytes):
            bench.path.write_bytes(made)
        found[name] = Hostile(bench.path, reason)
    return found


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, hostile_files: dict[str, Hostile]) -> Hostile:
    """Each of them: a test that asks for this runs for every case."""
    return hostile_files[request.param]
