"""The cutting room beside what people use: ffmpeg's own ways of joining the same clips in the same run, and MoviePy."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from benchmarks.row import Row
from prefect_kling.media import aac
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.join import join
from prefect_kling.media.probe import probe
from prefect_kling.media.room import CuttingRoom
from prefect_kling.media.splice import splice
from prefect_kling.media.timeline import lay_out
from prefect_kling.media.transitions import Transition
from prefect_kling.media.verify import Expected, verify

__all__ = ["measure"]

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
CLIPS, SECONDS = 20, 5
PAIRS = 5

MOVIEPY = """
import sys, time
from moviepy import VideoFileClip, concatenate_videoclips
begun = time.perf_counter()
parts = [VideoFileClip(path) for path in sys.argv[2:]]
film = concatenate_videoclips(parts)
film.write_videofile(sys.argv[1], preset="fast", ffmpeg_params=["-crf", "17"], logger=None)
print(time.perf_counter() - begun)
"""


def measure() -> list[Row]:
    """Seconds, the median of some pairs; the long re-encodes are done once each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        silent = [_clip(folder / f"silent{n}.mp4", n) for n in range(CLIPS)]
        sounding = [_clip(folder / f"sounding{n}.mp4", n, sound=True) for n in range(CLIPS)]
        odd = _clip(folder / "odd.mp4", 3, options=("-preset", "veryfast", "-bf", "0"))
        return [
            _splice(silent, folder),
            _command(silent, folder),
            _with_sound(sounding, folder),
            _last_clip_to_film(sounding, folder),
            _odd_one(silent, odd, folder),
            *_encodes(silent[:6], folder),
        ]


def _clip(path: Path, number: int, *, sound: bool = False, options: Sequence[str] = ()) -> Path:
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=1280x720:r=24:d={SECONDS},hue=h={number * 18}"]
    heard = ["-f", "lavfi", "-i", f"anoisesrc=d={SECONDS}:a=0.1:seed={number}", "-ac", "2"] if sound else []
    _ffmpeg(*picture, *heard, "-pix_fmt", "yuv420p", *options, path)
    return path


def _ffmpeg(*arguments: object) -> None:
    subprocess.run([FFMPEG, "-y", "-v", "error", "-nostdin", *map(str, arguments)], check=True)


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _medians(ours: Callable[[], object], other: Callable[[], object], pairs: int = PAIRS) -> tuple[float, float]:
    """In pairs, so that the machine's moods meet both; the first pair warms the disk's cache."""
    times = [(_seconds(ours), _seconds(other)) for _ in range(pairs + 1)][1:]
    mine, others = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(others)


def _listed(clips: Sequence[Path], folder: Path) -> Path:
    (folder / "list.txt").write_text("".join(f"file '{clip}'\n" for clip in clips))
    return folder / "list.txt"


def _concat(clips: Sequence[Path], folder: Path) -> Callable[[], None]:
    listed = _listed(clips, folder)
    return lambda: _ffmpeg("-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", folder / "raw.mp4")


def _join(clips: Sequence[Path], folder: Path, cut: Cut | None = None, room: CuttingRoom | None = None) -> None:
    cuts = [CutClip(clip, clip.stem) for clip in clips]
    asyncio.run(join(cuts, folder / "film.mp4", cut, room=room))


def _splice(clips: Sequence[Path], folder: Path) -> Row:
    facts: list[MediaFacts] = asyncio.run(probe(clips))
    timeline = lay_out([CutClip(clip, clip.stem) for clip in clips], facts, Cut(), Fraction(24))
    expected = Expected(timeline.frames, Fraction(24), 1280, 720, False, timeline.chapters)

    def ours() -> None:
        splice(facts, timeline, None, 0.0, None, folder / "film.mp4", lambda: None, lambda _: None)
        verify(folder / "film.mp4", expected, lambda: None)

    mine, raw = _medians(ours, _concat(clips, folder))
    return Row(f"{CLIPS} silent clips of {SECONDS} s: splice and verify", mine, "s", "ffmpeg -c copy (bound 1.3)", raw)


def _command(clips: Sequence[Path], folder: Path) -> Row:
    command = [Path(sys.executable).with_name("prefect-kling"), "join", *clips, "--out", folder / "film.mp4"]

    def ours() -> None:
        subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)

    mine, raw = _medians(ours, _concat(clips, folder))
    return Row("the same by `prefect-kling join`, imports included", mine, "s", "ffmpeg -c copy, plus 1 s", raw + 1)


def _with_sound(clips: Sequence[Path], folder: Path) -> Row:
    wave = folder / "sound.wav"
    _ffmpeg("-f", "concat", "-safe", "0", "-i", _listed(clips, folder), "-vn", "-ar", 48000, wave)
    coder = [
        "-c:a",
        "aac",
        "-b:a",
        aac.BIT_RATE,
        *(word for name, value in aac.OPTIONS.items() for word in (f"-{name}", value)),
    ]
    film = ArrivedFilm(clips, folder)
    mine, other = _medians(film.splice, lambda: _ffmpeg("-i", wave, *coder, folder / "sound.m4a"))
    what = f"{CLIPS} clips with sound: gain, AAC, splice, verify"
    return Row(what, mine, "s", "ffmpeg's AAC alone (bound 1.15)", other)


class ArrivedFilm:
    """A film whose clips were worked on as they arrived, up to the splice."""

    def __init__(self, clips: Sequence[Path], folder: Path) -> None:
        self.folder = folder
        self.cuts = [CutClip(clip, clip.stem) for clip in clips]
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        from prefect_kling.media.soundtrack import soundtrack

        room = CuttingRoom(Path(tempfile.mkdtemp(dir=self.folder)))
        self.facts = await room.facts(self.cuts)
        self.timeline = lay_out(self.cuts, self.facts, Cut(), Fraction(24))
        self.sound = await soundtrack(self.timeline, Cut(), room)

    def splice(self) -> None:
        """What is left once the sound is laid out and measured."""
        assert self.sound is not None
        film, gain = self.folder / "film.mp4", self.sound.gain.db
        splice(self.facts, self.timeline, self.sound.pcm, gain, None, film, lambda: None, lambda _: None)
        expected = Expected(self.timeline.frames, Fraction(24), 1280, 720, True, self.timeline.chapters)
        verify(film, expected, lambda: None)


def _last_clip_to_film(clips: Sequence[Path], folder: Path) -> Row:
    cuts = [CutClip(clip, clip.stem) for clip in clips]

    async def once() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            room = CuttingRoom(Path(work), expected=len(cuts))
            for clip in cuts[:-1]:
                room.arrived(clip)
            await room.facts(cuts[:-1])
            begun = time.perf_counter()
            room.arrived(cuts[-1])
            await join(cuts, folder / "film.mp4", room=room)
            seconds = time.perf_counter() - begun
            await room.end()
            return seconds

    mine = statistics.median(asyncio.run(once()) for _ in range(PAIRS))
    return Row(f"last of {CLIPS} clips with sound there, film named", mine, "s", "bound", 2)


def _odd_one(clips: Sequence[Path], odd: Path, folder: Path) -> Row:
    mixed = [*clips[:10], odd, *clips[11:]]

    def alone() -> None:
        _ffmpeg("-i", odd, "-c:v", "libx264", folder / "alone.mp4")
        _join(clips, folder)

    mine, other = _medians(lambda: _join(mixed, folder), alone, pairs=3)
    what = f"one odd clip among {CLIPS}: join, probing included"
    return Row(what, mine, "s", "encoding that clip, and our join of alike ones", other)


def _encodes(clips: Sequence[Path], folder: Path) -> list[Row]:
    """Some clips are enough: all of these ways take time by the frame."""
    inputs = [part for clip in clips for part in ("-i", clip)]
    coder = ("-c:v", "libx264", "-preset", "fast", "-crf", "17", "-pix_fmt", "yuv420p", folder / "other.mp4")
    labels = "".join(f"[{n}:v]" for n in range(len(clips)))
    concat = f"{labels}concat=n={len(clips)}:v=1:a=0"
    ours = _seconds(lambda: _join(clips, folder))
    encoded = _seconds(lambda: _ffmpeg(*inputs, "-filter_complex", concat, *coder))
    moviepy = _moviepy(clips, folder)
    crossed = Cut(transition=Transition("crossfade", Fraction(1, 2)))
    cuts = [CutClip(c, c.stem, transition=crossed.transition) for c in clips]
    graph = _seconds(lambda: _ffmpeg(*inputs, "-filter_complex", _crossfades(len(clips)), "-map", "[film]", *coder))
    mine = _seconds(lambda: asyncio.run(join(cuts, folder / "film.mp4", crossed)))
    what = f"{len(clips)} of them"
    return [
        Row(f"{what}: join", ours, "s", "concat filter, same encoder", encoded),
        Row(f"{what}: join", ours, "s", "MoviePy", moviepy),
        Row(f"{what}: join with crossfades of 0.5 s", mine, "s", "ffmpeg's xfade graph, same encoder", graph),
    ]


def _crossfades(clips: int) -> str:
    graph, before = [], "[0:v]"
    for number in range(1, clips):
        offset = number * (SECONDS - 0.5)
        graph.append(f"{before}[{number}:v]xfade=transition=fade:duration=0.5:offset={offset}[x{number}]")
        before = f"[x{number}]"
    return ";".join(graph).replace(f"[x{clips - 1}]", "[film]")


def _moviepy(clips: Sequence[Path], folder: Path) -> float:
    """Seconds that MoviePy takes, in an environment of its own: it needs a Pillow older than ours."""
    command = [sys.executable, "-m", "uv", "run", "--no-project", "--with", "moviepy>=2", "python", "-c", MOVIEPY]
    done = subprocess.run(
        [*command, folder / "moviepy.mp4", *clips], cwd=folder, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])
